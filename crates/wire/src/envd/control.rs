//! Bodies of the agent's control and status routes: `/init`, `/metrics`, and their error shape.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Header that proves a caller of `/init` to be the host: the secret of [`Boot`](super::boot::Boot).
pub const CONTROL_HEADER: &str = "x-sandbar-control";

/// Body of `POST /init`. Every field is optional and unknown ones are ignored.
///
/// The second half of the fields is ours: on the public platform they come from a metadata service or from the
/// image, neither of which a guest of ours has.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct InitRequest {
    /// RFC 3339. Orders requests, and sets the guest's clock when that is off.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<String>,
    /// Replaces all user variables; absent leaves them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env_vars: Option<BTreeMap<String, String>>,
    /// Sets the access token; absent clears it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access_token: Option<String>,
    /// User of calls that name none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_user: Option<String>,
    /// What an empty path or working directory stands for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_workdir: Option<String>,
    /// PEM certificates that programs in the guest shall trust as well.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<String>,
    /// Address of the host's event service, if there is one.
    #[serde(rename = "hyperloopIP", skip_serializing_if = "Option::is_none")]
    pub hyperloop_ip: Option<String>,

    /// `E2B_SANDBOX_ID` of every process.
    #[serde(rename = "sandboxID", skip_serializing_if = "Option::is_none")]
    pub sandbox_id: Option<String>,
    /// `E2B_TEMPLATE_ID` of every process.
    #[serde(rename = "templateID", skip_serializing_if = "Option::is_none")]
    pub template_id: Option<String>,
    /// `E2B_TEAM_ID` of every process.
    #[serde(rename = "teamID", skip_serializing_if = "Option::is_none")]
    pub team_id: Option<String>,
    /// Host name of the guest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    /// IP address for `/etc/resolv.conf`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nameserver: Option<String>,
    /// Processes and threads that user code may have at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pids_max: Option<u32>,
}

impl std::fmt::Debug for InitRequest {
    /// Leaves out the token and the values of variables.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InitRequest")
            .field("timestamp", &self.timestamp)
            .field("sandbox_id", &self.sandbox_id)
            .field("hostname", &self.hostname)
            .finish_non_exhaustive()
    }
}

/// Body of `GET /metrics`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Metrics {
    /// Unix seconds of the guest's clock.
    pub ts: i64,
    /// Logical CPUs.
    pub cpu_count: u32,
    /// Busy share of all CPUs since the previous call, 0–100, two decimals.
    pub cpu_used_pct: f64,
    /// [`Metrics::mem_total`] in MiB.
    pub mem_total_mib: u64,
    /// [`Metrics::mem_used`] in MiB.
    pub mem_used_mib: u64,
    /// Bytes.
    pub mem_total: u64,
    /// Bytes that are not available to new programs.
    pub mem_used: u64,
    /// Bytes of page cache and reclaimable slabs.
    pub mem_cache: u64,
    /// Bytes.
    pub disk_used: u64,
    /// Bytes.
    pub disk_total: u64,
}

/// Error body of the routes that are not RPC, and of the access-token gate on all routes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HttpError {
    /// The HTTP status.
    pub code: u16,
    /// What was wrong.
    pub message: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn init_uses_the_names_of_the_protocol() {
        let request = InitRequest {
            access_token: Some("t".into()),
            default_user: Some("user".into()),
            sandbox_id: Some("i1".into()),
            hyperloop_ip: Some("192.0.2.1".into()),
            pids_max: Some(7),
            ..InitRequest::default()
        };
        let json = serde_json::to_value(&request).unwrap();
        let want = serde_json::json!({
            "accessToken": "t", "defaultUser": "user", "sandboxID": "i1", "hyperloopIP": "192.0.2.1", "pidsMax": 7,
        });
        assert_eq!(json, want);
        assert_eq!(serde_json::from_value::<InitRequest>(json).unwrap(), request);
    }

    #[test]
    fn init_ignores_what_it_does_not_know_and_takes_null_as_absent() {
        let request: InitRequest =
            serde_json::from_str(r#"{"lifecycleID":"x","volumeMounts":[],"accessToken":null}"#).unwrap();
        assert_eq!(request, InitRequest::default());
    }
}
