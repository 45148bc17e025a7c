//! The metadata filter of lists, which clients encode three times.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

/// Not a list of pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed metadata filter")]
pub struct MalformedMetadata;

/// Reads the pairs out of a query value from which the query's own encoding is already gone.
///
/// Clients percent-encode every key and value, form-encode the pairs into `k=v&k2=v2`, and encode that as a query
/// value. Hand-written clients leave layers out; that works as long as keys and values hold no `%`, `&`, `=`. Source:
/// contract/control-api.md §5.11.
pub fn parse_metadata(value: &str) -> Result<BTreeMap<String, String>, MalformedMetadata> {
    let mut pairs = BTreeMap::new();
    if value.is_empty() {
        return Ok(pairs);
    }
    // The whole first: who leaves out a layer has encoded `=` and `&` once more.
    let whole = decode(&value.replace('+', "%20"))?;
    for pair in whole.split('&') {
        let (key, value) = pair.split_once('=').ok_or(MalformedMetadata)?;
        if key.is_empty() || value.contains('=') {
            return Err(MalformedMetadata);
        }
        pairs.insert(decode(key)?, decode(value)?);
    }
    Ok(pairs)
}

fn decode(text: &str) -> Result<String, MalformedMetadata> {
    percent_decode_str(text).decode_utf8().map(|text| text.into_owned()).map_err(|_| MalformedMetadata)
}

#[cfg(test)]
mod tests {
    use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
    use proptest::prelude::*;

    use super::*;

    fn encode(text: &str) -> String {
        utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
    }

    /// As the SDKs write it, without the outermost layer.
    fn as_sdk(pairs: &BTreeMap<String, String>) -> String {
        let form = |text: &str| encode(&encode(text));
        pairs
            .iter()
            .map(|(key, value)| format!("{}={}", form(key), form(value)))
            .collect::<Vec<_>>()
            .join("&")
    }

    proptest! {
        #[test]
        fn what_the_sdks_encode_comes_back(pairs in prop::collection::btree_map(".{1,20}", ".{0,20}", 0..5)) {
            prop_assert_eq!(parse_metadata(&as_sdk(&pairs)), Ok(pairs));
        }

        #[test]
        fn foreign_text_never_panics(text in ".{0,100}") {
            let _ = parse_metadata(&text);
        }
    }

    #[track_caller]
    fn check(value: &str, want: &[(&str, &str)]) {
        let want = want.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        assert_eq!(parse_metadata(value), Ok(want), "{value}");
    }

    #[test]
    fn a_space_on_the_wire_has_three_layers() {
        // `%252520` in the query, `%2520` without the query's own layer.
        check("user=a%2520b", &[("user", "a b")]);
    }

    #[test]
    fn hand_written_filters_may_have_fewer_layers() {
        check("user=abc&app=prod", &[("app", "prod"), ("user", "abc")]);
        check("user=a b", &[("user", "a b")]);
        check("user%3Dabc%26app%3Dprod", &[("app", "prod"), ("user", "abc")]);
        check("user=a+b", &[("user", "a b")]);
        check("", &[]);
    }

    #[test]
    fn what_is_no_list_of_pairs_is_refused() {
        for bad in ["user", "a=b&", "=b", "a=b=c", "a=%25FF"] {
            assert_eq!(parse_metadata(bad), Err(MalformedMetadata), "{bad}");
        }
    }
}
