//! Watching directories.

use serde_json::{Value, json};

use crate::client::Events;
use crate::guest::Guest;

const RAW: (&str, &str) = ("content-type", "application/octet-stream");

fn create(guest: &Guest, request: Value) -> String {
    let answer = guest.filesystem("CreateWatcher", request);
    assert_eq!(answer.status, 200, "{answer:?}");
    let id = answer.json()["watcherId"].as_str().unwrap().to_owned();
    assert!(id.len() == 21 && id.starts_with('w'));
    id
}

fn take(guest: &Guest, id: &str) -> Vec<Value> {
    let answer = guest.filesystem("GetWatcherEvents", json!({"watcherId": id}));
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["events"].as_array().cloned().unwrap_or_default()
}

/// Events as `KIND name`.
fn told(guest: &Guest, id: &str) -> Vec<String> {
    take(guest, id).iter().map(short).collect()
}

fn short(event: &Value) -> String {
    let kind = event["type"].as_str().unwrap().trim_start_matches("EVENT_TYPE_");
    format!("{kind} {}", event["name"].as_str().unwrap())
}

fn upload(guest: &Guest, path: &str, content: &[u8]) {
    assert_eq!(guest.post(&format!("/files?path={path}"), &[RAW], content).status, 200);
}

/// Cases 80 and 81.
#[test]
fn an_upload_is_exactly_three_events_and_they_are_there_at_once() {
    let guest = Guest::start();
    let id = create(&guest, json!({"path": "demo"}));
    upload(&guest, "demo/f", b"12345");
    assert_eq!(told(&guest, &id), ["CREATE f", "CHMOD f", "WRITE f"]);
    assert!(told(&guest, &id).is_empty());
    upload(&guest, "demo/empty", b"");
    assert_eq!(told(&guest, &id), ["CREATE empty", "CHMOD empty"]);
    let with_metadata = guest.post("/files?path=demo/m", &[RAW, ("x-metadata-a", "1")], b"x");
    assert_eq!(with_metadata.status, 200);
    assert_eq!(told(&guest, &id), ["CREATE m", "CHMOD m", "WRITE m", "CHMOD m"]);
    assert_eq!(guest.filesystem("RemoveWatcher", json!({"watcherId": id})).status, 200);
    let gone = guest.filesystem("GetWatcherEvents", json!({"watcherId": id}));
    assert_eq!(gone.error(), (404, "not_found".into()));
    assert_eq!(guest.filesystem("RemoveWatcher", json!({"watcherId": id})).status, 404);
}

/// Cases 82 and 83.
#[test]
fn a_tree_is_watched_as_it_grows() {
    let guest = Guest::start();
    let id = create(&guest, json!({"path": "demo", "recursive": true}));
    assert_eq!(guest.filesystem("MakeDir", json!({"path": "demo/n"})).status, 200);
    upload(&guest, "demo/n/f", b"x");
    let events = told(&guest, &id);
    assert!(events.contains(&"CREATE n".into()) && events.contains(&"WRITE n/f".into()), "{events:?}");
    guest.run("cd ~/demo; mkdir -p x/y/z && echo 1 > x/y/z/f");
    let events = told(&guest, &id);
    for name in ["x", "x/y", "x/y/z", "x/y/z/f"] {
        assert_eq!(
            events.iter().filter(|event| **event == format!("CREATE {name}")).count(),
            1,
            "{events:?}"
        );
    }
}

/// Case 84.
#[test]
fn renames_and_removals_are_told() {
    let guest = Guest::start();
    guest.run("touch ~/demo/f");
    let id = create(&guest, json!({"path": "demo"}));
    let moved = json!({"source": "demo/f", "destination": "demo/g"});
    assert_eq!(guest.filesystem("Move", moved).status, 200);
    assert_eq!(guest.filesystem("Remove", json!({"path": "demo/g"})).status, 200);
    assert_eq!(told(&guest, &id), ["RENAME f", "CREATE g", "REMOVE g"]);
}

/// Case 85.
#[test]
fn entries_are_attached_to_what_still_exists() {
    let guest = Guest::start();
    upload(&guest, "demo/f", b"old");
    let id = create(&guest, json!({"path": "demo", "includeEntry": true}));
    assert_eq!(guest.filesystem("Remove", json!({"path": "demo/f"})).status, 200);
    let events = take(&guest, &id);
    assert_eq!((events.len(), &events[0]["entry"]), (1, &Value::Null));
    upload(&guest, "demo/f", b"newer");
    let events = take(&guest, &id);
    assert!(events.iter().all(|event| event["entry"]["path"] == "/home/user/demo/f"), "{events:?}");
    assert_eq!(events.last().unwrap()["entry"]["size"], "5");
}

/// Case 86, without the file systems that a test cannot mount.
#[test]
fn only_directories_can_be_watched() {
    let guest = Guest::start();
    let refused = |path: &str| guest.filesystem("CreateWatcher", json!({"path": path})).error().1;
    assert_eq!(refused("gone"), "not_found");
    assert_eq!(refused(".bashrc"), "invalid_argument");
    let stream = Events::open(guest.port, "/filesystem.Filesystem/WatchDir", &[], &json!({"path": "gone"}));
    assert_eq!(stream.finish().error_code(), "not_found");
}

/// Case 87.
#[test]
fn a_stream_starts_when_it_is_armed_and_ends_at_its_deadline() {
    let guest = Guest::start();
    let headers = [("connect-timeout-ms", "3000"), ("keepalive-ping-interval", "1")];
    let mut stream = Events::open(
        guest.port,
        "/filesystem.Filesystem/WatchDir",
        &headers,
        &json!({"path": "demo", "recursive": true}),
    );
    assert_eq!(stream.next(), json!({"start": {}}));
    upload(&guest, "demo/a/f", b"x");
    let mut seen = Vec::new();
    while !seen.contains(&"WRITE a/f".to_owned()) && !seen.contains(&"CREATE a/f".to_owned()) {
        let message = stream.next();
        seen.push(short(&message["filesystem"]));
    }
    let rest = stream.finish();
    assert!(rest.messages.contains(&json!({"keepalive": {}})), "{rest:?}");
    assert_eq!(rest.error_code(), "deadline_exceeded");
}
