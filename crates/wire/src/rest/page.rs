//! Where the next page of a list begins, as a text that clients hand back unread.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;

/// The order of a list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Direction {
    /// Oldest first.
    Ascending,
    /// Newest first.
    #[default]
    Descending,
}

/// The last entry of a page.
///
/// URL-safe base64 of `<RFC 3339 time>__<id>`, with `__asc` behind it for ascending order. Source:
/// contract/control-api.md §2.7.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken {
    /// The time the list is ordered by.
    pub at: Timestamp,
    /// The entry's id: no `_` in it.
    pub id: String,
    /// The order of the list it was made for.
    pub direction: Direction,
}

/// Not a token of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed page token")]
pub struct MalformedToken;

/// Longer than any that we make.
const LEN_MAX: usize = 256;

impl std::fmt::Display for PageToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mark = match self.direction {
            Direction::Ascending => "__asc",
            Direction::Descending => "",
        };
        f.write_str(&URL_SAFE_NO_PAD.encode(format!("{}__{}{mark}", self.at, self.id)))
    }
}

impl std::str::FromStr for PageToken {
    type Err = MalformedToken;

    fn from_str(text: &str) -> Result<Self, MalformedToken> {
        if text.len() > LEN_MAX {
            return Err(MalformedToken);
        }
        let bytes = URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).map_err(|_| MalformedToken)?;
        let plain = String::from_utf8(bytes).map_err(|_| MalformedToken)?;
        let mut parts = plain.split("__");
        let (Some(at), Some(id), mark, None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(MalformedToken);
        };
        let direction = match mark {
            None => Direction::Descending,
            Some("asc") => Direction::Ascending,
            Some(_) => return Err(MalformedToken),
        };
        let at = at.parse().map_err(|_| MalformedToken)?;
        if id.is_empty() || id.contains('_') {
            return Err(MalformedToken);
        }
        Ok(Self { at, id: id.to_owned(), direction })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_token_comes_back_as_it_was(
            micros in 0..4_000_000_000_000_000_i64,
            id in "[a-z0-9-]{1,63}",
            ascending: bool,
        ) {
            let at = Timestamp::from_microsecond(micros).unwrap();
            let direction = if ascending { Direction::Ascending } else { Direction::Descending };
            let token = PageToken { at, id, direction };
            prop_assert_eq!(token.to_string().parse(), Ok(token));
        }

        #[test]
        fn foreign_text_never_panics(text in ".{0,300}") {
            let _ = text.parse::<PageToken>();
        }
    }

    #[test]
    fn what_is_not_one_of_ours_is_refused() {
        let encode = |plain: &str| URL_SAFE_NO_PAD.encode(plain);
        for bad in [
            "",
            "?",
            "bm9wZQ",
            &encode("2026-01-01T00:00:00Z__"),
            &encode("yesterday__iabc"),
            &encode("2026-01-01T00:00:00Z__iabc__desc"),
        ] {
            assert_eq!(bad.parse::<PageToken>(), Err(MalformedToken), "{bad}");
        }
    }
}
