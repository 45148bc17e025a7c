//! Conditional requests and ranges of a download. Pure.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::{HeaderMap, HeaderName, header};

/// What to send of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Whole,
    Part { start: u64, length: u64 },
    NotModified,
    PreconditionFailed,
    RangeNotSatisfiable,
}

/// Headers that make a request one for the file's own bytes.
const HEADERS: [HeaderName; 6] = [
    header::RANGE,
    header::IF_MATCH,
    header::IF_NONE_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_UNMODIFIED_SINCE,
    header::IF_RANGE,
];

/// Whether the request has a range or a condition.
pub(super) fn is_conditional(headers: &HeaderMap) -> bool {
    HEADERS.iter().any(|name| headers.contains_key(name))
}

/// Source: RFC 9110 §13.2.2. Files have no entity tag, so a tag never matches; a list of ranges is answered whole.
pub(super) fn decide(headers: &HeaderMap, size: u64, modified: SystemTime) -> Decision {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let modified = whole_seconds(modified);
    let date = |name: HeaderName| text(name).and_then(|value| httpdate::parse_http_date(value).ok());

    match (text(header::IF_MATCH), date(header::IF_UNMODIFIED_SINCE)) {
        (Some(tags), _) if tags.trim() != "*" => return Decision::PreconditionFailed,
        (None, Some(since)) if modified > since => return Decision::PreconditionFailed,
        _ => {}
    }
    match (text(header::IF_NONE_MATCH), date(header::IF_MODIFIED_SINCE)) {
        (Some(tags), _) if tags.trim() == "*" => return Decision::NotModified,
        (None, Some(since)) if modified <= since => return Decision::NotModified,
        _ => {}
    }
    let Some(range) = text(header::RANGE) else {
        return Decision::Whole;
    };
    if headers.contains_key(header::IF_RANGE) && date(header::IF_RANGE) != Some(modified) {
        return Decision::Whole;
    }
    part(range, size)
}

fn part(range: &str, size: u64) -> Decision {
    let Some(spec) = range.trim().strip_prefix("bytes=").filter(|spec| !spec.contains(',')) else {
        return Decision::Whole;
    };
    let Some((first, last)) = spec.split_once('-') else {
        return Decision::RangeNotSatisfiable;
    };
    let number = |text: &str| text.trim().parse::<u64>().ok();
    let (start, end) = match (number(first), number(last)) {
        // The last so many bytes.
        (None, Some(count)) if first.trim().is_empty() => (size.saturating_sub(count), size),
        (Some(start), None) if last.trim().is_empty() => (start, size),
        (Some(start), Some(last)) if start <= last => (start, last.saturating_add(1).min(size)),
        _ => return Decision::RangeNotSatisfiable,
    };
    if start >= end {
        return Decision::RangeNotSatisfiable;
    }
    Decision::Part { start, length: end - start }
}

/// HTTP dates have no fractions.
fn whole_seconds(at: SystemTime) -> SystemTime {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decide_with(pairs: &[(HeaderName, &str)]) -> Decision {
        let headers = pairs.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        // 1994-11-06 08:49:37 and a bit.
        decide(&headers, 10, UNIX_EPOCH + Duration::from_millis(784_111_777_500))
    }

    const SAME: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    const EARLIER: &str = "Sun, 06 Nov 1994 08:49:36 GMT";

    #[test]
    fn ranges_are_cut_to_the_file() {
        let range = |spec: &str| decide_with(&[(header::RANGE, spec)]);
        assert_eq!(range("bytes=0-4"), Decision::Part { start: 0, length: 5 });
        assert_eq!(range("bytes=5-99"), Decision::Part { start: 5, length: 5 });
        assert_eq!(range("bytes=-3"), Decision::Part { start: 7, length: 3 });
        assert_eq!(range("bytes=9-"), Decision::Part { start: 9, length: 1 });
        assert_eq!(range("bytes=10-"), Decision::RangeNotSatisfiable);
        assert_eq!(range("bytes=4-2"), Decision::RangeNotSatisfiable);
        assert_eq!(range("bytes=0-1,3-4"), Decision::Whole);
        assert_eq!(range("lines=1-2"), Decision::Whole);
    }

    #[test]
    fn conditions_are_checked_before_ranges() {
        assert_eq!(decide_with(&[(header::IF_MODIFIED_SINCE, SAME)]), Decision::NotModified);
        assert_eq!(decide_with(&[(header::IF_MODIFIED_SINCE, EARLIER)]), Decision::Whole);
        assert_eq!(decide_with(&[(header::IF_UNMODIFIED_SINCE, EARLIER)]), Decision::PreconditionFailed);
        assert_eq!(decide_with(&[(header::IF_MATCH, "\"x\"")]), Decision::PreconditionFailed);
        assert_eq!(decide_with(&[(header::IF_NONE_MATCH, "*")]), Decision::NotModified);
        let ranged = |date| decide_with(&[(header::RANGE, "bytes=0-0"), (header::IF_RANGE, date)]);
        assert_eq!(ranged(SAME), Decision::Part { start: 0, length: 1 });
        assert_eq!(ranged(EARLIER), Decision::Whole);
    }

    proptest! {
        #[test]
        fn a_part_always_lies_in_the_file(spec in "(bytes=)?[-0-9, ]{0,12}", size in 0u64..100) {
            if let Decision::Part { start, length } = part(&spec, size) {
                prop_assert!(length > 0 && start + length <= size);
            }
        }
    }
}
