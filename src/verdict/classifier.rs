//! The classifier of a layer: the built-in one, or a custom one.

use std::{fmt, sync::Arc};

use super::{
    classify::{Classify, Extent, ResponseHead, Verdict},
    salesforce,
};

/// The classifier of a layer. `None` is the built-in one, which is called without dynamic dispatch.
#[derive(Clone, Default)]
pub(crate) struct Classifier(Option<Arc<dyn Classify>>);

impl Classifier {
    pub(crate) fn custom(classify: impl Classify) -> Self {
        Self(Some(Arc::new(classify)))
    }

    #[inline]
    pub(crate) fn head(&self, head: &ResponseHead<'_>) -> Option<Verdict> {
        match &self.0 {
            None => salesforce::classify_head(head),
            Some(custom) => custom.classify_head(head),
        }
    }

    pub(crate) fn body(
        &self,
        head: &ResponseHead<'_>,
        body: &[u8],
        extent: Extent,
    ) -> Option<Verdict> {
        match &self.0 {
            None => salesforce::classify_body(head, body, extent, &[]),
            Some(custom) => custom.classify_body(head, body, extent),
        }
    }
}

impl fmt::Debug for Classifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            None => "Salesforce",
            Some(_) => "Custom",
        })
    }
}
