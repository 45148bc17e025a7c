//! How a sandbox begins and ends.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use libtest_mimic::Trial;
use reqwest::Method;
use sandbar_e2e::{Answer, Api, until};
use serde_json::json;

use crate::suite::shared;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        shared("lifetime::expiry_is_precise", async |server| {
            let api = server.api();
            let guest = api.create(json!({ "timeout": 3 })).await?;
            let started = Instant::now();
            let gone = until("end of the sandbox", Duration::from_secs(10), async || {
                Ok((!guest.is_running().await?).then(|| started.elapsed()))
            });
            let gone = gone.await?;
            // The start was complete a little before its answer was here.
            ensure!(gone > Duration::from_millis(2500) && gone < Duration::from_millis(3600), "{gone:?}");
            api.get(&format!("/sandboxes/{}", guest.id)).await?.expect_error(404, &guest.id)?;
            // A kill that comes while its end is under way joins that.
            let killed = api.delete(&format!("/sandboxes/{}", guest.id)).await?.status;
            ensure!([204, 404].contains(&killed), "{killed}");
            api.delete(&format!("/sandboxes/{}", guest.id)).await?.expect_error(404, "")?;
            Ok(())
        }),
        shared("lifetime::timeout_zero_ends_it_at_once", async |server| {
            let api = server.api();
            let guest = api.create(json!({})).await?;
            api.post(&format!("/sandboxes/{}/timeout", guest.id), json!({ "timeout": 0 }))
                .await?
                .expect(204)?;
            gone(&api, &guest.id).await
        }),
        shared("lifetime::a_moved_expiry_counts_and_the_old_one_does_not", async |server| {
            let api = server.api();
            let guest = api.create(json!({ "timeout": 2 })).await?;
            api.post(&format!("/sandboxes/{}/timeout", guest.id), json!({ "timeout": 60 }))
                .await?
                .expect(204)?;
            tokio::time::sleep(Duration::from_secs(3)).await;
            ensure!(guest.out("echo here").await? == "here");
            api.kill(&guest.id).await
        }),
        shared("lifetime::kill_twice_at_the_same_time_is_killing_once", async |server| {
            let api = server.api();
            let guest = api.create(json!({})).await?;
            let path = format!("/sandboxes/{}", guest.id);
            let (first, second) = tokio::join!(api.delete(&path), api.delete(&path));
            let mut statuses = [first?.status, second?.status];
            statuses.sort_unstable();
            ensure!(statuses == [204, 204] || statuses == [204, 404], "{statuses:?}");
            gone(&api, &guest.id).await
        }),
        shared("lifetime::kill_wins_over_a_start_that_is_under_way", async |server| {
            let api = server.api();
            let metadata = json!({ "suite": "kill-during-start" });
            let create = api.post("/v2/sandboxes", json!({ "templateID": "base", "metadata": metadata }));
            let kill = until("sight of the sandbox", Duration::from_secs(30), async || {
                let Some(id) = api.ids_with("suite", "kill-during-start").await?.pop() else {
                    return Ok(None);
                };
                Ok(Some((api.delete(&format!("/sandboxes/{id}")).await?, id)))
            });
            let (created, killed) = tokio::join!(create, kill);
            let (answer, id) = killed?;
            ensure!([204, 404].contains(&answer.status), "{answer:?}");
            // Whether the client still heard of the start is a matter of luck; that it is over is not.
            let created = created?;
            ensure!([201, 404, 409, 500].contains(&created.status), "{created:?}");
            gone(&api, &id).await
        }),
        shared("lifetime::a_client_that_hangs_up_during_create_changes_nothing", async |server| {
            let api = server.api();
            let body = json!({ "templateID": "base", "metadata": { "suite": "hang-up" } });
            let create = Answer::of(api.request(Method::POST, "/v2/sandboxes").json(&body));
            let heard = tokio::time::timeout(Duration::from_millis(40), create).await;
            ensure!(heard.is_err(), "the start was over before the client could hang up");
            let id = until("the sandbox", Duration::from_secs(30), async || {
                Ok(api.ids_with("suite", "hang-up").await?.pop())
            });
            let id = id.await?;
            // The first answer is lost; `connect` is how a client gets at it.
            let created =
                api.post(&format!("/v2/sandboxes/{id}/connect"), json!({})).await?.expect(200)?.parse()?;
            ensure!(api.guest(&created).out("echo alive").await? == "alive");
            api.kill(&id).await
        }),
        shared("lifetime::a_sandbox_whose_agent_dies_is_gone", async |server| {
            let api = server.api();
            let guest = api.create(json!({})).await?;
            // The agent is the first process: nothing in the guest outlives it.
            drop(guest.run_as(Some("root"), "kill -9 1; kill -TERM 1; pkill -9 -o .").await);
            if guest.is_running().await? {
                // A kernel that protects the first process from its children is fine too.
                return api.kill(&guest.id).await;
            }
            gone(&api, &guest.id).await
        }),
        shared("lifetime::twenty_creates_at_once_succeed", async |server| {
            let api = server.api();
            let creates = (0..20).map(|_| api.create(json!({ "timeout": 60 })));
            let guests = futures::future::try_join_all(creates).await?;
            let answers = guests.iter().map(|guest| guest.out("echo $E2B_SANDBOX_ID"));
            let answers = futures::future::try_join_all(answers).await?;
            ensure!(answers.iter().eq(guests.iter().map(|guest| &guest.id)), "{answers:?}");
            futures::future::try_join_all(guests.iter().map(|guest| api.kill(&guest.id))).await?;
            Ok(())
        }),
    ]
}

/// Waits until neither plane knows a sandbox.
async fn gone(api: &Api, id: &str) -> Result<()> {
    until("end of the sandbox", Duration::from_secs(10), async || {
        let detail = api.get(&format!("/sandboxes/{id}")).await?;
        let list = api.get("/v2/sandboxes").await?.expect(200)?;
        Ok((detail.status == 404 && !list.text.contains(id)).then_some(()))
    })
    .await
}
