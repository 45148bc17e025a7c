//! What clients are told about the host names of sandboxes.

use axum::extract::Request;
use http::header;

/// The base of sandboxes' host names, if this deployment has any.
///
/// One listener serves both those who reach us by a name under it and those who use plain `http://localhost`. To the
/// latter a name would only mislead. Source: contract/client-versions.md §2.2 rule 26.
#[derive(Clone)]
pub(crate) struct SandboxDomain(Option<String>);

impl SandboxDomain {
    pub(crate) fn new(domain: Option<String>) -> Self {
        Self(domain)
    }

    /// The domain, for a request that came to a name under it.
    pub(crate) fn told_to(&self, request: &Request) -> Option<String> {
        let domain = self.0.as_deref()?;
        let from_header = request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
        let host = request.uri().authority().map(|authority| authority.as_str()).or(from_header)?;
        is_under(host, domain).then(|| domain.to_owned())
    }
}

fn is_under(host: &str, domain: &str) -> bool {
    let host = without_port(host).to_ascii_lowercase();
    let base = without_port(domain).to_ascii_lowercase();
    host == base || host.strip_suffix(&base).is_some_and(|front| front.ends_with('.'))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_under_the_domain_and_no_others() {
        for host in ["api.sbx.localhost:3000", "API.sbx.localhost", "sbx.localhost:3000"] {
            assert!(is_under(host, "sbx.localhost:3000"), "{host}");
        }
        for host in
            ["localhost:3000", "127.0.0.1:3000", "[::1]:3000", "evilsbx.localhost", "api.sbx.localhost.evil"]
        {
            assert!(!is_under(host, "sbx.localhost:3000"), "{host}");
        }
    }
}
