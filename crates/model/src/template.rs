//! Names of templates and what a build of one consists of.

use std::fmt;
use std::str::FromStr;

/// Content address of a layer or root file system: lower-case hex SHA-256.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LayerDigest(String);

impl LayerDigest {
    /// The 64 hex digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for LayerDigest {
    type Err = crate::IdError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
        if text.len() == 64 && text.bytes().all(hex) {
            Ok(Self(text.to_owned()))
        } else {
            Err(crate::IdError { what: "layer digest" })
        }
    }
}

impl fmt::Display for LayerDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for LayerDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A template's name within a namespace: `[a-z0-9_-]+`, lower case.
pub type TemplateName = String;

/// The slug of the team that owns a name: `[a-z0-9_-]+`, lower case.
pub type Namespace = String;

/// A reference to a template as users write it: `[namespace/]name[:tag]`.
///
/// Trimmed and lower-cased; an explicit `:default` equals no tag. The name may also be a template id;
/// which it is, is decided at resolution. Source: contract/control-api.md §2.5.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TemplateRef {
    /// The team slug, when written.
    pub namespace: Option<Namespace>,
    /// Name or template id.
    pub name: TemplateName,
    /// The tag, when written and not `default`.
    pub tag: Option<String>,
}

/// Why a text is not a template reference.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateRefError {
    /// Empty, or one of its parts is.
    #[error("template reference must not be empty")]
    Empty,
    /// More than one `/` or `:`.
    #[error("template reference '{0}' has too many parts")]
    TooManyParts(String),
    /// A character outside the grammar.
    #[error("'{0}' may only contain lower-case letters, digits, dashes and underscores")]
    BadIdentifier(String),
    /// A tag outside the grammar, or one that looks like a build id.
    #[error("invalid tag '{0}'")]
    BadTag(String),
}

impl FromStr for TemplateRef {
    type Err = TemplateRefError;

    fn from_str(text: &str) -> Result<Self, TemplateRefError> {
        let text = text.trim().to_lowercase();
        let (path, tag) = match text.split_once(':') {
            Some((path, tag)) => (path, Some(tag)),
            None => (text.as_str(), None),
        };
        let (namespace, name) = match path.split_once('/') {
            Some((namespace, name)) => (Some(namespace), name),
            None => (None, path),
        };
        if name.contains('/') || tag.is_some_and(|tag| tag.contains(':')) {
            return Err(TemplateRefError::TooManyParts(text));
        }
        for part in namespace.into_iter().chain([name]) {
            check_identifier(part)?;
        }
        if let Some(tag) = tag {
            check_tag(tag)?;
        }
        Ok(Self {
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
            tag: tag.filter(|tag| *tag != "default").map(str::to_owned),
        })
    }
}

fn check_identifier(part: &str) -> Result<(), TemplateRefError> {
    if part.is_empty() {
        return Err(TemplateRefError::Empty);
    }
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_';
    if part.bytes().all(fits) { Ok(()) } else { Err(TemplateRefError::BadIdentifier(part.to_owned())) }
}

fn check_tag(tag: &str) -> Result<(), TemplateRefError> {
    let fits =
        |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'_' | b'.');
    if tag.is_empty() || !tag.bytes().all(fits) || uuid::Uuid::parse_str(tag).is_ok() {
        return Err(TemplateRefError::BadTag(tag.to_owned()));
    }
    Ok(())
}

impl fmt::Display for TemplateRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(namespace) = &self.namespace {
            write!(f, "{namespace}/")?;
        }
        f.write_str(&self.name)?;
        match &self.tag {
            Some(tag) => write!(f, ":{tag}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, want: &str) {
        let got = match text.parse::<TemplateRef>() {
            Ok(parsed) => parsed.to_string(),
            Err(error) => format!("error: {error}"),
        };
        assert_eq!(got, want);
    }

    #[test]
    fn references_are_trimmed_lowered_and_default_is_no_tag() {
        check(" Base ", "base");
        check("team/base:v1.2", "team/base:v1.2");
        check("base:default", "base");
    }

    #[test]
    fn what_is_outside_the_grammar_is_named() {
        check("", "error: template reference must not be empty");
        check("/base", "error: template reference must not be empty");
        check("a/b/c", "error: template reference 'a/b/c' has too many parts");
        check("a:b:c", "error: template reference 'a:b:c' has too many parts");
        check("bä", "error: 'bä' may only contain lower-case letters, digits, dashes and underscores");
        check("base:", "error: invalid tag ''");
        check(
            "base:6f1c1c0e-6f0e-4b5e-9d5e-0a4b1c2d3e4f",
            "error: invalid tag '6f1c1c0e-6f0e-4b5e-9d5e-0a4b1c2d3e4f'",
        );
    }
}
