//! Sandboxes and their runs.

use std::time::Duration;

use jiff::Timestamp;
use sandbar_model::{SandboxId, StopReason};
use sqlx::{FromRow, QueryBuilder, Sqlite, SqlitePool};

use super::templates::resources;
use super::value::{Column, micros, stop_reason};
use crate::record::{Run, Sandbox};
use crate::{DbError, Order, PageAfter, SandboxFilter};

pub(super) async fn insert(pool: &SqlitePool, sandbox: &Sandbox) -> Result<(), DbError> {
    let metadata = serde_json::to_string(&sandbox.metadata).expect("a map of texts has a JSON form");
    sqlx::query(
        "INSERT INTO sandboxes (id, team_id, template_id, build_id, alias, vcpus, memory_mib, disk_mib, pids, \
         metadata, secured, internet, timeout_secs, created_at) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(sandbox.id.as_str())
    .bind(sandbox.team.to_string())
    .bind(sandbox.template.as_str())
    .bind(sandbox.build.to_string())
    .bind(&sandbox.alias)
    .bind(i64::from(sandbox.resources.vcpus.get()))
    .bind(i64::from(sandbox.resources.memory.0))
    .bind(i64::from(sandbox.resources.disk.0))
    .bind(i64::from(sandbox.resources.pids))
    .bind(metadata)
    .bind(sandbox.secured)
    .bind(sandbox.internet)
    .bind(i64::try_from(sandbox.timeout.as_secs()).unwrap_or(i64::MAX))
    .bind(micros(sandbox.created_at))
    .execute(pool)
    .await
    .map_err(DbError::query("add sandbox"))?;
    Ok(())
}

pub(super) async fn insert_run(pool: &SqlitePool, id: &SandboxId, run: &Run) -> Result<(), DbError> {
    const DOING: &str = "add run of sandbox";
    let mut tx = pool.begin().await.map_err(DbError::query(DOING))?;
    sqlx::query(
        "INSERT INTO runs (sandbox_id, run_id, node_id, address, agent_version, started_at, deadline) \
         VALUES (?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(id.as_str())
    .bind(run.id.to_string())
    .bind(run.node.as_str())
    .bind(run.address.to_string())
    .bind(&run.agent_version)
    .bind(micros(run.started_at))
    .bind(micros(run.deadline))
    .execute(&mut *tx)
    .await
    .map_err(DbError::query(DOING))?;
    sqlx::query(
        "UPDATE templates SET spawn_count = spawn_count + 1, last_spawned_at = ? \
         WHERE id = (SELECT template_id FROM sandboxes WHERE id = ?)",
    )
    .bind(micros(run.started_at))
    .bind(id.as_str())
    .execute(&mut *tx)
    .await
    .map_err(DbError::query(DOING))?;
    tx.commit().await.map_err(DbError::query(DOING))
}

pub(super) async fn set_deadline(
    pool: &SqlitePool,
    id: &SandboxId,
    deadline: Timestamp,
) -> Result<bool, DbError> {
    let done = sqlx::query("UPDATE runs SET deadline = ? WHERE sandbox_id = ?")
        .bind(micros(deadline))
        .bind(id.as_str())
        .execute(pool)
        .await
        .map_err(DbError::query("move deadline of sandbox"))?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn set_ending(
    pool: &SqlitePool,
    id: &SandboxId,
    reason: StopReason,
) -> Result<bool, DbError> {
    let done = sqlx::query("UPDATE sandboxes SET ending = COALESCE(ending, ?) WHERE id = ?")
        .bind(stop_reason(reason))
        .bind(id.as_str())
        .execute(pool)
        .await
        .map_err(DbError::query("record end of sandbox"))?;
    Ok(done.rows_affected() > 0)
}

pub(super) async fn delete(pool: &SqlitePool, id: &SandboxId) -> Result<(), DbError> {
    sqlx::query("DELETE FROM sandboxes WHERE id = ?")
        .bind(id.as_str())
        .execute(pool)
        .await
        .map_err(DbError::query("remove sandbox"))?;
    Ok(())
}

const SANDBOX: &str = "SELECT sandboxes.*, run_id, node_id, address, agent_version, started_at, deadline \
     FROM sandboxes LEFT JOIN runs ON runs.sandbox_id = sandboxes.id";

pub(super) async fn load(pool: &SqlitePool, id: &SandboxId) -> Result<Option<Sandbox>, DbError> {
    let mut query = QueryBuilder::new(SANDBOX);
    query.push(" WHERE id = ").push_bind(id.as_str());
    let row: Option<SandboxRow> =
        query.build_query_as().fetch_optional(pool).await.map_err(DbError::query("load sandbox"))?;
    row.map(Sandbox::try_from).transpose()
}

pub(super) async fn all(pool: &SqlitePool) -> Result<Vec<Sandbox>, DbError> {
    let rows: Vec<SandboxRow> = QueryBuilder::new(SANDBOX)
        .build_query_as()
        .fetch_all(pool)
        .await
        .map_err(DbError::query("load all sandboxes"))?;
    rows.into_iter().map(Sandbox::try_from).collect()
}

pub(super) async fn running(
    pool: &SqlitePool,
    filter: &SandboxFilter,
    order: Order,
    after: Option<&PageAfter>,
    limit: u32,
) -> Result<Vec<Sandbox>, DbError> {
    let mut query = QueryBuilder::new(SANDBOX);
    push_filter(&mut query, filter);
    let (than, direction) = match order {
        Order::Ascending => (">", "ASC"),
        Order::Descending => ("<", "DESC"),
    };
    if let Some(after) = after {
        query.push(format_args!(" AND (started_at, id) {than} (")).push_bind(micros(after.at));
        query.push(", ").push_bind(after.id.clone()).push(")");
    }
    query.push(format_args!(" ORDER BY started_at {direction}, id {direction} LIMIT "));
    query.push_bind(i64::from(limit));
    let rows: Vec<SandboxRow> =
        query.build_query_as().fetch_all(pool).await.map_err(DbError::query("list sandboxes"))?;
    rows.into_iter().map(Sandbox::try_from).collect()
}

pub(super) async fn count_running(pool: &SqlitePool, filter: &SandboxFilter) -> Result<u64, DbError> {
    let mut query =
        QueryBuilder::new("SELECT COUNT(*) FROM sandboxes LEFT JOIN runs ON runs.sandbox_id = sandboxes.id");
    push_filter(&mut query, filter);
    let count: i64 =
        query.build_query_scalar().fetch_one(pool).await.map_err(DbError::query("count sandboxes"))?;
    Column("sandboxes", "count").number(count)
}

fn push_filter(query: &mut QueryBuilder<Sqlite>, filter: &SandboxFilter) {
    query.push(" WHERE run_id IS NOT NULL AND ending IS NULL AND team_id = ");
    query.push_bind(filter.team.to_string());
    for (key, value) in &filter.metadata {
        query.push(" AND EXISTS (SELECT 1 FROM json_each(metadata) AS pair WHERE pair.key = ");
        query.push_bind(key.clone()).push(" AND pair.value = ").push_bind(value.clone()).push(")");
    }
    if let Some(template) = &filter.template {
        query.push(" AND template_id = ").push_bind(template.as_str().to_owned());
    }
    if let Some(at) = filter.started_after {
        query.push(" AND started_at >= ").push_bind(micros(at));
    }
}

#[derive(FromRow)]
struct SandboxRow {
    id: String,
    team_id: String,
    template_id: String,
    build_id: String,
    alias: Option<String>,
    vcpus: i64,
    memory_mib: i64,
    disk_mib: i64,
    pids: i64,
    metadata: String,
    secured: bool,
    internet: Option<bool>,
    timeout_secs: i64,
    created_at: i64,
    ending: Option<String>,
    run_id: Option<String>,
    node_id: Option<String>,
    address: Option<String>,
    agent_version: Option<String>,
    started_at: Option<i64>,
    deadline: Option<i64>,
}

impl TryFrom<SandboxRow> for Sandbox {
    type Error = DbError;

    fn try_from(row: SandboxRow) -> Result<Self, DbError> {
        let run =
            match (row.run_id, row.node_id, row.address, row.agent_version, row.started_at, row.deadline) {
                (
                    Some(id),
                    Some(node),
                    Some(address),
                    Some(agent_version),
                    Some(started_at),
                    Some(deadline),
                ) => Some(Run {
                    id: Column("runs", "run_id").parse(&id)?,
                    node: Column("runs", "node_id").parse(&node)?,
                    address: Column("runs", "address").parse(&address)?,
                    agent_version,
                    started_at: Column("runs", "started_at").time(started_at)?,
                    deadline: Column("runs", "deadline").time(deadline)?,
                }),
                // The columns are NOT NULL: without one of them there is no row at all.
                _ => None,
            };
        Ok(Self {
            id: Column("sandboxes", "id").parse(&row.id)?,
            team: Column("sandboxes", "team_id").parse(&row.team_id)?,
            template: Column("sandboxes", "template_id").parse(&row.template_id)?,
            build: Column("sandboxes", "build_id").parse(&row.build_id)?,
            alias: row.alias,
            resources: resources("sandboxes", row.vcpus, row.memory_mib, row.disk_mib, row.pids)?,
            metadata: Column("sandboxes", "metadata").json(&row.metadata)?,
            secured: row.secured,
            internet: row.internet,
            timeout: Duration::from_secs(Column("sandboxes", "timeout_secs").number(row.timeout_secs)?),
            created_at: Column("sandboxes", "created_at").time(row.created_at)?,
            ending: row.ending.map(|word| Column("sandboxes", "ending").stop_reason(&word)).transpose()?,
            run,
        })
    }
}
