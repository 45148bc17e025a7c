//! What a sandbox's agent printed.

use serde_json::json;

use crate::server::Server;

#[tokio::test(start_paused = true)]
async fn the_agents_lines_are_told_twice() {
    let server = Server::new().await;
    let id = server.create(300).await;
    let answer = server.call(&format!("GET /sandboxes/{id}/logs")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    let logs = answer.json();
    assert_eq!(logs["logEntries"][0]["message"], json!(format!("{id} listens")));
    assert_eq!(logs["logEntries"][0]["level"], json!("info"));
    let line = logs["logs"][0]["line"].as_str().unwrap();
    assert!(line.contains("\"level\":\"info\""), "{line}");
}

#[tokio::test(start_paused = true)]
async fn the_logs_of_nobody_are_empty() {
    let server = Server::new().await;
    let answer = server.call("GET /sandboxes/iunknown/logs").await;
    assert_eq!((answer.status, answer.json()), (200, json!({ "logs": [], "logEntries": [] })));
}

#[tokio::test(start_paused = true)]
async fn a_start_that_is_no_number_is_named() {
    let server = Server::new().await;
    let answer = server.call("GET /sandboxes/iunknown/logs?start=yesterday").await;
    assert_eq!(answer.status, 400);
    assert!(answer.json()["message"].as_str().unwrap().contains("start must be a number"), "{answer:?}");
}
