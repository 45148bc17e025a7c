//! Templates, their names, tags and builds.

use std::num::NonZeroU32;

use sandbar_model::{Mib, Resources, TeamId, TemplateId, WorkloadDefaults};
use sqlx::{FromRow, QueryBuilder, Sqlite, SqlitePool};

use super::value::{Column, build_status, micros};
use crate::record::{Build, Publication, Template, TemplateName};
use crate::{DbError, PageAfter};

pub(super) async fn publish(pool: &SqlitePool, publication: &Publication) -> Result<TemplateId, DbError> {
    const DOING: &str = "publish build";
    let Publication { team, public, name, tag, build } = publication;
    let at = micros(build.updated_at);
    let mut tx = pool.begin().await.map_err(DbError::query(DOING))?;

    let known: Option<String> =
        sqlx::query_scalar("SELECT template_id FROM template_names WHERE namespace = ? AND name = ?")
            .bind(name.namespace.as_deref().unwrap_or_default())
            .bind(&name.name)
            .fetch_optional(&mut *tx)
            .await
            .map_err(DbError::query(DOING))?;
    let template = match known {
        Some(id) => Column("template_names", "template_id").parse(&id)?,
        None => build.template.clone(),
    };
    sqlx::query(
        "INSERT INTO templates (id, team_id, public, created_at, updated_at) VALUES (?, ?, ?, ?, ?) \
         ON CONFLICT (id) DO UPDATE SET public = excluded.public, updated_at = excluded.updated_at",
    )
    .bind(template.as_str())
    .bind(team.to_string())
    .bind(public)
    .bind(at)
    .bind(at)
    .execute(&mut *tx)
    .await
    .map_err(DbError::query(DOING))?;
    sqlx::query(
        "INSERT INTO template_names (namespace, name, template_id) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
    )
    .bind(name.namespace.as_deref().unwrap_or_default())
    .bind(&name.name)
    .bind(template.as_str())
    .execute(&mut *tx)
    .await
    .map_err(DbError::query(DOING))?;
    sqlx::query(
        "INSERT INTO builds (id, template_id, status, layers, vcpus, memory_mib, disk_mib, pids, agent_version, \
         default_user, default_dir, created_at, updated_at, finished_at) \
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(build.id.to_string())
    .bind(template.as_str())
    .bind(build_status(build.status))
    .bind(layers_json(build))
    .bind(i64::from(build.resources.vcpus.get()))
    .bind(i64::from(build.resources.memory.0))
    .bind(i64::from(build.resources.disk.0))
    .bind(i64::from(build.resources.pids))
    .bind(&build.agent_version)
    .bind(&build.defaults.user)
    .bind(&build.defaults.workdir)
    .bind(micros(build.created_at))
    .bind(at)
    .bind(build.finished_at.map(micros))
    .execute(&mut *tx)
    .await
    .map_err(DbError::query(DOING))?;
    sqlx::query(
        "INSERT INTO template_tags (template_id, tag, build_id, assigned_at) VALUES (?, ?, ?, ?) \
         ON CONFLICT (template_id, tag) DO UPDATE SET build_id = excluded.build_id, \
         assigned_at = excluded.assigned_at",
    )
    .bind(template.as_str())
    .bind(tag)
    .bind(build.id.to_string())
    .bind(at)
    .execute(&mut *tx)
    .await
    .map_err(DbError::query(DOING))?;

    tx.commit().await.map_err(DbError::query(DOING))?;
    Ok(template)
}

pub(super) async fn find(
    pool: &SqlitePool,
    namespace: Option<&str>,
    name: &str,
) -> Result<Option<TemplateId>, DbError> {
    let id: Option<String> =
        sqlx::query_scalar("SELECT template_id FROM template_names WHERE namespace = ? AND name = ?")
            .bind(namespace.unwrap_or_default())
            .bind(name)
            .fetch_optional(pool)
            .await
            .map_err(DbError::query("find template by name"))?;
    id.map(|id| Column("template_names", "template_id").parse(&id)).transpose()
}

const TEMPLATE: &str = "SELECT id, team_id, public, created_at, updated_at, spawn_count, last_spawned_at, \
     (SELECT COUNT(*) FROM builds WHERE template_id = templates.id) AS build_count FROM templates";

pub(super) async fn load(pool: &SqlitePool, id: &TemplateId) -> Result<Option<Template>, DbError> {
    let mut query = QueryBuilder::new(TEMPLATE);
    query.push(" WHERE id = ").push_bind(id.as_str());
    let row: Option<TemplateRow> =
        query.build_query_as().fetch_optional(pool).await.map_err(DbError::query("load template"))?;
    match row {
        Some(row) => Ok(Some(complete(pool, row).await?)),
        None => Ok(None),
    }
}

pub(super) async fn of_team(
    pool: &SqlitePool,
    team: TeamId,
    after: Option<&PageAfter>,
    limit: u32,
) -> Result<Vec<Template>, DbError> {
    let mut query = QueryBuilder::new(TEMPLATE);
    query.push(" WHERE team_id = ").push_bind(team.to_string());
    push_newest_first(&mut query, after, limit);
    let rows: Vec<TemplateRow> =
        query.build_query_as().fetch_all(pool).await.map_err(DbError::query("list templates"))?;
    let mut templates = Vec::with_capacity(rows.len());
    for row in rows {
        templates.push(complete(pool, row).await?);
    }
    Ok(templates)
}

/// Adds names and the latest build.
async fn complete(pool: &SqlitePool, row: TemplateRow) -> Result<Template, DbError> {
    let names: Vec<(String, String)> = sqlx::query_as(
        "SELECT namespace, name FROM template_names WHERE template_id = ? ORDER BY namespace, name",
    )
    .bind(&row.id)
    .fetch_all(pool)
    .await
    .map_err(DbError::query("list names of template"))?;
    let latest: Option<BuildRow> = sqlx::query_as(
        "SELECT * FROM builds WHERE template_id = ? ORDER BY status = 'ready' DESC, created_at DESC, id DESC LIMIT 1",
    )
    .bind(&row.id)
    .fetch_optional(pool)
    .await
    .map_err(DbError::query("find latest build of template"))?;
    Ok(Template {
        id: Column("templates", "id").parse(&row.id)?,
        team: Column("templates", "team_id").parse(&row.team_id)?,
        public: row.public,
        created_at: Column("templates", "created_at").time(row.created_at)?,
        updated_at: Column("templates", "updated_at").time(row.updated_at)?,
        spawn_count: Column("templates", "spawn_count").number(row.spawn_count)?,
        last_spawned_at: row
            .last_spawned_at
            .map(|at| Column("templates", "last_spawned_at").time(at))
            .transpose()?,
        names: names
            .into_iter()
            .map(|(namespace, name)| TemplateName {
                namespace: Some(namespace).filter(|namespace| !namespace.is_empty()),
                name,
            })
            .collect(),
        build_count: Column("builds", "count").number(row.build_count)?,
        latest: latest.map(Build::try_from).transpose()?,
    })
}

pub(super) async fn builds(
    pool: &SqlitePool,
    template: &TemplateId,
    after: Option<&PageAfter>,
    limit: u32,
) -> Result<Vec<Build>, DbError> {
    let mut query = QueryBuilder::new("SELECT * FROM builds WHERE template_id = ");
    query.push_bind(template.as_str());
    push_newest_first(&mut query, after, limit);
    let rows: Vec<BuildRow> =
        query.build_query_as().fetch_all(pool).await.map_err(DbError::query("list builds"))?;
    rows.into_iter().map(Build::try_from).collect()
}

pub(super) async fn tagged_build(
    pool: &SqlitePool,
    template: &TemplateId,
    tag: &str,
) -> Result<Option<Build>, DbError> {
    sqlx::query_as::<_, BuildRow>(
        "SELECT builds.* FROM builds JOIN template_tags ON template_tags.build_id = builds.id \
         WHERE template_tags.template_id = ? AND template_tags.tag = ?",
    )
    .bind(template.as_str())
    .bind(tag)
    .fetch_optional(pool)
    .await
    .map_err(DbError::query("find tagged build"))?
    .map(Build::try_from)
    .transpose()
}

/// Ends a query over a table with `created_at` and `id` whose conditions begin with `WHERE`.
fn push_newest_first(query: &mut QueryBuilder<Sqlite>, after: Option<&PageAfter>, limit: u32) {
    if let Some(after) = after {
        query.push(" AND (created_at, id) < (").push_bind(micros(after.at));
        query.push(", ").push_bind(after.id.clone()).push(")");
    }
    query.push(" ORDER BY created_at DESC, id DESC LIMIT ").push_bind(i64::from(limit));
}

fn layers_json(build: &Build) -> String {
    let digests: Vec<&str> = build.layers.iter().map(|layer| layer.as_str()).collect();
    serde_json::to_string(&digests).expect("a list of texts has a JSON form")
}

#[derive(FromRow)]
struct TemplateRow {
    id: String,
    team_id: String,
    public: bool,
    created_at: i64,
    updated_at: i64,
    spawn_count: i64,
    last_spawned_at: Option<i64>,
    build_count: i64,
}

#[derive(FromRow)]
struct BuildRow {
    id: String,
    template_id: String,
    status: String,
    layers: String,
    vcpus: i64,
    memory_mib: i64,
    disk_mib: i64,
    pids: i64,
    agent_version: String,
    default_user: String,
    default_dir: Option<String>,
    created_at: i64,
    updated_at: i64,
    finished_at: Option<i64>,
}

impl TryFrom<BuildRow> for Build {
    type Error = DbError;

    fn try_from(row: BuildRow) -> Result<Self, DbError> {
        let layers: Vec<String> = Column("builds", "layers").json(&row.layers)?;
        Ok(Self {
            id: Column("builds", "id").parse(&row.id)?,
            template: Column("builds", "template_id").parse(&row.template_id)?,
            status: Column("builds", "status").build_status(&row.status)?,
            layers: layers
                .iter()
                .map(|digest| Column("builds", "layers").parse(digest))
                .collect::<Result<_, _>>()?,
            resources: resources("builds", row.vcpus, row.memory_mib, row.disk_mib, row.pids)?,
            agent_version: row.agent_version,
            defaults: WorkloadDefaults { user: row.default_user, workdir: row.default_dir },
            created_at: Column("builds", "created_at").time(row.created_at)?,
            updated_at: Column("builds", "updated_at").time(row.updated_at)?,
            finished_at: row.finished_at.map(|at| Column("builds", "finished_at").time(at)).transpose()?,
        })
    }
}

/// The four columns that limit a sandbox, in the tables that have them.
pub(super) fn resources(
    table: &'static str,
    vcpus: i64,
    memory_mib: i64,
    disk_mib: i64,
    pids: i64,
) -> Result<Resources, DbError> {
    let vcpus_column = Column(table, "vcpus");
    Ok(Resources {
        vcpus: NonZeroU32::new(vcpus_column.number(vcpus)?).ok_or_else(|| vcpus_column.damaged(vcpus))?,
        memory: Mib(Column(table, "memory_mib").number(memory_mib)?),
        disk: Mib(Column(table, "disk_mib").number(disk_mib)?),
        pids: Column(table, "pids").number(pids)?,
    })
}
