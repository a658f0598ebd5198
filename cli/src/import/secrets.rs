//! Tells secret values from plain ones, and reads the references that clients write.

/// A value of `env` or `headers`.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// Nothing to hide.
    Plain(String),
    /// A secret in the open.
    Secret(String),
    /// Text with `${env:NAME}` in it, in our spelling, whatever the client's was.
    Reference(String),
}

/// Parts of names whose values are secrets.
const NAMES: [&str; 14] = [
    "TOKEN",
    "SECRET",
    "PASSWORD",
    "PASSWD",
    "PASSPHRASE",
    "APIKEY",
    "API_KEY",
    "ACCESS_KEY",
    "PRIVATE_KEY",
    "CREDENTIAL",
    "AUTH",
    "COOKIE",
    "CONNECTION_STRING",
    "DATABASE_URL",
];
const SUFFIXES: [&str; 4] = ["_KEY", "_PAT", "_PASS", "_DSN"];
/// How well-known tokens begin.
const TOKENS: [&str; 9] = ["sk-", "ghp_", "gho_", "github_pat_", "glpat-", "xoxb-", "xoxp-", "AKIA", "eyJ"];

/// Judges the value of an environment variable.
pub(super) fn judge(name: &str, value: &str) -> Value {
    if let Some(reference) = reference(value) {
        return Value::Reference(reference);
    }
    if is_secret(name, value) { Value::Secret(value.to_owned()) } else { Value::Plain(value.to_owned()) }
}

/// True for a value that should not stand in the open.
pub(super) fn is_secret(name: &str, value: &str) -> bool {
    let name = name.to_ascii_uppercase().replace('-', "_");
    let named =
        NAMES.iter().any(|part| name.contains(part)) || SUFFIXES.iter().any(|end| name.ends_with(end));
    let switch = matches!(value.to_ascii_lowercase().as_str(), "" | "true" | "false" | "0" | "1" | "none");
    (named && !switch) || looks_secret(value)
}

/// True for a value that is a secret under any name.
pub(super) fn looks_secret(value: &str) -> bool {
    let password_in_url = url::Url::parse(value).is_ok_and(|url| url.password().is_some());
    password_in_url
        || TOKENS.iter().any(|start| value.starts_with(start) && value.len() >= 16)
        || random(value)
}

/// Long, without structure, and of mixed characters.
fn random(value: &str) -> bool {
    let plain = value.chars().all(|c| c.is_ascii_alphanumeric() || "+_=-".contains(c));
    let digits = value.chars().filter(char::is_ascii_digit).count();
    let letters = value.chars().filter(char::is_ascii_alphabetic).count();
    value.len() >= 28 && plain && digits >= 4 && letters >= 4 && !value.contains("--")
}

/// `${NAME}` and `${NAME:-default}` (Claude Code), `${env:NAME}` (Cursor, VS Code, Windsurf) and `${input:id}`
/// (VS Code, where the user is asked) become `${env:NAME}`. None when there is no reference.
fn reference(value: &str) -> Option<String> {
    let mut text = String::new();
    let mut rest = value;
    let mut found = false;
    while let Some((before, after)) = rest.split_once("${") {
        let (inside, after) = after.split_once('}')?;
        text.push_str(before);
        text.push_str(&format!("${{env:{}}}", variable(inside)?));
        found = true;
        rest = after;
    }
    text.push_str(rest);
    found.then_some(text)
}

fn variable(inside: &str) -> Option<String> {
    let name = match inside.split_once(':') {
        None => inside.to_owned(),
        Some(("env", name)) => name.to_owned(),
        Some(("input", id)) => shout(id),
        Some((name, default)) if default.starts_with('-') => name.to_owned(),
        Some(_) => return None,
    };
    let word = !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    word.then_some(name)
}

/// The names of all variables that a text in our spelling refers to.
pub(super) fn variables(text: &str) -> impl Iterator<Item = &str> {
    text.split("${env:").skip(1).filter_map(|rest| rest.split_once('}').map(|(name, _)| name))
}

/// An environment variable's name for any text.
pub(super) fn shout(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_known_by_name_or_by_look() {
        for (name, value) in [
            ("GITHUB_TOKEN", "abc"),
            ("OPENAI_API_KEY", "x"),
            ("X", "ghp_0123456789abcdef"),
            ("DB", "postgres://ann:pw@host/db"),
            ("X", "a8f3k2l9q0w7e5r1t6y4u2i8o0p3"),
        ] {
            assert!(matches!(judge(name, value), Value::Secret(_)), "{name}={value}");
        }
        for (name, value) in
            [("LOG_LEVEL", "debug"), ("HOME_DIR", "/srv/data"), ("USE_TOKEN", "true"), ("KEYS", "3")]
        {
            assert!(matches!(judge(name, value), Value::Plain(_)), "{name}={value}");
        }
    }

    #[test]
    fn every_clients_reference_becomes_ours() {
        for (value, ours) in [
            ("${TOKEN}", "${env:TOKEN}"),
            ("${TOKEN:-none}", "${env:TOKEN}"),
            ("Bearer ${env:TOKEN}", "Bearer ${env:TOKEN}"),
            ("${input:api-key}", "${env:API_KEY}"),
        ] {
            assert_eq!(judge("X", value), Value::Reference(ours.to_owned()), "{value}");
        }
        assert_eq!(variables("a${env:B}c${env:D}").collect::<Vec<_>>(), ["B", "D"]);
    }
}
