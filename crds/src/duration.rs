//! Durations as the Gateway API writes them (GEP-2257): `500ms`, `5s`, `1h30m`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A text that is not a duration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidDuration(String);

impl fmt::Display for InvalidDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not a duration such as \"500ms\", \"5s\" or \"1h30m\"", self.0)
    }
}

impl std::error::Error for InvalidDuration {}

/// A duration: one to four numbers of at most five digits, each with a unit (`h`, `m`, `s`, `ms`). Keeps its text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(into = "String")]
pub struct Duration {
    text: String,
    millis: u64,
}

impl Duration {
    /// What a value that is no text is told that it should have been.
    pub const EXPECTED: &'static str = "a duration such as 5s";

    /// Its length in milliseconds.
    #[must_use]
    pub fn as_millis(&self) -> u64 {
        self.millis
    }
}

impl FromStr for Duration {
    type Err = InvalidDuration;

    fn from_str(text: &str) -> Result<Self, InvalidDuration> {
        millis(text)
            .map(|millis| Self { text: text.to_owned(), millis })
            .ok_or_else(|| InvalidDuration(text.into()))
    }
}

fn millis(text: &str) -> Option<u64> {
    let (mut rest, mut sum, mut parts) = (text, 0u64, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let (number, tail) = rest.split_at(digits);
        let letters = tail.bytes().take_while(u8::is_ascii_alphabetic).count();
        let (unit, tail) = tail.split_at(letters);
        let factor = match unit {
            "h" => 3_600_000,
            "m" => 60_000,
            "s" => 1_000,
            "ms" => 1,
            _ => return None,
        };
        parts += 1;
        if digits > 5 || parts > 4 {
            return None;
        }
        sum += number.parse::<u64>().ok()? * factor;
        rest = tail;
    }
    (parts > 0).then_some(sum)
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;

        impl Visitor<'_> for Text {
            type Value = Duration;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(Duration::EXPECTED)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_str(Text)
    }
}

impl From<Duration> for String {
    fn from(duration: Duration) -> Self {
        duration.text
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^([0-9]{1,5}(h|m|s|ms)){1,4}$", "maxLength": 28 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_with_units_add_up() {
        for (text, millis) in
            [("5s", 5_000), ("500ms", 500), ("1h30m", 5_400_000), ("0s", 0), ("1m1s1ms", 61_001)]
        {
            assert_eq!(text.parse::<Duration>().map(|duration| duration.as_millis()), Ok(millis), "{text}");
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for text in ["", "5", "s", "5 s", "-5s", "5d", "1.5s", "123456s", "1s1s1s1s1s", "5S", "５s"] {
            assert!(text.parse::<Duration>().is_err(), "{text:?}");
        }
    }
}
