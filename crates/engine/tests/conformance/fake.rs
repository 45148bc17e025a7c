//! The fake, held to the suite; and what it can be told to do.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use sandbar_engine::{BootSpec, Engine, Exit, Fake, FakeStep, GuestRecord, fake};
use sandbar_model::{GuestNetwork, Lease, Mib, Resources, SlotIndex};

use crate::suite::{Stage, all_checks};

struct FakeStage {
    host: Fake,
    next: AtomicU32,
}

async fn open() -> Option<FakeStage> {
    Some(FakeStage { host: fake(), next: AtomicU32::new(0) })
}

all_checks!(open);

#[async_trait]
impl Stage for FakeStage {
    fn engine(&self) -> Arc<dyn Engine> {
        self.host.engine()
    }

    async fn reopened(&self) -> Arc<dyn Engine> {
        self.host.engine()
    }

    fn spec(&self) -> BootSpec {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        BootSpec {
            id: format!("i{number}").parse().unwrap(),
            lease: Lease {
                slot: SlotIndex(0),
                guest_netns: "/run/netns/none".into(),
                host_address: [127, 0, 0, 1].into(),
                guest: GuestNetwork::STANDARD,
            },
            root: "/none".into(),
            scratch: "/none".into(),
            dir: "/none".into(),
            resources: Resources { vcpus: NonZeroU32::MIN, memory: Mib(128), disk: Mib(64), pids: 64 },
            hostname: "guest".to_owned(),
            init: vec!["/init".to_owned()],
            env: Default::default(),
            stdin: Vec::new(),
        }
    }

    fn broken_spec(&self) -> BootSpec {
        self.host.fail(FakeStep::Boot, 1);
        self.spec()
    }

    async fn end(&self, spec: &BootSpec, code: i32) {
        self.host.end(&spec.id, Exit::Code(code));
    }

    async fn answers(&self, spec: &BootSpec) -> bool {
        self.host.booted(&spec.id).is_some()
    }

    fn cuts(&self) -> Vec<Duration> {
        self.host.hold(FakeStep::Boot);
        vec![Duration::ZERO, Duration::from_millis(1)]
    }

    fn left(&self, record: &GuestRecord) -> Vec<String> {
        self.host.left().iter().filter(|id| **id == record.id).map(ToString::to_string).collect()
    }
}

#[tokio::test]
async fn a_step_fails_as_often_as_told_and_then_no_more() {
    let stage = open().await.unwrap();
    let guest = stage.engine().boot(stage.spec()).await.unwrap();
    stage.host.fail(FakeStep::Usage, 1);
    assert!(guest.usage().await.is_err());
    assert!(guest.usage().await.is_ok());
    stage.host.fail(FakeStep::Stop, 1);
    let record = guest.record();
    assert!(guest.stop(Duration::ZERO).await.is_err());
    assert_eq!(stage.host.left(), std::slice::from_ref(&record.id));
    stage.engine().remove(&record).await.unwrap();
    assert!(stage.host.left().is_empty());
}

#[tokio::test]
async fn a_removal_ends_a_start_that_is_held() {
    let stage = open().await.unwrap();
    let (spec, engine) = (stage.spec(), stage.engine());
    let plan = engine.plan(&spec);
    stage.host.hold(FakeStep::Boot);
    let remove = async {
        while stage.host.left().is_empty() {
            tokio::task::yield_now().await;
        }
        engine.remove(&plan).await
    };
    let (booted, removed) = tokio::join!(engine.boot(spec), remove);
    assert!(booted.is_err() && removed.is_ok());
    assert!(stage.host.left().is_empty());
}
