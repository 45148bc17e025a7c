//! Connect in all its forms, timeouts, and the end.

use serde_json::Value;

use crate::server::{Server, pass};

#[tokio::test(start_paused = true)]
async fn connecting_to_what_runs_extends_and_never_shortens() {
    let server = Server::new().await;
    let long = server.create(3600).await;
    let answer = server.call(&format!("POST /v2/sandboxes/{long}/connect {{}}")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["sandboxID"], Value::from(long.as_str()));
    assert!(answer.json()["envdAccessToken"].is_string());
    assert_eq!(server.lifetime(&long).await, 3600);

    let short = server.create(10).await;
    assert_eq!(server.call(&format!("POST /v2/sandboxes/{short}/connect")).await.status, 200);
    assert_eq!(server.lifetime(&short).await, 300);
    let first = server.call(&format!("POST /sandboxes/{short}/connect {{\"timeout\":400}}")).await;
    assert_eq!(first.status, 200);
    assert_eq!(server.lifetime(&short).await, 400);
}

#[tokio::test(start_paused = true)]
async fn timeouts_out_of_range_have_their_texts() {
    let server = Server::new().await;
    let id = server.create(300).await;
    for (call, want) in [
        ("POST /sandboxes/ID/connect", "400 Error when parsing request: "),
        ("POST /sandboxes/ID/connect {}", "400 validation error: missing field `timeout`"),
        (r#"POST /v2/sandboxes/ID/connect {"timeout":0}"#, "400 Timeout must be greater than 0"),
        (r#"POST /v2/sandboxes/ID/connect {"timeout":86401}"#, "400 Timeout cannot be greater than 24 hours"),
        (r#"POST /sandboxes/ID/connect {"timeout":86401}"#, "400 Timeout cannot be greater than 24 hours"),
        (r#"POST /sandboxes/ID/timeout {"timeout":-1}"#, "400 validation error: timeout must be at least 0"),
        ("POST /sandboxes/ID/timeout", "400 Error when parsing request: "),
        (
            r#"POST /sandboxes/ID/refreshes {"duration":3601}"#,
            "400 validation error: duration must be at most 3600",
        ),
    ] {
        let error = server.call(&call.replace("ID", &id)).await.error();
        assert!(error.starts_with(want), "{call}: {error}");
    }
    assert_eq!(server.call(&format!("POST /sandboxes/{id}/connect {{\"timeout\":0}}")).await.status, 200);
    assert_eq!(server.lifetime(&id).await, 300);
}

#[tokio::test(start_paused = true)]
async fn clients_before_2_6_connect_by_timeout_and_shorten() {
    let server = Server::new().await;
    let id = server.create(3600).await;
    assert_eq!(server.call(&format!("POST /sandboxes/{id}/timeout {{\"timeout\":300}}")).await.status, 204);
    assert_eq!(server.call(&format!("GET /sandboxes/{id}")).await.status, 200);
    assert_eq!(server.lifetime(&id).await, 300);
    let resume = server.call(&format!("POST /sandboxes/{id}/resume {{\"timeout\":300}}")).await;
    assert_eq!(resume.error(), format!("409 Sandbox {id} is already running"));
}

#[tokio::test(start_paused = true)]
async fn a_timeout_is_capped_and_zero_ends_it() {
    let server = Server::new().await;
    let id = server.create(300).await;
    let set = |secs: u32| format!("POST /sandboxes/{id}/timeout {{\"timeout\":{secs}}}");
    let answer = server.call(&set(999_999)).await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    assert_eq!(server.lifetime(&id).await, 24 * 3600);
    assert_eq!(server.call(&set(0)).await.status, 204);
    server.node.wait_for(0).await;
}

#[tokio::test(start_paused = true)]
async fn a_refresh_extends_only() {
    let server = Server::new().await;
    let id = server.create(20).await;
    let refresh = |body: &str| format!("POST /sandboxes/{id}/refreshes {body}");
    assert_eq!(server.call(&refresh("")).await.status, 204);
    assert_eq!(server.lifetime(&id).await, 20);
    assert_eq!(server.call(&refresh(r#"{"duration":60}"#)).await.status, 204);
    assert_eq!(server.lifetime(&id).await, 60);
}

#[tokio::test(start_paused = true)]
async fn what_ended_is_not_there_for_anybody() {
    let server = Server::new().await;
    let (killed, expired) = (server.create(300).await, server.create(10).await);
    let answer = server.call(&format!("DELETE /sandboxes/{killed}")).await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    pass(11).await;
    server.node.wait_for(0).await;

    for id in [killed.as_str(), expired.as_str(), "inever"] {
        for call in [
            "GET /sandboxes/ID",
            "DELETE /sandboxes/ID",
            "POST /v2/sandboxes/ID/connect",
            r#"POST /sandboxes/ID/connect {"timeout":1}"#,
            r#"POST /sandboxes/ID/timeout {"timeout":1}"#,
            "POST /sandboxes/ID/refreshes",
            "POST /sandboxes/ID/resume",
        ] {
            // The node was empty before the row went.
            let mut error = server.call(&call.replace("ID", id)).await.error();
            while error.starts_with("409") {
                error = server.call(&call.replace("ID", id)).await.error();
            }
            let want = format!("404 Sandbox \"{id}\" doesn't exist or you don't have access to it");
            assert_eq!(error, want, "{call}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn old_composite_ids_mean_the_same() {
    let server = Server::new().await;
    let id = server.create(300).await;
    assert_eq!(
        server.call(&format!("GET /sandboxes/{id}-6532622b")).await.json()["sandboxID"],
        Value::from(id.as_str())
    );
    for bad in ["UPPER", "a-b-c", "a%2Fb", "-"] {
        assert_eq!(
            server.call(&format!("GET /sandboxes/{bad}")).await.error(),
            "400 Invalid sandbox ID",
            "{bad}"
        );
    }
    assert_eq!(server.call(&format!("DELETE /sandboxes/{id}-6532622b")).await.status, 204);
}
