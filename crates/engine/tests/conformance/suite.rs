//! The checks that all engines pass.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sandbar_engine::{AdoptError, BootSpec, Engine, Exit, Guest, GuestRecord, RemoveError};

/// Longest wait for anything in these tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A host with one engine, as the checks see it.
#[async_trait]
pub(crate) trait Stage: Send + Sync {
    /// The engine.
    fn engine(&self) -> Arc<dyn Engine>;
    /// The engine as a restarted server would open it.
    async fn reopened(&self) -> Arc<dyn Engine>;
    /// A guest that runs until told otherwise. Every call gives another sandbox.
    fn spec(&self) -> BootSpec;
    /// A guest that cannot be started.
    fn broken_spec(&self) -> BootSpec;
    /// Lets the guest's first program end with this code.
    async fn end(&self, spec: &BootSpec, code: i32);
    /// Whether it still does what it is told.
    async fn answers(&self, spec: &BootSpec) -> bool;
    /// Moments at which a start is to be cut off.
    fn cuts(&self) -> Vec<Duration>;
    /// Everything that is left of a guest, in words.
    fn left(&self, record: &GuestRecord) -> Vec<String>;
}

/// Makes a test of each check. The argument opens a stage or gives `None` if it must be skipped.
macro_rules! checks {
    ($open:path: $($name:ident)*) => {$(
        #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
        async fn $name() {
            if let Some(stage) = $open().await {
                $crate::suite::$name(&stage).await;
            }
        }
    )*};
}

/// All checks, for one stage.
macro_rules! all_checks {
    ($open:path) => {
        $crate::suite::checks! { $open:
            a_plan_makes_nothing
            a_guest_runs_until_it_is_stopped
            an_end_is_noticed_with_its_code
            a_dropped_handle_ends_nothing_and_the_guest_is_adopted
            a_record_without_a_process_or_of_another_engine_is_not_adopted
            a_removal_may_be_repeated_and_needs_no_guest
            a_failed_start_leaves_nothing
            a_start_cut_off_at_any_moment_leaves_nothing
            guests_do_not_know_of_each_other
        }
    };
}
pub(crate) use {all_checks, checks};

async fn boot(stage: &impl Stage, spec: &BootSpec) -> Box<dyn Guest> {
    stage.engine().boot(spec.clone()).await.expect("boot")
}

/// Waits for the end with a deadline.
pub(crate) async fn end_of(guest: &mut Box<dyn Guest>) -> Exit {
    tokio::time::timeout(PATIENCE, guest.exited()).await.expect("the guest ends")
}

#[track_caller]
fn nothing_left(stage: &impl Stage, record: &GuestRecord) {
    assert_eq!(stage.left(record), Vec::<String>::new());
}

pub(crate) async fn a_plan_makes_nothing(stage: &impl Stage) {
    let spec = stage.spec();
    let plan = stage.engine().plan(&spec);
    assert_eq!(plan, stage.engine().plan(&spec));
    assert_eq!((&plan.id, &plan.process), (&spec.id, &None));
    nothing_left(stage, &plan);
}

pub(crate) async fn a_guest_runs_until_it_is_stopped(stage: &impl Stage) {
    let spec = stage.spec();
    let mut guest = boot(stage, &spec).await;
    let record = guest.record();
    assert!(record.process.is_some());
    assert_eq!(GuestRecord { process: None, ..record.clone() }, stage.engine().plan(&spec));
    assert!(stage.answers(&spec).await);
    assert!(tokio::time::timeout(Duration::ZERO, guest.exited()).await.is_err(), "it runs");
    guest.usage().await.expect("usage");
    assert_eq!(guest.stop(Duration::ZERO).await.expect("stop"), Exit::Killed);
    nothing_left(stage, &record);
}

pub(crate) async fn an_end_is_noticed_with_its_code(stage: &impl Stage) {
    let spec = stage.spec();
    let mut guest = boot(stage, &spec).await;
    stage.end(&spec, 7).await;
    assert_eq!(end_of(&mut guest).await, Exit::Code(7));
    assert_eq!(end_of(&mut guest).await, Exit::Code(7), "asked again");
    let record = guest.record();
    assert_eq!(guest.stop(PATIENCE).await.expect("stop"), Exit::Code(7));
    nothing_left(stage, &record);
}

pub(crate) async fn a_dropped_handle_ends_nothing_and_the_guest_is_adopted(stage: &impl Stage) {
    let spec = stage.spec();
    let record = boot(stage, &spec).await.record();
    let engine = stage.reopened().await;
    let mut guest = engine.adopt(&record).await.expect("adopt").expect("it still runs");
    assert_eq!(guest.record(), record);
    assert!(stage.answers(&spec).await);
    stage.end(&spec, 3).await;
    let exit = end_of(&mut guest).await;
    assert!(matches!(exit, Exit::Code(3) | Exit::Unknown), "{exit:?}");
    assert!(engine.adopt(&record).await.expect("adopt").is_none(), "it has ended");
    engine.remove(&record).await.expect("remove");
    nothing_left(stage, &record);
}

pub(crate) async fn a_record_without_a_process_or_of_another_engine_is_not_adopted(stage: &impl Stage) {
    let engine = stage.engine();
    let plan = engine.plan(&stage.spec());
    assert!(engine.adopt(&plan).await.expect("adopt").is_none());
    for foreign in
        [GuestRecord { engine: "other".to_owned(), ..plan.clone() }, GuestRecord { version: 99, ..plan }]
    {
        assert!(matches!(engine.adopt(&foreign).await, Err(AdoptError::Foreign { .. })));
        assert!(matches!(engine.remove(&foreign).await, Err(RemoveError::Foreign { .. })));
    }
}

pub(crate) async fn a_removal_may_be_repeated_and_needs_no_guest(stage: &impl Stage) {
    let engine = stage.engine();
    let spec = stage.spec();
    let plan = engine.plan(&spec);
    engine.remove(&plan).await.expect("nothing to remove");
    let mut guest = boot(stage, &spec).await;
    let record = guest.record();
    engine.remove(&record).await.expect("remove");
    nothing_left(stage, &record);
    let exit = end_of(&mut guest).await;
    assert!(matches!(exit, Exit::Killed | Exit::Unknown), "{exit:?}");
    engine.remove(&record).await.expect("again");
    engine.remove(&plan).await.expect("by its plan");
    guest.stop(Duration::ZERO).await.expect("stopping what was removed");
}

pub(crate) async fn a_failed_start_leaves_nothing(stage: &impl Stage) {
    let spec = stage.broken_spec();
    let plan = stage.engine().plan(&spec);
    let error = stage.engine().boot(spec).await.err().expect("it cannot start");
    assert!(!error.to_string().is_empty());
    nothing_left(stage, &plan);
}

pub(crate) async fn a_start_cut_off_at_any_moment_leaves_nothing(stage: &impl Stage) {
    for cut in stage.cuts() {
        let spec = stage.spec();
        let engine = stage.engine();
        let plan = engine.plan(&spec);
        // Whether it was cut off or was just in time, its owner forgets it and removes it by its plan.
        let _ = tokio::time::timeout(cut, engine.boot(spec)).await;
        engine.remove(&plan).await.expect("remove");
        nothing_left(stage, &plan);
    }
}

pub(crate) async fn guests_do_not_know_of_each_other(stage: &impl Stage) {
    let (one, other) = (stage.spec(), stage.spec());
    let engine = stage.engine();
    let (first, second) = tokio::join!(engine.boot(one.clone()), engine.boot(other.clone()));
    let (first, second) = (first.expect("boot"), second.expect("boot"));
    first.stop(Duration::ZERO).await.expect("stop");
    assert!(stage.answers(&other).await);
    let record = second.record();
    second.stop(Duration::ZERO).await.expect("stop");
    nothing_left(stage, &record);
}
