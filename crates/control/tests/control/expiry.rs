//! When a sandbox's time is up, and how that time is moved.

use std::time::Duration;

use sandbar_control::ChangeError;
use sandbar_model::StopReason;

use crate::server::{Server, new, pass};

#[tokio::test(start_paused = true)]
async fn a_sandbox_ends_at_its_deadline_and_not_before() {
    let server = Server::new().await;
    let sandbox = server.create(15).await;
    pass(Duration::from_millis(14_990)).await;
    assert!(server.is_reachable(&sandbox.id).await);
    pass(Duration::from_millis(20)).await;
    server.wait_until_empty().await;
    assert_eq!(server.node.stops(), [(sandbox.id, StopReason::Expired)]);
}

#[tokio::test(start_paused = true)]
async fn each_of_many_ends_at_its_own_deadline() {
    let server = Server::new().await;
    for secs in [30, 10, 20] {
        server.create(secs).await;
    }
    for left in [2, 1, 0] {
        pass(Duration::from_secs(10)).await;
        server.node.wait_for(left).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_may_be_shortened_and_made_longer() {
    let server = Server::new().await;
    let sandbox = server.create(300).await;
    let life = |secs| Duration::from_secs(secs);
    let shorter = server.control.set_timeout(&server.team, &sandbox.id, life(10)).await.unwrap();
    assert!(shorter.deadline < sandbox.deadline);
    assert_eq!(server.control.sandbox(&server.team, &sandbox.id).await.unwrap(), shorter);
    pass(life(9)).await;
    server.control.set_timeout(&server.team, &sandbox.id, life(10)).await.unwrap();
    pass(life(9)).await;
    assert!(server.is_reachable(&sandbox.id).await);
    server.control.set_timeout(&server.team, &sandbox.id, Duration::ZERO).await.unwrap();
    server.wait_until_empty().await;
}

#[tokio::test(start_paused = true)]
async fn connecting_extends_and_never_shortens() {
    let server = Server::new().await;
    let sandbox = server.create(300).await;
    let life = |secs| Duration::from_secs(secs);
    let same = server.control.connect(&server.team, &sandbox.id, life(10)).await.unwrap();
    assert_eq!(same.deadline, sandbox.deadline);
    assert_eq!(same.access_token, sandbox.access_token);
    let longer = server.control.connect(&server.team, &sandbox.id, life(600)).await.unwrap();
    assert_eq!(longer.deadline.duration_since(sandbox.started_at).as_secs(), 600);
}

#[tokio::test(start_paused = true)]
async fn nobody_lives_longer_than_is_allowed() {
    let server = Server::with(|config| config.run_max = Duration::from_secs(100)).await;
    let sandbox = server.create(50).await;
    pass(Duration::from_secs(40)).await;
    let life = Duration::from_secs(90);
    let capped = server.control.set_timeout(&server.team, &sandbox.id, life).await.unwrap();
    assert_eq!(capped.deadline.duration_since(sandbox.started_at).as_secs(), 100);
    let too_long = server.control.connect(&server.team, &sandbox.id, Duration::from_secs(101)).await;
    assert!(matches!(too_long, Err(ChangeError::TimeoutTooLong { .. })), "{too_long:?}");
}

#[tokio::test(start_paused = true)]
async fn a_change_during_the_start_waits_for_it() {
    let server = Server::new().await;
    server.node.hold_starts();
    let (control, team) = (server.control.clone(), server.team.clone());
    let caller = tokio::spawn(async move { control.create(&team, new(15)).await });
    let id = server.node.wait_for(1).await.remove(0);
    let (control, team) = (server.control.clone(), server.team.clone());
    let change = tokio::spawn(async move { control.connect(&team, &id, Duration::from_secs(60)).await });
    tokio::task::yield_now().await;
    server.node.release_starts();
    let sandbox = caller.await.unwrap().unwrap().sandbox;
    let changed = change.await.unwrap().unwrap();
    assert_eq!(changed.deadline.duration_since(sandbox.started_at).as_secs(), 60);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_was_set_forward_is_noticed() {
    let server = Server::new().await;
    let sandbox = server.create(3600).await;
    server.clock.set_forward(3600);
    assert!(server.is_reachable(&sandbox.id).await);
    pass(Duration::from_secs(30)).await;
    server.wait_until_empty().await;
}
