//! What a name means, and the templates that come with Sandbar.

use std::time::Duration;

use sandbar_control::TemplateError;
use sandbar_model::TemplateRef;

use crate::server::{Server, pass, stock};

#[track_caller]
fn reference(text: &str) -> TemplateRef {
    text.parse().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_template_is_found_by_name_and_by_id() {
    let server = Server::new().await;
    let by_name = server.control.template(&server.team, &reference(" BASE:default ")).await.unwrap();
    let by_id = server.control.template(&server.team, &reference(by_name.id.as_str())).await.unwrap();
    assert_eq!(by_name, by_id);
    for unknown in ["nothing", "default/base", "other/base"] {
        let error = server.control.template(&server.team, &reference(unknown)).await.unwrap_err();
        assert!(matches!(error, TemplateError::NotFound(_)), "{unknown}: {error}");
    }
    let error = server.control.check_template(&server.team, &reference("base:v1")).await.unwrap_err();
    assert!(matches!(error, TemplateError::TagNotFound { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn publishing_the_same_again_changes_nothing() {
    let server = Server::new().await;
    let id = server.control.publish(stock("base")).await.unwrap();
    assert_eq!(server.control.publish(stock("base")).await.unwrap(), id);
    let template = server.control.template(&server.team, &reference("base")).await.unwrap();
    assert_eq!(template.build_count, 1);

    pass(Duration::from_secs(1)).await;
    let mut newer = stock("base");
    newer.layers.push("b".repeat(64).parse().unwrap());
    assert_eq!(server.control.publish(newer.clone()).await.unwrap(), id);
    let template = server.control.template(&server.team, &reference("base")).await.unwrap();
    assert_eq!(template.build_count, 2);
    assert_eq!(template.latest.unwrap().layers, newer.layers);
}

#[tokio::test(start_paused = true)]
async fn a_sandbox_starts_from_the_newest_build() {
    let server = Server::new().await;
    let mut newer = stock("base");
    newer.layers.push("b".repeat(64).parse().unwrap());
    server.control.publish(newer.clone()).await.unwrap();
    let sandbox = server.create(15).await;
    assert_eq!(server.node.spec(&sandbox.id).unwrap().build.layers, newer.layers);
}
