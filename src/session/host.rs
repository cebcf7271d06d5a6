//! Hosts: the families of Salesforce's hosts with what each is good for, and loopback hosts.

/// Domains that Salesforce serves orgs from. The instance URL of a login must be at or below one of them, unless its
/// origin is allowed.
const SALESFORCE_DOMAINS: [&str; 7] = [
    "salesforce.com",
    "force.com",
    "cloudforce.com",
    "database.com",
    "my.site.com",
    "salesforce.mil",
    "sfcrmproducts.cn",
];

/// A family of Salesforce's hosts (Salesforce Help, "My Domain URL Formats").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostFamily {
    /// A login host that all orgs share. Its logins return the instance. It has no API of an org.
    Login,
    /// The org's own host, for logins and APIs.
    MyDomain,
    /// The classic host of an instance, for example `na139.salesforce.com`, for logins and APIs.
    Instance,
    /// An Experience Cloud site, for logins of its users below the site's path.
    Site,
    /// Lightning pages. It redirects everything else. With the domain of the org's own host.
    Lightning(&'static str),
    /// Setup pages, likewise.
    Setup(&'static str),
    /// Files, Visualforce pages, and the pages of site builders: no logins, and no APIs.
    Content,
    /// APIs of the platform and of Data Cloud, which take tokens and issue none.
    Api,
    /// Salesforce's own pages, for everyone.
    Public,
}

/// The domains of each family. The first one that a host is at or below decides.
const FAMILIES: [(&str, HostFamily); 42] = [
    ("login.salesforce.com", HostFamily::Login),
    ("test.salesforce.com", HostFamily::Login),
    ("welcome.salesforce.com", HostFamily::Login),
    ("login.salesforce.mil", HostFamily::Login),
    ("test.salesforce.mil", HostFamily::Login),
    ("login.sfcrmproducts.cn", HostFamily::Login),
    ("test.sfcrmproducts.cn", HostFamily::Login),
    ("my.salesforce.com", HostFamily::MyDomain),
    ("my.salesforce.mil", HostFamily::MyDomain),
    ("my.sfcrmproducts.cn", HostFamily::MyDomain),
    ("cloudforce.com", HostFamily::MyDomain),
    ("database.com", HostFamily::MyDomain),
    (
        "lightning.force.com",
        HostFamily::Lightning("my.salesforce.com"),
    ),
    (
        "lightning.crmforce.mil",
        HostFamily::Lightning("my.salesforce.mil"),
    ),
    (
        "lightning.sfcrmapps.cn",
        HostFamily::Lightning("my.sfcrmproducts.cn"),
    ),
    (
        "my.salesforce-setup.com",
        HostFamily::Setup("my.salesforce.com"),
    ),
    (
        "my.salesforce-setup.mil",
        HostFamily::Setup("my.salesforce.mil"),
    ),
    ("my.sfcrmsetup.cn", HostFamily::Setup("my.sfcrmproducts.cn")),
    ("my.site.com", HostFamily::Site),
    ("my.salesforce-sites.com", HostFamily::Site),
    ("file.force.com", HostFamily::Content),
    ("content.force.com", HostFamily::Content),
    ("documentforce.com", HostFamily::Content),
    ("vf.force.com", HostFamily::Content),
    ("visual.force.com", HostFamily::Content),
    ("visualforce.com", HostFamily::Content),
    ("container.force.com", HostFamily::Content),
    ("container.lightning.com", HostFamily::Content),
    ("my.salesforce-scrt.com", HostFamily::Content),
    ("salesforce-experience.com", HostFamily::Content),
    ("forceusercontent.com", HostFamily::Content),
    ("force.com", HostFamily::Site),
    ("api.salesforce.com", HostFamily::Api),
    ("api.gov.salesforce.com", HostFamily::Api),
    ("pubsub.salesforce.com", HostFamily::Api),
    ("c360a.salesforce.com", HostFamily::Api),
    ("www.salesforce.com", HostFamily::Public),
    ("help.salesforce.com", HostFamily::Public),
    ("developer.salesforce.com", HostFamily::Public),
    ("trailhead.salesforce.com", HostFamily::Public),
    ("status.salesforce.com", HostFamily::Public),
    ("appexchange.salesforce.com", HostFamily::Public),
];

impl HostFamily {
    /// The family of a host. `None` for other hosts: custom domains, gateways and loopback.
    pub(crate) fn of(host: &str) -> Option<Self> {
        let host = host.trim_end_matches('.');
        let listed = FAMILIES.iter().find(|(domain, _)| is_within(host, domain));
        match listed {
            Some((_, family)) => Some(*family),
            None if host.eq_ignore_ascii_case("salesforce.com") => Some(Self::Public),
            None => classic_instance(host).map(|_| Self::Instance),
        }
    }

    /// Why no login can begin at a host of this family, and what to use in its place. `None` if one can.
    pub(crate) fn unfit_for_login(self, host: &str) -> Option<String> {
        const MY_DOMAIN: &str =
            "use the org's My Domain, https://<MyDomainName>.my.salesforce.com (Setup > My Domain)";
        Some(match self {
            Self::Login | Self::MyDomain | Self::Instance | Self::Site => return None,
            Self::Lightning(_) | Self::Setup(_) => return self.unfit_for_tokens(host),
            Self::Content => format!("serves files and pages, and no logins: {MY_DOMAIN}"),
            Self::Api => format!("takes tokens, and issues none: {MY_DOMAIN}"),
            Self::Public => format!(
                "serves Salesforce's own pages: {MY_DOMAIN}, or https://login.salesforce.com"
            ),
        })
    }

    /// Why no org has its APIs at a host of this family, and what to use in its place. `None` if one has.
    pub(crate) fn unfit_for_an_instance(self, host: &str) -> Option<String> {
        match self {
            Self::MyDomain | Self::Instance | Self::Site | Self::Api => None,
            // Its data APIs answer `URL_NOT_RESET`.
            Self::Login => Some(
                "is a login host, with no APIs of an org: use the `instance_url` that a login returns, or the org's My \
                 Domain, https://<MyDomainName>.my.salesforce.com"
                    .to_owned(),
            ),
            _ => self.unfit_for_login(host),
        }
    }

    /// Why a host of this family takes no tokens at all, and what to use in its place. `None` if it may take some.
    pub(crate) fn unfit_for_tokens(self, host: &str) -> Option<String> {
        let (what, my_domain) = match self {
            Self::Lightning(my_domain) => ("Lightning", my_domain),
            Self::Setup(my_domain) => ("Setup", my_domain),
            _ => return None,
        };
        // The name of the org is the same at both hosts.
        let name = FAMILIES
            .iter()
            .find(|(domain, family)| *family == self && is_within(host, domain))
            .and_then(|(domain, _)| host.get(..host.len() - domain.len()))
            .filter(|name| !name.is_empty())
            .unwrap_or("<MyDomainName>.");
        Some(format!(
            "is a {what} host, which serves pages and redirects everything else: use the org's My Domain, \
             https://{name}{my_domain} (Setup > My Domain)"
        ))
    }

    /// Whether logins begin at the hosts of this family.
    pub(crate) fn has_logins(self) -> bool {
        matches!(
            self,
            Self::Login | Self::MyDomain | Self::Instance | Self::Site
        )
    }

    /// Whether the hosts of this family redirect logins.
    pub(crate) fn has_pages_only(self) -> bool {
        matches!(self, Self::Lightning(_) | Self::Setup(_))
    }

    /// Whether the hosts of this family have logins at their root only.
    pub(crate) fn has_no_paths(self) -> bool {
        matches!(self, Self::Login | Self::MyDomain | Self::Instance)
    }
}

/// The name that the hosts of an org have in common: that of its My Domain, or else the whole host.
pub(crate) fn org_name(host: &str) -> &str {
    host.split_once(".my.").map_or(host, |(name, _)| name)
}

/// What kind of orgs a login host serves, as the audience of assertions names it.
#[cfg(feature = "jwt")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OrgKind {
    Production,
    Sandbox,
}

#[cfg(feature = "jwt")]
impl OrgKind {
    /// The kind of the orgs at this host. `None` for hosts outside of `salesforce.com`, and for sites.
    pub(crate) fn at(host: &str) -> Option<Self> {
        match host {
            "test.salesforce.com" => return Some(Self::Sandbox),
            "login.salesforce.com" => return Some(Self::Production),
            _ => {}
        }
        if let Some(label) = classic_instance(host) {
            let is_sandbox = is_sandbox_instance(label);
            return Some(if is_sandbox {
                Self::Sandbox
            } else {
                Self::Production
            });
        }
        if !is_within(host, "my.salesforce.com") {
            return None;
        }
        // Without enhanced domains: MyDomainName--SandboxName.my.salesforce.com, or an instance in the name. The name of a My
        // Domain may end like one of the newer instances of sandboxes.
        let (name, rest) = host.split_once('.').unwrap_or((host, ""));
        let is_sandbox = is_within(host, "sandbox.my.salesforce.com")
            || is_within(host, "scratch.my.salesforce.com")
            || host.contains("--")
            || is_classic_sandbox(name)
            || rest.split('.').any(is_sandbox_instance);
        Some(if is_sandbox {
            Self::Sandbox
        } else {
            Self::Production
        })
    }
}

/// The name of the instance if this is its classic host, for example `cs91` of `cs91.salesforce.com`.
fn classic_instance(host: &str) -> Option<&str> {
    let label = host.get(..host.len().checked_sub(".salesforce.com".len())?)?;
    let is_instance = is_within(host, "salesforce.com") && is_instance_name(label);
    is_instance.then_some(label)
}

/// Letters and digits, for example `na139`, `cs91`, `usa2s`.
fn is_instance_name(label: &str) -> bool {
    let number = label.trim_start_matches(|char: char| char.is_ascii_alphabetic());
    let letters = label.len() - number.len();
    let digits = number.strip_suffix(['s', 'S']).unwrap_or(number);
    (2..=4).contains(&letters)
        && !digits.is_empty()
        && digits.bytes().all(|byte| byte.is_ascii_digit())
}

#[cfg(feature = "jwt")]
fn is_sandbox_instance(label: &str) -> bool {
    is_classic_sandbox(label) || is_instance_name(label) && label.ends_with(['s', 'S'])
}

/// For example `cs91`.
#[cfg(feature = "jwt")]
fn is_classic_sandbox(label: &str) -> bool {
    let is_cs = label
        .get(..2)
        .is_some_and(|start| start.eq_ignore_ascii_case("cs"));
    let has_number = label.as_bytes().get(2).is_some_and(u8::is_ascii_digit);
    is_cs && has_number && is_instance_name(label)
}

pub(crate) fn is_salesforce_host(host: &str) -> bool {
    SALESFORCE_DOMAINS
        .iter()
        .any(|domain| is_within(host, domain))
}

/// Whether `host` is `domain` or below it.
fn is_within(host: &str, domain: &str) -> bool {
    let Some(start) = host.len().checked_sub(domain.len()) else {
        return false;
    };
    host.is_char_boundary(start)
        && host[start..].eq_ignore_ascii_case(domain)
        && (start == 0 || host[..start].ends_with('.'))
}

/// Whether this host is the machine itself. An IPv6 address may be in brackets.
pub(crate) fn is_loopback_host(host: &str) -> bool {
    let address = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
        .unwrap_or(host);
    host.eq_ignore_ascii_case("localhost")
        || address
            .parse::<std::net::IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}
