//! The ids of the org and of its one user.

pub(crate) const ORG_ID: &str = "00Dxx0000001gEFEAY";
pub(crate) const USER_ID: &str = "005xx000001SwiUAAS";
pub(crate) const PROFILE_ID: &str = "00exx0000000001AAA";

/// The first 15 characters of the org id. The other three only guard against loss of case.
pub(crate) fn short_org_id() -> &'static str {
    ORG_ID.get(..15).unwrap_or(ORG_ID)
}
