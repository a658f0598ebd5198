//! How deep and how large a text is, told while it arrives: of one that is over the limits the rest need not be waited for.

use super::json::{Error, Limits};

/// Judges only what [`super::json::check`] refuses, too; whether the text is JSON at all it does not say.
pub struct Gauge {
    limits: Limits,
    open: usize,
    members: usize,
    within: Within,
}

#[derive(Clone, Copy)]
enum Within {
    Structure,
    Text,
    Escape,
}

impl Gauge {
    /// Of a text that begins.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, open: 0, members: 0, within: Within::Structure }
    }

    /// Reads the next piece.
    ///
    /// # Errors
    /// [`Error::Depth`] or [`Error::Members`] once the text is over its limits.
    pub fn feed(&mut self, mut piece: &[u8]) -> Result<(), Error> {
        while let [first, rest @ ..] = piece {
            piece = rest;
            match self.within {
                Within::Escape => self.within = Within::Text,
                Within::Text => match first {
                    b'"' => self.within = Within::Structure,
                    b'\\' => self.within = Within::Escape,
                    // Most of a long text.
                    _ => {
                        let end = memchr::memchr2(b'"', b'\\', rest).unwrap_or(rest.len());
                        piece = rest.get(end..).unwrap_or_default();
                    }
                },
                Within::Structure => self.structure(*first)?,
            }
        }
        Ok(())
    }

    fn structure(&mut self, byte: u8) -> Result<(), Error> {
        match byte {
            b'"' => self.within = Within::Text,
            b'{' | b'[' => {
                self.open += 1;
                if self.open > self.limits.depth {
                    return Err(Error::Depth);
                }
            }
            b'}' | b']' => self.open = self.open.saturating_sub(1),
            b':' => {
                self.members += 1;
                if self.members > self.limits.members {
                    return Err(Error::Members);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::json::check;
    use super::*;

    fn gauged(text: &[u8], cut: usize, limits: Limits) -> Result<(), Error> {
        let mut gauge = Gauge::new(limits);
        let (one, other) = text.split_at(cut.min(text.len()));
        gauge.feed(one)?;
        gauge.feed(other)
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let text = prop_oneof![r#"[\[\]{}:"\\a]{0,6}"#, "[a-z]{0,40}"];
        let leaf = prop_oneof![
            Just(serde_json::Value::Null),
            any::<i64>().prop_map(Into::into),
            text.clone().prop_map(Into::into)
        ];
        leaf.prop_recursive(6, 48, 6, move |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Into::into),
                prop::collection::btree_map(text.clone(), inner, 0..6)
                    .prop_map(|members| serde_json::Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn json_is_judged_as_the_scanner_judges_it(value in value(), cut in 0_usize..400, depth in 1_usize..6, members in 0_usize..12) {
            let (text, limits) = (value.to_string(), Limits { depth, members });
            let scanned = check(text.as_bytes(), &limits).err();
            let over = scanned.filter(|error| matches!(error, Error::Depth | Error::Members));
            prop_assert_eq!(gauged(text.as_bytes(), cut, limits).err(), over, "{}", text);
        }
    }
}
