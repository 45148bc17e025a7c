//! `google.protobuf.Timestamp`: two numbers in binary, RFC 3339 in JSON.

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// A moment, counted from the Unix epoch.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct Timestamp {
    /// Seconds; negative before 1970.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds after [`Timestamp::seconds`], 0–999 999 999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

impl Serialize for Timestamp {
    /// UTC with 0, 3, 6 or 9 fractional digits: other counts are refused by clients.
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        let whole = jiff::Timestamp::from_second(self.seconds).map_err(serde::ser::Error::custom)?;
        let whole = whole.strftime("%Y-%m-%dT%H:%M:%S");
        match self.nanos {
            0 => s.collect_str(&format_args!("{whole}Z")),
            n if n % 1_000_000 == 0 => s.collect_str(&format_args!("{whole}.{:03}Z", n / 1_000_000)),
            n if n % 1_000 == 0 => s.collect_str(&format_args!("{whole}.{:06}Z", n / 1_000)),
            n => s.collect_str(&format_args!("{whole}.{n:09}Z")),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(d)?;
        let at: jiff::Timestamp = text.parse().map_err(D::Error::custom)?;
        let (mut seconds, mut nanos) = (at.as_second(), at.subsec_nanosecond());
        if nanos < 0 {
            seconds -= 1;
            nanos += 1_000_000_000;
        }
        Ok(Self { seconds, nanos })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(seconds: i64, nanos: i32, want: &str) {
        let at = Timestamp { seconds, nanos };
        let json = serde_json::to_string(&at).unwrap();
        assert_eq!(json, format!("\"{want}\""));
        assert_eq!(serde_json::from_str::<Timestamp>(&json).unwrap(), at);
    }

    #[test]
    fn fractions_have_as_many_digits_as_they_need_in_threes() {
        check(0, 0, "1970-01-01T00:00:00Z");
        check(1_767_225_600, 120_000_000, "2026-01-01T00:00:00.120Z");
        check(1_767_225_600, 120_500_000, "2026-01-01T00:00:00.120500Z");
        check(1_767_225_600, 1, "2026-01-01T00:00:00.000000001Z");
        check(-1, 500_000_000, "1969-12-31T23:59:59.500Z");
    }
}
