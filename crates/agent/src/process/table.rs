//! Which processes there are, and for a while which there were.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

use sandbar_wire::envd::process::{EndEvent, ProcessSelector, Target};
use sandbar_wire::envd::{Code, RpcError};
use tokio::sync::mpsc;

use super::fanout::Event;
use super::live::Process;

/// Live processes, and the ends of those that ended a moment ago.
#[derive(Debug, Default)]
pub(super) struct Table {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Counts starts, so that the newest of several with one tag is known.
    starts: u64,
    live: HashMap<u32, (u64, Arc<Process>)>,
    retained: HashMap<u32, Retained>,
}

#[derive(Debug)]
struct Retained {
    start: u64,
    tag: Option<String>,
    end: EndEvent,
}

/// What a client can attach to.
#[derive(Debug)]
pub(super) enum Attached {
    Live { pid: u32, events: mpsc::Receiver<Event> },
    Ended { pid: u32, end: EndEvent },
}

/// Names one start of a process, where a process id may come back.
#[derive(Clone, Copy, Debug)]
pub(super) struct Start(u64);

impl Table {
    /// Makes a process known. Whatever was retained under its id or tag is forgotten.
    pub(super) fn insert(&self, process: Arc<Process>) -> Start {
        let mut inner = self.lock();
        inner.starts += 1;
        let start = inner.starts;
        inner
            .retained
            .retain(|pid, old| *pid != process.pid && (old.tag.is_none() || old.tag != process.tag));
        inner.live.insert(process.pid, (start, process));
        Start(start)
    }

    /// Moves a process from the live to the retained. To be called before anybody is told of the end.
    pub(super) fn finish(&self, pid: u32, end: EndEvent) {
        let mut inner = self.lock();
        if let Some((start, process)) = inner.live.remove(&pid) {
            inner.retained.insert(pid, Retained { start, tag: process.tag.clone(), end });
            process.finished.cancel();
        }
    }

    /// Forgets the end of a process, unless its id was used again.
    pub(super) fn forget(&self, pid: u32, start: Start) {
        let mut inner = self.lock();
        if inner.retained.get(&pid).is_some_and(|old| old.start == start.0) {
            inner.retained.remove(&pid);
        }
    }

    pub(super) fn all(&self) -> Vec<Arc<Process>> {
        self.lock().live.values().map(|(_, process)| process.clone()).collect()
    }

    /// The live process that is meant.
    pub(super) fn find(&self, selector: Option<&ProcessSelector>) -> Result<Arc<Process>, RpcError> {
        let target = chosen(selector)?;
        self.lock().live_process(target).ok_or_else(|| not_found(target))
    }

    /// Listens to the process that is meant, or gives its end while that is retained.
    pub(super) fn attach(&self, selector: Option<&ProcessSelector>) -> Result<Attached, RpcError> {
        let target = chosen(selector)?;
        let inner = self.lock();
        if let Some(process) = inner.live_process(target) {
            return Ok(Attached::Live { pid: process.pid, events: process.fanout.listen() });
        }
        let retained = match target {
            Target::Pid(pid) => inner.retained.get_key_value(&pid),
            Target::Tag(tag) => {
                let tagged = inner.retained.iter().filter(|(_, old)| old.tag.as_deref() == Some(tag));
                tagged.max_by_key(|(_, old)| old.start)
            }
        };
        retained
            .map(|(pid, old)| Attached::Ended { pid: *pid, end: old.end.clone() })
            .ok_or_else(|| not_found(target))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().expect("nothing that holds this lock can panic")
    }
}

impl Inner {
    fn live_process(&self, target: Target<'_>) -> Option<Arc<Process>> {
        let found = match target {
            Target::Pid(pid) => self.live.get(&pid),
            Target::Tag(tag) => {
                let tagged = self.live.values().filter(|(_, process)| process.tag.as_deref() == Some(tag));
                tagged.max_by_key(|(start, _)| *start)
            }
        };
        found.map(|(_, process)| process.clone())
    }
}

fn chosen(selector: Option<&ProcessSelector>) -> Result<Target<'_>, RpcError> {
    selector
        .and_then(ProcessSelector::target)
        .ok_or_else(|| RpcError::new(Code::Unimplemented, "invalid process selector: neither pid nor tag"))
}

fn not_found(target: Target<'_>) -> RpcError {
    let message = match target {
        Target::Pid(pid) => format!("process with pid {pid} not found"),
        Target::Tag(tag) => format!("process with tag {tag} not found"),
    };
    RpcError::new(Code::NotFound, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::process::fanout::Fanout;
    use crate::process::live::InputSide;
    use sandbar_wire::envd::process::ProcessConfig;

    fn process(pid: u32, tag: &str) -> Arc<Process> {
        Arc::new(Process {
            pid,
            config: ProcessConfig::default(),
            tag: Some(tag.into()),
            fanout: Fanout::default(),
            input: InputSide::Pipe(Default::default()),
            cut_short: Default::default(),
            finished: Default::default(),
        })
    }

    fn by_tag(tag: &str) -> ProcessSelector {
        ProcessSelector { pid: None, tag: Some(tag.into()) }
    }

    #[test]
    fn the_newest_of_a_tag_is_meant() {
        let table = Table::default();
        for (pid, tag) in [(1, "a"), (2, "a"), (3, "b")] {
            table.insert(process(pid, tag));
        }
        assert_eq!(table.find(Some(&by_tag("a"))).unwrap().pid, 2);
        assert_eq!(table.find(Some(&by_tag("b"))).unwrap().pid, 3);
        assert_eq!(table.find(Some(&by_tag("c"))).unwrap_err().code, Code::NotFound);
        assert_eq!(table.find(None).unwrap_err().code, Code::Unimplemented);
    }

    #[test]
    fn an_end_is_retained_until_forgotten_or_its_id_is_used_again() {
        let table = Table::default();
        let first = table.insert(process(1, "a"));
        table.finish(1, EndEvent { exit_code: 5, ..EndEvent::default() });
        assert!(table.find(Some(&ProcessSelector::of_pid(1))).is_err());
        assert!(
            matches!(table.attach(Some(&by_tag("a"))), Ok(Attached::Ended { pid: 1, end }) if end.exit_code == 5)
        );
        let second = table.insert(process(1, "b"));
        assert!(table.attach(Some(&by_tag("a"))).is_err());
        table.finish(1, EndEvent::default());
        table.forget(1, first);
        assert!(table.attach(Some(&by_tag("b"))).is_ok());
        table.forget(1, second);
        assert!(table.attach(Some(&by_tag("b"))).is_err());
    }
}
