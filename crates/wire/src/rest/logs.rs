//! What an agent printed, as clients read it.
//!
//! The agent prints one JSON object a line. Clients want each line as text with a `level` in it, and again taken
//! apart. Source: contract/control-api.md §8.1.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value, json};

/// The answer of `GET /sandboxes/{sandboxID}/logs`, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct SandboxLogs {
    /// Lines as text.
    pub logs: Vec<LogLine>,
    /// The same, taken apart.
    #[serde(rename = "logEntries")]
    pub log_entries: Vec<LogEntry>,
}

/// One line as text.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LogLine {
    /// RFC 3339.
    pub timestamp: String,
    /// A JSON object with `level`.
    pub line: String,
}

/// One line taken apart.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct LogEntry {
    /// RFC 3339.
    pub timestamp: String,
    /// `debug`, `info`, `warn` or `error`.
    pub level: String,
    /// What happened.
    pub message: String,
    /// Everything else that was said.
    pub fields: BTreeMap<String, String>,
}

impl SandboxLogs {
    /// Reads what an agent printed. Nothing in it is trusted: a line that is no JSON object is a message, and one
    /// without a time gets `otherwise`. Lines before `from` are left out, and of the rest all but the last `limit`.
    pub fn parse(
        printed: &str,
        from: Option<jiff::Timestamp>,
        limit: usize,
        otherwise: jiff::Timestamp,
    ) -> Self {
        let entries: Vec<LogEntry> = printed
            .lines()
            .filter(|line| !line.trim().is_empty())
            .map(|line| entry(line, otherwise))
            .filter(|entry| from.is_none_or(|from| is_since(&entry.timestamp, from)))
            .collect();
        let log_entries = entries[entries.len().saturating_sub(limit)..].to_vec();
        let logs = log_entries
            .iter()
            .map(|entry| LogLine { timestamp: entry.timestamp.clone(), line: as_line(entry) })
            .collect();
        Self { logs, log_entries }
    }
}

fn is_since(timestamp: &str, from: jiff::Timestamp) -> bool {
    timestamp.parse::<jiff::Timestamp>().is_ok_and(|at| at >= from)
}

fn entry(line: &str, otherwise: jiff::Timestamp) -> LogEntry {
    let mut said = match serde_json::from_str::<Value>(line) {
        Ok(Value::Object(members)) => members,
        _ => Map::from_iter([("message".to_owned(), Value::String(line.to_owned()))]),
    };
    let mut take = |name: &str| match said.remove(name) {
        Some(Value::String(text)) => Some(text),
        _ => None,
    };
    let timestamp = take("timestamp").filter(|text| text.parse::<jiff::Timestamp>().is_ok());
    let level = take("level").unwrap_or_default().to_lowercase();
    let message = take("message").unwrap_or_default();
    let logger = take("target");
    let text = |value: Value| match value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    let mut fields: BTreeMap<String, String> =
        said.into_iter().map(|(name, value)| (name, text(value))).collect();
    fields.extend(logger.map(|logger| ("logger".to_owned(), logger)));
    LogEntry {
        timestamp: timestamp.unwrap_or_else(|| otherwise.to_string()),
        level: if ["debug", "info", "warn", "error"].contains(&level.as_str()) {
            level
        } else {
            "info".into()
        },
        message,
        fields,
    }
}

fn as_line(entry: &LogEntry) -> String {
    let mut line = json!({ "timestamp": entry.timestamp, "level": entry.level, "message": entry.message });
    for (name, value) in &entry.fields {
        line[name] = Value::String(value.clone());
    }
    line.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PRINTED: &str = "{\"timestamp\":\"2026-01-02T03:04:05Z\",\"level\":\"INFO\",\"message\":\"listens\",\"port\":7,\
        \"target\":\"agent\"}\n\nnot JSON\n{\"timestamp\":\"x\",\"level\":\"LOUD\",\"message\":5}\n";

    fn now() -> jiff::Timestamp {
        "2026-06-01T00:00:00Z".parse().unwrap()
    }

    #[test]
    fn a_line_is_taken_apart_and_has_a_level_as_text() {
        let logs = SandboxLogs::parse(PRINTED, None, 10, now());
        let first = &logs.log_entries[0];
        assert_eq!((first.level.as_str(), first.message.as_str()), ("info", "listens"));
        assert_eq!(
            first.fields,
            BTreeMap::from([("port".into(), "7".into()), ("logger".into(), "agent".into())])
        );
        let line: Value = serde_json::from_str(&logs.logs[0].line).unwrap();
        assert_eq!((line["level"].as_str(), line["logger"].as_str()), (Some("info"), Some("agent")));
    }

    #[test]
    fn whatever_a_guest_prints_becomes_an_entry() {
        let logs = SandboxLogs::parse(PRINTED, None, 10, now());
        let seen: Vec<_> =
            logs.log_entries[1..].iter().map(|e| (e.level.as_str(), e.message.as_str())).collect();
        assert_eq!(seen, [("info", "not JSON"), ("info", "")]);
        assert_eq!(logs.log_entries[1].timestamp, now().to_string());
    }

    #[test]
    fn what_is_older_or_too_much_is_left_out() {
        let since = "2026-02-01T00:00:00Z".parse().unwrap();
        assert_eq!(SandboxLogs::parse(PRINTED, Some(since), 10, now()).logs.len(), 2);
        assert_eq!(SandboxLogs::parse(PRINTED, None, 1, now()).log_entries[0].message, "");
    }
}
