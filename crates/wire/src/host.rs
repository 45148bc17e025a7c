//! Which sandbox and port a request is for, as its host name or its routing headers say.
//!
//! ```text
//!  https://49983-i4x….sbx.example.com/files        the left-most label decides
//!  http://localhost:3000/files                     the headers decide: E2b-Sandbox-Id, E2b-Sandbox-Port
//! ```
//!
//! The headers count only on hosts that cannot name a sandbox themselves: `localhost`, address literals,
//! `sandbox.<anything>` and the deployment's own names. So a page that a sandbox serves on its own host
//! cannot reach into another one by setting a header. Source: contract network.md §8,
//! client-versions.md §2.2 rules 5 and 14.
//!
//! Not here: whether the sandbox exists, and routing by access token (the edge asks for both).

use std::net::{Ipv4Addr, Ipv6Addr};

/// Header that names the sandbox.
pub const SANDBOX_ID: &str = "e2b-sandbox-id";
/// Header that names the port in the sandbox.
pub const SANDBOX_PORT: &str = "e2b-sandbox-port";
/// Header with the token that the agent of a secured sandbox demands.
pub const ACCESS_TOKEN: &str = "x-access-token";
/// The port of the agent in every sandbox.
pub const AGENT_PORT: u16 = 49983;

/// What of a request says where it goes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Address<'a> {
    /// `Host` or `:authority`, with or without a port.
    pub host: Option<&'a str>,
    /// [`SANDBOX_ID`].
    pub sandbox_id: Option<&'a str>,
    /// [`SANDBOX_PORT`].
    pub sandbox_port: Option<&'a str>,
}

/// A port of a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// `[a-z0-9]+`, without what clients append after a dash.
    pub sandbox_id: String,
    /// From 1 up.
    pub port: u16,
}

/// Why a request that is meant for a sandbox does not say which. The texts are what clients see.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// One of the two headers came without the other.
    #[error("missing header")]
    MissingHeader,
    /// No domain, or no dash in the left-most label.
    #[error("Invalid host")]
    InvalidHost,
    /// Not `[a-z0-9]+`.
    #[error("Invalid sandbox ID")]
    InvalidSandboxId,
    /// Not a port number.
    #[error("Invalid sandbox port")]
    InvalidSandboxPort,
}

/// The names under which the deployment itself is reached; the routing headers count there.
#[derive(Clone, Debug, Default)]
pub struct OwnNames(Vec<String>);

impl OwnNames {
    /// From the base domain, with or without a port: the domain itself and `api.<domain>`.
    pub fn new(domain: &str) -> Self {
        let domain = name_of(domain).to_ascii_lowercase();
        Self(vec![format!("api.{domain}"), domain])
    }

    /// Adds a name, such as that of a proxy in front of the deployment.
    pub fn add(&mut self, host: &str) {
        self.0.push(name_of(host).to_ascii_lowercase());
    }

    fn honours_headers(&self, name: &str) -> bool {
        let literal = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(name);
        name.eq_ignore_ascii_case("localhost")
            || literal.parse::<Ipv4Addr>().is_ok()
            || literal.parse::<Ipv6Addr>().is_ok()
            || name.get(..8).is_some_and(|start| start.eq_ignore_ascii_case("sandbox.")) && name.len() > 8
            || self.0.iter().any(|own| own.eq_ignore_ascii_case(name))
    }

    /// The sandbox and port that a request is for.
    ///
    /// `None` when nothing in it names a sandbox: then it is for the API.
    ///
    /// # Errors
    /// When the request is meant for a sandbox but does not say properly for which.
    pub fn locate(&self, address: Address<'_>) -> Result<Option<Target>, AddressError> {
        let name = name_of(address.host.unwrap_or_default());
        match (address.sandbox_id, address.sandbox_port) {
            (None, None) if !starts_like_a_target(name) => Ok(None),
            (None, None) => from_label(name).map(Some),
            (Some(id), Some(port)) if self.honours_headers(name) => target(id, port).map(Some),
            _ if self.honours_headers(name) => Err(AddressError::MissingHeader),
            _ => from_label(name).map(Some),
        }
    }
}

/// The host without its port and without the dot of a fully qualified name.
fn name_of(host: &str) -> &str {
    let name = match host.rfind(']') {
        Some(end) => &host[..=end],
        None => host.split(':').next().unwrap_or_default(),
    };
    name.strip_suffix('.').unwrap_or(name)
}

/// Whether the left-most label is `<digits>-…`, which no other host of a deployment is.
fn starts_like_a_target(name: &str) -> bool {
    let digits = name.bytes().take_while(u8::is_ascii_digit).count();
    digits > 0 && name.as_bytes().get(digits) == Some(&b'-')
}

fn from_label(name: &str) -> Result<Target, AddressError> {
    let (label, _domain) = name.split_once('.').ok_or(AddressError::InvalidHost)?;
    let (port, id) = label.split_once('-').ok_or(AddressError::InvalidHost)?;
    target(id, port)
}

fn target(id: &str, port: &str) -> Result<Target, AddressError> {
    // Old clients append `-<client id>`.
    let id = id.trim().split('-').next().unwrap_or_default();
    if id.is_empty() || !id.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit()) {
        return Err(AddressError::InvalidSandboxId);
    }
    // `parse` alone would accept a sign.
    let port = port.trim();
    let port = if port.bytes().all(|byte| byte.is_ascii_digit()) { port.parse().unwrap_or(0) } else { 0 };
    if port == 0 {
        return Err(AddressError::InvalidSandboxPort);
    }
    Ok(Target { sandbox_id: id.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// `host | id | port` with `-` for an absent header; the answer as `port@id`, `api` or the error.
    #[track_caller]
    fn check(address: &str, want: &str) {
        let mut own = OwnNames::new("sbx.localhost:3000");
        own.add("gateway.example.com");
        let mut parts = address.split(" | ").map(|part| (part != "-").then_some(part));
        let address = Address {
            host: parts.next().flatten(),
            sandbox_id: parts.next().flatten(),
            sandbox_port: parts.next().flatten(),
        };
        let got = match own.locate(address) {
            Ok(Some(target)) => format!("{}@{}", target.port, target.sandbox_id),
            Ok(None) => "api".to_owned(),
            Err(error) => error.to_string(),
        };
        assert_eq!(got, want, "{address:?}");
    }

    #[test]
    fn the_left_most_label_names_port_and_sandbox() {
        check("49983-iabc.sbx.localhost:3000", "49983@iabc");
        check("8080-iabc.any.domain", "8080@iabc");
        check("8080-iabc.any.domain.", "8080@iabc");
        check("8080-iabc-6532622b.any.domain", "8080@iabc");
        check("8080-iabc-a-b-c.x", "8080@iabc");
        check("049983-iabc.x", "49983@iabc");
    }

    #[test]
    fn hosts_that_name_no_sandbox_are_the_api() {
        for host in [
            "-",
            "localhost:3000",
            "127.0.0.1:3000",
            "[::1]:3000",
            "::1",
            "api.sbx.localhost:3000",
            "sbx.localhost",
            "my-host.example.com",
            "-iabc.example.com",
            "10.0.0.1",
            "example",
        ] {
            check(host, "api");
        }
    }

    #[test]
    fn headers_decide_on_hosts_that_cannot_name_a_sandbox() {
        for host in [
            "localhost:3000",
            "LOCALHOST",
            "127.0.0.1:3000",
            "[::1]:3000",
            "sandbox.e2b.app",
            "sbx.localhost:3000",
            "SBX.localhost",
            "api.sbx.localhost",
            "gateway.example.com:8443",
        ] {
            check(&format!("{host} | iabc | 3000"), "3000@iabc");
            check(&format!("{host} | iabc-6532622b | 3000"), "3000@iabc");
            check(&format!("{host} | iabc"), "missing header");
            check(&format!("{host} | - | 3000"), "missing header");
            check(&format!("{host} | iABC | 3000"), "Invalid sandbox ID");
            check(&format!("{host} |  | 3000"), "Invalid sandbox ID");
            check(&format!("{host} | iabc | http"), "Invalid sandbox port");
        }
    }

    #[test]
    fn elsewhere_the_label_decides_and_headers_are_ignored() {
        check("8080-iabc.sbx.localhost | iother | 49983", "8080@iabc");
        check("8080-iabc.sbx.localhost | iother", "8080@iabc");
        check("example | iabc | 80", "Invalid host");
        check("www.example.com | iabc | 80", "Invalid host");
        check("my-host.example.com | iabc | 80", "Invalid sandbox port");
        check("sandbox. | iabc | 80", "Invalid host");
        check("- | iabc | 80", "Invalid host");
    }

    #[test]
    fn a_bad_label_is_named() {
        check("8080-iabc", "Invalid host");
        check("8080-iABC.x", "Invalid sandbox ID");
        check("8080-.x", "Invalid sandbox ID");
        check("8080--iabc.x", "Invalid sandbox ID");
        check("0-iabc.x", "Invalid sandbox port");
        check("65536-iabc.x", "Invalid sandbox port");
        check("99999999999999999999-iabc.x", "Invalid sandbox port");
    }

    proptest! {
        #[test]
        fn any_text_is_answered(host in ".*", id in proptest::option::of(".*"), port in proptest::option::of(".*")) {
            let address = Address { host: Some(&host), sandbox_id: id.as_deref(), sandbox_port: port.as_deref() };
            if let Ok(Some(target)) = OwnNames::new("x.y").locate(address) {
                prop_assert!(target.port > 0);
                prop_assert!(!target.sandbox_id.is_empty());
                prop_assert!(target.sandbox_id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit()));
            }
        }

        #[test]
        fn what_clients_build_is_understood(
            port in 1u16.., id in "[a-z0-9]{1,40}", suffix in "(-[a-z0-9]{1,8})?", tail in "(:[0-9]{1,5})?",
        ) {
            let host = format!("{port}-{id}{suffix}.sbx.localhost{tail}");
            let address = Address { host: Some(&host), ..Address::default() };
            prop_assert_eq!(OwnNames::new("x.y").locate(address), Ok(Some(Target { sandbox_id: id, port })));
        }
    }
}
