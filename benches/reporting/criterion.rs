//! The directory of criterion's pages and pictures.

use std::path::{Path, PathBuf};

pub(crate) fn directory() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    target.expect("the target directory").join("criterion")
}

/// The link from the report to the picture of a group, and its caption. `None` without a picture.
pub(crate) fn picture(group: &str) -> Option<(String, String)> {
    let picture = format!("{group}/report/violin.svg");
    directory().join(&picture).exists().then(|| {
        let link = format!("../criterion/{picture}").replace(' ', "%20");
        (link, format!("Times: {group}"))
    })
}
