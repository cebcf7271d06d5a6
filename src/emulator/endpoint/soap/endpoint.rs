//! The SOAP APIs and their paths.

use crate::emulator::state::ids::{ORG_ID, short_org_id};
use crate::emulator::wire::version::ApiVersion;

/// A SOAP API at one version.
pub(crate) struct SoapEndpoint<'a> {
    api: &'static SoapApi,
    version: &'a str,
}

struct SoapApi {
    /// The name in paths.
    letter: &'static str,
    /// The name in namespaces.
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
    /// The endpoint of `path`, which begins after `/services/Soap/`.
    pub(crate) fn of(path: &'a str) -> Option<Self> {
        let (letter, rest) = path.split_once('/')?;
        let api = APIS.iter().find(|api| api.letter == letter)?;
        // The `serverUrl` of a login ends with the org id. Clients may leave it out.
        let version = match rest.split_once('/') {
            None => rest,
            Some((version, id)) => {
                is_of_the_org(id.strip_suffix('/').unwrap_or(id)).then_some(version)?
            }
        };
        Some(Self { api, version })
    }

    /// The namespace of the operations.
    pub(super) fn namespace(&self) -> String {
        format!("urn:{}.soap.sforce.com", self.api.name)
    }

    /// The namespace of the faults.
    pub(super) fn fault_namespace(&self) -> String {
        format!("urn:fault.{}.soap.sforce.com", self.api.name)
    }

    /// The number of the version. `None` for a version that never existed or is retired.
    pub(super) fn version_number(&self) -> Option<u16> {
        match ApiVersion::read(self.version) {
            ApiVersion::Supported(number) => Some(number),
            ApiVersion::Retired | ApiVersion::Unknown => None,
        }
    }

    /// The version as the path has it.
    pub(super) fn version(&self) -> &str {
        self.version
    }

    /// The URL of this endpoint on another instance.
    pub(super) fn server_url(&self, instance_url: &str) -> String {
        url(instance_url, self.api.letter, self.version)
    }

    /// The URL of the metadata API of the same version.
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
