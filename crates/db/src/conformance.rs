//! What every store must do, as one suite: each case runs against each store.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use sandbar_model::{
    ApiKeyId, BuildId, Mib, Resources, RunId, SandboxId, StopReason, TeamId, TemplateId, WorkloadDefaults,
};
use uuid::Uuid;

use crate::record::{ApiKey, Build, BuildStatus, KeyMask, Publication, Run, Sandbox, Team, TemplateName};
use crate::{Database, DbError, Order, PageAfter, SandboxFilter, open};

/// A store and what keeps it alive.
struct Store {
    db: Arc<dyn Database>,
    _dir: Option<tempfile::TempDir>,
}

async fn in_memory() -> Store {
    Store { db: open("sqlite::memory:").await.unwrap(), _dir: None }
}

async fn on_file() -> Store {
    let dir = tempfile::tempdir().unwrap();
    let url = format!("sqlite:{}", dir.path().join("db").display());
    Store { db: open(&url).await.unwrap(), _dir: Some(dir) }
}

/// Each case, for each store.
macro_rules! suite {
    ($($case:ident)*) => {
        mod sqlite_in_memory {
            $(#[tokio::test] async fn $case() { super::$case(super::in_memory().await.db).await; })*
        }
        mod sqlite_on_file {
            $(#[tokio::test] async fn $case() {
                let store = super::on_file().await;
                super::$case(store.db.clone()).await;
            })*
        }
    };
}

suite! {
    a_key_finds_its_team
    there_is_one_default_team
    a_key_hash_is_taken_once
    a_name_means_the_newest_publication
    names_live_in_namespaces
    templates_and_builds_come_in_pages
    a_sandbox_comes_back_as_it_was
    a_start_is_counted_for_the_template
    the_first_reason_to_end_stays
    lists_show_what_runs_and_shall_run
    filters_all_apply
    pages_follow_each_other_in_both_orders
    metadata_may_be_any_text
}

fn at(secs: i64) -> Timestamp {
    Timestamp::from_microsecond(secs * 1_000_000 + 123_456).unwrap()
}

fn uuid(number: u128) -> Uuid {
    Uuid::from_u128(number)
}

fn team(number: u128) -> Team {
    Team {
        id: TeamId(uuid(number)),
        slug: format!("team-{number}"),
        name: format!("Team {number}"),
        is_default: number == 1,
        created_at: at(1),
    }
}

fn key(team: &Team, hash: [u8; 32]) -> ApiKey {
    let mask = KeyMask {
        prefix: "e2b_".to_owned(),
        value_length: 40,
        first: "ab".to_owned(),
        last: "cdef".to_owned(),
    };
    ApiKey {
        id: ApiKeyId(Uuid::new_v4()),
        team: team.id,
        name: "first".to_owned(),
        hash,
        mask,
        created_at: at(2),
    }
}

fn resources() -> Resources {
    Resources { vcpus: NonZeroU32::new(2).unwrap(), memory: Mib(1024), disk: Mib(10240), pids: 4096 }
}

fn build(number: u128, template: &str, created: i64) -> Build {
    Build {
        id: BuildId(uuid(number)),
        template: template.parse().unwrap(),
        status: BuildStatus::Ready,
        layers: vec!["a".repeat(64).parse().unwrap(), "b".repeat(64).parse().unwrap()],
        resources: resources(),
        agent_version: "0.6.13".to_owned(),
        defaults: WorkloadDefaults { user: "user".to_owned(), workdir: Some("/code".to_owned()) },
        created_at: at(created),
        updated_at: at(created),
        finished_at: Some(at(created + 1)),
    }
}

fn publication(team: &Team, namespace: Option<&str>, name: &str, build: Build) -> Publication {
    Publication {
        team: team.id,
        public: true,
        name: TemplateName { namespace: namespace.map(str::to_owned), name: name.to_owned() },
        tag: "default".to_owned(),
        build,
    }
}

fn sandbox(team: &Team, id: &str) -> Sandbox {
    Sandbox {
        id: id.parse().unwrap(),
        team: team.id,
        template: "tmpl".parse().unwrap(),
        build: BuildId(uuid(1)),
        alias: Some("base".to_owned()),
        resources: resources(),
        metadata: BTreeMap::from([("user".to_owned(), id.to_owned())]),
        secured: true,
        internet: Some(false),
        timeout: Duration::from_secs(300),
        created_at: at(10),
        ending: None,
        run: None,
    }
}

fn run(started: i64) -> Run {
    Run {
        id: RunId(uuid(7)),
        node: "node".parse().unwrap(),
        address: Ipv4Addr::new(10, 1, 2, 3),
        agent_version: "0.6.13".to_owned(),
        started_at: at(started),
        deadline: at(started + 300),
    }
}

fn everything_of(team: &Team) -> SandboxFilter {
    SandboxFilter { team: team.id, metadata: BTreeMap::new(), template: None, started_after: None }
}

/// Adds a sandbox that runs.
async fn add_running(db: &dyn Database, sandbox: &Sandbox, started: i64) {
    db.insert_sandbox(sandbox).await.unwrap();
    db.insert_run(&sandbox.id, &run(started)).await.unwrap();
}

fn ids(sandboxes: &[Sandbox]) -> String {
    sandboxes.iter().map(|sandbox| sandbox.id.as_str()).collect::<Vec<_>>().join(" ")
}

async fn a_key_finds_its_team(db: Arc<dyn Database>) {
    let (ours, other) = (team(1), team(2));
    db.insert_team(&ours).await.unwrap();
    db.insert_team(&other).await.unwrap();
    assert!(!db.has_api_keys().await.unwrap());
    db.insert_api_key(&key(&other, [9; 32])).await.unwrap();
    assert!(db.has_api_keys().await.unwrap());
    assert_eq!(db.team_of_key(&[9; 32]).await.unwrap(), Some(other));
    assert_eq!(db.team_of_key(&[8; 32]).await.unwrap(), None);
}

async fn there_is_one_default_team(db: Arc<dyn Database>) {
    assert_eq!(db.default_team().await.unwrap(), None);
    db.insert_team(&team(2)).await.unwrap();
    assert_eq!(db.default_team().await.unwrap(), None);
    db.insert_team(&team(1)).await.unwrap();
    assert_eq!(db.default_team().await.unwrap(), Some(team(1)));
    let second = Team { is_default: true, ..team(3) };
    assert!(matches!(db.insert_team(&second).await, Err(DbError::Exists { .. })));
}

async fn a_key_hash_is_taken_once(db: Arc<dyn Database>) {
    db.insert_team(&team(1)).await.unwrap();
    db.insert_api_key(&key(&team(1), [9; 32])).await.unwrap();
    let again = db.insert_api_key(&key(&team(1), [9; 32])).await;
    assert!(matches!(again, Err(DbError::Exists { .. })), "{again:?}");
}

async fn a_name_means_the_newest_publication(db: Arc<dyn Database>) {
    let owner = team(1);
    db.insert_team(&owner).await.unwrap();
    let first = build(1, "tmpl", 10);
    let id: TemplateId = "tmpl".parse().unwrap();
    assert_eq!(db.publish(&publication(&owner, None, "base", first.clone())).await.unwrap(), id);
    assert_eq!(db.tagged_build(&id, "default").await.unwrap(), Some(first));
    assert_eq!(db.tagged_build(&id, "v1").await.unwrap(), None);

    // The name keeps its template, whatever the build would have called it.
    let second = build(2, "other", 20);
    assert_eq!(db.publish(&publication(&owner, None, "base", second.clone())).await.unwrap(), id);
    let second = Build { template: id.clone(), ..second };
    assert_eq!(db.tagged_build(&id, "default").await.unwrap(), Some(second.clone()));

    let template = db.template(&id).await.unwrap().unwrap();
    assert_eq!((template.team, template.public, template.build_count), (owner.id, true, 2));
    assert_eq!((template.created_at, template.updated_at), (at(10), at(20)));
    assert_eq!(template.latest, Some(second));
    assert_eq!(template.names, [TemplateName { namespace: None, name: "base".to_owned() }]);
    assert_eq!(db.template(&"other".parse().unwrap()).await.unwrap(), None);
}

async fn names_live_in_namespaces(db: Arc<dyn Database>) {
    let owner = team(1);
    db.insert_team(&owner).await.unwrap();
    db.publish(&publication(&owner, None, "base", build(1, "global", 10))).await.unwrap();
    db.publish(&publication(&owner, Some("team-1"), "base", build(2, "own", 10))).await.unwrap();
    let found = |namespace| {
        let db = db.clone();
        async move { db.find_template(namespace, "base").await.unwrap().map(|id| id.to_string()) }
    };
    assert_eq!(found(None).await.as_deref(), Some("global"));
    assert_eq!(found(Some("team-1")).await.as_deref(), Some("own"));
    assert_eq!(found(Some("team-2")).await, None);
}

async fn templates_and_builds_come_in_pages(db: Arc<dyn Database>) {
    let owner = team(1);
    db.insert_team(&owner).await.unwrap();
    for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
        // Two of the same time, so that the id decides.
        let created = if number == 2 { 20 } else { 10 };
        let build = build(number as u128, name, created);
        db.publish(&publication(&owner, None, name, build)).await.unwrap();
    }
    db.publish(&publication(&owner, None, "c", build(9, "c", 30))).await.unwrap();

    let page = db.templates(owner.id, None, 2).await.unwrap();
    assert_eq!(page.iter().map(|template| template.id.as_str()).collect::<Vec<_>>(), ["c", "b"]);
    let after = PageAfter { at: page[1].created_at, id: page[1].id.to_string() };
    let page = db.templates(owner.id, Some(&after), 2).await.unwrap();
    assert_eq!(page.iter().map(|template| template.id.as_str()).collect::<Vec<_>>(), ["a"]);
    assert!(db.templates(team(2).id, None, 2).await.unwrap().is_empty());

    let id: TemplateId = "c".parse().unwrap();
    let page = db.builds(&id, None, 1).await.unwrap();
    assert_eq!(page[0].id, BuildId(uuid(9)));
    let after = PageAfter { at: page[0].created_at, id: page[0].id.to_string() };
    let page = db.builds(&id, Some(&after), 1).await.unwrap();
    assert_eq!(page[0].id, BuildId(uuid(2)));
}

async fn a_sandbox_comes_back_as_it_was(db: Arc<dyn Database>) {
    let owner = team(1);
    db.insert_team(&owner).await.unwrap();
    let mut wanted = sandbox(&owner, "ia");
    db.insert_sandbox(&wanted).await.unwrap();
    assert_eq!(db.sandbox(&wanted.id).await.unwrap(), Some(wanted.clone()));
    assert!(matches!(db.insert_sandbox(&wanted).await, Err(DbError::Exists { .. })));
    assert!(!db.set_deadline(&wanted.id, at(1)).await.unwrap(), "no run yet");

    db.insert_run(&wanted.id, &run(20)).await.unwrap();
    assert!(db.set_deadline(&wanted.id, at(999)).await.unwrap());
    wanted.run = Some(Run { deadline: at(999), ..run(20) });
    assert_eq!(db.sandbox(&wanted.id).await.unwrap(), Some(wanted.clone()));
    assert_eq!(db.all_sandboxes().await.unwrap(), [wanted.clone()]);

    db.delete_sandbox(&wanted.id).await.unwrap();
    db.delete_sandbox(&wanted.id).await.unwrap();
    assert_eq!(db.sandbox(&wanted.id).await.unwrap(), None);
    assert!(!db.set_deadline(&wanted.id, at(1)).await.unwrap(), "the run went with it");

    let plain = Sandbox {
        alias: None,
        internet: None,
        secured: false,
        metadata: BTreeMap::new(),
        ..sandbox(&owner, "ib")
    };
    db.insert_sandbox(&plain).await.unwrap();
    assert_eq!(db.sandbox(&plain.id).await.unwrap(), Some(plain));
}

async fn a_start_is_counted_for_the_template(db: Arc<dyn Database>) {
    let owner = team(1);
    db.insert_team(&owner).await.unwrap();
    let id = db.publish(&publication(&owner, None, "base", build(1, "tmpl", 10))).await.unwrap();
    add_running(&*db, &sandbox(&owner, "ia"), 20).await;
    add_running(&*db, &sandbox(&owner, "ib"), 30).await;
    let template = db.template(&id).await.unwrap().unwrap();
    assert_eq!((template.spawn_count, template.last_spawned_at), (2, Some(at(30))));
}

async fn the_first_reason_to_end_stays(db: Arc<dyn Database>) {
    let owner = team(1);
    db.insert_team(&owner).await.unwrap();
    let id: SandboxId = "ia".parse().unwrap();
    assert!(!db.set_ending(&id, StopReason::Expired).await.unwrap());
    add_running(&*db, &sandbox(&owner, "ia"), 20).await;
    for reason in [StopReason::Expired, StopReason::Requested] {
        assert!(db.set_ending(&id, reason).await.unwrap());
    }
    assert_eq!(db.sandbox(&id).await.unwrap().unwrap().ending, Some(StopReason::Expired));
}

async fn lists_show_what_runs_and_shall_run(db: Arc<dyn Database>) {
    let (owner, other) = (team(1), team(2));
    db.insert_team(&owner).await.unwrap();
    db.insert_team(&other).await.unwrap();
    add_running(&*db, &sandbox(&owner, "irunning"), 20).await;
    db.insert_sandbox(&sandbox(&owner, "istarting")).await.unwrap();
    add_running(&*db, &sandbox(&owner, "iending"), 21).await;
    db.set_ending(&"iending".parse().unwrap(), StopReason::Requested).await.unwrap();
    add_running(&*db, &sandbox(&other, "iforeign"), 22).await;

    let filter = everything_of(&owner);
    let list = db.running(&filter, Order::Descending, None, 10).await.unwrap();
    assert_eq!(ids(&list), "irunning");
    assert_eq!(db.count_running(&filter).await.unwrap(), 1);
}

async fn filters_all_apply(db: Arc<dyn Database>) {
    let owner = team(1);
    db.insert_team(&owner).await.unwrap();
    for (number, id) in ["ia", "ib", "ic"].into_iter().enumerate() {
        let mut sandbox = sandbox(&owner, id);
        sandbox.metadata.insert("app".to_owned(), "prod".to_owned());
        if id == "ic" {
            sandbox.template = "elsewhere".parse().unwrap();
        }
        add_running(&*db, &sandbox, 20 + number as i64).await;
    }
    let pairs = |pairs: &[(&str, &str)]| -> BTreeMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let all = everything_of(&owner);
    for (filter, want) in [
        (SandboxFilter { metadata: pairs(&[("app", "prod")]), ..all.clone() }, "ia ib ic"),
        (SandboxFilter { metadata: pairs(&[("app", "prod"), ("user", "ib")]), ..all.clone() }, "ib"),
        (SandboxFilter { metadata: pairs(&[("app", "pro")]), ..all.clone() }, ""),
        (SandboxFilter { template: Some("elsewhere".parse().unwrap()), ..all.clone() }, "ic"),
        (SandboxFilter { started_after: Some(at(21)), ..all.clone() }, "ib ic"),
        (SandboxFilter { started_after: Some(at(23)), ..all.clone() }, ""),
    ] {
        let list = db.running(&filter, Order::Ascending, None, 10).await.unwrap();
        assert_eq!(ids(&list), want, "{filter:?}");
        assert_eq!(db.count_running(&filter).await.unwrap(), list.len() as u64, "{filter:?}");
    }
}

async fn pages_follow_each_other_in_both_orders(db: Arc<dyn Database>) {
    let owner = team(1);
    db.insert_team(&owner).await.unwrap();
    // Three of the same time, so that the id decides.
    for (id, started) in [("ia", 1), ("id", 2), ("ib", 2), ("ic", 2), ("ie", 3)] {
        add_running(&*db, &sandbox(&owner, id), started).await;
    }
    let filter = everything_of(&owner);
    for (order, want) in [(Order::Ascending, "ia ib ic id ie"), (Order::Descending, "ie id ic ib ia")] {
        let (mut seen, mut after) = (Vec::new(), None);
        loop {
            let page = db.running(&filter, order, after.as_ref(), 2).await.unwrap();
            let Some(last) = page.last() else { break };
            after = Some(PageAfter { at: last.run.as_ref().unwrap().started_at, id: last.id.to_string() });
            seen.extend(page);
        }
        assert_eq!(ids(&seen), want, "{order:?}");
    }
}

async fn metadata_may_be_any_text(db: Arc<dyn Database>) {
    let owner = team(1);
    db.insert_team(&owner).await.unwrap();
    let odd = [
        "",
        "a b",
        "k=v&x",
        "100%",
        "\"quoted\" $.path[0]",
        "ünï ☃",
        "'; DROP TABLE teams",
        "line\nbreak",
        "1",
    ];
    for (number, text) in odd.into_iter().enumerate() {
        let mut sandbox = sandbox(&owner, &format!("i{number}"));
        sandbox.metadata = BTreeMap::from([(format!("key {text}"), text.to_owned())]);
        add_running(&*db, &sandbox, number as i64).await;
    }
    for (number, text) in odd.into_iter().enumerate() {
        let metadata = BTreeMap::from([(format!("key {text}"), text.to_owned())]);
        let filter = SandboxFilter { metadata, ..everything_of(&owner) };
        let list = db.running(&filter, Order::Ascending, None, 10).await.unwrap();
        assert_eq!(ids(&list), format!("i{number}"), "{text:?}");
    }
}

#[tokio::test]
async fn a_file_keeps_what_was_acknowledged_and_is_nobody_elses() {
    use std::os::unix::fs::PermissionsExt;

    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("db");
    let url = format!("sqlite:{}", path.display());
    let db = open(&url).await.unwrap();
    db.insert_team(&team(1)).await.unwrap();
    // As after a crash: the second opens beside the first, which never closed.
    let again = open(&url).await.unwrap();
    assert_eq!(again.default_team().await.unwrap(), Some(team(1)));
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    db.close().await;
    again.close().await;
}

#[tokio::test]
async fn other_kinds_of_store_are_named_without_their_secrets() {
    let error = open("postgres://user:secret@host/db").await.err().unwrap().to_string();
    assert!(error.contains("postgres:") && !error.contains("secret"), "{error}");
}
