//! Where criterion keeps its pages and pictures.

use std::path::{Path, PathBuf};

pub(crate) fn directory() -> PathBuf {
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).parent();
    target.expect("the target directory").join("criterion")
}

/// The way from our page to the picture of a group, if there is one, and what it shows.
pub(crate) fn picture(group: &str) -> Option<(String, String)> {
    let picture = format!("{group}/report/violin.svg");
    directory().join(&picture).exists().then(|| {
        let link = format!("../criterion/{picture}").replace(' ', "%20");
        (link, format!("Times: {group}"))
    })
}
