//! Queries of lists.

use std::collections::BTreeMap;

use jiff::Timestamp;
use percent_encoding::percent_decode_str;

use super::{ApiError, Direction, PageToken, parse_metadata};

/// A query, decoded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Query(Vec<(String, String)>);

impl Query {
    /// Reads `k=v&k2=v2`, each side form-encoded. Absent is empty.
    pub fn parse(raw: Option<&str>) -> Result<Self, ApiError> {
        let decode = |text: &str| {
            let text = text.replace('+', "%20");
            percent_decode_str(&text).decode_utf8().map(|text| text.into_owned())
        };
        let mut pairs = Vec::new();
        for pair in raw.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Ok(name), Ok(value)) = (decode(name), decode(value)) else {
                return Err(ApiError::Validation { detail: "the query is not UTF-8".to_owned() });
            };
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter; of the first if there are more, and nothing if it is empty.
    pub fn get(&self, name: &str) -> Option<&str> {
        let mut pairs = self.0.iter();
        pairs.find(|(key, _)| key == name).map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// The values of a parameter that may be given more than once, or with commas.
    fn list(&self, name: &str) -> impl Iterator<Item = &str> {
        let pairs = self.0.iter().filter(move |(key, _)| key == name);
        pairs.flat_map(|(_, value)| value.split(',')).map(str::trim).filter(|value| !value.is_empty())
    }
}

/// `limit` and `nextToken`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageOf {
    /// 1 to 100; 100 when absent. Source: contract/control-api.md §2.7.
    pub limit: u32,
    /// What the page follows.
    pub token: Option<PageToken>,
}

impl PageOf {
    /// Reads them for a list of this order.
    pub fn parse(query: &Query, direction: Direction) -> Result<Self, ApiError> {
        let limit = match query.get("limit") {
            None => 100,
            Some(text) => match text.parse() {
                Ok(limit @ 1..=100) => limit,
                _ => return Err(invalid("limit must be a number from 1 to 100")),
            },
        };
        let token = match query.get("nextToken") {
            None => None,
            Some(text) => {
                let token: PageToken = text.parse().map_err(|_| ApiError::InvalidNextToken)?;
                if token.direction != direction {
                    return Err(ApiError::InvalidNextToken);
                }
                Some(token)
            }
        };
        Ok(Self { limit, token })
    }
}

/// Which states are wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct States {
    /// Those that run.
    pub running: bool,
    /// Those that are paused.
    pub paused: bool,
}

/// The query of `GET /v2/sandboxes`, and with only `metadata` that of `GET /sandboxes`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListSandboxes {
    /// Pairs that must match exactly.
    pub metadata: BTreeMap<String, String>,
    /// Both when absent.
    pub states: States,
    /// By time of start.
    pub direction: Direction,
    /// Started then or later.
    pub started_after: Option<Timestamp>,
    /// Template id or name.
    pub template: Option<String>,
    /// Which page.
    pub page: PageOf,
}

impl ListSandboxes {
    /// Reads the query of `GET /v2/sandboxes`.
    pub fn parse(query: &Query) -> Result<Self, ApiError> {
        let direction = match query.get("order") {
            None | Some("desc") => Direction::Descending,
            Some("asc") => Direction::Ascending,
            Some(_) => return Err(invalid("order must be asc or desc")),
        };
        let started_after = query.get("startedAfter").map(str::parse).transpose();
        Ok(Self {
            metadata: Self::parse_metadata(query)?,
            states: parse_states(query)?,
            direction,
            started_after: started_after.map_err(|_| invalid("startedAfter must be an RFC 3339 time"))?,
            template: query.get("template").map(str::to_owned),
            page: PageOf::parse(query, direction)?,
        })
    }

    /// Reads `metadata` alone.
    pub fn parse_metadata(query: &Query) -> Result<BTreeMap<String, String>, ApiError> {
        parse_metadata(query.get("metadata").unwrap_or_default()).map_err(|_| ApiError::MalformedMetadata)
    }
}

fn parse_states(query: &Query) -> Result<States, ApiError> {
    let mut states = States { running: false, paused: false };
    for state in query.list("state") {
        match state {
            "running" => states.running = true,
            "paused" => states.paused = true,
            _ => return Err(invalid("state must be running or paused")),
        }
    }
    if states.running || states.paused { Ok(states) } else { Ok(States { running: true, paused: true }) }
}

fn invalid(detail: &str) -> ApiError {
    ApiError::Validation { detail: detail.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn parse(raw: &str) -> Result<ListSandboxes, ApiError> {
        ListSandboxes::parse(&Query::parse(Some(raw))?)
    }

    #[test]
    fn nothing_asked_is_everything_newest_first() {
        let list = parse("").unwrap();
        assert_eq!(list.states, States { running: true, paused: true });
        assert_eq!((list.direction, list.page.limit), (Direction::Descending, 100));
    }

    #[test]
    fn states_come_with_a_comma_encoded_or_not_and_repeated() {
        for raw in ["state=running,paused", "state=running%2Cpaused", "state=running&state=paused"] {
            assert_eq!(parse(raw).unwrap().states, States { running: true, paused: true }, "{raw}");
        }
        assert_eq!(parse("state=paused").unwrap().states, States { running: false, paused: true });
        assert!(parse("state=frozen").is_err());
    }

    #[test]
    fn metadata_as_the_sdks_send_it() {
        let list = parse("metadata=user%3Da%252520b%26app%3Dprod").unwrap();
        assert_eq!(list.metadata["user"], "a b");
        assert_eq!(list.metadata["app"], "prod");
        assert_eq!(parse("metadata=user"), Err(ApiError::MalformedMetadata));
    }

    #[test]
    fn a_limit_is_1_to_100() {
        assert_eq!(parse("limit=1").unwrap().page.limit, 1);
        for bad in ["limit=0", "limit=101", "limit=-1", "limit=x", "limit=1.0"] {
            assert!(matches!(parse(bad), Err(ApiError::Validation { .. })), "{bad}");
        }
    }

    #[test]
    fn a_token_of_the_other_order_is_refused() {
        let at = Timestamp::from_microsecond(1).unwrap();
        let token = PageToken { at, id: "ia".to_owned(), direction: Direction::Descending };
        assert_eq!(parse(&format!("nextToken={token}")).unwrap().page.token, Some(token.clone()));
        assert_eq!(parse(&format!("order=asc&nextToken={token}")), Err(ApiError::InvalidNextToken));
        assert_eq!(parse("nextToken=x"), Err(ApiError::InvalidNextToken));
    }

    #[test]
    fn a_time_may_carry_an_offset() {
        let list = parse("startedAfter=2026-01-01T01%3A00%3A00.5%2B01%3A00").unwrap();
        assert_eq!(list.started_after.unwrap().to_string(), "2026-01-01T00:00:00.5Z");
        assert!(parse("startedAfter=yesterday").is_err());
    }
}
