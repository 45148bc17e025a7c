//! What a command sees of its caller's variables. Pure.
//!
//! As Debian's `sudo` is set up: a fresh environment with a few of the caller's variables, a fixed `PATH`, and the
//! target user's identity. Source: sudoers(5), `env_reset`, `secure_path`.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt as _;

use super::options::{Invocation, Preserve, Shell};
use crate::accounts::User;

/// Where commands are looked up, and the `PATH` they get.
pub(super) const SECURE_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Variables that pass from the caller, besides `LC_*`.
const KEPT: [&str; 9] =
    ["COLORS", "COLORTERM", "DISPLAY", "HOSTNAME", "LANG", "LANGUAGE", "TERM", "TZ", "XAUTHORITY"];

/// Who asks, as the command is told.
pub(super) struct Caller<'a> {
    pub(super) name: &'a str,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) envs: &'a [(OsString, OsString)],
}

/// The command's variables. `command` is what `SUDO_COMMAND` says, `shell` the program that a shell option chose.
pub(super) fn environment(
    invocation: &Invocation,
    caller: &Caller<'_>,
    target: &User,
    command: OsString,
) -> BTreeMap<OsString, OsString> {
    let mut envs = BTreeMap::new();
    for (key, value) in caller.envs {
        let keep = match &invocation.preserve {
            _ if invocation.shell == Some(Shell::Login) => key == "TERM",
            Preserve::All => true,
            Preserve::Named(names) => names.contains(key) || is_kept(key),
            Preserve::Few => is_kept(key),
        };
        if keep {
            envs.insert(key.clone(), value.clone());
        }
    }
    let preserves_all = invocation.preserve == Preserve::All;
    let mut set = |key: &str, value: OsString| drop(envs.insert(key.into(), value));
    set("PATH", SECURE_PATH.into());
    set("HOME", target.home.clone().into());
    set("LOGNAME", target.name.clone().into());
    set("USER", target.name.clone().into());
    if !preserves_all {
        set("MAIL", format!("/var/mail/{}", target.name).into());
        set("SHELL", shell_of(target).into());
    }
    set("SUDO_COMMAND", command);
    set("SUDO_USER", caller.name.into());
    set("SUDO_UID", caller.uid.to_string().into());
    set("SUDO_GID", caller.gid.to_string().into());
    envs.extend(invocation.assignments.iter().cloned());
    envs
}

/// The user's shell, or the one everybody has.
pub(super) fn shell_of(user: &User) -> &str {
    if user.shell.is_empty() { "/bin/sh" } else { &user.shell }
}

fn is_kept(key: &OsStr) -> bool {
    KEPT.iter().any(|kept| key == *kept) || key.as_bytes().starts_with(b"LC_")
}

/// The command as one shell word after another, for a shell's `-c`. Everything but plain characters is escaped.
pub(super) fn script(command: &[OsString]) -> OsString {
    let mut script = Vec::new();
    for word in command {
        if !script.is_empty() {
            script.push(b' ');
        }
        for byte in word.as_bytes() {
            if !byte.is_ascii_alphanumeric() && !b"_-$".contains(byte) && byte.is_ascii() {
                script.push(b'\\');
            }
            script.push(*byte);
        }
    }
    OsStr::from_bytes(&script).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(invocation: &Invocation) -> BTreeMap<OsString, OsString> {
        let root =
            User { name: "root".into(), uid: 0, gid: 0, home: "/root".into(), shell: "/bin/bash".into() };
        let envs: Vec<(OsString, OsString)> =
            [("PATH", "/mine"), ("FOO", "1"), ("TERM", "xterm"), ("LC_ALL", "C")]
                .map(|(key, value)| (key.into(), value.into()))
                .into();
        let caller = Caller { name: "user", uid: 1000, gid: 1001, envs: &envs };
        environment(invocation, &caller, &root, "/bin/id".into())
    }

    #[test]
    fn the_environment_is_fresh_unless_asked_otherwise() {
        let envs = seen(&Invocation::default());
        let get = |key: &str| envs.get(OsStr::new(key)).and_then(|value| value.to_str());
        assert_eq!(get("FOO"), None);
        assert_eq!((get("TERM"), get("LC_ALL")), (Some("xterm"), Some("C")));
        assert_eq!((get("PATH"), get("HOME")), (Some(SECURE_PATH), Some("/root")));
        assert_eq!(
            (get("SUDO_USER"), get("SUDO_UID"), get("SUDO_GID")),
            (Some("user"), Some("1000"), Some("1001"))
        );
        assert_eq!((get("SUDO_COMMAND"), get("SHELL")), (Some("/bin/id"), Some("/bin/bash")));
    }

    #[test]
    fn variables_pass_when_named_and_when_assigned() {
        let all = Invocation { preserve: Preserve::All, ..Invocation::default() };
        assert_eq!(seen(&all)[OsStr::new("FOO")], "1");
        assert_eq!(seen(&all)[OsStr::new("PATH")], SECURE_PATH);
        let named = Invocation { preserve: Preserve::Named(vec!["FOO".into()]), ..Invocation::default() };
        assert_eq!(seen(&named)[OsStr::new("FOO")], "1");
        let assigned = Invocation { assignments: vec![("FOO".into(), "2".into())], ..Invocation::default() };
        assert_eq!(seen(&assigned)[OsStr::new("FOO")], "2");
    }

    #[test]
    fn a_script_keeps_words_apart_and_variables_alive() {
        assert_eq!(
            script(&["echo".into(), "a b".into(), "$HOME".into(), "it's".into()]),
            "echo a\\ b $HOME it\\'s"
        );
    }
}
