//! `filesystem.Filesystem`, unary.

use serde_json::{Value, json};

use crate::client::basic;
use crate::guest::Guest;

fn stat(guest: &Guest, path: &str) -> Value {
    let answer = guest.filesystem("Stat", json!({"path": path}));
    assert_eq!(answer.status, 200, "{path}: {answer:?}");
    answer.json()["entry"].clone()
}

/// Case 67.
#[test]
fn a_file_is_described_in_full() {
    let guest = Guest::start();
    let entry = stat(&guest, "/home/user/.bashrc");
    assert_eq!(entry["name"], ".bashrc");
    assert_eq!(entry["type"], "FILE_TYPE_FILE");
    assert_eq!(entry["path"], "/home/user/.bashrc");
    assert_eq!((&entry["mode"], &entry["permissions"]), (&json!(420), &json!("-rw-r--r--")));
    assert_eq!((&entry["owner"], &entry["group"]), (&json!("user"), &json!("user")));
    assert_eq!(entry["size"], "5");
    assert!(entry["modifiedTime"].as_str().unwrap().ends_with('Z'));
    assert_eq!(entry["isSymlink"], Value::Null);
    assert_eq!(stat(&guest, ".bashrc")["path"], "/home/user/.bashrc");
}

/// Case 68.
#[test]
fn what_is_not_there_and_what_cannot_be_differ() {
    let guest = Guest::start();
    assert_eq!(guest.filesystem("Stat", json!({"path": "/nope"})).error(), (404, "not_found".into()));
    assert_eq!(guest.filesystem("Stat", json!({"path": ".bashrc/x"})).error(), (500, "internal".into()));
}

/// Cases 69 and 70.
#[test]
fn a_link_reports_its_target_and_that_it_is_a_link() {
    let guest = Guest::start();
    guest.run("cd; echo hello > f; ln -s f l; ln -s l ll; ln -s gone b");
    for link in ["l", "ll"] {
        let entry = stat(&guest, link);
        assert_eq!(entry["type"], "FILE_TYPE_FILE");
        assert!(entry["permissions"].as_str().unwrap().starts_with('L'));
        assert_eq!((&entry["symlinkTarget"], &entry["isSymlink"]), (&json!("/home/user/f"), &json!(true)));
        assert_eq!(entry["size"], "1");
    }
    let entry = stat(&guest, "b");
    assert_eq!((&entry["type"], &entry["mode"]), (&Value::Null, &Value::Null));
    assert_eq!(entry["symlinkTarget"], "/home/user/b");
}

/// Case 71.
#[test]
fn permissions_are_gos_letters() {
    let guest = Guest::start();
    assert_eq!(stat(&guest, "/tmp")["permissions"], "dtrwxrwxrwx");
    assert_eq!(stat(&guest, "/dev/null")["permissions"], "Dcrw-rw-rw-");
    assert_eq!(stat(&guest, "/dev/null")["type"], Value::Null);
}

/// Case 72.
#[test]
fn directories_are_made_with_their_parents_for_the_user() {
    let guest = Guest::start();
    let made = guest.filesystem("MakeDir", json!({"path": "a/b/c"}));
    assert_eq!(made.json()["entry"]["path"], "/home/user/a/b/c");
    assert_eq!(guest.run("cd; stat -c '%a %U %G' a a/b a/b/c"), "755 user user\n".repeat(3));
    assert_eq!(guest.filesystem("MakeDir", json!({"path": "a/b/c"})).error(), (409, "already_exists".into()));
    assert_eq!(
        guest.filesystem("MakeDir", json!({"path": ".bashrc"})).error(),
        (400, "invalid_argument".into())
    );
    assert_eq!(guest.filesystem("MakeDir", json!({"path": ".bashrc/x"})).error(), (500, "internal".into()));
    let root = basic("root");
    let made =
        guest.call_with(&[("authorization", &root)], "/filesystem.Filesystem/MakeDir", json!({"path": "r"}));
    assert_eq!(made.json()["entry"]["path"], "/root/r");
    assert_eq!(made.json()["entry"]["owner"], "root");
}

fn listed(guest: &Guest, path: &str, depth: u32) -> Vec<String> {
    let answer = guest.filesystem("ListDir", json!({"path": path, "depth": depth})).json();
    let entries = answer["entries"].as_array().cloned().unwrap_or_default();
    entries.iter().map(|entry| entry["path"].as_str().unwrap().to_owned()).collect()
}

/// Cases 73 and 74.
#[test]
fn listings_are_sorted_depth_first_under_the_path_asked_for() {
    let guest = Guest::start();
    guest.run("mkdir -p /tmp/l/subdir1/subdir1_1 /tmp/l/subdir2; touch /tmp/l/file1.txt /tmp/l/subdir1/f; ln -s l /tmp/k");
    let one = ["/tmp/l/file1.txt", "/tmp/l/subdir1", "/tmp/l/subdir2"];
    assert_eq!(listed(&guest, "/tmp/l", 0), one);
    assert_eq!(listed(&guest, "/tmp/l", 1), one);
    let two = [
        "/tmp/l/file1.txt",
        "/tmp/l/subdir1",
        "/tmp/l/subdir1/f",
        "/tmp/l/subdir1/subdir1_1",
        "/tmp/l/subdir2",
    ];
    assert_eq!(listed(&guest, "/tmp/l", 2), two);
    assert_eq!(listed(&guest, "/tmp/k", 1)[0], "/tmp/k/file1.txt");
    assert_eq!(listed(&guest, "", 1), ["/home/user/.bashrc", "/home/user/demo"]);
}

/// Case 75.
#[test]
fn listing_what_is_no_directory_says_why() {
    let guest = Guest::start();
    guest.run("ln -s loop /tmp/loop");
    let error = |path: &str| guest.filesystem("ListDir", json!({"path": path, "depth": 1})).error().1;
    assert_eq!(error(".bashrc"), "invalid_argument");
    assert_eq!(error("/nope"), "not_found");
    assert_eq!(error("/tmp/loop"), "failed_precondition");
}

/// Cases 76 and 77.
#[test]
fn moves_replace_files_and_never_directories() {
    let guest = Guest::start();
    let moved = |source: &str, destination: &str| {
        guest.filesystem("Move", json!({"source": source, "destination": destination}))
    };
    assert_eq!(moved("gone", "x/y").error(), (404, "not_found".into()));
    assert_eq!(stat(&guest, "x")["type"], "FILE_TYPE_DIRECTORY");
    guest.run("cd; echo 1 > one; echo 2 > two; mkdir d e; ln -s one link");
    assert_eq!(moved("one", "two").json()["entry"]["path"], "/home/user/two");
    assert_eq!(guest.run("cat ~/two; test ! -e ~/one"), "1\n");
    assert_eq!(moved("d", "e").error(), (500, "internal".into()));
    assert_eq!(moved("two", "e").error(), (500, "internal".into()));
    assert_eq!(moved("link", "elsewhere").json()["entry"]["isSymlink"], true);
    assert_eq!(moved("two", "new/dir/two").status, 200);
    assert_eq!(stat(&guest, "new/dir")["owner"], "user");
}

/// Case 78.
#[test]
fn removing_is_recursive_and_does_not_follow_links() {
    let guest = Guest::start();
    guest.run("cd; mkdir -p d/e; touch d/e/f; ln -s d l");
    for path in ["gone", "l", "/tmp/none/x"] {
        assert_eq!(guest.filesystem("Remove", json!({"path": path})).status, 200, "{path}");
    }
    assert_eq!(guest.run("cd; ls d; test ! -L l"), "e\n");
    assert_eq!(guest.filesystem("Remove", json!({"path": "d"})).status, 200);
    assert_eq!(guest.filesystem("Stat", json!({"path": "d"})).status, 404);
}

/// Case 79.
#[test]
fn another_users_home_cannot_be_named() {
    let guest = Guest::start();
    assert_eq!(
        guest.filesystem("Stat", json!({"path": "~root/x"})).error(),
        (400, "invalid_argument".into())
    );
    assert_eq!(stat(&guest, "~/.bashrc")["path"], "/home/user/.bashrc");
}
