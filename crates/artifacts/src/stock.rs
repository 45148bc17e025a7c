//! The templates that every host can build by itself, from package registries alone.

use camino::Utf8PathBuf;
use sandbar_model::LayerDigest;

use crate::build::{BuildError, Builder, host_ca};
use crate::recipe::{Origin, Recipe, RecipeError, Source, chain};
use crate::{LayerStore, Reporter};

/// Every stock template: its name and its recipe.
const RECIPES: &[(&str, Source)] = &[(
    "base",
    Source {
        recipe: include_str!("../../../templates/base/recipe.toml"),
        scripts: &[("setup.sh", include_str!("../../../templates/base/setup.sh"))],
    },
)];

/// What a guest of the stock templates trusts, inside of its tree.
const GUEST_BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
/// What Debian and its relatives ship, before the host's own additions.
const SHIPPED_CERTIFICATES: &str = "/usr/share/ca-certificates";

/// Where packages come from. The same packages from elsewhere make the same template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirrors {
    /// URL of a mirror of the Debian archive.
    pub debian: String,
    /// URL of a mirror of Debian's security archive.
    pub debian_security: String,
    /// URL of an npm registry.
    pub npm: String,
}

impl Default for Mirrors {
    fn default() -> Self {
        Self {
            debian: "http://deb.debian.org/debian".to_owned(),
            debian_security: "http://deb.debian.org/debian-security".to_owned(),
            npm: "https://registry.npmjs.org".to_owned(),
        }
    }
}

/// What a build takes from the host it runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BuildOptions {
    /// Where packages come from.
    pub mirrors: Mirrors,
    /// The host's CA bundle (PEM). Guests trust what it holds beyond the host's distribution; `None`: they do not.
    pub host_ca: Option<Utf8PathBuf>,
}

impl Default for BuildOptions {
    /// Public mirrors; guests trust what the host trusts.
    fn default() -> Self {
        Self { mirrors: Mirrors::default(), host_ca: Some("/etc/ssl/certs/ca-certificates.crt".into()) }
    }
}

/// A stock template that is in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// The template's name.
    pub name: String,
    /// Digest of its recipe; changes when the template must be built again.
    pub recipe_digest: LayerDigest,
    /// Its layers, lowest first, without the guest tools.
    pub layers: Vec<LayerDigest>,
}

/// The names of all stock templates.
pub fn names() -> impl Iterator<Item = &'static str> {
    RECIPES.iter().map(|(name, _)| *name)
}

/// Returns a stock template, built first if the store does not have it. Needs root only to build.
///
/// Takes minutes when it builds and milliseconds when it does not.
///
/// # Errors
/// With the last lines of what a tool said. After any error the next call begins anew.
///
/// # Cancel safety
/// Safe: the build goes on without the caller, and the next call waits for it.
pub async fn ensure(
    store: &LayerStore,
    name: &str,
    options: &BuildOptions,
    report: &Reporter,
) -> Result<Image, BuildError> {
    let (store, options, report) = (store.clone(), options.clone(), report.clone());
    let wanted = name.to_owned();
    let build = tokio::task::spawn_blocking(move || ensure_blocking(&store, &wanted, &options, &report));
    build.await.unwrap_or_else(|_| Err(BuildError::CutShort { template: name.to_owned() }))
}

fn ensure_blocking(
    store: &LayerStore,
    name: &str,
    options: &BuildOptions,
    report: &Reporter,
) -> Result<Image, BuildError> {
    let mut image = ensure_recipe(store, name, options, report)?;
    if let Some(layer) = ensure_certificates(store, &image, options, report)? {
        image.layers.push(layer);
    }
    Ok(image)
}

/// The template without anything of this host.
fn ensure_recipe(
    store: &LayerStore,
    name: &str,
    options: &BuildOptions,
    report: &Reporter,
) -> Result<Image, BuildError> {
    let recipe = find(name)?;
    let mut layers = match &recipe.origin {
        Origin::Debian(_) => Vec::new(),
        Origin::From(parent) => ensure_recipe(store, parent, options, report)?.layers,
    };
    let digest = recipe.digest(layers.last());
    let lower: Vec<_> = layers.iter().map(|layer| store.path(layer)).collect();
    store.ensure(&digest, report, |staging, report| {
        Builder { template: name, options, report }.recipe_layer(&recipe, &lower, staging)
    })?;
    layers.push(digest.clone());
    Ok(Image { name: name.to_owned(), recipe_digest: digest, layers })
}

/// A small layer of its own, so that a new certificate on the host does not rebuild the template.
fn ensure_certificates(
    store: &LayerStore,
    image: &Image,
    options: &BuildOptions,
    report: &Reporter,
) -> Result<Option<LayerDigest>, BuildError> {
    let (Some(bundle), Some(base)) = (&options.host_ca, image.layers.first()) else {
        return Ok(None);
    };
    let guest_bundle = store.path(base).join(GUEST_BUNDLE);
    let missing = host_ca::missing(bundle, SHIPPED_CERTIFICATES.into(), &guest_bundle)
        .map_err(BuildError::io("read the certificates of", bundle))?;
    if missing.is_empty() {
        return Ok(None);
    }
    let mut described = vec!["certificates", image.recipe_digest.as_str()];
    described.extend(missing.iter().map(host_ca::Certificate::text));
    let digest = chain(&described);
    let lower: Vec<_> = image.layers.iter().map(|layer| store.path(layer)).collect();
    store.ensure(&digest, report, |staging, report| {
        Builder { template: &image.name, options, report }.certificates_layer(&missing, &lower, staging)
    })?;
    Ok(Some(digest))
}

fn find(name: &str) -> Result<Recipe, RecipeError> {
    let (name, source) = RECIPES
        .iter()
        .find(|(known, _)| *known == name)
        .ok_or_else(|| RecipeError::Unknown(name.to_owned()))?;
    Recipe::parse(name, source)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stock_recipe_is_well_formed_and_named_as_it_is_listed() {
        for name in names() {
            let recipe = find(name).unwrap();
            assert_eq!(recipe.name, name);
            if let Origin::From(parent) = &recipe.origin {
                assert!(find(parent).is_ok(), "{name} starts from {parent}");
            }
        }
    }

    #[test]
    fn an_unknown_template_is_not_found() {
        let error = find("nope").map_err(BuildError::from).unwrap_err();
        assert_eq!(error.kind(), sandbar_model::ErrorKind::NotFound);
    }
}
