//! What sandboxes start from: what a reference means to a team, lists, and the templates that come with Sandbar.

use sandbar_db::record::{Build, BuildStatus, Publication, Team, Template, TemplateName};
use sandbar_db::{DbError, PageAfter};
use sandbar_model::{
    BuildId, LayerDigest, Resources, TemplateBuild, TemplateId, TemplateRef, WorkloadDefaults,
};
use uuid::Uuid;

use crate::Control;
use crate::error::{ReadError, TemplateError};

/// The tag that is meant when none is written.
const DEFAULT_TAG: &str = "default";

/// A template that comes with Sandbar, as it was built on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StockTemplate {
    /// Its name, which every team sees.
    pub name: String,
    /// Layers, lowest first.
    pub layers: Vec<LayerDigest>,
    /// Limits of the sandboxes that start from it.
    pub resources: Resources,
    /// Version of the agent in it, as `x.y.z`.
    pub agent_version: String,
    /// Who runs commands, and where, unless the caller says.
    pub defaults: WorkloadDefaults,
}

/// Templates or builds, and whether there are more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TemplatePage<T> {
    /// The entries, newest first.
    pub entries: Vec<T>,
    /// Where the next page begins.
    pub next: Option<PageAfter>,
}

/// A template and the build of it that a reference means.
pub(crate) struct Resolved {
    pub(crate) template: Template,
    pub(crate) build: Build,
}

impl Resolved {
    pub(crate) fn to_model(&self) -> TemplateBuild {
        TemplateBuild {
            template: self.template.id.clone(),
            build: self.build.id,
            layers: self.build.layers.clone(),
            defaults: self.build.defaults.clone(),
        }
    }
}

impl Control {
    /// Makes a stock template what its name means. Does nothing when the name means exactly this already.
    pub async fn publish(&self, stock: StockTemplate) -> Result<TemplateId, ReadError> {
        let failed = |source| ReadError { doing: "publish stock template", source };
        if let Some(id) = self.shared.db.find_template(None, &stock.name).await.map_err(failed)? {
            let build = self.shared.db.tagged_build(&id, DEFAULT_TAG).await.map_err(failed)?;
            if build.is_some_and(|build| is_same(&build, &stock)) {
                return Ok(id);
            }
        }
        let now = self.shared.now();
        let publication = Publication {
            team: self.default_team.id,
            public: true,
            name: TemplateName { namespace: None, name: stock.name },
            tag: DEFAULT_TAG.to_owned(),
            build: Build {
                id: BuildId(Uuid::new_v4()),
                template: TemplateId::from_random(rand::random()),
                status: BuildStatus::Ready,
                layers: stock.layers,
                resources: stock.resources,
                agent_version: stock.agent_version,
                defaults: stock.defaults,
                created_at: now,
                updated_at: now,
                finished_at: Some(now),
            },
        };
        self.shared.db.publish(&publication).await.map_err(failed)
    }

    /// The template a reference means to a team. The tag does not matter.
    ///
    /// Its names, in this order: the team's own, those that every team sees, the id. With a namespace only that
    /// one. Source: contract/control-api.md §2.5.
    pub async fn template(&self, team: &Team, reference: &TemplateRef) -> Result<Template, TemplateError> {
        let db = &self.shared.db;
        let mut found = match &reference.namespace {
            Some(namespace) => db.find_template(Some(namespace), &reference.name).await,
            None => db.find_template(Some(&team.slug), &reference.name).await,
        }
        .map_err(TemplateError::Db)?;
        if found.is_none() && reference.namespace.is_none() {
            found = db.find_template(None, &reference.name).await.map_err(TemplateError::Db)?;
            found = found.or_else(|| reference.name.parse().ok());
        }
        let not_found = || TemplateError::NotFound(reference.clone());
        let template = db.template(&found.ok_or_else(not_found)?).await.map_err(TemplateError::Db)?;
        template.filter(|template| template.public || template.team == team.id).ok_or_else(not_found)
    }

    /// Checks that a reference means a build, tag included.
    pub async fn check_template(
        &self,
        team: &Team,
        reference: &TemplateRef,
    ) -> Result<Template, TemplateError> {
        Ok(self.resolve(team, reference).await?.template)
    }

    pub(crate) async fn resolve(
        &self,
        team: &Team,
        reference: &TemplateRef,
    ) -> Result<Resolved, TemplateError> {
        let template = self.template(team, reference).await?;
        let tag = reference.tag.as_deref().unwrap_or(DEFAULT_TAG);
        let build = self.shared.db.tagged_build(&template.id, tag).await.map_err(TemplateError::Db)?;
        match build.filter(|build| build.status == BuildStatus::Ready) {
            Some(build) => Ok(Resolved { template, build }),
            None => Err(TemplateError::TagNotFound {
                template: TemplateRef { tag: None, ..reference.clone() },
                tag: tag.to_owned(),
            }),
        }
    }

    /// The team's own templates.
    pub async fn templates(
        &self,
        team: &Team,
        after: Option<&PageAfter>,
        limit: u32,
    ) -> Result<TemplatePage<Template>, ReadError> {
        let rows = self.shared.db.templates(team.id, after, limit.saturating_add(1)).await;
        page(rows, limit, |row| PageAfter { at: row.created_at, id: row.id.to_string() })
            .map_err(ReadError::of("list templates"))
    }

    /// The builds of a template.
    pub async fn builds(
        &self,
        template: &TemplateId,
        after: Option<&PageAfter>,
        limit: u32,
    ) -> Result<TemplatePage<Build>, ReadError> {
        let rows = self.shared.db.builds(template, after, limit.saturating_add(1)).await;
        page(rows, limit, |row| PageAfter { at: row.created_at, id: row.id.to_string() })
            .map_err(ReadError::of("list builds"))
    }
}

fn is_same(build: &Build, stock: &StockTemplate) -> bool {
    build.status == BuildStatus::Ready
        && build.layers == stock.layers
        && build.resources == stock.resources
        && build.agent_version == stock.agent_version
        && build.defaults == stock.defaults
}

/// Cuts off the row that was asked for only to see whether there is more.
fn page<T>(
    rows: Result<Vec<T>, DbError>,
    limit: u32,
    key: impl Fn(&T) -> PageAfter,
) -> Result<TemplatePage<T>, DbError> {
    let mut entries = rows?;
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let more = entries.len() > limit;
    entries.truncate(limit);
    let next = if more { entries.last().map(key) } else { None };
    Ok(TemplatePage { entries, next })
}
