//! What `/init` has told the agent about its guest, and what follows from it for everyone else.
//!
//! Written by `/init` only; read by every request. Nothing here does I/O.

use std::collections::BTreeMap;
use std::sync::{RwLock, RwLockReadGuard};

use sandbar_wire::envd::boot::Boot;
use subtle::ConstantTimeEq as _;

use crate::cgroup::PidsCgroup;

/// User of calls that name none, until `/init` says otherwise. Source: e2b-dev/infra packages/envd.
const FIRST_DEFAULT_USER: &str = "root";

/// The settings of this guest.
#[derive(Debug)]
pub(crate) struct Guest {
    control_secret: Option<String>,
    pub(crate) disk_total_bytes: Option<u64>,
    settings: RwLock<Settings>,
    /// One `/init` at a time.
    pub(crate) init: tokio::sync::Mutex<()>,
}

/// The part that `/init` may change.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// Demanded of every request while present.
    pub(crate) access_token: Option<String>,
    /// Variables of all processes that no caller of `/init` can replace by user variables.
    pub(crate) internal_vars: BTreeMap<String, String>,
    /// Variables of all processes.
    pub(crate) user_vars: BTreeMap<String, String>,
    pub(crate) default_user: String,
    pub(crate) default_workdir: Option<String>,
    /// The newest `/init` applied.
    pub(crate) newest: Option<jiff::Timestamp>,
    /// Where user processes are counted.
    pub(crate) pids_cgroup: Option<PidsCgroup>,
}

impl Guest {
    /// A guest whose host has only said what stands in the boot line, if it wrote one.
    pub(crate) fn new(boot: Option<Boot>) -> Self {
        let hosted = boot.is_some();
        let internal_vars = [("E2B_SANDBOX".to_owned(), hosted.to_string())].into();
        let (control_secret, disk_total_bytes) = match boot {
            Some(boot) => (Some(boot.control_secret), boot.disk_total_bytes),
            None => (None, None),
        };
        Self {
            control_secret,
            disk_total_bytes,
            settings: RwLock::new(Settings {
                access_token: None,
                internal_vars,
                user_vars: BTreeMap::new(),
                default_user: FIRST_DEFAULT_USER.to_owned(),
                default_workdir: None,
                newest: None,
                pids_cgroup: None,
            }),
            init: tokio::sync::Mutex::new(()),
        }
    }

    /// Whether the agent runs for a host that proves itself with a secret.
    pub(crate) fn is_hosted(&self) -> bool {
        self.control_secret.is_some()
    }

    /// Whether the header is the control secret. Always false without one.
    pub(crate) fn is_control_secret(&self, header: &[u8]) -> bool {
        self.control_secret.as_ref().is_some_and(|secret| equal_in_constant_time(secret.as_bytes(), header))
    }

    pub(crate) fn settings(&self) -> RwLockReadGuard<'_, Settings> {
        self.settings.read().expect("settings are never changed by code that can panic")
    }

    /// Changes the settings; readers see all of the change or nothing.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Settings)) {
        let mut changed = self.settings().clone();
        change(&mut changed);
        *self.settings.write().expect("settings are never changed by code that can panic") = changed;
    }
}

impl Settings {
    /// Variables of every process before the ones of its own request.
    pub(crate) fn global_vars(&self) -> BTreeMap<String, String> {
        let mut vars = self.user_vars.clone();
        vars.extend(self.internal_vars.clone());
        vars
    }

    /// Whether a request with this token (none: `None`) may pass.
    pub(crate) fn admits(&self, token: Option<&[u8]>) -> bool {
        match (&self.access_token, token) {
            (None, _) => true,
            (Some(_), None) => false,
            (Some(want), Some(token)) => equal_in_constant_time(want.as_bytes(), token),
        }
    }
}

/// Compares without telling by its duration where the difference is.
pub(crate) fn equal_in_constant_time(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_variable_never_hides_an_internal_one() {
        let guest = Guest::new(Some(Boot { control_secret: "s".into(), disk_total_bytes: None }));
        guest.change(|settings| {
            settings.user_vars = [("E2B_SANDBOX".into(), "x".into()), ("FOO".into(), "g".into())].into();
        });
        let vars = guest.settings().global_vars();
        assert_eq!((vars["E2B_SANDBOX"].as_str(), vars["FOO"].as_str()), ("true", "g"));
    }

    #[test]
    fn only_the_right_token_is_admitted() {
        let guest = Guest::new(None);
        assert!(guest.settings().admits(None));
        guest.change(|settings| settings.access_token = Some("t".into()));
        assert!(!guest.settings().admits(None));
        assert!(!guest.settings().admits(Some(b"")));
        assert!(guest.settings().admits(Some(b"t")));
        assert!(!guest.is_control_secret(b""));
    }
}
