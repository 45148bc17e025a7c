//! The versions of the official clients that must work, and what each must be able to do.
//!
//! Source: contract/client-versions.md §4 and §5.

use std::fmt;

/// A client library and how it is used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// npm `e2b`.
    JavaScript,
    /// PyPI `e2b`, the synchronous classes.
    Python,
    /// PyPI `e2b`, the asynchronous classes.
    AsyncPython,
}

/// Which of the supported generations a version stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Generation {
    /// Before 2.0: best effort.
    Legacy,
    /// The oldest that is fully supported.
    Oldest,
    /// HTTP/2 begins.
    Middle,
    /// The last before the second version of the create and connect calls.
    Baseline,
    /// The newest.
    Newest,
}

/// One version of a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Version {
    /// The library.
    pub client: Client,
    /// Its number in the registry.
    pub number: &'static str,
    /// What it stands for.
    pub generation: Generation,
}

/// How a client reaches the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// Wildcard names with TLS: the domain variable and the certificate files.
    Tls,
    /// One plain address: the URL variables.
    Http,
}

const fn version(client: Client, number: &'static str, generation: Generation) -> Version {
    Version { client, number, generation }
}

/// Every version that is tested.
pub const VERSIONS: &[Version] = &[
    version(Client::JavaScript, "1.0.1", Generation::Legacy),
    version(Client::JavaScript, "2.0.3", Generation::Oldest),
    version(Client::JavaScript, "2.24.0", Generation::Middle),
    version(Client::JavaScript, "2.45.0", Generation::Baseline),
    version(Client::JavaScript, "2.51.0", Generation::Newest),
    version(Client::Python, "1.0.6", Generation::Legacy),
    version(Client::Python, "2.0.0", Generation::Oldest),
    version(Client::Python, "2.24.0", Generation::Middle),
    version(Client::Python, "2.45.1", Generation::Baseline),
    version(Client::Python, "2.63.0", Generation::Newest),
    version(Client::AsyncPython, "2.0.0", Generation::Oldest),
    version(Client::AsyncPython, "2.24.0", Generation::Middle),
    version(Client::AsyncPython, "2.45.1", Generation::Baseline),
    version(Client::AsyncPython, "2.63.0", Generation::Newest),
];

const LEGACY_CHECKS: &[&str] = &["create", "run_foreground", "files_write_and_read", "kill"];

/// In the order they run: later ones use what earlier ones made.
const CHECKS: &[&str] = &[
    "create_short",
    "create",
    "info",
    "running",
    "run_foreground",
    "run_streams",
    "run_much_output",
    "run_environment",
    "run_directory",
    "run_as_user",
    "run_sudo",
    "run_exit_code",
    "run_timeout",
    "background_wait",
    "background_kill",
    "background_list_and_connect",
    "stdin",
    "stdin_close",
    "stdin_stream",
    "files_write_and_read",
    "files_large",
    "files_write_many",
    "files_octet_stream",
    "files_list",
    "files_info",
    "files_exists",
    "files_rename",
    "files_make_dir",
    "files_remove",
    "files_missing",
    "files_as_root",
    "files_metadata",
    "files_watch",
    "files_signed_urls",
    "pty",
    "pty_kill",
    "get_host",
    "set_timeout",
    "connect_sets_expiry",
    "connect_keeps_expiry",
    "list_by_metadata",
    "list_by_state",
    "no_internet",
    "insecure",
    "kill",
    "expiry",
    "burst",
];

impl Version {
    /// Whether it can be used over a transport at all.
    pub fn speaks(&self, transport: Transport) -> bool {
        match transport {
            Transport::Tls => true,
            // The URL variables came with 2.3 and 2.7.
            Transport::Http => self.generation >= Generation::Middle,
        }
    }

    /// The checks it must pass, in the order in which they run.
    pub fn checks(&self, transport: Transport) -> Vec<&'static str> {
        if self.generation == Generation::Legacy {
            return LEGACY_CHECKS.to_vec();
        }
        CHECKS.iter().copied().filter(|check| self.can(check, transport)).collect()
    }

    fn can(&self, check: &str, transport: Transport) -> bool {
        let python = self.client != Client::JavaScript;
        match check {
            // Built from the domain, whatever the URL variables say.
            "get_host" | "files_signed_urls" => transport == Transport::Tls,
            "connect_sets_expiry" => self.generation == Generation::Oldest,
            "connect_keeps_expiry" | "files_octet_stream" => self.generation >= Generation::Middle,
            "files_metadata" => self.generation >= Generation::Baseline,
            "stdin_close" if python => self.generation >= Generation::Baseline,
            "stdin_close" => self.generation >= Generation::Middle,
            "stdin_stream" => python && self.generation == Generation::Newest,
            "insecure" => self.generation <= Generation::Baseline,
            "burst" => !python && self.generation == Generation::Newest && transport == Transport::Tls,
            _ => true,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let client = match self.client {
            Client::JavaScript => "javascript",
            Client::Python => "python",
            Client::AsyncPython => "python_async",
        };
        write!(f, "{client}_{}", self.number.replace('.', "_"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(client: Client, number: &str) -> Version {
        *VERSIONS
            .iter()
            .find(|version| version.client == client && version.number == number)
            .expect("in the matrix")
    }

    #[test]
    fn no_check_is_required_of_a_client_that_lacks_the_feature() {
        let oldest = find(Client::Python, "2.0.0").checks(Transport::Tls);
        assert!(oldest.contains(&"connect_sets_expiry") && !oldest.contains(&"files_octet_stream"));
        let newest = find(Client::AsyncPython, "2.63.0").checks(Transport::Http);
        assert!(
            newest.contains(&"stdin_stream")
                && !newest.contains(&"insecure")
                && !newest.contains(&"get_host")
        );
    }

    #[test]
    fn every_check_is_required_of_some_version() {
        for check in CHECKS {
            let required = VERSIONS.iter().any(|version| version.checks(Transport::Tls).contains(check));
            assert!(required, "{check}");
        }
    }
}
