//! What a new server does with what the one before left.

use std::time::Duration;

use sandbar_model::StopReason;

use crate::server::{Server, new, pass};

#[tokio::test(start_paused = true)]
async fn what_still_runs_is_adopted_with_its_deadline() {
    let mut server = Server::new().await;
    let sandbox = server.create(100).await;
    server.restart().await;
    assert_eq!(server.control.sandbox(&server.team, &sandbox.id).await.unwrap(), sandbox);
    let mut route = server.control.routes().find(&sandbox.id).await;
    while route.is_err() {
        tokio::task::yield_now().await;
        route = server.control.routes().find(&sandbox.id).await;
    }
    let token = sandbox.access_token.unwrap();
    assert_eq!(server.control.routes().find_by_token(token.expose()).await, Some(sandbox.id.clone()));
    server.control.connect(&server.team, &sandbox.id, Duration::from_secs(200)).await.unwrap();
    pass(Duration::from_secs(199)).await;
    assert!(server.control.sandbox(&server.team, &sandbox.id).await.is_ok());
    pass(Duration::from_secs(2)).await;
    server.wait_until_empty().await;
}

#[tokio::test(start_paused = true)]
async fn an_adopted_sandbox_counts_for_its_team() {
    let mut server = Server::with(|config| config.concurrent_max = 1).await;
    let sandbox = server.create(100).await;
    server.restart().await;
    assert!(server.control.create(&server.team, new(15)).await.is_err());
    server.control.kill(&server.team, &sandbox.id).await.unwrap();
    server.create(15).await;
}

#[tokio::test(start_paused = true)]
async fn what_expired_meanwhile_ends() {
    let mut server = Server::new().await;
    let sandbox = server.create(10).await;
    server.control.shutdown().await;
    pass(Duration::from_secs(60)).await;
    assert_eq!(server.node.holds(), std::slice::from_ref(&sandbox.id));
    server.crash().await;
    server.wait_until_empty().await;
    assert_eq!(server.node.stops(), [(sandbox.id, StopReason::Expired)]);
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_is_forgotten() {
    let mut server = Server::new().await;
    let sandbox = server.create(100).await;
    server.node.reboot();
    server.restart().await;
    server.wait_until_gone(&sandbox.id).await;
    assert!(server.control.sandbox(&server.team, &sandbox.id).await.is_err());
    server.create(15).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_was_begun_is_undone() {
    let mut server = Server::new().await;
    server.node.hold_starts();
    let (control, team) = (server.control.clone(), server.team.clone());
    let _caller = tokio::spawn(async move { control.create(&team, new(15)).await });
    let id = server.node.wait_for(1).await.remove(0);
    server.crash().await;
    server.wait_until_gone(&id).await;
    assert!(server.node.stops().contains(&(id, StopReason::StartFailed)));
}

#[tokio::test(start_paused = true)]
async fn an_end_that_was_begun_is_finished() {
    let mut server = Server::new().await;
    let sandbox = server.create(100).await;
    server.node.fail_next_stops(1);
    server.control.kill(&server.team, &sandbox.id).await.unwrap();
    assert_eq!(server.node.holds(), std::slice::from_ref(&sandbox.id));
    server.crash().await;
    server.wait_until_empty().await;
}

#[tokio::test(start_paused = true)]
async fn what_nobody_asked_for_is_stopped() {
    let mut server = Server::new().await;
    let sandbox = server.create(100).await;
    let spec = server.node.spec(&sandbox.id).unwrap();
    let stray = "istray".parse().unwrap();
    server.node.run_stray(&stray, spec);
    server.restart().await;
    assert_eq!(server.node.wait_for(1).await, [sandbox.id]);
    assert_eq!(server.node.stops(), [(stray, StopReason::Lost)]);
}
