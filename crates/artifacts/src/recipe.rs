//! Recipes: what a template consists of, as data.
//!
//! A recipe is a TOML file with the shell scripts it names. It starts from Debian packages or `from` another
//! recipe, whose layers then lie below its own. Its digest covers all of this, so that a template is built
//! again exactly when its recipe, or one below, changes. Where packages come from (mirrors) is no part of it.

use std::collections::BTreeMap;

use sandbar_model::LayerDigest;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Changes when the same recipe gives another tree because the way it is built has changed.
const BUILDER_VERSION: u32 = 1;

/// Why a recipe cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecipeError {
    /// There is none of this name.
    #[error("there is no stock template '{0}'")]
    Unknown(String),
    /// It is not what a recipe looks like.
    #[error("parse recipe {name}")]
    Parse {
        /// The recipe.
        name: String,
        /// Where and why.
        source: toml::de::Error,
    },
    /// It names a script that is not there.
    #[error("recipe {name} names the script '{script}', which does not exist")]
    NoScript {
        /// The recipe.
        name: String,
        /// The script.
        script: String,
    },
    /// It must have exactly one of `debian` and `from`.
    #[error("recipe {name} must start from either `debian` or `from`")]
    Origin {
        /// The recipe.
        name: String,
    },
}

/// A recipe's files.
pub(crate) struct Source {
    /// The TOML file.
    pub(crate) recipe: &'static str,
    /// Name and text of each script.
    pub(crate) scripts: &'static [(&'static str, &'static str)],
}

/// A parsed recipe with its scripts.
#[derive(Debug, Serialize)]
pub(crate) struct Recipe {
    pub(crate) name: String,
    pub(crate) origin: Origin,
    pub(crate) npm: Vec<NpmPackage>,
    pub(crate) scripts: Vec<Script>,
}

/// What a recipe's own steps start from.
#[derive(Debug, Serialize)]
pub(crate) enum Origin {
    /// Nothing but packages.
    Debian(Debian),
    /// The finished tree of another recipe.
    From(String),
}

/// A tree of Debian packages.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Debian {
    /// The release, as `trixie`.
    pub(crate) suite: String,
    /// Packages besides the required ones. What these merely recommend is left out.
    pub(crate) packages: Vec<String>,
    /// Patterns of files that no package may unpack, now or later in a sandbox.
    #[serde(default)]
    pub(crate) exclude: Vec<String>,
}

/// A package of the npm registry, unpacked as it is.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct NpmPackage {
    /// Its name, with scope.
    pub(crate) package: String,
    /// Exactly this version.
    pub(crate) version: String,
    /// `sha512-` and base64, as the registry states it.
    pub(crate) integrity: String,
    /// Absolute path of a directory of the tree.
    pub(crate) into: String,
}

/// A script and its text.
#[derive(Debug, Serialize)]
pub(crate) struct Script {
    pub(crate) name: String,
    pub(crate) text: String,
}

/// The file as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RecipeToml {
    name: String,
    debian: Option<Debian>,
    from: Option<String>,
    #[serde(default)]
    npm: Vec<NpmPackage>,
    #[serde(default)]
    scripts: Vec<String>,
}

impl Recipe {
    pub(crate) fn parse(name: &str, source: &Source) -> Result<Self, RecipeError> {
        let file: RecipeToml = toml::from_str(source.recipe)
            .map_err(|source| RecipeError::Parse { name: name.to_owned(), source })?;
        let texts: BTreeMap<_, _> = source.scripts.iter().copied().collect();
        let name = file.name;
        let origin = match (file.debian, file.from) {
            (Some(debian), None) => Origin::Debian(debian),
            (None, Some(from)) => Origin::From(from),
            _ => return Err(RecipeError::Origin { name }),
        };
        let script = |script: String| match texts.get(script.as_str()) {
            Some(text) => Ok(Script { name: script, text: (*text).to_owned() }),
            None => Err(RecipeError::NoScript { name: name.clone(), script }),
        };
        let scripts = file.scripts.into_iter().map(script).collect::<Result<_, _>>()?;
        Ok(Self { name, origin, npm: file.npm, scripts })
    }

    /// The digest of the layer that this recipe makes on top of `parent`, for this host's architecture.
    pub(crate) fn digest(&self, parent: Option<&LayerDigest>) -> LayerDigest {
        let described = serde_json::to_string(self).expect("a recipe is plain data");
        let parent = parent.map_or("", LayerDigest::as_str);
        chain(&["recipe", &BUILDER_VERSION.to_string(), std::env::consts::ARCH, parent, &described])
    }
}

/// The digest of a list of texts. The length before each keeps one from running into the next.
pub(crate) fn chain(parts: &[&str]) -> LayerDigest {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hex::encode(hash.finalize()).parse().expect("hex of a SHA-256 is a digest")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Source = Source {
        recipe: "name = 'a'\nscripts = ['s']\n[debian]\nsuite = 'trixie'\npackages = ['git']",
        scripts: &[("s", "true")],
    };

    fn digest(source: &Source, parent: Option<&LayerDigest>) -> LayerDigest {
        Recipe::parse("a", source).unwrap().digest(parent)
    }

    #[test]
    fn the_digest_changes_with_the_recipe_its_scripts_and_what_lies_below() {
        let plain = digest(&PLAIN, None);
        assert_eq!(plain, digest(&PLAIN, None));
        let more = PLAIN.recipe.replace("'git'", "'git', 'jq'");
        let others = [
            digest(&Source { recipe: more.leak(), ..PLAIN }, None),
            digest(&Source { scripts: &[("s", "false")], ..PLAIN }, None),
            digest(&PLAIN, Some(&plain)),
        ];
        for other in others {
            assert_ne!(plain, other);
        }
    }

    #[test]
    fn comments_do_not_change_the_digest() {
        let commented = format!("# why\n{}", PLAIN.recipe);
        assert_eq!(digest(&PLAIN, None), digest(&Source { recipe: commented.leak(), ..PLAIN }, None));
    }

    #[test]
    fn a_recipe_that_cannot_be_built_is_refused() {
        let refused = |recipe: &'static str| {
            Recipe::parse("a", &Source { recipe, scripts: &[] }).unwrap_err().to_string()
        };
        assert_eq!(refused("name = 'a'"), "recipe a must start from either `debian` or `from`");
        assert_eq!(
            refused("name = 'a'\nfrom = 'b'\nscripts = ['x']"),
            "recipe a names the script 'x', which does not exist"
        );
        assert_eq!(refused("name = 'a'\nfrom = 'b'\ntypo = 1"), "parse recipe a");
    }

    #[test]
    fn texts_do_not_run_into_each_other() {
        assert_ne!(chain(&["ab", "c"]), chain(&["a", "bc"]));
    }
}
