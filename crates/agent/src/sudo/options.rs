//! The options of `sudo`. Pure.
//!
//! Source: sudo(8). Options about asking for a password are accepted and mean nothing: nobody is asked.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

/// What `sudo` was asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    Run(Box<Invocation>),
    Help,
    Version,
    /// What may the user do?
    List,
    /// Success without a command: credentials are never asked for.
    Nothing,
}

/// A command and how to run it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Invocation {
    /// A name, or `#` and a number; root when absent.
    pub(super) user: Option<OsString>,
    /// A name, or `#` and a number; the user's own when absent.
    pub(super) group: Option<OsString>,
    pub(super) shell: Option<Shell>,
    pub(super) preserve: Preserve,
    pub(super) background: bool,
    /// Keep the caller's supplementary groups.
    pub(super) preserve_groups: bool,
    pub(super) directory: Option<OsString>,
    /// `VAR=value` before the command.
    pub(super) assignments: Vec<(OsString, OsString)>,
    /// Empty only with a shell.
    pub(super) command: Vec<OsString>,
}

/// Run a shell, with the command as its script if there is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shell {
    /// The target user's, as a login would.
    Login,
    /// The caller's.
    Plain,
}

/// Which of the caller's variables the command sees.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Preserve {
    #[default]
    Few,
    Named(Vec<OsString>),
    All,
}

/// Options that cannot be understood.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum UsageError {
    #[error("invalid option -- '{0}'")]
    Unknown(String),
    #[error("option requires an argument -- '{0}'")]
    NoArgument(String),
    #[error("editing files (-e) is not supported")]
    Edit,
    #[error("a command is missing")]
    NoCommand,
}

/// Understands the arguments after the program's name.
pub(super) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Request, UsageError> {
    let mut rest = arguments.into_iter().peekable();
    let mut invocation = Invocation::default();
    let mut other = None;
    while let Some(argument) = rest.peek() {
        let bytes = argument.as_bytes();
        if bytes == b"--" {
            rest.next();
            break;
        }
        if let Some(assignment) = assignment(argument) {
            invocation.assignments.push(assignment);
            rest.next();
            continue;
        }
        if bytes.len() < 2 || bytes[0] != b'-' {
            break;
        }
        let argument = rest.next().unwrap_or_default();
        let mut flags = match argument.as_bytes().strip_prefix(b"--") {
            Some(long) => {
                long_option(long, &mut rest, &mut invocation, &mut other)?;
                continue;
            }
            None => argument.as_bytes()[1..].to_vec(),
        };
        while !flags.is_empty() {
            let flag = flags.remove(0);
            if takes_argument(flag) {
                let value = match flags.is_empty() {
                    true => rest.next().ok_or_else(|| UsageError::NoArgument(char::from(flag).into()))?,
                    false => OsString::from_vec(std::mem::take(&mut flags)),
                };
                set_value(flag, value, &mut invocation);
            } else {
                set_flag(flag, &mut invocation, &mut other)?;
            }
        }
    }
    // Assignments may also follow `--`.
    while let Some(assignment) = rest.peek().and_then(|argument| assignment(argument)) {
        invocation.assignments.push(assignment);
        rest.next();
    }
    invocation.command = rest.collect();
    match other {
        // `-k` beside a command only concerns passwords.
        Some(Request::Nothing) if !invocation.command.is_empty() || invocation.shell.is_some() => {}
        Some(request) => return Ok(request),
        None => {}
    }
    if invocation.command.is_empty() && invocation.shell.is_none() {
        return Err(UsageError::NoCommand);
    }
    Ok(Request::Run(Box::new(invocation)))
}

fn assignment(argument: &OsStr) -> Option<(OsString, OsString)> {
    let bytes = argument.as_bytes();
    let at = bytes.iter().position(|byte| *byte == b'=').filter(|at| *at > 0)?;
    let is_name = bytes[..at].iter().all(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    (is_name && !bytes[0].is_ascii_digit())
        .then(|| (OsString::from_vec(bytes[..at].to_vec()), OsString::from_vec(bytes[at + 1..].to_vec())))
}

fn takes_argument(flag: u8) -> bool {
    b"ugpCDRTUhart".contains(&flag)
}

fn set_value(flag: u8, value: OsString, invocation: &mut Invocation) {
    match flag {
        b'u' => invocation.user = Some(value),
        b'g' => invocation.group = Some(value),
        b'D' => invocation.directory = Some(value),
        _ => {} // prompts, time limits, hosts, roles: nothing here to apply them to
    }
}

fn set_flag(flag: u8, invocation: &mut Invocation, other: &mut Option<Request>) -> Result<(), UsageError> {
    match flag {
        b'i' => invocation.shell = Some(Shell::Login),
        b's' => invocation.shell = Some(Shell::Plain),
        b'E' => invocation.preserve = Preserve::All,
        b'b' => invocation.background = true,
        b'P' => invocation.preserve_groups = true,
        b'H' | b'n' | b'S' | b'A' | b'B' | b'N' => {} // home is always the target's, and nobody is asked
        b'l' => *other = Some(Request::List),
        b'V' => *other = Some(Request::Version),
        b'v' | b'k' | b'K' => drop(other.get_or_insert(Request::Nothing)),
        b'e' => return Err(UsageError::Edit),
        unknown => return Err(UsageError::Unknown(char::from(unknown).into())),
    }
    Ok(())
}

fn long_option(
    long: &[u8],
    rest: &mut impl Iterator<Item = OsString>,
    invocation: &mut Invocation,
    other: &mut Option<Request>,
) -> Result<(), UsageError> {
    let (name, value) = match long.iter().position(|byte| *byte == b'=') {
        Some(at) => (&long[..at], Some(OsString::from_vec(long[at + 1..].to_vec()))),
        None => (long, None),
    };
    let name = String::from_utf8_lossy(name).into_owned();
    let flag = match name.as_str() {
        "preserve-env" => {
            invocation.preserve = match value {
                None => Preserve::All,
                Some(list) => {
                    let names = list.as_bytes().split(|byte| *byte == b',').filter(|name| !name.is_empty());
                    Preserve::Named(names.map(|name| OsString::from_vec(name.to_vec())).collect())
                }
            };
            return Ok(());
        }
        "help" => {
            *other = Some(Request::Help);
            return Ok(());
        }
        "user" => b'u',
        "group" => b'g',
        "prompt" => b'p',
        "close-from" => b'C',
        "chdir" => b'D',
        "chroot" => b'R',
        "command-timeout" => b'T',
        "other-user" => b'U',
        "host" => b'h',
        "login" => b'i',
        "shell" => b's',
        "set-home" => b'H',
        "non-interactive" => b'n',
        "stdin" => b'S',
        "askpass" => b'A',
        "bell" => b'B',
        "background" => b'b',
        "preserve-groups" => b'P',
        "list" => b'l',
        "version" => b'V',
        "validate" => b'v',
        "reset-timestamp" => b'k',
        "remove-timestamp" => b'K',
        "no-update" => b'N',
        "edit" => b'e',
        _ => return Err(UsageError::Unknown(name)),
    };
    if takes_argument(flag) {
        let value = value.or_else(|| rest.next()).ok_or(UsageError::NoArgument(name))?;
        set_value(flag, value, invocation);
        Ok(())
    } else {
        set_flag(flag, invocation, other)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn run(line: &str) -> Invocation {
        match parse(line.split(' ').map(OsString::from)) {
            Ok(Request::Run(invocation)) => *invocation,
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn options_end_where_the_command_begins() {
        let invocation = run("-nE -u bob -g#7 A=1 ls -l A=2");
        assert_eq!(invocation.user, Some("bob".into()));
        assert_eq!(invocation.group, Some("#7".into()));
        assert_eq!(invocation.preserve, Preserve::All);
        assert_eq!(invocation.assignments, [("A".into(), "1".into())]);
        assert_eq!(invocation.command, ["ls", "-l", "A=2"]);
        assert_eq!(run("-ubob -- -x").command, ["-x"]);
        assert_eq!(run("-- A=1 env").assignments.len(), 1);
        assert_eq!(run("--user=bob id").user, Some("bob".into()));
        assert_eq!(run("--user bob id").command, ["id"]);
        assert_eq!(run("--preserve-env=A,B id").preserve, Preserve::Named(vec!["A".into(), "B".into()]));
        assert_eq!(run("-k id").command, ["id"]);
    }

    #[test]
    fn a_shell_needs_no_command() {
        assert_eq!(run("-i").shell, Some(Shell::Login));
        assert_eq!(run("-s echo hi").command, ["echo", "hi"]);
    }

    #[test]
    fn other_requests_are_told_apart() {
        let parse = |line: &str| parse(line.split_whitespace().map(OsString::from));
        assert_eq!(parse("-V"), Ok(Request::Version));
        assert_eq!(parse("-nl"), Ok(Request::List));
        assert_eq!(parse("-v"), Ok(Request::Nothing));
        assert_eq!(parse("-n"), Err(UsageError::NoCommand));
        assert_eq!(parse("-u"), Err(UsageError::NoArgument("u".into())));
        assert_eq!(parse("--wrong"), Err(UsageError::Unknown("wrong".into())));
        assert_eq!(parse("-e f"), Err(UsageError::Edit));
    }

    proptest! {
        #[test]
        fn any_arguments_are_understood_or_refused(arguments in prop::collection::vec(".{0,6}", 0..6)) {
            let _ = parse(arguments.into_iter().map(OsString::from));
        }
    }
}
