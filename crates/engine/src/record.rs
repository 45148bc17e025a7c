//! What finds a guest again after a restart of the server or of the host.

use camino::Utf8PathBuf;
use sandbar_model::SandboxId;
use serde::{Deserialize, Serialize};

/// Enough to find a guest, or what is left of it. Its owner stores it, first as planned (without
/// `process`) and again as booted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GuestRecord {
    /// Form of this record; [`GuestRecord::VERSION`].
    pub version: u32,
    /// The engine that made it: `gvisor`, `fake`.
    pub engine: String,
    /// The sandbox.
    #[serde(with = "id_text")]
    pub id: SandboxId,
    /// The engine's own directory for it.
    pub dir: Utf8PathBuf,
    /// Where its writes go.
    pub scratch: Utf8PathBuf,
    /// Its cgroup, relative to the root of each hierarchy.
    pub cgroup: Utf8PathBuf,
    /// The process whose end is the end of the guest; absent until it has been started.
    pub process: Option<ProcessRecord>,
}

impl GuestRecord {
    /// The form written by this code.
    pub const VERSION: u32 = 1;
}

/// One process, told apart from all others that had or will have its pid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessRecord {
    /// Process id, as the host sees it.
    pub pid: i32,
    /// Clock ticks from boot to its start: field 22 of `/proc/<pid>/stat`.
    pub start_time: u64,
    /// `/proc/sys/kernel/random/boot_id`, as ticks start again with every boot.
    pub boot_id: String,
}

mod id_text {
    use sandbar_model::SandboxId;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(id: &SandboxId, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(id.as_str())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SandboxId, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_comes_back_as_it_was() {
        let record = GuestRecord {
            version: GuestRecord::VERSION,
            engine: "gvisor".to_owned(),
            id: "i1".parse().unwrap(),
            dir: "/d".into(),
            scratch: "/s".into(),
            cgroup: "sandbar-ab12/i1".into(),
            process: Some(ProcessRecord { pid: 7, start_time: 9, boot_id: "b".to_owned() }),
        };
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<GuestRecord>(&text).unwrap(), record);
    }
}
