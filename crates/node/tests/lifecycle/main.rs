//! The life of sandboxes on a node, with an engine, networks, disks and agents that can be made to fail.
//!
//! The steps, their undoing, the journal and adoption are the real ones; only what they work on is not.

mod world;

use std::sync::Arc;
use std::time::Duration;

use sandbar_engine::{Exit, FakeStep};
use sandbar_model::{Node, NodeEvent, StartError, Started, StopReason};
use sandbar_node::{AtShutdown, LocalNode};
use tokio::task::JoinHandle;

use world::{AgentMood, DiskStep, NetworkStep, World, spec, within};

/// Begins a start that the test does not wait for.
fn start_beside(node: &Arc<LocalNode>, id: &str) -> JoinHandle<Result<Started, StartError>> {
    let (node, spec) = (Arc::clone(node), spec(id));
    tokio::spawn(async move { node.start(spec).await })
}

#[tokio::test]
async fn a_sandbox_starts_is_listed_and_leaves_nothing() {
    let world = World::new().await;
    let node = world.open().await;
    let started = node.start(spec("i1")).await.unwrap();
    let seen = node.list().await;
    assert_eq!(seen.len(), 1);
    assert_eq!((seen[0].run, seen[0].address), (started.run, started.address));
    let stages: Vec<_> = started.stages.iter().map(|(name, _)| name).collect();
    assert_eq!(stages, ["lease", "root", "journal", "engine", "agent"]);
    assert_eq!(world.holdings(), ["disk i1", "guest i1", "journal i1", "root i1", "slot 0"]);

    node.stop(&"i1".parse().unwrap(), StopReason::Requested).await.unwrap();
    assert_eq!(world.holdings(), [] as [&str; 0]);
    assert_eq!(node.list().await, []);
}

#[tokio::test]
async fn the_guest_gets_the_secret_and_the_agent_is_told_who_it_is() {
    let world = World::new().await;
    let node = world.open().await;
    node.start(spec("i1")).await.unwrap();
    let boot = world.engine.booted(&"i1".parse().unwrap()).unwrap();
    let line = String::from_utf8(boot.stdin).unwrap();
    let told = sandbar_wire::envd::boot::Boot::from_line(line.trim()).unwrap();
    assert_eq!(told.control_secret.len(), 64);
    let request = world.agent.last_init();
    assert_eq!(request.secret, told.control_secret);
    assert_eq!(request.body.sandbox_id.as_deref(), Some("i1"));
    assert_eq!(request.body.access_token.as_deref(), Some("token"));
    assert_eq!(request.body.default_user.as_deref(), Some("user"));
}

#[tokio::test]
async fn a_start_that_fails_at_any_step_leaves_nothing() {
    let world = World::new().await;
    let node = world.open().await;
    let steps = ["lease network", "mount root", "make scratch disk", "boot guest", "initialise agent"];
    for want in steps {
        match want {
            "lease network" => world.network.fail(NetworkStep::Lease, 1),
            "mount root" => world.disks.fail(DiskStep::HoldRoot, 1),
            "make scratch disk" => world.disks.fail(DiskStep::MakeScratch, 1),
            "boot guest" => world.engine.fail(FakeStep::Boot, 1),
            _ => world.agent.set_mood(AgentMood::Refuses),
        }
        match node.start(spec("i1")).await {
            Err(StartError::Step { step, .. }) => assert_eq!(step, want),
            other => panic!("{want}: {other:?}"),
        }
        assert_eq!(world.holdings(), [] as [&str; 0], "after a failure to {want}");
    }
}

#[tokio::test]
async fn a_kill_wins_while_the_agent_is_silent() {
    let world = World::new().await;
    let node = world.open().await;
    world.agent.set_mood(AgentMood::Silent);
    let starting = start_beside(&node, "i1");
    world.until("the guest is booted", |world| world.engine.booted(&"i1".parse().unwrap()).is_some()).await;
    within(node.stop(&"i1".parse().unwrap(), StopReason::Requested)).await.unwrap();
    assert!(matches!(within(starting).await.unwrap(), Err(StartError::Killed { .. })));
    assert_eq!(world.holdings(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_kill_wins_while_the_engine_boots() {
    let world = World::new().await;
    let node = world.open().await;
    world.engine.hold(FakeStep::Boot);
    let starting = start_beside(&node, "i1");
    world
        .until("the record is written", |world| world.holdings().iter().any(|held| held == "journal i1"))
        .await;
    let id = "i1".parse().unwrap();
    within(node.stop(&id, StopReason::Requested)).await.unwrap();
    assert!(matches!(within(starting).await.unwrap(), Err(StartError::Killed { .. })));
    assert_eq!(world.holdings(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_caller_that_hangs_up_changes_nothing() {
    let world = World::new().await;
    let node = world.open().await;
    world.agent.set_mood(AgentMood::Silent);
    let starting = start_beside(&node, "i1");
    world.until("the guest is booted", |world| world.engine.booted(&"i1".parse().unwrap()).is_some()).await;
    starting.abort();
    world.agent.set_mood(AgentMood::Answers);
    world.until_async("the sandbox runs", async || node.list().await.len() == 1).await;
}

#[tokio::test]
async fn a_guest_that_ends_by_itself_is_cleaned_up_and_told() {
    let world = World::new().await;
    let node = world.open().await;
    let started = node.start(spec("i1")).await.unwrap();
    world.engine.end(&"i1".parse().unwrap(), Exit::OutOfMemory);
    let event = within(node.next_event()).await;
    let want = NodeEvent::Ended { id: "i1".parse().unwrap(), run: started.run, reason: StopReason::Exited };
    assert_eq!(event, want);
    assert_eq!(world.holdings(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_guest_that_ends_during_its_start_fails_the_start() {
    let world = World::new().await;
    let node = world.open().await;
    world.agent.set_mood(AgentMood::Silent);
    let starting = start_beside(&node, "i1");
    world.until("the guest is booted", |world| world.engine.booted(&"i1".parse().unwrap()).is_some()).await;
    world.engine.end(&"i1".parse().unwrap(), Exit::Code(1));
    assert!(matches!(within(starting).await.unwrap(), Err(StartError::Step { .. })));
    assert_eq!(world.holdings(), [] as [&str; 0]);
}

#[tokio::test]
async fn stopping_is_repeatable_and_the_unknown_is_stopped() {
    let world = World::new().await;
    let node = world.open().await;
    node.start(spec("i1")).await.unwrap();
    let id = "i1".parse().unwrap();
    let (first, second) =
        tokio::join!(node.stop(&id, StopReason::Requested), node.stop(&id, StopReason::Expired));
    first.unwrap();
    second.unwrap();
    node.stop(&id, StopReason::Requested).await.unwrap();
}

#[tokio::test]
async fn a_full_node_refuses_and_has_room_again() {
    let world = World::new().await;
    let node = world.open().await;
    for id in ["i1", "i2", "i3"] {
        node.start(spec(id)).await.unwrap();
    }
    assert!(matches!(node.start(spec("i4")).await, Err(StartError::Full { .. })));
    node.stop(&"i1".parse().unwrap(), StopReason::Requested).await.unwrap();
    node.start(spec("i4")).await.unwrap();
}

#[tokio::test]
async fn a_new_server_adopts_what_runs() {
    let world = World::new().await;
    let node = world.open().await;
    let started = node.start(spec("i1")).await.unwrap();
    let before = world.holdings();
    node.shutdown(AtShutdown::Keep).await;
    drop(node);

    let node = world.open().await;
    let seen = node.list().await;
    assert_eq!((seen.len(), seen[0].run, seen[0].address), (1, started.run, started.address));
    assert_eq!(world.holdings(), before);
    world.engine.end(&"i1".parse().unwrap(), Exit::Killed);
    within(node.next_event()).await;
    assert_eq!(world.holdings(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_new_server_removes_what_has_died_or_was_never_promised() {
    let world = World::new().await;
    let node = world.open().await;
    node.start(spec("i1")).await.unwrap();
    world.agent.set_mood(AgentMood::Silent);
    let starting = start_beside(&node, "i2");
    world.until("the guest is booted", |world| world.engine.booted(&"i2".parse().unwrap()).is_some()).await;
    // The server is gone from one moment to the next: what it had written is what the new one finds.
    let killed = world.copy_of_journal();
    starting.abort();
    node.shutdown(AtShutdown::Kill).await;
    drop(node);
    world.restore_journal(killed);

    let node = world.open().await;
    assert_eq!(node.list().await, []);
    assert_eq!(world.holdings(), [] as [&str; 0]);
}

#[tokio::test]
async fn what_cannot_be_removed_at_first_is_tried_again() {
    let world = World::new().await;
    let node = world.open().await;
    node.start(spec("i1")).await.unwrap();
    world.network.fail(NetworkStep::Release, 2);
    world.engine.fail(FakeStep::Stop, 1);
    node.stop(&"i1".parse().unwrap(), StopReason::Requested).await.unwrap();
    assert_eq!(world.holdings(), [] as [&str; 0]);
}

#[tokio::test]
async fn what_cannot_be_removed_is_said_and_left_to_the_next_server() {
    let world = World::new().await;
    let node = world.open().await;
    node.start(spec("i1")).await.unwrap();
    world.disks.fail(DiskStep::RemoveScratch, 3);
    let error = node.stop(&"i1".parse().unwrap(), StopReason::Requested).await.unwrap_err();
    assert_eq!(error.step, "remove scratch disk");
    assert_eq!(world.holdings(), ["disk i1", "journal i1"]);
    drop(node);
    world.open().await;
    assert_eq!(world.holdings(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_damaged_record_is_cleaned_up_by_its_name() {
    let world = World::new().await;
    world.disks.leave_scratch("i9");
    world.write_journal_file("i9.json", b"{ not a record");
    world.write_journal_file("i8.tmp", b"half written");
    let node = world.open().await;
    assert_eq!(node.list().await, []);
    assert_eq!(world.holdings(), [] as [&str; 0]);
}

#[tokio::test]
async fn a_node_that_is_shutting_down_starts_nothing_and_leaves_nothing() {
    let world = World::new().await;
    let node = world.open().await;
    node.start(spec("i1")).await.unwrap();
    within(node.shutdown(AtShutdown::Kill)).await;
    assert_eq!(world.holdings(), [] as [&str; 0]);
    assert!(matches!(node.start(spec("i2")).await, Err(StartError::Draining { .. })));
}

#[tokio::test]
async fn an_agent_that_never_answers_ends_the_start_in_time() {
    let world = World::new().await;
    let node = world.open_with_patience(Duration::from_millis(50)).await;
    world.agent.set_mood(AgentMood::Closes);
    let error = within(node.start(spec("i1"))).await.unwrap_err();
    assert!(matches!(error, StartError::Step { step: "initialise agent", .. }), "{error:?}");
    assert_eq!(world.holdings(), [] as [&str; 0]);
}
