//! Which paths belong to the agent, and which of them only the control plane may use.

use percent_encoding::percent_decode_str;

/// Paths that change what the agent trusts, or freeze the guest. Source: contract network.md §8.
const RESERVED: [&str; 7] =
    ["/init", "/freeze", "/unfreeze", "/collapse", "/fsfreeze", "/fsthaw", "/upgrade"];

/// How a path without an address relates to the agent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentPath {
    /// Nobody but the agent serves it.
    Only,
    /// The API serves a path of that name too.
    Shared,
    /// It is none of the agent's.
    No,
}

/// Tells a call to an agent from a call to the API when nothing else does.
pub fn agent_path(path: &str) -> AgentPath {
    let below = |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.starts_with('/'));
    match path {
        "/files" => AgentPath::Only,
        "/health" | "/envs" | "/metrics" => AgentPath::Shared,
        _ if below("/files") || below("/process.Process") || below("/filesystem.Filesystem") => {
            AgentPath::Only
        }
        _ => AgentPath::No,
    }
}

/// Whether only the control plane may use this path of the agent.
///
/// Takes the path as sent. It is decoded once and cleaned (`//`, `.`, `..`, a trailing slash) before it is
/// compared, because the agent, or whatever it is built from, may do the same.
pub fn is_reserved(path: &str) -> bool {
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    let mut segments: Vec<&[u8]> = Vec::new();
    for segment in decoded.split(|byte| *byte == b'/') {
        match segment {
            b"" | b"." => {}
            b".." => {
                segments.pop();
            }
            other => segments.push(other),
        }
    }
    let [only] = segments.as_slice() else { return false };
    RESERVED.iter().any(|reserved| reserved.as_bytes()[1..] == **only)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reserved_paths_are_found_in_every_spelling() {
        for path in [
            "/init",
            "//init",
            "/init/",
            "/files/../init",
            "/./init",
            "/%69nit",
            "/%69%6E%69%74",
            "/files%2F..%2Finit",
            "/files/%2e%2e/init",
            "/../../init",
            "/freeze",
            "/unfreeze",
            "/collapse",
            "/fsfreeze",
            "/fsthaw",
            "/upgrade",
            "init",
        ] {
            assert!(is_reserved(path), "{path}");
        }
    }

    #[test]
    fn other_paths_are_not_reserved() {
        for path in ["/", "", "/files", "/initial", "/init/x", "/x/init", "/INIT", "/init%00", "/health", "*"]
        {
            assert!(!is_reserved(path), "{path}");
        }
    }

    #[test]
    fn agent_calls_are_told_from_api_calls() {
        for (path, want) in [
            ("/files", AgentPath::Only),
            ("/files/compose", AgentPath::Only),
            ("/process.Process/Start", AgentPath::Only),
            ("/filesystem.Filesystem/ListDir", AgentPath::Only),
            ("/health", AgentPath::Shared),
            ("/envs", AgentPath::Shared),
            ("/metrics", AgentPath::Shared),
            ("/filesystem", AgentPath::No),
            ("/process.Process", AgentPath::No),
            ("/sandboxes", AgentPath::No),
            ("/init", AgentPath::No),
        ] {
            assert_eq!(agent_path(path), want, "{path}");
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_answered(path in ".*") {
            let _ = is_reserved(&path);
        }
    }
}
