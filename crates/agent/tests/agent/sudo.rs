//! `sudo` in a guest whose kernel honours no setuid bit.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::client::{Events, Finished};
use crate::guest::{Guest, wait_for};

/// A shell on a terminal, as `user`.
fn terminal(guest: &Guest) -> (Events, u64) {
    let mut events = guest.start_with(
        &[],
        json!({
            "process": {"cmd": "/bin/bash", "args": ["--norc", "-i"], "envs": {"PS1": "ready> ", "TERM": "dumb"}},
            "pty": {"size": {"cols": 100, "rows": 30}},
        }),
    );
    let pid = events.pid();
    events.wait_output("ready> ");
    (events, pid)
}

fn type_text(guest: &Guest, pid: u64, text: &str) {
    let input = json!({"process": {"pid": pid}, "input": {"pty": STANDARD.encode(text)}});
    assert_eq!(guest.process("SendInput", input).status, 200);
}

fn ran(guest: &Guest, user: &str, script: &str) -> Finished {
    guest.shell_as(user, script).finish()
}

#[test]
fn a_member_of_the_group_becomes_root() {
    let guest = Guest::start();
    assert_eq!(
        guest.run("sudo id -un; sudo id -G; sudo -u helper id -un; sudo -g extra id -gn"),
        "root\n0\nhelper\nextra\n"
    );
    assert_eq!(guest.run_as("helper", "sudo id -u"), "0\n");
    assert_eq!(guest.run_as("root", "sudo -u user id -un; sudo id -un"), "user\nroot\n");
}

#[test]
fn anybody_else_is_refused() {
    let guest = Guest::start();
    let refused = ran(&guest, "stranger", "sudo id");
    assert_eq!((refused.exit_code(), refused.stdout().as_str()), (1, ""));
    assert_eq!(refused.stderr(), "sudo: stranger is not in the sudoers file.\n");
}

#[test]
fn exit_codes_and_signals_are_the_commands_own() {
    let guest = Guest::start();
    assert_eq!(ran(&guest, "user", "sudo sh -c 'exit 7'").exit_code(), 7);
    let killed = ran(&guest, "user", "exec sudo sh -c 'kill -TERM $$'");
    assert_eq!(killed.end()["status"], "signal: terminated");
    let missing = ran(&guest, "user", "sudo no-such-command");
    assert_eq!(
        (missing.exit_code(), missing.stderr().as_str()),
        (1, "sudo: no-such-command: command not found\n")
    );
}

#[test]
fn standard_streams_are_the_callers_own() {
    let guest = Guest::start();
    assert_eq!(
        guest.run("echo in | sudo tr a-z A-Z | sudo cat; sudo sh -c 'echo err >&2' 2>&1"),
        "IN\nerr\n"
    );
    guest.run("head -c 3000000 /dev/zero | sudo cat > /tmp/zeros; test $(stat -c %s /tmp/zeros) = 3000000; sudo rm /tmp/zeros");
}

#[test]
fn directory_umask_and_variables_follow_the_caller() {
    let guest = Guest::start();
    assert_eq!(guest.run("cd /tmp; umask 077; sudo sh -c 'pwd; umask'"), "/tmp\n0077\n");
    let script = "export FOO=1; sudo sh -c 'echo $FOO,$HOME,$USER,$SUDO_USER,$SUDO_UID,$SUDO_GID'; \
                  sudo -E sh -c 'echo $FOO'; sudo --preserve-env=FOO sh -c 'echo $FOO'; sudo FOO=2 sh -c 'echo $FOO'";
    assert_eq!(guest.run(script), ",/root,root,user,1000,1000\n1\n1\n2\n");
    assert_eq!(
        guest.run("sudo -i pwd; sudo -i sh -c 'echo \"$0 a  b\"'; sudo -s 'echo' 'x y'"),
        "/root\n-bash a  b\nx y\n"
    );
    assert_eq!(
        guest.run("sudo -V | head -1; sudo -v && sudo -n true && sudo -k && echo ok").lines().last(),
        Some("ok")
    );
}

#[test]
fn a_signal_to_sudo_reaches_the_command() {
    let guest = Guest::start();
    let script = "sudo bash -c 'trap \"echo got; exit 3\" TERM; echo up; while :; do sleep 0.01; done' > /tmp/out & \
                  until grep -q up /tmp/out; do sleep 0.01; done; kill -TERM $!; wait $!; echo $?; cat /tmp/out";
    assert_eq!(guest.run(script), "3\nup\ngot\n");
}

#[test]
fn a_killed_sudo_takes_its_command_along() {
    let guest = Guest::start();
    guest.run(
        "sudo bash -c 'echo $$ > /tmp/pid; exec sleep 1000' & until test -s /tmp/pid; do sleep 0.01; done; kill -KILL $!; \
         while test -e /proc/$(cat /tmp/pid); do sleep 0.01; done",
    );
}

#[test]
fn a_background_command_outlives_sudo() {
    let guest = Guest::start();
    guest.run("sudo -b sh -c 'sleep 0.3; echo done > /tmp/late'");
    wait_for("the background command", || {
        (guest.run("cat /tmp/late 2>/dev/null || true") == "done\n").then_some(())
    });
}

#[test]
fn a_terminal_is_relayed_with_its_window() {
    let guest = Guest::start();
    let (mut events, pid) = terminal(&guest);
    type_text(&guest, pid, "sudo bash --norc\n");
    events.wait_output("# ");
    type_text(&guest, pid, "stty size; id -un; sleep 0 & wait; echo -\n");
    events.wait_output("30 100\r\n");
    events.wait_output("root\r\n");
    type_text(&guest, pid, "exit 5\n");
    events.wait_output("ready> ");
    type_text(&guest, pid, "echo code=$?\n");
    events.wait_output("code=5\r\n");
}

#[test]
fn the_interrupt_key_ends_the_command_and_not_the_shell() {
    let guest = Guest::start();
    let (mut events, pid) = terminal(&guest);
    type_text(&guest, pid, "sudo sh -c 'echo up; exec sleep 1000'; echo code=$?\n");
    events.wait_output("up\r\n");
    type_text(&guest, pid, "\x03");
    events.wait_output("ready> ");
    type_text(&guest, pid, "echo still here\n");
    events.wait_output("still here\r\n");
}

#[test]
fn the_suspend_key_stops_the_job_and_fg_continues_it() {
    let guest = Guest::start();
    let (mut events, pid) = terminal(&guest);
    type_text(&guest, pid, "sudo sh -c 'echo up; read x; echo got-$x'\n");
    events.wait_output("up\r\n");
    type_text(&guest, pid, "\x1a");
    events.wait_output("Stopped");
    events.wait_output("ready> ");
    type_text(&guest, pid, "fg\n");
    events.wait_output("sudo sh -c");
    type_text(&guest, pid, "line\n");
    events.wait_output("got-line");
    events.wait_output("ready> ");
}

#[test]
fn a_resized_window_is_resized_for_the_command() {
    let guest = Guest::start();
    let (mut events, pid) = terminal(&guest);
    type_text(
        &guest,
        pid,
        "sudo bash -c 'trap \"stty size; exit\" WINCH; stty size; while :; do sleep 0.01; done'\n",
    );
    events.wait_output("30 100\r\n");
    let size = json!({"process": {"pid": pid}, "pty": {"size": {"cols": 90, "rows": 20}}});
    assert_eq!(guest.process("Update", size).status, 200);
    events.wait_output("20 90\r\n");
}

#[test]
fn a_pipe_beside_a_terminal_stays_a_pipe() {
    let guest = Guest::start();
    let (mut events, pid) = terminal(&guest);
    type_text(
        &guest,
        pid,
        "echo abc | sudo tr a-z A-Z | cat; sudo sh -c 'test -t 0 && test ! -t 1 && echo t' | cat\n",
    );
    events.wait_output("ABC\r\n");
    events.wait_output("t\r\n");
}
