//! Which API a path leads to.

use crate::emulator::state::ids::{ORG_ID, short_org_id};

/// Versions before this one were retired.
const FIRST_VERSION: u16 = 31;

/// A SOAP API at one of its versions.
pub(crate) struct SoapEndpoint<'a> {
    api: &'static SoapApi,
    version: &'a str,
}

struct SoapApi {
    /// How paths name it.
    letter: &'static str,
    /// How namespaces name it.
    name: &'static str,
}

static APIS: [SoapApi; 2] = [
    SoapApi {
        letter: "u",
        name: "partner",
    },
    SoapApi {
        letter: "c",
        name: "enterprise",
    },
];

impl<'a> SoapEndpoint<'a> {
    /// The endpoint that `path`, which begins after `/services/Soap/`, leads to.
    pub(crate) fn of(path: &'a str) -> Option<Self> {
        let (letter, rest) = path.split_once('/')?;
        let api = APIS.iter().find(|api| api.letter == letter)?;
        // The `serverUrl` of a login ends with the org id; clients may leave it out.
        let version = match rest.split_once('/') {
            None => rest,
            Some((version, id)) => {
                is_of_the_org(id.strip_suffix('/').unwrap_or(id)).then_some(version)?
            }
        };
        Some(Self { api, version })
    }

    /// Where the operations come from.
    pub(super) fn namespace(&self) -> String {
        format!("urn:{}.soap.sforce.com", self.api.name)
    }

    /// Where the faults come from.
    pub(super) fn fault_namespace(&self) -> String {
        format!("urn:fault.{}.soap.sforce.com", self.api.name)
    }

    /// `None` for a version there never was, or is no more.
    pub(super) fn version_number(&self) -> Option<u16> {
        let number = self.version.strip_suffix(".0")?.parse().ok()?;
        (number >= FIRST_VERSION).then_some(number)
    }

    /// As it stands in the path.
    pub(super) fn version(&self) -> &str {
        self.version
    }

    /// This endpoint on another instance.
    pub(super) fn server_url(&self, instance_url: &str) -> String {
        url(instance_url, self.api.letter, self.version)
    }

    /// The metadata API of the same version.
    pub(super) fn metadata_server_url(&self, instance_url: &str) -> String {
        url(instance_url, "m", self.version)
    }
}

fn url(instance_url: &str, letter: &str, version: &str) -> String {
    let org_id = short_org_id();
    format!("{instance_url}/services/Soap/{letter}/{version}/{org_id}")
}

fn is_of_the_org(id: &str) -> bool {
    id == ORG_ID || id == short_org_id()
}
