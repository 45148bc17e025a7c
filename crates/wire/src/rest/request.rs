//! Bodies of requests.
//!
//! Unknown fields are ignored. A field that clients may write and we cannot honour yet is read, so that
//! [`NewSandbox::check_available`] can name it; what equals its absence is accepted. Sources: contract/control-api.md
//! §5.1 to §5.8, contract/client-versions.md §1.7 and §2.2 rule 11.

use std::collections::BTreeMap;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::ApiError;

/// The generation of an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// `/sandboxes…`: timeout 15 s, secured only on request, `null` equals absence.
    V1,
    /// `/v2/sandboxes…`: timeout 300 s, always secured, `null` only where the schema says so.
    V2,
}

impl Version {
    /// What a sandbox lives when nothing is said. Source: contract/client-versions.md §1.7.
    pub fn default_timeout_secs(self) -> i32 {
        match self {
            Self::V1 => 15,
            Self::V2 => 300,
        }
    }
}

/// `POST /sandboxes` and `POST /v2/sandboxes`.
#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct NewSandbox {
    /// `[namespace/]name[:tag]` or an id.
    #[serde(rename = "templateID")]
    pub template_id: String,
    /// Seconds.
    #[serde(default, deserialize_with = "present")]
    pub timeout: Option<i32>,
    /// Pairs to find it by.
    #[serde(default, deserialize_with = "present")]
    pub metadata: Option<BTreeMap<String, String>>,
    /// Environment of every process.
    #[serde(default, deserialize_with = "present")]
    pub env_vars: Option<BTreeMap<String, String>>,
    /// Snake case in this one field.
    #[serde(default, rename = "allow_internet_access", deserialize_with = "present")]
    pub allow_internet_access: Option<bool>,
    /// Whether the agent demands a token. Only the first version has it.
    #[serde(skip)]
    pub secure: bool,
    #[serde(default, deserialize_with = "present")]
    auto_pause: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    auto_pause_memory: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    auto_resume: Option<AutoResume>,
    #[serde(default, deserialize_with = "present")]
    network: Option<Network>,
    #[serde(default)]
    mcp: Option<Map<String, Value>>,
    #[serde(default, deserialize_with = "present")]
    iam: Option<Iam>,
    #[serde(default, deserialize_with = "present")]
    volume_mounts: Option<Vec<Value>>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct AutoResume {
    enabled: bool,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
struct Iam {
    #[serde(default)]
    tokens: Map<String, Value>,
}

#[derive(Clone, Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct Network {
    allow_public_traffic: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    allow_out: Option<Vec<Value>>,
    #[serde(default, deserialize_with = "present")]
    deny_out: Option<Vec<Value>>,
    #[serde(default, deserialize_with = "present")]
    mask_request_host: Option<String>,
    #[serde(default, deserialize_with = "present")]
    rules: Option<Map<String, Value>>,
    egress_proxy: Option<Value>,
    #[serde(default, deserialize_with = "present")]
    https_ports: Option<Vec<Value>>,
    #[serde(default, deserialize_with = "present")]
    dns_servers: Option<Vec<Value>>,
}

/// The one field that only the first version has.
#[derive(Deserialize)]
struct Secure {
    #[serde(default)]
    secure: Option<bool>,
}

impl NewSandbox {
    /// Reads the body of one of the two endpoints.
    pub fn parse(body: &[u8], version: Version) -> Result<Self, ApiError> {
        let mut fields: Map<String, Value> = parse_json(body)?;
        let secure = match version {
            Version::V1 => {
                fields.retain(|_, value| !value.is_null());
                let Secure { secure } = from_value(Value::Object(fields.clone()))?;
                secure.unwrap_or(false)
            }
            Version::V2 => true,
        };
        Ok(Self { secure, ..from_value(Value::Object(fields))? })
    }

    /// Whether the fields agree with each other, and we can honour them all.
    pub fn check_available(&self) -> Result<(), ApiError> {
        let auto_resume = self.auto_resume.as_ref().is_some_and(|auto_resume| auto_resume.enabled);
        if self.auto_pause_memory == Some(false) {
            if auto_resume {
                return Err(ApiError::AutoPauseMemoryWithAutoResume);
            }
            if self.auto_pause != Some(true) {
                return Err(ApiError::AutoPauseMemoryAlone);
            }
        }
        let network = self.network.as_ref();
        let wanted = [
            (self.auto_pause == Some(true), "autoPause"),
            (auto_resume, "autoResume"),
            (self.iam.as_ref().is_some_and(|iam| !iam.tokens.is_empty()), "iam"),
            (network.is_some_and(|network| !is_empty(&network.allow_out)), "network.allowOut"),
            (network.is_some_and(|network| !is_empty(&network.deny_out)), "network.denyOut"),
            (
                network.is_some_and(|network| network.rules.as_ref().is_some_and(|rules| !rules.is_empty())),
                "network.rules",
            ),
            (network.is_some_and(|network| network.mask_request_host.is_some()), "network.maskRequestHost"),
            (network.is_some_and(|network| network.egress_proxy.is_some()), "network.egressProxy"),
            (network.is_some_and(|network| !is_empty(&network.https_ports)), "network.httpsPorts"),
            (network.is_some_and(|network| !is_empty(&network.dns_servers)), "network.dnsServers"),
            (
                network.is_some_and(|network| network.allow_public_traffic == Some(false)),
                "network.allowPublicTraffic",
            ),
            (!is_empty(&self.volume_mounts), "volumeMounts"),
            (self.mcp.is_some(), "mcp"),
        ];
        match wanted.into_iter().find(|(wanted, _)| *wanted) {
            Some((_, option)) => Err(ApiError::OptionNotAvailable { option }),
            None => Ok(()),
        }
    }
}

fn is_empty(list: &Option<Vec<Value>>) -> bool {
    list.as_ref().is_none_or(Vec::is_empty)
}

/// `POST /sandboxes/{id}/connect` and `POST /v2/sandboxes/{id}/connect`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Connect {
    /// Seconds from now that it shall live at least.
    pub timeout_secs: u32,
}

impl Connect {
    /// Reads the body of one of the two endpoints. In the first it must be there and hold a timeout, which may be 0;
    /// in the second both may be absent and 0 is refused.
    pub fn parse(body: &[u8], version: Version) -> Result<Self, ApiError> {
        #[derive(Deserialize, Default)]
        struct Body {
            #[serde(default, deserialize_with = "present")]
            timeout: Option<i32>,
            /// Decides how a paused sandbox is resumed; a running one has its memory.
            #[serde(default, rename = "memory", deserialize_with = "present")]
            _memory: Option<bool>,
        }
        let timeout = match version {
            Version::V1 => {
                let body: Body = parse_json(body)?;
                body.timeout.ok_or_else(|| missing("timeout"))?
            }
            Version::V2 => {
                let body: Body = parse_optional(body)?;
                let timeout = body.timeout.unwrap_or(version.default_timeout_secs());
                if timeout < 1 {
                    return Err(ApiError::TimeoutTooSmall);
                }
                timeout
            }
        };
        Ok(Self { timeout_secs: not_negative("timeout", timeout)? })
    }
}

/// `POST /sandboxes/{id}/resume`. The body may be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resume {
    /// Seconds; 15 when absent.
    pub timeout_secs: u32,
}

impl Resume {
    /// Reads the body.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        #[derive(Deserialize, Default)]
        struct Body {
            timeout: Option<i32>,
        }
        let body: Body = parse_optional(body)?;
        let timeout = body.timeout.unwrap_or(Version::V1.default_timeout_secs());
        Ok(Self { timeout_secs: not_negative("timeout", timeout)? })
    }
}

/// `POST /sandboxes/{id}/timeout`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SetTimeout {
    /// Seconds from now; 0 ends it at once.
    pub timeout_secs: u32,
}

impl SetTimeout {
    /// Reads the body.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        #[derive(Deserialize)]
        struct Body {
            timeout: i32,
        }
        let body: Body = parse_json(body)?;
        Ok(Self { timeout_secs: not_negative("timeout", body.timeout)? })
    }
}

/// `POST /sandboxes/{id}/refreshes`. The body may be absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refresh {
    /// Seconds from now that it shall live at least: 15 to 3600, 15 when absent or less.
    pub duration_secs: u32,
}

impl Refresh {
    /// Reads the body.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        #[derive(Deserialize, Default)]
        struct Body {
            duration: Option<i32>,
        }
        let body: Body = parse_optional(body)?;
        let duration = not_negative("duration", body.duration.unwrap_or_default())?;
        if duration > 3600 {
            return Err(ApiError::Validation { detail: "duration must be at most 3600".to_owned() });
        }
        Ok(Self { duration_secs: duration.max(15) })
    }
}

fn not_negative(field: &str, number: i32) -> Result<u32, ApiError> {
    u32::try_from(number).map_err(|_| ApiError::Validation { detail: format!("{field} must be at least 0") })
}

fn missing(field: &str) -> ApiError {
    ApiError::Validation { detail: format!("missing field `{field}`") }
}

/// For a field that may be absent but, if it is there, must not be `null`.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(deserializer: D) -> Result<Option<T>, D::Error> {
    T::deserialize(deserializer).map(Some)
}

fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let value = serde_json::from_slice(body)
        .map_err(|error| ApiError::MalformedBody { detail: error.to_string() })?;
    from_value(value)
}

fn parse_optional<T: DeserializeOwned + Default>(body: &[u8]) -> Result<T, ApiError> {
    if body.trim_ascii().is_empty() { Ok(T::default()) } else { parse_json(body) }
}

fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, ApiError> {
    serde_json::from_value(value).map_err(|error| ApiError::Validation { detail: error.to_string() })
}

#[cfg(test)]
mod tests;
