//! How the end of a process is told.

use sandbar_wire::envd::process::EndEvent;

use crate::reaper::Exit;

/// The end event of a process, in the words of Go's `os.ProcessState`, which clients show to people.
pub(super) fn end_event(exit: Exit) -> EndEvent {
    match exit {
        Exit::Code(code) => {
            let status = format!("exit status {code}");
            EndEvent { exit_code: code, exited: true, error: (code != 0).then(|| status.clone()), status }
        }
        Exit::Signal { signal, core_dumped } => {
            let mut status = match name(signal) {
                Some(name) => format!("signal: {name}"),
                None => format!("signal: signal {signal}"),
            };
            if core_dumped {
                status.push_str(" (core dumped)");
            }
            EndEvent { exit_code: -1, exited: false, error: Some(status.clone()), status }
        }
    }
}

/// Source: golang/go src/syscall/zerrors_linux_amd64.go.
fn name(signal: i32) -> Option<&'static str> {
    Some(match signal {
        libc::SIGHUP => "hangup",
        libc::SIGINT => "interrupt",
        libc::SIGQUIT => "quit",
        libc::SIGILL => "illegal instruction",
        libc::SIGTRAP => "trace/breakpoint trap",
        libc::SIGABRT => "aborted",
        libc::SIGBUS => "bus error",
        libc::SIGFPE => "floating point exception",
        libc::SIGKILL => "killed",
        libc::SIGUSR1 => "user defined signal 1",
        libc::SIGSEGV => "segmentation fault",
        libc::SIGUSR2 => "user defined signal 2",
        libc::SIGPIPE => "broken pipe",
        libc::SIGALRM => "alarm clock",
        libc::SIGTERM => "terminated",
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn success_has_no_error_text() {
        let end = end_event(Exit::Code(0));
        assert_eq!((end.exited, end.status.as_str(), end.error), (true, "exit status 0", None));
    }

    #[test]
    fn a_signal_is_minus_one_and_not_exited() {
        let end = end_event(Exit::Signal { signal: libc::SIGKILL, core_dumped: false });
        assert_eq!((end.exit_code, end.exited, end.status.as_str()), (-1, false, "signal: killed"));
        let end = end_event(Exit::Signal { signal: libc::SIGABRT, core_dumped: true });
        assert_eq!(end.status, "signal: aborted (core dumped)");
    }
}
