//! Lists of templates and look-ups by name.

use serde_json::Value;

use crate::server::Server;

#[tokio::test(start_paused = true)]
async fn both_lists_carry_every_field_that_clients_need() {
    let server = Server::new().await;
    server.create(300).await;
    for path in ["/templates", "/v2/templates"] {
        let answer = server.call(&format!("GET {path}?teamID={}", server.team)).await;
        assert_eq!(answer.status, 200);
        let list = answer.json();
        let template = list[0].as_object().unwrap();
        for name in [
            "aliases",
            "buildCount",
            "buildID",
            "buildStatus",
            "cpuCount",
            "createdAt",
            "createdBy",
            "diskSizeMB",
            "envdVersion",
            "lastSpawnedAt",
            "memoryMB",
            "names",
            "public",
            "spawnCount",
            "templateID",
            "updatedAt",
        ] {
            assert!(template.contains_key(name), "{name} in {template:?}");
        }
        assert_eq!(template["aliases"], serde_json::json!(["base"]));
        assert_eq!(template["names"], serde_json::json!(["base"]));
        assert_eq!(
            (&template["buildStatus"], &template["spawnCount"]),
            (&Value::from("ready"), &Value::from(1))
        );
        let other = server.call(&format!("GET {path}?teamID=00000000-0000-0000-0000-000000000000")).await;
        assert_eq!(other.error(), "400 Team ID param mismatch with the API key");
    }
}

#[tokio::test(start_paused = true)]
async fn a_template_shows_its_builds() {
    let server = Server::new().await;
    let answer = server.call("GET /templates/base").await;
    assert_eq!(answer.status, 200);
    let template = answer.json();
    assert_eq!(template["builds"].as_array().unwrap().len(), 1);
    assert_eq!(template["builds"][0]["status"], "ready");
    let by_id = server.call(&format!("GET /templates/{}", template["templateID"].as_str().unwrap())).await;
    assert_eq!(by_id.json(), template);
    assert_eq!(server.call("GET /templates/other").await.error(), "404 Template other not found");
}

#[tokio::test(start_paused = true)]
async fn an_alias_is_looked_up_encoded_or_not() {
    let server = Server::new().await;
    let id = server.call("GET /templates/base").await.json()["templateID"].clone();
    for alias in ["base", "base%3Adefault", "BASE"] {
        let answer = server.call(&format!("GET /templates/aliases/{alias}")).await;
        assert_eq!(answer.json(), serde_json::json!({"templateID": id, "public": true}), "{alias}");
    }
    for (alias, want) in [
        ("other", "404 Template other not found"),
        ("default%2Fbase", "404 Template default/base not found"),
        ("base%3Av1", "404 tag 'v1' does not exist for template 'base'"),
        ("a%2Fb%2Fc", "400 Invalid alias format: "),
    ] {
        let error = server.call(&format!("GET /templates/aliases/{alias}")).await.error();
        assert!(error.starts_with(want), "{alias}: {error}");
    }
}
