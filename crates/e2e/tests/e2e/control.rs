//! The control plane by hand: what the SDKs of one version cannot send, and what all of them rely on.
//!
//! Source: contract/control-api.md and contract/client-versions.md; the numbers are cases of its §5.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, ensure};
use libtest_mimic::Trial;
use reqwest::Method;
use sandbar_e2e::{Answer, Api, Created};
use serde_json::{Value, json};

use crate::suite::shared;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        shared("control::v1_create_lives_15_seconds_unless_told", async |server| {
            // Case 3.
            let (created, detail) =
                create(&server.api(), "/sandboxes", json!({ "templateID": "base" })).await?;
            ensure!(life(&detail)? == 15, "{detail}");
            ensure!(created.envd_access_token.is_none(), "a token although `secure` was not asked for");
            server.api().kill(&created.id).await
        }),
        shared("control::v2_create_lives_300_seconds_and_is_secured_whatever_is_sent", async |server| {
            // Cases 4, 5, 7, 9 and 75.
            let body = json!({ "templateID": "base", "secure": false, "unknown": [1], "mcp": null });
            let (created, detail) = create(&server.api(), "/v2/sandboxes", body).await?;
            ensure!(life(&detail)? == 300, "{detail}");
            let guest = server.api().guest(&created);
            ensure!(guest.token.is_some(), "no token");
            ensure!(guest.out("echo hi").await? == "hi");
            let refused = guest.without_token().call("process.Process/List", json!({})).await;
            // With neither token nor host label there is still the pair of routing headers.
            refused?.expect_error(401, "unauthorized access")?;
            server.api().kill(&created.id).await
        }),
        shared("control::a_token_opens_only_its_own_sandbox", async |server| {
            let api = server.api();
            let (first, second) = (api.create(json!({})).await?, api.create(json!({})).await?);
            let mixed = first.with_token(second.token.clone());
            mixed.call("process.Process/List", json!({})).await?.expect_error(401, "unauthorized access")?;
            api.kill(&first.id).await?;
            api.kill(&second.id).await
        }),
        shared("control::a_create_that_makes_no_sense_is_refused", async |server| {
            let api = server.api();
            // Case 6.
            for member in [json!(0), json!(-1), json!(300.0), json!("60"), json!(null)] {
                let answer =
                    api.post("/v2/sandboxes", json!({ "templateID": "base", "timeout": member })).await?;
                answer.expect_error(400, "").with_context(|| format!("timeout {member}"))?;
            }
            for body in [
                json!({ "templateID": "base", "network": null }),
                json!({}),
                json!([]),
                json!({ "templateID": "base", "metadata": { "a": 1 } }),
                json!({ "templateID": "base", "envVars": ["a"] }),
            ] {
                api.post("/v2/sandboxes", body.clone())
                    .await?
                    .expect_error(400, "")
                    .with_context(|| body.to_string())?;
            }
            let text = api.request(Method::POST, "/v2/sandboxes").header("content-type", "application/json");
            Answer::of(text.body("{\"templateID\":")).await?.expect_error(400, "")?;
            api.post("/sandboxes", json!({ "templateID": "no-such" }))
                .await?
                .expect_error(404, "'no-such' not found")?;
            api.post("/sandboxes", json!({ "templateID": "a/b/c" }))
                .await?
                .expect_error(400, "nvalid template ref")?;
            Ok(())
        }),
        shared("control::what_is_not_there_yet_is_refused_and_never_ignored", async |server| {
            for (member, value) in [
                ("autoPause", json!(true)),
                ("autoResume", json!({ "enabled": true })),
                ("network", json!({ "allowOut": ["1.1.1.1"] })),
                ("network", json!({ "denyOut": ["0.0.0.0/0"] })),
                ("network", json!({ "maskRequestHost": "localhost" })),
                ("volumeMounts", json!([{ "name": "v", "path": "/v" }])),
                ("mcp", json!({ "exa": {} })),
                ("iam", json!({ "tokens": { "t": { "audience": "a", "tokenType": "jwt" } } })),
            ] {
                let answer = server
                    .api()
                    .post("/v2/sandboxes", json!({ "templateID": "base", member: value }))
                    .await?;
                if answer.status == 201 {
                    server.api().kill(&answer.parse::<Created>()?.id).await?;
                }
                answer.expect_error(400, "").with_context(|| format!("{member}: {value}"))?;
            }
            Ok(())
        }),
        shared("control::defaults_that_are_sent_equal_defaults_that_are_not", async |server| {
            // Cases 10 and 11; what clients of 2.24 to 2.41 always send.
            let api = server.api();
            let sent = json!({
                "templateID": "base", "autoPause": false, "autoResume": { "enabled": false }, "autoPauseMemory": true,
                "secure": true, "allow_internet_access": true, "metadata": {}, "envVars": {}, "timeout": 60,
            });
            let (with, detail) = create(&api, "/sandboxes", sent).await?;
            let (without, plain) =
                create(&api, "/sandboxes", json!({ "templateID": "base", "timeout": 60 })).await?;
            ensure!(detail["lifecycle"] == plain["lifecycle"], "{detail} and {plain}");
            api.kill(&with.id).await?;
            api.kill(&without.id).await?;
            let contradiction = json!({ "templateID": "base", "autoPauseMemory": false });
            api.post("/sandboxes", contradiction).await?.expect_error(400, "autoPause")?;
            Ok(())
        }),
        shared("control::every_answer_has_the_members_that_strict_clients_need", async |server| {
            let api = server.api();
            let body = json!({ "templateID": "base", "timeout": 60 });
            let created = api.post("/v2/sandboxes", body).await?.expect(201)?.json()?;
            for member in ["templateID", "sandboxID", "clientID", "envdVersion", "envdAccessToken"] {
                ensure!(created[member].is_string(), "{member} of {created}");
            }
            let id = text(&created, "sandboxID")?;
            let detail = api.get(&format!("/sandboxes/{id}")).await?.expect(200)?.json()?;
            let listed = api.get("/v2/sandboxes").await?.expect(200)?.json()?;
            let listed =
                listed.as_array().context("a list")?.iter().find(|entry| entry["sandboxID"] == id.as_str());
            for entry in [&detail, listed.context("itself in the list")?] {
                for member in
                    ["templateID", "sandboxID", "clientID", "startedAt", "endAt", "state", "envdVersion"]
                {
                    ensure!(entry[member].is_string(), "{member} of {entry}");
                }
                for member in ["cpuCount", "memoryMB", "diskSizeMB"] {
                    ensure!(entry[member].is_u64(), "{member} of {entry}");
                }
                for member in ["network", "lifecycle"] {
                    ensure!(
                        !entry[member].is_null() || entry.get(member).is_none(),
                        "{member} is null in {entry}"
                    );
                }
            }
            api.kill(&id).await
        }),
        shared("control::connect_extends_and_never_shortens", async |server| {
            // Cases 12, 13, 15, 19 and 20.
            let api = server.api();
            let guest = api.create(json!({ "timeout": 3600 })).await?;
            let path = |version: &str| format!("{version}/sandboxes/{}/connect", guest.id);
            for body in [json!({}), json!({ "timeout": 30 })] {
                let again = api.post(&path("/v2"), body).await?.expect(200)?.parse::<Created>()?;
                ensure!(again.envd_access_token == guest.token, "another token");
                near(left(&api, &guest.id).await?, 3600)?;
            }
            api.post(&path(""), json!({ "timeout": 300 })).await?.expect(200)?;
            near(left(&api, &guest.id).await?, 3600)?;
            api.post(&format!("/sandboxes/{}/timeout", guest.id), json!({ "timeout": 10 }))
                .await?
                .expect(204)?;
            near(left(&api, &guest.id).await?, 10)?;
            // Without any body, which only the second form allows.
            api.send(Method::POST, &path("/v2")).await?.expect(200)?;
            near(left(&api, &guest.id).await?, 300)?;
            api.send(Method::POST, &path("")).await?.expect_error(400, "")?;
            api.post(&path("/v2"), json!({ "timeout": 0 }))
                .await?
                .expect_error(400, "Timeout must be greater than 0")?;
            let long = api.post(&path("/v2"), json!({ "timeout": 100_000_000 })).await?;
            long.expect_error(400, "Timeout cannot be greater than")?;
            api.kill(&guest.id).await?;
            api.post(&path("/v2"), json!({})).await?.expect_error(404, "")?;
            Ok(())
        }),
        shared("control::refreshes_extend_by_at_least_15_seconds", async |server| {
            let api = server.api();
            let guest = api.create(json!({ "timeout": 30 })).await?;
            let path = format!("/sandboxes/{}/refreshes", guest.id);
            api.post(&path, json!({ "duration": 100 })).await?.expect(204)?;
            near(left(&api, &guest.id).await?, 100)?;
            api.post(&path, json!({ "duration": 15 })).await?.expect(204)?;
            near(left(&api, &guest.id).await?, 100)?;
            api.kill(&guest.id).await
        }),
        shared("control::resume_of_a_running_sandbox_is_a_conflict", async |server| {
            // Case 18: clients of 2.0 to 2.5 look at the number in the body.
            let guest = server.api().create(json!({})).await?;
            let answer = server
                .api()
                .post(&format!("/sandboxes/{}/resume", guest.id), json!({ "timeout": 60 }))
                .await?;
            answer.expect_error(409, "already running")?;
            server.api().kill(&guest.id).await
        }),
        shared("control::the_client_suffix_of_old_ids_is_dropped", async |server| {
            // Case 28.
            let guest = server.api().create(json!({})).await?;
            let detail =
                server.api().get(&format!("/sandboxes/{}-6532622b", guest.id)).await?.expect(200)?.json()?;
            ensure!(detail["sandboxID"] == guest.id.as_str(), "{detail}");
            server.api().delete(&format!("/sandboxes/{}-6532622b", guest.id)).await?.expect(204)?;
            server.api().delete(&format!("/sandboxes/{}", guest.id)).await?.expect_error(404, "")?;
            server.api().delete("/sandboxes/i-b-c").await?.expect_error(400, "")?;
            Ok(())
        }),
        shared("control::nobody_gets_in_without_a_key", async |server| {
            let api = server.api();
            let anonymous = api.anonymous();
            for path in ["/sandboxes", "/v2/sandboxes", "/sandboxes/iabc", "/templates", "/v2/templates"] {
                anonymous.get(path).await?.expect_error(401, "authorization header is missing")?;
            }
            anonymous.post("/v2/sandboxes", json!({ "templateID": "base" })).await?.expect_error(401, "")?;
            let unknown = api.with_key("e2b_0000000000000000000000000000000000000000");
            unknown.get("/v2/sandboxes").await?.expect_error(401, "Invalid API key")?;
            api.with_key("nonsense").get("/v2/sandboxes").await?.expect_error(401, "")?;
            // Case 66: a bearer beside a good key is nobody's business.
            let request = api.request(Method::GET, "/v2/sandboxes").bearer_auth("x");
            Answer::of(request).await?.expect(200)?;
            anonymous.get("/health").await?.expect(200)?;
            Ok(())
        }),
        shared("control::a_request_for_nothing_says_what_was_asked", async |server| {
            // Case 43.
            let api = server.api();
            api.get("/no/such/route").await?.expect_error(404, "/no/such/route")?;
            let wrong = api.send(Method::PATCH, "/v2/sandboxes").await?;
            ensure!([404, 405].contains(&wrong.status), "{wrong:?}");
            let status = wrong.status;
            wrong.expect_error(status, "")?;
            api.get("/sandboxes/inosuchsandbox0000000").await?.expect_error(404, "inosuchsandbox0000000")?;
            api.get("/sandboxes/UPPER").await?.expect_error(400, "Invalid sandbox ID")?;
            for path in ["/sandboxes/inosuch/timeout", "/sandboxes/inosuch/refreshes"] {
                api.post(path, json!({ "timeout": 10, "duration": 20 })).await?.expect_error(404, "")?;
            }
            let large = json!({ "templateID": "base", "metadata": { "a": "x".repeat(17 * 1024 * 1024) } });
            let answer = api.post("/v2/sandboxes", large).await?;
            let status = answer.status;
            ensure!([400, 413].contains(&status), "{status}");
            answer.expect_error(status, "")?;
            Ok(())
        }),
        shared("control::lists_filter_and_page", async |server| {
            // Case 70, and what hand-written clients send.
            let api = server.api();
            let metadata = json!({ "suite": "lists", "with space": "a&b=c" });
            let mut ids = Vec::new();
            for _ in 0..3 {
                ids.push(api.create(json!({ "metadata": metadata })).await?.id);
            }
            let newest_first: Vec<_> = ids.iter().rev().cloned().collect();
            ensure!(api.ids_with("suite", "lists").await? == newest_first, "order");
            for states in ["running,paused", "running%2Cpaused", "running"] {
                let path = format!("/v2/sandboxes?metadata=suite%3Dlists&state={states}");
                let answer = api.get(&path).await?.expect(200)?;
                ensure!(answer.json()?.as_array().map(Vec::len) == Some(3), "{states}: {}", answer.text);
                ensure!(answer.header("x-total-running") == "3", "{:?}", answer.headers);
            }
            let mut paged = Vec::new();
            let mut next = String::new();
            loop {
                let path = format!("/v2/sandboxes?metadata=suite%3Dlists&limit=2{next}");
                let answer = api.get(&path).await?.expect(200)?;
                for entry in answer.json()?.as_array().context("a list")? {
                    paged.push(text(entry, "sandboxID")?);
                }
                let token = answer.header("x-next-token");
                if token.is_empty() {
                    break;
                }
                next = format!("&nextToken={token}");
            }
            ensure!(paged == newest_first, "{paged:?}");
            let old = api.get("/sandboxes?metadata=suite%3Dlists").await?.expect(200)?.json()?;
            ensure!(old.as_array().map(Vec::len) == Some(3), "{old}");
            for query in ["limit=0", "limit=101", "limit=x", "nextToken=bm9uc2Vuc2U", "state=gone"] {
                let answer = api.get(&format!("/v2/sandboxes?{query}")).await?;
                answer.expect_error(400, "").context(query)?;
            }
            for id in ids {
                api.kill(&id).await?;
            }
            ensure!(api.ids_with("suite", "lists").await?.is_empty(), "killed sandboxes are listed");
            Ok(())
        }),
        shared("control::the_stock_template_is_listed_and_found_by_name", async |server| {
            let api = server.api();
            for path in ["/templates", "/v2/templates"] {
                let list = api.get(path).await?.expect(200)?.json()?;
                let list = if list.is_array() { list } else { list["templates"].clone() };
                let base = list.as_array().context("a list")?.iter().find(|template| {
                    template["aliases"].as_array().is_some_and(|aliases| aliases.contains(&json!("base")))
                });
                let base = base.with_context(|| format!("base in {path}"))?;
                for member in
                    ["templateID", "buildID", "public", "cpuCount", "memoryMB", "diskSizeMB", "envdVersion"]
                {
                    ensure!(base.get(member).is_some(), "{member} of {base}");
                }
            }
            let found = api.get("/templates/aliases/base").await?.expect(200)?.json()?;
            ensure!(found["templateID"].is_string(), "{found}");
            api.get("/templates/aliases/no-such").await?.expect_error(404, "")?;
            // By its id, and by name with the default tag.
            for reference in [text(&found, "templateID")?, "base:default".to_owned(), "BASE".to_owned()] {
                let body = json!({ "templateID": reference, "timeout": 20 });
                let created = api.post("/sandboxes", body).await?.expect(201)?.parse::<Created>()?;
                api.kill(&created.id).await?;
            }
            api.post("/sandboxes", json!({ "templateID": "base:v9" })).await?.expect_error(404, "v9")?;
            Ok(())
        }),
        shared("control::browsers_may_call", async |server| {
            // Case 72.
            let request = server
                .api()
                .anonymous()
                .request(Method::OPTIONS, "/v2/sandboxes")
                .header("Origin", "https://example.org")
                .header("Access-Control-Request-Method", "POST")
                .header("Access-Control-Request-Headers", "x-api-key,content-type,idempotency-key");
            let answer = Answer::of(request).await?;
            ensure!(answer.is_success(), "{answer:?}");
            ensure!(answer.header("access-control-allow-origin") == "*", "{answer:?}");
            let allowed = answer.header("access-control-allow-headers").to_lowercase();
            for name in ["x-api-key", "content-type", "idempotency-key"] {
                ensure!(allowed == "*" || allowed.contains(name), "{name} in {allowed:?}");
            }
            let request =
                server.api().request(Method::GET, "/v2/sandboxes").header("Origin", "https://example.org");
            let exposed = Answer::of(request).await?.header("access-control-expose-headers").to_lowercase();
            for name in ["x-next-token", "retry-after", "should-retry"] {
                ensure!(exposed == "*" || exposed.contains(name), "{name} in {exposed:?}");
            }
            Ok(())
        }),
        shared("control::a_start_says_where_its_time_went", async |server| {
            let answer =
                server.api().post("/v2/sandboxes", json!({ "templateID": "base" })).await?.expect(201)?;
            let timing = answer.header("server-timing");
            ensure!(timing.contains("dur="), "Server-Timing is {timing:?}");
            server.api().kill(&answer.parse::<Created>()?.id).await
        }),
    ]
}

async fn create(api: &Api, path: &str, body: Value) -> Result<(Created, Value)> {
    let created = api.post(path, body).await?.expect(201)?.parse::<Created>()?;
    let detail = api.get(&format!("/sandboxes/{}", created.id)).await?.expect(200)?.json()?;
    Ok((created, detail))
}

fn text(object: &Value, member: &str) -> Result<String> {
    Ok(object[member].as_str().with_context(|| format!("{member} of {object}"))?.to_owned())
}

/// Whole seconds from start to expiry.
fn life(detail: &Value) -> Result<u64> {
    let life = seconds(&text(detail, "endAt")?)? - seconds(&text(detail, "startedAt")?)?;
    Ok(Duration::from_secs_f64(life).as_secs_f64().round() as u64)
}

/// Seconds until a sandbox expires.
async fn left(api: &Api, id: &str) -> Result<f64> {
    let detail = api.get(&format!("/sandboxes/{id}")).await?.expect(200)?.json()?;
    Ok(seconds(&text(&detail, "endAt")?)? - SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs_f64())
}

fn near(seconds: f64, want: u32) -> Result<()> {
    ensure!((seconds - f64::from(want)).abs() < 3.0, "want about {want} s, got {seconds}");
    Ok(())
}

/// Seconds since 1970 of an RFC 3339 text.
fn seconds(timestamp: &str) -> Result<f64> {
    let timestamp: jiff::Timestamp = timestamp.parse()?;
    Ok(timestamp.as_duration().as_secs_f64())
}
