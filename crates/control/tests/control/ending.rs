//! Kills, exits, and stops that do not work at once.

use std::time::Duration;

use sandbar_control::{ChangeError, KillError, OnShutdown};
use sandbar_model::StopReason;

use crate::server::{Server, pass};

#[tokio::test(start_paused = true)]
async fn a_kill_leaves_nothing_and_a_second_finds_nothing() {
    let server = Server::new().await;
    let sandbox = server.create(300).await;
    let route = server.control.routes().find(&sandbox.id).await.unwrap();
    server.control.kill(&server.team, &sandbox.id).await.unwrap();
    assert!(route.ended.is_cancelled());
    assert!(server.node.holds().is_empty());
    assert!(server.db.all_sandboxes().await.unwrap().is_empty());
    assert!(server.control.sandbox(&server.team, &sandbox.id).await.is_err());
    assert!(matches!(server.control.kill(&server.team, &sandbox.id).await, Err(KillError::NotFound(_))));
    assert_eq!(server.node.stops(), [(sandbox.id, StopReason::Requested)]);
}

#[tokio::test(start_paused = true)]
async fn another_teams_sandbox_is_not_there() {
    let server = Server::new().await;
    let sandbox = server.create(300).await;
    let mut other = server.team.clone();
    other.id = sandbar_model::TeamId(uuid::Uuid::from_u128(99));
    let life = Duration::from_secs(1);
    assert!(server.control.sandbox(&other, &sandbox.id).await.is_err());
    assert!(server.control.kill(&other, &sandbox.id).await.is_err());
    assert!(server.control.set_timeout(&other, &sandbox.id, life).await.is_err());
    assert!(server.is_reachable(&sandbox.id).await);
}

#[tokio::test(start_paused = true)]
async fn kills_at_once_all_wait_for_the_same_end() {
    let server = Server::new().await;
    let sandbox = server.create(300).await;
    // The first attempt fails, so that the end takes a while.
    server.node.fail_next_stops(1);
    let kills: Vec<_> = (0..5)
        .map(|_| {
            let (control, team, id) = (server.control.clone(), server.team.clone(), sandbox.id.clone());
            tokio::spawn(async move { control.kill(&team, &id).await })
        })
        .collect();
    for kill in kills {
        kill.await.unwrap().unwrap();
    }
    assert!(!server.is_reachable(&sandbox.id).await);
    pass(Duration::from_secs(1)).await;
    server.wait_until_empty().await;
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_cannot_be_stopped_is_out_of_reach_and_tried_again() {
    let server = Server::new().await;
    let sandbox = server.create(300).await;
    server.node.fail_next_stops(2);
    server.control.kill(&server.team, &sandbox.id).await.unwrap();
    assert!(!server.is_reachable(&sandbox.id).await);
    assert!(server.control.sandbox(&server.team, &sandbox.id).await.is_err());
    let change = server.control.extend(&server.team, &sandbox.id, Duration::from_secs(9)).await;
    assert!(matches!(change, Err(ChangeError::Ending(_))), "{change:?}");
    server.control.kill(&server.team, &sandbox.id).await.unwrap();

    pass(Duration::from_millis(250)).await;
    while server.node.stops().len() < 2 {
        tokio::task::yield_now().await;
    }
    pass(Duration::from_millis(500)).await;
    server.wait_until_empty().await;
    assert_eq!(server.node.stops().len(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_ends_by_itself_is_forgotten() {
    let server = Server::new().await;
    let sandbox = server.create(300).await;
    let route = server.control.routes().find(&sandbox.id).await.unwrap();
    server.node.exit(&sandbox.id);
    route.ended.cancelled().await;
    server.wait_until_gone(&sandbox.id).await;
    assert!(server.control.sandbox(&server.team, &sandbox.id).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_server_leaves_sandboxes_or_ends_them() {
    for (on_shutdown, left) in [(OnShutdown::Keep, 2), (OnShutdown::Kill, 0)] {
        let server = Server::with(|config| config.on_shutdown = on_shutdown).await;
        server.create(300).await;
        server.create(300).await;
        server.control.shutdown().await;
        assert_eq!(server.node.holds().len(), left, "{on_shutdown:?}");
        assert_eq!(server.db.all_sandboxes().await.unwrap().len(), left, "{on_shutdown:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_kill_works_without_the_database() {
    let server = Server::new().await;
    let sandbox = server.create(300).await;
    server.db.close().await;
    server.control.kill(&server.team, &sandbox.id).await.unwrap();
    assert!(server.node.holds().is_empty());
    assert!(!server.is_reachable(&sandbox.id).await);
}
