//! `process.Process`.

use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sandbar_wire::envd::envelope::frame;
use serde_json::{Value, json};

use crate::client::{Events, Exchange};
use crate::guest::{Guest, wait_for};

/// A program with open input.
fn with_input(guest: &Guest, script: &str) -> (Events, u64) {
    let mut events = guest.start_with(&[], json!({"process": {"cmd": "/bin/bash", "args": ["-c", script]}}));
    let pid = events.pid();
    (events, pid)
}

fn send(guest: &Guest, pid: u64, channel: &str, text: &str) -> crate::client::Answer {
    let mut input = serde_json::Map::new();
    input.insert(channel.into(), json!(STANDARD.encode(text)));
    guest.process("SendInput", json!({"process": {"pid": pid}, "input": input}))
}

fn terminal(guest: &Guest, cols: u32, rows: u32) -> (Events, u64) {
    let mut events = guest.start_with(
        &[],
        json!({
            "process": {"cmd": "/bin/bash", "args": ["--norc", "-i"], "envs": {"PS1": "ready> ", "TERM": "dumb"}},
            "pty": {"size": {"cols": cols, "rows": rows}},
        }),
    );
    let pid = events.pid();
    events.wait_output("ready> ");
    (events, pid)
}

fn of_pid(pid: u64) -> Value {
    json!({"process": {"pid": pid}})
}

/// Cases 29 to 31.
#[test]
fn the_end_says_how_it_ended() {
    let guest = Guest::start();
    let want = json!({"exitCode": 7, "exited": true, "status": "exit status 7", "error": "exit status 7"});
    assert_eq!(guest.shell("exit 7").finish().end(), &want);
    assert_eq!(guest.shell("true").finish().end(), &json!({"exited": true, "status": "exit status 0"}));
    let want = json!({"exitCode": -1, "status": "signal: killed", "error": "signal: killed"});
    assert_eq!(guest.shell("kill -9 $$").finish().end(), &want);
}

/// Case 32.
#[test]
fn an_unknown_command_is_a_process_that_fails() {
    let guest = Guest::start();
    let start = |cmd: &str| guest.start_with(&[], json!({"process": {"cmd": cmd}, "stdin": false})).finish();
    let ran = start("no-such-bin");
    assert_eq!((ran.exit_code(), ran.error_code()), (127, ""));
    assert!(ran.stderr().contains("no-such-bin"));
    assert_eq!(start("/etc/passwd").exit_code(), 126);
    guest.run("printf 'echo from $0' > /tmp/script; chmod +x /tmp/script");
    assert_eq!(start("/tmp/script").stdout(), "from /tmp/script\n");
}

/// Cases 33 and 34.
#[test]
fn a_directory_that_cannot_be_entered_is_refused() {
    let guest = Guest::start();
    guest.run_root("mkdir -m 700 /root/closed /tmp/closed");
    let start = |cwd: &str| {
        guest.start_with(&[], json!({"process": {"cmd": "pwd", "cwd": cwd}, "stdin": false})).finish()
    };
    let ran = start("/nope");
    assert_eq!(ran.error_code(), "invalid_argument");
    assert!(ran.error_message().contains("cwd '/nope' does not exist"));
    for cwd in ["/tmp/closed", "/etc/passwd", "~root"] {
        assert_eq!(start(cwd).error_code(), "invalid_argument", "{cwd}");
    }
    assert!(guest.listed().is_empty());
}

/// Cases 35 to 37.
#[test]
fn the_directory_is_the_default_one_only_when_none_is_named() {
    let guest = Guest::start();
    guest.run_root("mkdir /tmp/app; mkdir /home/user/proj");
    assert_eq!(guest.init(&json!({"defaultWorkdir": "/tmp/app"})).status, 204);
    let pwd = |cwd: Value| {
        guest
            .start_with(&[], json!({"process": {"cmd": "pwd", "cwd": cwd}, "stdin": false}))
            .finish()
            .stdout()
    };
    assert_eq!(pwd(Value::Null), "/tmp/app\n");
    assert_eq!(pwd(json!("")), "/tmp/app\n");
    assert_eq!(pwd(json!("proj")), "/home/user/proj\n");
    let root = crate::client::basic("root");
    let ran = guest.start_with(
        &[("authorization", &root)],
        json!({"process": {"cmd": "pwd", "cwd": "~"}, "stdin": false}),
    );
    assert_eq!(ran.finish().stdout(), "/root\n");
}

/// Cases 38 to 40.
#[test]
fn variables_of_the_request_win_over_those_of_the_guest() {
    let guest = Guest::hosted();
    let init = |envs: Value| {
        assert_eq!(guest.init_as_host(&json!({"defaultUser": "user", "envVars": envs})).status, 204)
    };
    let echo = |envs: Value| {
        let request = json!({"process": {"cmd": "sh", "args": ["-c", "echo $FOO,$E2B_SANDBOX,$HOME,$USER"], "envs": envs}, "stdin": false});
        guest.start_with(&[], request).finish().stdout()
    };
    init(json!({"FOO": "g", "E2B_SANDBOX": "x"}));
    assert_eq!(echo(json!({})), "g,true,/home/user,user\n");
    assert_eq!(echo(json!({"FOO": "c", "E2B_SANDBOX": "mine"})), "c,mine,/home/user,user\n");
    assert_eq!(echo(json!({})), "g,true,/home/user,user\n");
    init(json!({"BAR": "1"}));
    assert_eq!(echo(json!({})), ",true,/home/user,user\n");
}

#[test]
fn nothing_of_the_agents_own_environment_is_seen() {
    let guest = Guest::start();
    let request = json!({"process": {"cmd": "env"}, "stdin": false});
    let output = guest.start_with(&[], request).finish().stdout();
    let mut keys: Vec<_> = output.lines().map(|line| line.split('=').next().unwrap()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["E2B_SANDBOX", "HOME", "LOGNAME", "PATH", "USER"]);
}

/// Cases 41 to 45.
#[test]
fn input_is_written_closed_and_refused() {
    let guest = Guest::start();
    let ran = guest.shell("cat").finish();
    assert_eq!((ran.exit_code(), ran.stdout().as_str()), (0, ""));
    assert_eq!(guest.shell("read x").finish().exit_code(), 1);

    let (events, pid) = with_input(&guest, "cat");
    assert_eq!(send(&guest, pid, "stdin", "x").status, 200);
    assert_eq!(send(&guest, pid, "stdin", "").status, 200);
    assert_eq!(guest.process("CloseStdin", of_pid(pid)).status, 200);
    let again = guest.process("CloseStdin", of_pid(pid));
    assert!(again.status == 200 || again.status == 404, "{again:?}");
    let ran = events.finish();
    assert_eq!((ran.exit_code(), ran.stdout().as_str()), (0, "x"));
    assert_eq!(send(&guest, pid, "stdin", "x").error(), (404, "not_found".into()));

    let mut events = guest.shell("sleep 100");
    let pid = events.pid();
    assert_eq!(send(&guest, pid, "stdin", "x").error(), (500, "internal".into()));
    assert_eq!(send(&guest, pid, "pty", "x").error(), (500, "internal".into()));
    assert_eq!(guest.process("CloseStdin", of_pid(pid)).status, 200);
    assert_eq!(guest.process("CloseStdin", of_pid(pid)).status, 200);
    let nothing = guest.process("SendInput", json!({"process": {"pid": pid}, "input": {}}));
    assert_eq!(nothing.error(), (501, "unimplemented".into()));
}

#[test]
fn a_large_input_waits_for_its_reader() {
    let guest = Guest::start();
    let (events, pid) = with_input(&guest, "wc -c");
    for _ in 0..4 {
        assert_eq!(send(&guest, pid, "stdin", &"x".repeat(700_000)).status, 200);
    }
    assert_eq!(guest.process("CloseStdin", of_pid(pid)).status, 200);
    assert_eq!(events.finish().stdout(), "2800000\n");
}

#[test]
fn streamed_input_arrives_message_by_message() {
    let guest = Guest::start();
    let (mut events, pid) = with_input(&guest, "while read x; do echo got-$x; done");
    let headers = [("content-type", "application/connect+json"), ("connect-timeout-ms", "60000")];
    let mut stream = Exchange::begin(guest.port, "POST", "/process.Process/StreamInput", &headers, None);
    let message = |message: Value| frame(0, message.to_string().as_bytes());
    stream.send_chunk(&message(json!({"start": {"process": {"pid": pid}}})));
    for word in ["one", "two"] {
        let data = json!({"data": {"input": {"stdin": STANDARD.encode(format!("{word}\n"))}}});
        stream.send_chunk(&message(data));
        events.wait_output(&format!("got-{word}\n"));
        stream.send_chunk(&message(json!({"keepalive": {}})));
    }
    stream.send_chunk(b"");
    let ended = Events::of(stream).finish();
    assert_eq!((ended.messages.as_slice(), &ended.end_of_stream), (&[json!({})][..], &json!({})));
}

#[test]
fn streamed_input_fails_while_it_is_still_being_sent() {
    let guest = Guest::start();
    let headers = [("content-type", "application/connect+json")];
    let failed = |first: Value| {
        let mut stream = Exchange::begin(guest.port, "POST", "/process.Process/StreamInput", &headers, None);
        stream.send_chunk(&frame(0, first.to_string().as_bytes()));
        Events::of(stream).finish().error_code().to_owned()
    };
    assert_eq!(failed(json!({"start": {"process": {"pid": 999_999}}})), "not_found");
    assert_eq!(failed(json!({"data": {"input": {"stdin": "eA=="}}})), "invalid_argument");
}

/// Cases 46 to 48.
#[test]
fn a_terminal_has_a_window_and_its_own_input() {
    let guest = Guest::start();
    let (mut events, pid) = terminal(&guest, 80, 24);
    send(&guest, pid, "pty", "stty size\n");
    events.wait_output("24 80\r\n");
    let size = json!({"process": {"pid": pid}, "pty": {"size": {"cols": 100, "rows": 30}}});
    assert_eq!(guest.process("Update", size.clone()).status, 200);
    send(&guest, pid, "pty", "stty size\n");
    events.wait_output("30 100\r\n");
    assert_eq!(guest.process("Update", of_pid(pid)).status, 200);

    assert_eq!(send(&guest, pid, "stdin", "x").error(), (500, "internal".into()));
    assert_eq!(guest.process("CloseStdin", of_pid(pid)).error(), (500, "unknown".into()));
    let mut other = guest.shell("sleep 100");
    let mut size = size;
    size["process"]["pid"] = json!(other.pid());
    assert_eq!(guest.process("Update", size).error(), (500, "internal".into()));

    send(&guest, pid, "pty", "exit\n");
    let ran = events.finish();
    assert_eq!((ran.exit_code(), ran.output("stdout").len(), ran.output("stderr").len()), (0, 0, 0));
}

#[test]
fn a_terminal_controls_its_jobs() {
    let guest = Guest::start();
    let (mut events, pid) = terminal(&guest, 80, 24);
    send(&guest, pid, "pty", "echo before; sleep 1000\n");
    events.wait_output("before\r\n");
    wait_for("sleep", || guest.run("pgrep -x sleep || true").lines().next().map(drop));
    send(&guest, pid, "pty", "\x03");
    events.wait_output("ready> ");
    send(&guest, pid, "pty", "tty; echo code=$?\n");
    events.wait_output("/dev/pts/");
    events.wait_output("code=0\r\n");
}

/// Case 49.
#[test]
fn everybody_connected_gets_the_same_from_then_on() {
    let guest = Guest::start();
    let (mut events, pid) = with_input(&guest, "echo early; read x; echo late; read x");
    events.wait_output("early\n");
    let (mut a, mut b) = (guest.connect(pid), guest.connect(pid));
    assert_eq!((a.pid(), b.pid()), (pid, pid));
    send(&guest, pid, "stdin", "\n");
    for listener in [&mut a, &mut b, &mut events] {
        assert_eq!(listener.wait_output("late\n"), "");
    }
    send(&guest, pid, "stdin", "\n");
    for listener in [a, b, events] {
        assert_eq!(listener.finish().exit_code(), 0);
    }
}

/// Case 50.
#[test]
fn a_process_without_listeners_goes_on() {
    let guest = Guest::start();
    let mut events = guest.shell("for i in $(seq 1 100000); do echo $i; done; touch /tmp/done");
    let pid = events.pid();
    drop(events);
    wait_for("the process", || (!guest.listed().contains(&pid)).then_some(()));
    guest.run("test -e /tmp/done");
}

#[test]
fn a_stalled_listener_that_leaves_holds_nobody_up() {
    let guest = Guest::start();
    let (mut events, pid) = with_input(&guest, "read x; head -c 30000000 /dev/zero; echo end");
    let mut stalled = guest.connect(pid);
    assert_eq!(stalled.pid(), pid);
    send(&guest, pid, "stdin", "\n");
    events.next();
    drop(stalled);
    let ran = events.finish();
    assert!(ran.output("stdout").ends_with(b"end\n"));
}

/// Case 51, without the wait for the retention to end (which the table's own tests cover).
#[test]
fn an_end_is_kept_for_those_who_come_late() {
    let guest = Guest::start();
    let mut events = guest.start_with(
        &[],
        json!({"process": {"cmd": "sh", "args": ["-c", "exit 5"]}, "tag": "t", "stdin": false}),
    );
    let pid = events.pid();
    events.finish();
    let late = guest.connect(pid).finish();
    assert_eq!(late.messages[0], json!({"event": {"start": {"pid": pid}}}));
    assert_eq!((late.messages.len(), late.exit_code()), (2, 5));
    let by_tag = Events::open(guest.port, "/process.Process/Connect", &[], &json!({"process": {"tag": "t"}}));
    assert_eq!(by_tag.finish().exit_code(), 5);
    assert_eq!(
        guest.process("SendSignal", json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"})).status,
        404
    );
    assert_eq!(guest.connect(999_999).finish().error_code(), "not_found");
}

/// Case 52.
#[test]
fn a_killed_process_is_gone_from_the_list_when_its_end_is_told() {
    let guest = Guest::start();
    let mut events = guest.shell("exec sleep 100");
    let pid = events.pid();
    assert!(guest.listed().contains(&pid));
    let signal = json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"});
    assert_eq!(guest.process("SendSignal", signal).status, 200);
    let end = events.next();
    assert_eq!(end["event"]["end"]["exitCode"], -1);
    assert!(!guest.listed().contains(&pid));
}

#[test]
fn a_terminated_process_may_say_goodbye() {
    let guest = Guest::start();
    let mut events = guest.shell("trap 'echo bye; exit 4' TERM; echo up; while :; do sleep 0.01; done");
    let pid = events.pid();
    events.wait_output("up\n");
    let signal = json!({"process": {"pid": pid}, "signal": 15});
    assert_eq!(guest.process("SendSignal", signal).status, 200);
    let ran = events.finish();
    assert_eq!((ran.exit_code(), ran.stdout().as_str()), (4, "bye\n"));
}

/// Case 53.
#[test]
fn signals_need_a_process_and_a_name() {
    let guest = Guest::start();
    let signal = |request: Value| guest.process("SendSignal", request).error();
    assert_eq!(
        signal(json!({"process": {"pid": 999_999}, "signal": "SIGNAL_SIGKILL"})),
        (404, "not_found".into())
    );
    let mut events = guest.shell("sleep 100");
    let pid = events.pid();
    assert_eq!(signal(of_pid(pid)), (501, "unimplemented".into()));
    assert_eq!(signal(json!({"process": {"pid": pid}, "signal": 3})), (501, "unimplemented".into()));
    assert_eq!(signal(json!({"signal": "SIGNAL_SIGKILL"})), (501, "unimplemented".into()));
}

/// Cases 54 to 56.
#[test]
fn the_end_waits_for_whoever_holds_the_output_open() {
    let guest = Guest::start();
    let script = "mkfifo /tmp/hold; cat /tmp/hold & echo a";
    let mut events = guest.shell(script);
    let pid = events.pid();
    events.wait_output("a\n");
    assert!(guest.listed().contains(&pid));
    guest.run("echo b > /tmp/hold; rm /tmp/hold");
    let ran = events.finish();
    assert_eq!((ran.stdout().as_str(), ran.exit_code()), ("b\n", 0));

    assert_eq!(guest.shell("sleep 1000 > /dev/null 2>&1 & echo a").finish().stdout(), "a\n");
    guest.run("pgrep -x sleep");

    let mut events = guest.shell("sleep 1000 & echo a; exit 6");
    let pid = events.pid();
    events.wait_output("a\n");
    wait_for("the shell to exit", || {
        guest.run(&format!("test -e /proc/{pid} && echo there || true")).is_empty().then_some(())
    });
    let signal = json!({"process": {"pid": pid}, "signal": "SIGNAL_SIGKILL"});
    assert_eq!(guest.process("SendSignal", signal).status, 200);
    assert_eq!(events.finish().exit_code(), 6);
}

/// Case 57.
#[test]
fn at_its_deadline_a_process_is_killed() {
    let guest = Guest::start();
    let request = json!({"process": {"cmd": "sleep", "args": ["100"]}, "stdin": false});
    let started = Instant::now();
    let mut events = guest.start_with(&[("connect-timeout-ms", "700")], request);
    let pid = events.pid();
    let ended = events.finish();
    assert_eq!(ended.error_code(), "deadline_exceeded");
    assert!(started.elapsed() >= Duration::from_millis(700));
    wait_for("the process to end", || (!guest.listed().contains(&pid)).then_some(()));
}

/// Case 58.
#[test]
fn a_deadline_holds_without_a_listener() {
    let guest = Guest::start();
    let request = json!({"process": {"cmd": "sleep", "args": ["100"]}, "stdin": false});
    let started = Instant::now();
    let mut events = guest.start_with(&[("connect-timeout-ms", "700")], request);
    let pid = events.pid();
    drop(events);
    wait_for("the process to end", || (!guest.listed().contains(&pid)).then_some(()));
    assert!(started.elapsed() >= Duration::from_millis(700));
}

/// Case 59.
#[test]
fn the_deadline_of_a_connection_is_only_its_own() {
    let guest = Guest::start();
    let mut events = guest.shell("sleep 100");
    let pid = events.pid();
    let request = json!({"process": {"pid": pid}});
    let connected =
        Events::open(guest.port, "/process.Process/Connect", &[("connect-timeout-ms", "300")], &request);
    assert_eq!(connected.finish().error_code(), "deadline_exceeded");
    assert!(guest.listed().contains(&pid));
}

/// Case 60.
#[test]
fn silence_is_filled_with_keepalives() {
    let guest = Guest::start();
    for interval in ["1", "0"] {
        let mut events = guest.start_with(
            &[("keepalive-ping-interval", interval)],
            json!({"process": {"cmd": "sleep", "args": ["100"]}, "stdin": false}),
        );
        events.pid();
        for _ in 0..2 {
            assert_eq!(events.next(), json!({"event": {"keepalive": {}}}));
        }
    }
}

/// Cases 61 and 62.
#[test]
fn output_is_complete_unchanged_and_in_pieces() {
    let guest = Guest::start();
    let ran = guest.shell("head -c 8191 /dev/zero | tr '\\0' a; printf '\\342'").finish();
    let output = ran.output("stdout");
    assert_eq!((output.len(), output[8190], output[8191]), (8192, b'a', 0xe2));
    let ran = guest.shell("head -c 10000000 /dev/zero; head -c 1000000 /dev/zero >&2").finish();
    assert_eq!((ran.output("stdout").len(), ran.output("stderr").len()), (10_000_000, 1_000_000));
    let longest = ran.messages.iter().filter_map(|message| message["event"]["data"]["stdout"].as_str());
    assert!(longest.map(|piece| STANDARD.decode(piece).unwrap().len()).max().unwrap() <= 32 * 1024);
}

/// Cases 63 to 65.
#[test]
fn processes_have_priorities_groups_and_default_signals() {
    let guest = Guest::start();
    assert_eq!(guest.run("cat /proc/self/oom_score_adj; nice; umask"), "100\n0\n0022\n");
    assert_eq!(guest.run("id -G"), "1000 27 1010\n");
    assert_eq!(guest.run_as("root", "id -G"), "0\n");
    assert_eq!(guest.run("yes | head -1"), "y\n");
    assert_eq!(
        guest.run("grep -E 'Sig(Ign|Blk)' /proc/self/status | tr -d '\\t'"),
        "SigBlk:0000000000000000\nSigIgn:0000000000000000\n"
    );
    let request = json!({"process": {"cmd": "ls", "args": ["/proc/self/fd"]}, "stdin": false});
    assert_eq!(guest.start_with(&[], request).finish().stdout(), "0\n1\n2\n3\n");
}

/// Case 66.
#[test]
fn a_tag_names_the_newest_process_that_has_it() {
    let guest = Guest::start();
    let start = |tag: &str| {
        let mut events = guest.start_with(
            &[],
            json!({"process": {"cmd": "sleep", "args": ["100"]}, "tag": tag, "stdin": false}),
        );
        (events.pid(), events)
    };
    let started = [start("a"), start("b"), start("b")];
    let mut connected =
        Events::open(guest.port, "/process.Process/Connect", &[], &json!({"process": {"tag": "b"}}));
    assert_eq!(connected.pid(), started[2].0);
    let listed = guest.process("List", json!({})).json();
    let own = listed["processes"]
        .as_array()
        .unwrap()
        .iter()
        .find(|process| process["pid"] == started[0].0)
        .unwrap();
    assert_eq!(own["tag"], "a");
    assert_eq!(own["config"], json!({"cmd": "sleep", "args": ["100"]}));
}

#[test]
fn orphans_are_reaped_and_children_keep_their_status() {
    let guest = Guest::start();
    // Each shell leaves an orphan that ends by itself and exits with its own code.
    for code in 0..20 {
        let ran = guest.shell(&format!("(sleep 0.01 > /dev/null 2>&1 &); exit {code}")).finish();
        assert_eq!(ran.exit_code(), code);
    }
    wait_for("orphans to be reaped", || {
        (guest.run("ps -eo stat= | grep -c '^Z' || true") == "0\n").then_some(())
    });
}

#[test]
fn twenty_at_once_each_get_their_own_output() {
    let guest = Guest::start();
    std::thread::scope(|scope| {
        for number in 0..20 {
            let guest = &guest;
            scope.spawn(move || assert_eq!(guest.run(&format!("echo {number}")), format!("{number}\n")));
        }
    });
}

#[test]
fn everything_ends_with_the_agent_and_may_say_goodbye() {
    let mut guest = Guest::start();
    let note = guest.shared_directory().join("note");
    let script =
        format!("trap 'echo bye > {}; exit' TERM; echo up; while :; do sleep 0.01; done", note.display());
    let mut events = guest.shell_as("root", &script);
    events.wait_output("up\n");
    guest.terminate();
    assert_eq!(std::fs::read_to_string(note).unwrap(), "bye\n");
}
