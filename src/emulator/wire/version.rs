//! API versions.

/// The oldest supported version. Salesforce has retired the ones before it.
pub(crate) const FIRST: u16 = 31;

/// The version of Winter '27.
pub(crate) const LATEST: u16 = 68;

/// What the org knows about a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ApiVersion {
    Supported(u16),
    Retired,
    /// A version that does not exist, or no version at all.
    Unknown,
}

impl ApiVersion {
    /// Reads a number such as `66.0`.
    pub(crate) fn read(text: &str) -> Self {
        let number = text
            .strip_suffix(".0")
            .filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|number| number.parse().ok());
        match number {
            Some(number @ FIRST..=LATEST) => Self::Supported(number),
            Some(1..FIRST) => Self::Retired,
            _ => Self::Unknown,
        }
    }
}

/// The release of a version, for example `Spring '26`. Three versions come out a year.
pub(crate) fn release(version: u16) -> String {
    let season = ["Spring", "Summer", "Winter"][usize::from(version % 3)];
    // 30.0 was Spring '14. A winter release has the number of the next year.
    let year = 4 + version / 3 + u16::from(version % 3 == 2);
    format!("{season} '{year}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_supported_or_retired_or_unknown() {
        assert_eq!(ApiVersion::read("66.0"), ApiVersion::Supported(66));
        assert_eq!(ApiVersion::read("31.0"), ApiVersion::Supported(31));
        assert_eq!(ApiVersion::read("30.0"), ApiVersion::Retired);
        for text in ["", "0.0", "66", "66.1", "v66.0", "+66.0", "99.0", "99999.0"] {
            assert_eq!(ApiVersion::read(text), ApiVersion::Unknown, "{text}");
        }
    }

    #[test]
    fn a_release_is_a_season_of_a_year() {
        let releases = [(32, "Winter '15"), (64, "Summer '25"), (66, "Spring '26")];
        for (version, name) in releases {
            assert_eq!(release(version), name);
        }
    }
}
