//! From columns to values and back. A column that holds what we never write is named in the error.

use jiff::Timestamp;
use sandbar_model::StopReason;

use crate::DbError;
use crate::record::BuildStatus;

/// Where a value was read, for errors.
#[derive(Clone, Copy)]
pub(super) struct Column(pub(super) &'static str, pub(super) &'static str);

impl Column {
    pub(super) fn damaged(self, value: impl ToString) -> DbError {
        DbError::Damaged { table: self.0, column: self.1, value: value.to_string() }
    }

    pub(super) fn parse<T: std::str::FromStr>(self, text: &str) -> Result<T, DbError> {
        text.parse().map_err(|_| self.damaged(text))
    }

    pub(super) fn json<T: serde::de::DeserializeOwned>(self, text: &str) -> Result<T, DbError> {
        serde_json::from_str(text).map_err(|_| self.damaged(text))
    }

    pub(super) fn number<T: TryFrom<i64>>(self, number: i64) -> Result<T, DbError> {
        T::try_from(number).map_err(|_| self.damaged(number))
    }

    pub(super) fn time(self, micros: i64) -> Result<Timestamp, DbError> {
        Timestamp::from_microsecond(micros).map_err(|_| self.damaged(micros))
    }

    pub(super) fn stop_reason(self, word: &str) -> Result<StopReason, DbError> {
        REASONS
            .iter()
            .find(|(_, name)| *name == word)
            .map(|(reason, _)| *reason)
            .ok_or_else(|| self.damaged(word))
    }

    pub(super) fn build_status(self, word: &str) -> Result<BuildStatus, DbError> {
        STATUSES
            .iter()
            .find(|(_, name)| *name == word)
            .map(|(status, _)| *status)
            .ok_or_else(|| self.damaged(word))
    }
}

const REASONS: [(StopReason, &str); 5] = [
    (StopReason::Requested, "requested"),
    (StopReason::Expired, "expired"),
    (StopReason::Exited, "exited"),
    (StopReason::StartFailed, "start_failed"),
    (StopReason::Lost, "lost"),
];

pub(super) fn stop_reason(reason: StopReason) -> &'static str {
    match reason {
        StopReason::Requested => "requested",
        StopReason::Expired => "expired",
        StopReason::Exited => "exited",
        StopReason::StartFailed => "start_failed",
        StopReason::Lost => "lost",
    }
}

const STATUSES: [(BuildStatus, &str); 4] = [
    (BuildStatus::Waiting, "waiting"),
    (BuildStatus::Building, "building"),
    (BuildStatus::Ready, "ready"),
    (BuildStatus::Failed, "failed"),
];

pub(super) fn build_status(status: BuildStatus) -> &'static str {
    match status {
        BuildStatus::Waiting => "waiting",
        BuildStatus::Building => "building",
        BuildStatus::Ready => "ready",
        BuildStatus::Failed => "failed",
    }
}

pub(super) fn micros(at: Timestamp) -> i64 {
    at.as_microsecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_we_write_can_be_read() {
        let column = Column("t", "c");
        for (reason, word) in REASONS {
            assert_eq!(stop_reason(reason), word);
            assert_eq!(column.stop_reason(word).unwrap(), reason);
        }
        for (status, word) in STATUSES {
            assert_eq!(build_status(status), word);
            assert_eq!(column.build_status(word).unwrap(), status);
        }
        assert_eq!(column.stop_reason("bored").unwrap_err().to_string(), "t.c holds \"bored\"");
    }
}
