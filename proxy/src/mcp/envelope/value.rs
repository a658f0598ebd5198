//! What a request id says, however it is spelled.

use bytes::Bytes;

use super::{Id, MAX_ID};
use crate::mcp::json;

/// An id by its value: `"a"` is `"\u0061"`, `1` is `1.0`, and `1` is never `"1"`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct IdValue(Bytes);

impl IdValue {
    /// Takes the JSON text of an id; `None` unless it is a string or an integer. What is in its plainest spelling
    /// already, as nearly every id is, is not copied.
    #[must_use]
    pub fn read(text: &Bytes) -> Option<Self> {
        let valid = text.len() <= MAX_ID && json::check(text, &json::Limits::default()).is_ok();
        if valid { Self::of(text) } else { None }
    }

    /// Of what is JSON for sure.
    fn of(text: &Bytes) -> Option<Self> {
        let plainest = match text.first()? {
            b'"' if text.contains(&b'\\') => {
                let mut plainest = Vec::with_capacity(text.len());
                json::push_text(&mut plainest, &json::text(text)?);
                Some(plainest)
            }
            b'"' => None,
            b'-' | b'0'..=b'9' => plain_integer(std::str::from_utf8(text).ok()?)?.map(String::into_bytes),
            _ => return None,
        };
        Some(Self(plainest.map_or_else(|| text.clone(), Bytes::from)))
    }
}

impl Id {
    /// What it says.
    #[must_use]
    pub fn value(&self) -> IdValue {
        IdValue::of(&self.0).unwrap_or_else(|| IdValue(self.0.clone()))
    }
}

/// The number that the JSON text of an id says, or that a string holds: some servers send an integer back as one.
#[must_use]
pub fn number(text: &[u8]) -> Option<u64> {
    let said = match text.first()? {
        b'"' => json::text(text)?,
        _ => std::str::from_utf8(text).ok()?.into(),
    };
    if !said.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    plain_integer(&said)?.as_deref().unwrap_or(&said).parse().ok()
}

/// The digits of a JSON number, where it stands otherwise; `None` unless it is an integer.
fn plain_integer(text: &str) -> Option<Option<String>> {
    let (sign, number) = text.strip_prefix('-').map_or(("", text), |number| ("-", number));
    if (number != "0" || sign.is_empty()) && number.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some(None);
    }
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_end_matches('0');
    let moved = i64::try_from(digits.len() - significant.len()).ok()? - i64::try_from(fraction.len()).ok()?;
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Some(Some("0".to_owned()));
    }
    let zeros = usize::try_from(exponent.parse::<i64>().ok()?.checked_add(moved)?).ok()?;
    (zeros <= MAX_ID).then(|| Some(format!("{sign}{significant}{}", "0".repeat(zeros))))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<IdValue> {
        IdValue::read(&Bytes::copy_from_slice(text.as_bytes()))
    }

    #[test]
    fn an_id_is_the_same_however_it_is_spelled() {
        for spellings in [
            &["1", "1.0", "1e0", "10E-1", "0.1e1", "1.000"][..],
            &["0", "-0", "0.0", "0e9", "-0.0e-7"],
            &["-120", "-120.0", "-1.2e2", "-1.2E+2", "-12000e-2"],
            &["9007199254740993", "9007199254740993.0", "9007199254740.993e3"],
            &[r#""a""#, r#""\u0061""#],
            &[r#""1""#, r#""\u0031""#],
            &["\"\u{e9}/\u{7f}\"", r#""\u00e9\/\u007f""#],
            &[r#""\"\\""#, r#""\u0022\u005c""#],
        ] {
            for one in spellings {
                assert!(value(one).is_some(), "{one}");
                assert_eq!(value(one), value(spellings[0]), "{one}");
            }
        }
    }

    #[test]
    fn other_ids_are_others() {
        let all = ["1", "-1", "10", "0", r#""1""#, r#""a""#, r#""A""#, r#""""#, "100000000000000000000"];
        for (at, one) in all.iter().enumerate() {
            for (other_at, other) in all.iter().enumerate() {
                assert_eq!(value(one) == value(other), at == other_at, "{one} {other}");
            }
        }
    }

    #[test]
    fn a_number_is_the_same_however_a_server_sends_it_back() {
        for text in ["17", "17.0", "1.7e1", r#""17""#, r#""\u0031\u0037""#] {
            assert_eq!(number(text.as_bytes()), Some(17), "{text}");
        }
        for text in ["null", "-17", "17.5", r#""+17""#, r#""17a""#, r#""""#, "{}", r#""gw-17""#] {
            assert_eq!(number(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_is_no_id_has_no_value() {
        for text in [
            "null",
            "true",
            "{}",
            "[1]",
            "1.5",
            "1e-1",
            "1e99999",
            "1e99999999999999999999",
            "01",
            "1.",
            "",
            r#""\ud800""#,
        ] {
            assert_eq!(value(text), None, "{text}");
        }
        assert_eq!(value(&"1".repeat(MAX_ID + 1)), None);
    }
}
