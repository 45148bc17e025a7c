//! Metadata that uploaders attach to files, kept as extended attributes.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::path::Path;

use http::HeaderMap;
use xattr::FileExt as _;

/// Names of our attributes begin so; others of the file are left alone.
const PREFIX: &str = "user.e2b.";

/// Headers of an upload that carry metadata begin so.
const HEADER_PREFIX: &str = "x-metadata-";

/// Source: linux include/uapi/linux/limits.h: a name has 255 bytes, of which the prefix takes nine.
const KEY_BYTES_MAX: usize = 246;

/// Of all keys and values with their prefixes; what the smallest common file system keeps.
const TOTAL_BYTES_MAX: usize = 4096;

/// Keys without prefix, and their values.
pub(crate) type Metadata = BTreeMap<String, String>;

/// Headers that cannot be stored.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum MetadataError {
    #[error("invalid metadata: key {0:?} is longer than {KEY_BYTES_MAX} bytes")]
    KeyTooLong(String),
    #[error("invalid metadata: value of {0:?} is not printable ASCII")]
    NotPrintable(String),
    #[error("invalid metadata: more than {TOTAL_BYTES_MAX} bytes")]
    TooMuch,
}

/// The metadata in the headers of an upload. Of repeated headers the first counts.
pub(crate) fn of_headers(headers: &HeaderMap) -> Result<Metadata, MetadataError> {
    let mut metadata = Metadata::new();
    for name in headers.keys() {
        let Some(key) = name.as_str().strip_prefix(HEADER_PREFIX).filter(|key| !key.is_empty()) else {
            continue;
        };
        if key.len() > KEY_BYTES_MAX {
            return Err(MetadataError::KeyTooLong(key.to_owned()));
        }
        let value = headers.get(name).map(http::HeaderValue::as_bytes).unwrap_or_default();
        if !value.iter().all(|byte| (0x20..=0x7e).contains(byte)) {
            return Err(MetadataError::NotPrintable(key.to_owned()));
        }
        metadata.insert(key.to_owned(), String::from_utf8_lossy(value).into_owned());
    }
    let total: usize = metadata.iter().map(|(key, value)| PREFIX.len() + key.len() + value.len()).sum();
    if total > TOTAL_BYTES_MAX { Err(MetadataError::TooMuch) } else { Ok(metadata) }
}

/// Makes this all the metadata of the file.
///
/// # Errors
/// When an attribute cannot be written. A file system without attributes only matters when there is something to
/// write.
pub(crate) fn replace(file: &File, metadata: &Metadata) -> io::Result<()> {
    let present: Vec<OsString> = match file.list_xattr() {
        Ok(names) => names.filter(|name| key_of(name).is_some()).collect(),
        Err(_) if metadata.is_empty() => return Ok(()),
        Err(error) => return Err(error),
    };
    for name in present {
        if key_of(&name).is_some_and(|key| !metadata.contains_key(key)) {
            file.remove_xattr(&name)?;
        }
    }
    for (key, value) in metadata {
        file.set_xattr(format!("{PREFIX}{key}"), value.as_bytes())?;
    }
    Ok(())
}

/// The metadata of what is at the path, links followed. What cannot be read is left out.
pub(crate) fn load(path: &Path) -> Metadata {
    let Ok(names) = xattr::list_deref(path) else {
        return Metadata::new();
    };
    let pair = |name: OsString| {
        let key = key_of(&name)?.to_owned();
        let value = String::from_utf8(xattr::get_deref(path, &name).ok()??).ok()?;
        Some((key, value))
    };
    names.filter_map(pair).collect()
}

fn key_of(name: &OsStr) -> Option<&str> {
    name.to_str()?.strip_prefix(PREFIX).filter(|key| !key.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn keys_are_lower_case_and_empty_ones_mean_nothing() {
        let metadata =
            of_headers(&headers(&[("X-Metadata-Author", "me"), ("X-Metadata-", "x"), ("other", "y")]));
        assert_eq!(metadata, Ok([("author".to_owned(), "me".to_owned())].into()));
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let long = "k".repeat(KEY_BYTES_MAX + 1);
        assert_eq!(
            of_headers(&headers(&[(&format!("x-metadata-{long}"), "")])),
            Err(MetadataError::KeyTooLong(long))
        );
        let fits = "v".repeat(TOTAL_BYTES_MAX - PREFIX.len() - 1);
        assert!(of_headers(&headers(&[("x-metadata-k", &fits)])).is_ok());
        assert_eq!(of_headers(&headers(&[("x-metadata-k", &(fits + "v"))])), Err(MetadataError::TooMuch));
        assert_eq!(
            of_headers(&headers(&[("x-metadata-k", "a\tb")])),
            Err(MetadataError::NotPrintable("k".into()))
        );
    }
}
