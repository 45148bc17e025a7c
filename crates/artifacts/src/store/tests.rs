use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Barrier, Mutex};

use tempfile::TempDir;

use super::*;
use crate::recipe::chain;

fn store() -> (TempDir, LayerStore) {
    let dir = tempfile::tempdir().unwrap();
    let store = LayerStore::open(dir.path().to_str().unwrap().into()).unwrap();
    (dir, store)
}

fn write(path: &Utf8Path, text: &str) -> Result<(), StoreError> {
    fs::write(path, text).map_err(StoreError::io("write", path))
}

fn names(store: &LayerStore) -> Vec<String> {
    store.layers.read_dir_utf8().unwrap().map(|entry| entry.unwrap().file_name().to_owned()).collect()
}

#[test]
fn a_layer_has_its_name_only_when_it_is_complete() {
    let (_dir, store) = store();
    let digest = chain(&["a"]);
    let failed = store.ensure(&digest, &Reporter::silent(), |staging, _| {
        write(&staging.tree.join("half"), "")?;
        assert!(!store.contains(&digest));
        Err(StoreError::io("test", "x")(io::ErrorKind::Other.into()))
    });
    assert!(failed.is_err());
    assert_eq!(names(&store), [""; 0]);

    store
        .ensure(&digest, &Reporter::silent(), |staging, _| write(&staging.tree.join("file"), "data"))
        .unwrap();
    assert_eq!(names(&store), [digest.as_str()]);
    assert_eq!(fs::read_to_string(store.path(&digest).join("file")).unwrap(), "data");
}

#[test]
fn what_a_maker_that_died_left_is_not_in_the_layer() {
    let (_dir, store) = store();
    let digest = chain(&["a"]);
    let left = store.layers.join(format!("tmp-{digest}-7/tree"));
    fs::create_dir_all(&left).unwrap();
    write(&left.join("half"), "").unwrap();
    assert!(!store.contains(&digest));
    store.ensure(&digest, &Reporter::silent(), |staging, _| write(&staging.tree.join("file"), "")).unwrap();
    assert!(!store.path(&digest).join("half").exists());
    assert_eq!(names(&store), [digest.as_str()]);
}

#[test]
fn what_two_want_at_once_is_made_once_and_both_hear_of_it() {
    let (_dir, store) = store();
    let digest = chain(&["a"]);
    let made = AtomicU32::new(0);
    let heard = Arc::new(Mutex::new(Vec::new()));
    // The maker goes on when the waiter waits: its first news is that it does.
    let waits = Arc::new(Barrier::new(2));
    thread::scope(|scope| {
        let maker = |report: Reporter, is_maker: bool| {
            let (store, digest, made, waits) = (&store, &digest, &made, &waits);
            move || {
                store.ensure(digest, &report, |staging, report| {
                    assert!(is_maker);
                    made.fetch_add(1, Ordering::SeqCst);
                    report.line("step", "the news");
                    waits.wait();
                    waits.wait();
                    write(&staging.tree.join("file"), "")
                })
            }
        };
        let first = scope.spawn(maker(Reporter::silent(), true));
        waits.wait();
        let (sink, barrier) = (Arc::clone(&heard), Arc::clone(&waits));
        let report = Reporter::new(move |news| {
            sink.lock().unwrap().push((news.step.clone(), news.line.clone()));
            if news.line == "the news" {
                barrier.wait();
            }
        });
        let second = scope.spawn(maker(report, false));
        first.join().unwrap().unwrap();
        second.join().unwrap().unwrap();
    });
    assert_eq!(made.into_inner(), 1);
    assert_eq!(heard.lock().unwrap().last(), Some(&("step".to_owned(), "the news".to_owned())));
}
