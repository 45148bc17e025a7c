//! Stock templates: built into the store when they are missing, and known to the control plane.

use anyhow::Context;
use sandbar_artifacts::{BuildOptions, Image, LayerStore, stock};
use sandbar_control::{Control, StockTemplate};
use sandbar_model::WorkloadDefaults;

use crate::output::note;
use crate::progress;
use crate::settings::Settings;

/// Every stock template of this server.
pub(crate) async fn ensure_all(store: &LayerStore, settings: &Settings) -> anyhow::Result<Vec<Image>> {
    let mut images = Vec::new();
    for name in stock::names() {
        images.push(ensure(store, name, settings.install_host_ca).await?);
    }
    Ok(images)
}

/// One stock template; takes milliseconds when it is there.
pub(crate) async fn ensure(store: &LayerStore, name: &str, install_host_ca: bool) -> anyhow::Result<Image> {
    let mut options = BuildOptions::default();
    if !install_host_ca {
        options.host_ca = None;
    }
    let (report, shown) = progress::reporter();
    let image = stock::ensure(store, name, &options, &report).await;
    drop(shown);
    let image = image.with_context(|| format!("build template {name}"))?;
    tracing::debug!(name, layers = image.layers.len(), "template is in the store");
    Ok(image)
}

/// Says that a template is about to be made, for people who wait.
pub(crate) fn announce(name: &str) {
    note(&format!("Making sure that template {name} is built"));
}

/// Makes the stock templates known to the control plane.
pub(crate) async fn publish(control: &Control, images: &[Image], settings: &Settings) -> anyhow::Result<()> {
    for image in images {
        let template = StockTemplate {
            name: image.name.clone(),
            layers: image.layers.clone(),
            resources: settings.sandbox.resources(),
            agent_version: sandbar_wire::envd::VERSION.to_owned(),
            defaults: WorkloadDefaults { user: DEFAULT_USER.to_owned(), workdir: None },
        };
        control.publish(template).await.with_context(|| format!("publish template {}", image.name))?;
    }
    Ok(())
}

/// Who runs commands in sandboxes of stock templates (contract/envd.md §17).
const DEFAULT_USER: &str = "user";
