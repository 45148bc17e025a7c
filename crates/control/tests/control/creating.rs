//! From the request to the first answer of the agent, and what remains when that does not come.

use std::time::Duration;

use sandbar_control::{CreateError, KillError, OnShutdown};
use sandbar_model::{EgressPolicy, ErrorKind, StartError};

use crate::server::{Server, new, pass};

#[tokio::test(start_paused = true)]
async fn a_sandbox_lives_from_the_end_of_its_start() {
    let server = Server::new().await;
    let created = server.control.create(&server.team, new(15)).await.unwrap();
    let sandbox = created.sandbox;
    assert_eq!(sandbox.deadline.duration_since(sandbox.started_at).as_secs(), 15);
    assert_eq!(sandbox.agent_version, "0.6.13");
    assert_eq!(sandbox.alias.as_deref(), Some("base"));
    assert!(created.stages.iter().any(|(name, _)| name == "engine"));
    assert_eq!(server.control.sandbox(&server.team, &sandbox.id).await.unwrap(), sandbox);
    assert!(server.is_reachable(&sandbox.id).await);
}

#[tokio::test(start_paused = true)]
async fn the_node_gets_what_the_caller_asked_for() {
    let server = Server::new().await;
    let mut wanted = new(15);
    wanted.env.insert("A".to_owned(), "1".to_owned());
    wanted.internet = Some(false);
    let sandbox = server.control.create(&server.team, wanted).await.unwrap().sandbox;
    let spec = server.node.spec(&sandbox.id).unwrap();
    assert_eq!(spec.env["A"], "1");
    assert_eq!(spec.egress, EgressPolicy::Nothing);
    assert_eq!(spec.access_token, sandbox.access_token);
    let token = sandbox.access_token.unwrap();
    assert_eq!(server.control.routes().find_by_token(token.expose()).await, Some(sandbox.id));
}

#[tokio::test(start_paused = true)]
async fn an_unsecured_sandbox_has_no_token() {
    let server = Server::new().await;
    let mut wanted = new(15);
    wanted.secured = false;
    let sandbox = server.control.create(&server.team, wanted).await.unwrap().sandbox;
    assert_eq!(sandbox.access_token, None);
    assert_eq!(server.node.spec(&sandbox.id).unwrap().access_token, None);
    assert_eq!(server.node.spec(&sandbox.id).unwrap().egress, EgressPolicy::Internet);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_goes_away_changes_nothing() {
    let server = Server::new().await;
    server.node.hold_starts();
    let (control, team) = (server.control.clone(), server.team.clone());
    let caller = tokio::spawn(async move { control.create(&team, new(15)).await });
    let id = server.node.wait_for(1).await.remove(0);
    caller.abort();
    assert!(caller.await.unwrap_err().is_cancelled());
    server.node.release_starts();
    while server.control.sandbox(&server.team, &id).await.is_err() {
        tokio::task::yield_now().await;
    }
    assert!(server.is_reachable(&id).await);
}

#[tokio::test(start_paused = true)]
async fn the_row_is_there_before_the_node_is_asked() {
    let server = Server::new().await;
    server.node.hold_starts();
    let (control, team) = (server.control.clone(), server.team.clone());
    let _caller = tokio::spawn(async move { control.create(&team, new(15)).await });
    let id = server.node.wait_for(1).await.remove(0);
    let row = server.db.sandbox(&id).await.unwrap().expect("recorded");
    assert_eq!(row.run, None);
    assert!(server.control.sandbox(&server.team, &id).await.is_err(), "not shown before it runs");
    assert!(!server.is_reachable(&id).await);
}

#[tokio::test(start_paused = true)]
async fn a_start_that_fails_leaves_nothing() {
    let server = Server::with(|config| config.concurrent_max = 1).await;
    let step = || StartError::Step { id: "ix".parse().unwrap(), step: "boot", source: "injected".into() };
    let full = || StartError::Full { node: "fake".parse().unwrap() };
    for (error, kind) in [(step(), ErrorKind::Internal), (full(), ErrorKind::Capacity)] {
        server.node.fail_next_start(error);
        let error = server.control.create(&server.team, new(15)).await.unwrap_err();
        assert_eq!(error.kind(), kind, "{error}");
        // Already when the caller hears of it, and its place is free again.
        assert!(server.db.all_sandboxes().await.unwrap().is_empty());
    }
    server.create(15).await;
}

#[tokio::test(start_paused = true)]
async fn a_start_that_takes_too_long_is_given_up() {
    let server = Server::with(|config| config.start_timeout = Duration::from_secs(50)).await;
    server.node.hold_starts();
    let (control, team) = (server.control.clone(), server.team.clone());
    let caller = tokio::spawn(async move { control.create(&team, new(15)).await });
    server.node.wait_for(1).await;
    pass(Duration::from_secs(51)).await;
    let error = caller.await.unwrap().unwrap_err();
    assert!(matches!(error, CreateError::TimedOut { .. }), "{error}");
    server.wait_until_empty().await;
}

#[tokio::test(start_paused = true)]
async fn a_kill_during_the_start_wins() {
    let server = Server::new().await;
    server.node.hold_starts();
    let (control, team) = (server.control.clone(), server.team.clone());
    let caller = tokio::spawn(async move { control.create(&team, new(15)).await });
    let id = server.node.wait_for(1).await.remove(0);
    server.control.kill(&server.team, &id).await.unwrap();
    let error = caller.await.unwrap().unwrap_err();
    assert!(matches!(error, CreateError::Killed(_)), "{error}");
    server.wait_until_empty().await;
    let again = server.control.kill(&server.team, &id).await;
    assert!(matches!(again, Err(KillError::NotFound(_))));
}

#[tokio::test(start_paused = true)]
async fn a_team_has_its_limit_and_starts_count() {
    let server = Server::with(|config| config.concurrent_max = 2).await;
    let first = server.create(15).await;
    server.node.hold_starts();
    let (control, team) = (server.control.clone(), server.team.clone());
    let second = tokio::spawn(async move { control.create(&team, new(15)).await });
    server.node.wait_for(2).await;
    let error = server.control.create(&server.team, new(15)).await.unwrap_err();
    assert!(matches!(error, CreateError::LimitReached { max: 2 }), "{error}");

    server.node.release_starts();
    second.await.unwrap().unwrap();
    server.control.kill(&server.team, &first.id).await.unwrap();
    server.create(15).await;
}

#[tokio::test(start_paused = true)]
async fn many_at_once_all_succeed() {
    let server = Server::new().await;
    let creates = (0..20).map(|_| {
        let (control, team) = (server.control.clone(), server.team.clone());
        tokio::spawn(async move { control.create(&team, new(15)).await.unwrap().sandbox.id })
    });
    let creates: Vec<_> = creates.collect();
    let mut ids = Vec::new();
    for create in creates {
        ids.push(create.await.unwrap());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20);
    assert_eq!(server.node.holds(), ids);
}

#[tokio::test(start_paused = true)]
async fn timeouts_out_of_range_are_refused_before_anything_is_done() {
    let server = Server::with(|config| config.run_max = Duration::from_secs(3600)).await;
    for (secs, want) in [(0, "timeout is zero"), (3601, "timeout is longer than 3600s")] {
        let error = server.control.create(&server.team, new(secs)).await.unwrap_err();
        assert_eq!(error.to_string(), want);
        assert_eq!(error.kind(), ErrorKind::Invalid);
    }
    server.create(3600).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_ends_takes_no_new_sandboxes() {
    let server = Server::new().await;
    server.control.shutdown().await;
    let error = server.control.create(&server.team, new(15)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Capacity);
    assert!(server.control.is_draining());
}

#[tokio::test(start_paused = true)]
async fn a_start_is_finished_or_undone_when_the_server_ends() {
    for (on_shutdown, left) in [(OnShutdown::Keep, 1), (OnShutdown::Kill, 0)] {
        let server = Server::with(|config| config.on_shutdown = on_shutdown).await;
        server.node.hold_starts();
        let (control, team) = (server.control.clone(), server.team.clone());
        let caller = tokio::spawn(async move { control.create(&team, new(15)).await });
        server.node.wait_for(1).await;
        let control = server.control.clone();
        let end = tokio::spawn(async move { control.shutdown().await });
        while !server.control.is_draining() {
            tokio::task::yield_now().await;
        }
        if on_shutdown == OnShutdown::Keep {
            server.node.release_starts();
        }
        assert_eq!(caller.await.unwrap().is_ok(), left == 1, "{on_shutdown:?}");
        end.await.unwrap();
        assert_eq!(server.node.holds().len(), left, "{on_shutdown:?}");
        assert_eq!(server.db.all_sandboxes().await.unwrap().len(), left, "{on_shutdown:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_that_cannot_be_recorded_does_not_run() {
    let server = Server::with(|config| config.concurrent_max = 1).await;
    server.node.hold_starts();
    let (control, team) = (server.control.clone(), server.team.clone());
    let caller = tokio::spawn(async move { control.create(&team, new(15)).await });
    let id = server.node.wait_for(1).await.remove(0);
    server.db.close().await;
    server.node.release_starts();
    let error = caller.await.unwrap().unwrap_err();
    assert!(matches!(error, CreateError::Db { .. }), "{error}");
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(server.node.holds().is_empty());
    assert!(!server.is_reachable(&id).await);
}
