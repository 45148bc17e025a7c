//! From what the control plane knows to what clients are shown.

use sandbar_control::{Build, BuildStatus, Sandbox, Template};
use sandbar_wire::rest;

/// The answer to create and connect.
pub(crate) fn sandbox(sandbox: Sandbox, domain: Option<String>) -> rest::Sandbox {
    rest::Sandbox {
        template_id: sandbox.template.to_string(),
        sandbox_id: sandbox.id.to_string(),
        client_id: rest::CLIENT_ID,
        envd_version: sandbox.agent_version,
        alias: sandbox.alias,
        envd_access_token: sandbox.access_token.map(|token| token.expose().to_owned()),
        traffic_access_token: None,
        domain,
    }
}

/// The answer to a question about one.
pub(crate) fn detail(sandbox: Sandbox, domain: Option<String>) -> rest::SandboxDetail {
    rest::SandboxDetail {
        envd_access_token: sandbox.access_token.as_ref().map(|token| token.expose().to_owned()),
        allow_internet_access: sandbox.internet,
        domain,
        lifecycle: rest::Lifecycle { on_timeout: "kill", auto_resume: false },
        listed: listed(sandbox),
    }
}

/// An entry of a list.
pub(crate) fn listed(sandbox: Sandbox) -> rest::ListedSandbox {
    rest::ListedSandbox {
        template_id: sandbox.template.to_string(),
        alias: sandbox.alias,
        sandbox_id: sandbox.id.to_string(),
        client_id: rest::CLIENT_ID,
        started_at: sandbox.started_at,
        end_at: sandbox.deadline,
        cpu_count: sandbox.resources.vcpus.get(),
        memory_mb: sandbox.resources.memory.0,
        disk_size_mb: sandbox.resources.disk.0,
        metadata: sandbox.metadata,
        state: rest::SandboxState::Running,
        envd_version: sandbox.agent_version,
        volume_mounts: Vec::new(),
    }
}

/// An entry of a list of templates. One without a build is shown when it has one.
pub(crate) fn template(template: Template) -> Option<rest::Template> {
    let (aliases, names) = names(&template);
    let build = template.latest?;
    Some(rest::Template {
        template_id: template.id.to_string(),
        build_id: build.id.to_string(),
        cpu_count: build.resources.vcpus.get(),
        memory_mb: build.resources.memory.0,
        disk_size_mb: build.resources.disk.0,
        public: template.public,
        aliases,
        names,
        created_at: template.created_at,
        updated_at: template.updated_at,
        created_by: None,
        last_spawned_at: template.last_spawned_at,
        spawn_count: template.spawn_count,
        build_count: template.build_count,
        envd_version: build.agent_version,
        build_status: status(build.status),
    })
}

/// A template and a page of its builds.
pub(crate) fn template_with_builds(template: &Template, builds: Vec<Build>) -> rest::TemplateWithBuilds {
    let (aliases, names) = names(template);
    rest::TemplateWithBuilds {
        template_id: template.id.to_string(),
        public: template.public,
        aliases,
        names,
        created_at: template.created_at,
        updated_at: template.updated_at,
        last_spawned_at: template.last_spawned_at,
        spawn_count: template.spawn_count,
        builds: builds.into_iter().map(build).collect(),
    }
}

fn build(build: Build) -> rest::TemplateBuild {
    rest::TemplateBuild {
        build_id: build.id.to_string(),
        status: status(build.status),
        created_at: build.created_at,
        updated_at: build.updated_at,
        finished_at: build.finished_at,
        cpu_count: build.resources.vcpus.get(),
        memory_mb: build.resources.memory.0,
        disk_size_mb: build.resources.disk.0,
        envd_version: build.agent_version,
    }
}

/// Names without and with their namespaces.
fn names(template: &Template) -> (Vec<String>, Vec<String>) {
    let bare = template.names.iter().map(|name| name.name.clone()).collect();
    let full = template.names.iter().map(|name| match &name.namespace {
        Some(namespace) => format!("{namespace}/{}", name.name),
        None => name.name.clone(),
    });
    (bare, full.collect())
}

fn status(status: BuildStatus) -> rest::TemplateBuildStatus {
    match status {
        BuildStatus::Waiting => rest::TemplateBuildStatus::Waiting,
        BuildStatus::Building => rest::TemplateBuildStatus::Building,
        BuildStatus::Ready => rest::TemplateBuildStatus::Ready,
        BuildStatus::Failed => rest::TemplateBuildStatus::Error,
    }
}
