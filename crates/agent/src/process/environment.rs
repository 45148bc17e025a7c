//! The variables of a process: later sources win.

use std::collections::BTreeMap;
use std::ffi::OsString;

use crate::accounts::User;
use crate::guest::Settings;

/// `PATH` of processes when the agent was given none itself.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables of a process of `user`: the base, then the guest's, then the request's own.
pub(super) fn environment(
    user: &User,
    settings: &Settings,
    requested: &BTreeMap<String, String>,
) -> Vec<(OsString, OsString)> {
    let path = std::env::var("PATH").unwrap_or_else(|_| PATH.to_owned());
    let mut vars: BTreeMap<String, String> = [
        ("PATH".to_owned(), path),
        ("HOME".to_owned(), user.home.clone()),
        ("USER".to_owned(), user.name.clone()),
        ("LOGNAME".to_owned(), user.name.clone()),
    ]
    .into();
    vars.extend(settings.global_vars());
    vars.extend(requested.clone());
    vars.into_iter().map(|(key, value)| (key.into(), value.into())).collect()
}
