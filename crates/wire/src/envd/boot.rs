//! The first line the agent reads, before anything else runs in the guest.
//!
//! The host writes one JSON object and a newline to the agent's standard input. Nobody but the agent can ever read
//! it there, so it carries the secret that later proves a caller of `/init` to be the host.

use serde::{Deserialize, Serialize};

/// Longest boot line the agent accepts, in bytes.
pub const LINE_BYTES_MAX: usize = 64 * 1024;

/// What the host tells a new agent about its guest.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// Demanded in [`CONTROL_HEADER`](super::control::CONTROL_HEADER) by `/init` from now on.
    pub control_secret: String,
    /// Bytes this guest may write to its disk, reported as `disk_total` by `/metrics`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub disk_total_bytes: Option<u64>,
}

impl std::fmt::Debug for Boot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Boot").field("disk_total_bytes", &self.disk_total_bytes).finish_non_exhaustive()
    }
}

impl Boot {
    /// The line to write to the agent's standard input, newline included.
    pub fn to_line(&self) -> String {
        let mut line = serde_json::to_string(self).expect("a string and a number always serialise");
        line.push('\n');
        line
    }

    /// Reads back what [`Boot::to_line`] wrote.
    ///
    /// # Errors
    /// Any text that is not such a line.
    pub fn from_line(line: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_read_back_and_never_printed() {
        let boot = Boot { control_secret: "5ec3e7".into(), disk_total_bytes: Some(1 << 30) };
        assert_eq!(Boot::from_line(boot.to_line().trim_end()).unwrap(), boot);
        assert!(!format!("{boot:?}").contains("5ec3e7"));
    }
}
