//! What serde says of a wrong type, in words of YAML, with what to write instead.

use mcpmesh_crds::Duration;

use crate::likeness::suggestion;

/// The message of a decoder for people, and the help.
#[must_use]
pub fn plain_words(message: &str) -> (String, Option<String>) {
    let mut quoted = message.split('`').skip(1).step_by(2);
    if message.starts_with("unknown ") {
        return (message.to_owned(), quoted.next().and_then(|unknown| suggestion(unknown, quoted)));
    }
    let Some((given, expected)) = message.rsplit_once(", expected ") else {
        let help = message.starts_with("missing field").then(|| "add it".to_owned());
        return (message.to_owned(), help);
    };
    let (expected, help) = match expected {
        "struct Empty" => ("a mapping", Some("write `{}`".to_owned())),
        "a map" => ("a mapping", None),
        name if name.starts_with("struct ") => ("a mapping", Some("write its fields".to_owned())),
        "a sequence" => ("a list", Some(as_list(given))),
        "u8" | "u16" => ("a whole number of 0 to 65535", None),
        "u32" | "u64" | "i32" | "i64" => ("a whole number", None),
        "a boolean" => ("a boolean", Some("write true or false, without quotes".to_owned())),
        "a string" => ("a string", Some("put quotes around it".to_owned())),
        Duration::EXPECTED => (expected, quoted.next().map(|number| format!("write `{number}s`"))),
        other => (other, None),
    };
    (format!("{given}, expected {expected}"), help)
}

/// How the text that stands where a list belongs is one.
fn as_list(given: &str) -> String {
    let text = given.strip_prefix("invalid type: string ");
    text.map_or_else(|| "write it as a list, such as [a, b]".to_owned(), |text| format!("write [{text}]"))
}
