//! Amounts as Kubernetes writes them: `500m`, `128Mi`, `2`.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserializer, Visitor};
use serde::{Deserialize, Serialize};

/// A text that is not an amount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidQuantity(String);

impl fmt::Display for InvalidQuantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is not an amount such as \"500m\", \"128Mi\" or \"2\"", self.0)
    }
}

impl std::error::Error for InvalidQuantity {}

/// An amount (`resource.Quantity`, never negative). Keeps its text; a whole number may stand without quotes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Quantity(String);

impl Quantity {
    /// Its text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Quantity {
    type Error = InvalidQuantity;

    fn try_from(text: String) -> Result<Self, InvalidQuantity> {
        if is_quantity(&text) { Ok(Self(text)) } else { Err(InvalidQuantity(text)) }
    }
}

/// `<number><suffix>` of the grammar at `resource.Quantity`, without a sign.
fn is_quantity(text: &str) -> bool {
    let end = text.bytes().position(|byte| !byte.is_ascii_digit() && byte != b'.').unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let numeric = number.bytes().any(|byte| byte.is_ascii_digit())
        && number.bytes().filter(|&byte| byte == b'.').count() <= 1;
    let exponent = |rest: &str| {
        let digits = rest.strip_prefix(['+', '-']).unwrap_or(rest);
        (1..=3).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit())
    };
    let known = matches!(
        suffix,
        "" | "n" | "u" | "m" | "k" | "M" | "G" | "T" | "P" | "E" | "Ki" | "Mi" | "Gi" | "Ti" | "Pi" | "Ei"
    );
    numeric && (known || suffix.strip_prefix(['e', 'E']).is_some_and(exponent))
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an amount such as \"500m\", \"128Mi\" or 2")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                Quantity::try_from(text.to_owned()).map_err(E::custom)
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
                Ok(Quantity(number.to_string()))
            }
        }
        deserializer.deserialize_any(Text)
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "pattern": "^([0-9]+\\.?[0-9]*|\\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Option<String> {
        serde_json::from_str::<Quantity>(json).ok().map(|quantity| quantity.0)
    }

    #[test]
    fn an_amount_keeps_its_text_and_a_whole_number_needs_no_quotes() {
        for text in ["500m", "128Mi", "0.5", "2", "1e3", "1E-3", ".5", "3.", "5E"] {
            assert_eq!(read(&format!("{text:?}")).as_deref(), Some(text));
        }
        assert_eq!(read("2").as_deref(), Some("2"));
    }

    #[test]
    fn anything_else_is_refused() {
        for json in
            ["\"\"", "\"m\"", "\"1.2.3\"", "\"-1\"", "\"1 Gi\"", "\"1Gb\"", "\"1e\"", "-1", "0.5", "null"]
        {
            assert_eq!(read(json), None, "{json}");
        }
    }
}
