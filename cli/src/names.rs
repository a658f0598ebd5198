//! Kubernetes names: made of texts that people chose freely, or checked where they are given as such.

use mcpmesh_ir::ServerId;

/// The longest prefix that a server may have (decisions.md 16).
const LONGEST: usize = 32;

/// A name of `[a-z0-9-]`, at most 32 characters, that starts and ends with a letter or digit.
pub(crate) fn label(text: &str) -> String {
    let mut name = String::new();
    for character in text.chars() {
        let character = character.to_ascii_lowercase();
        if character.is_ascii_alphanumeric() {
            name.push(character);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
    }
    name.truncate(LONGEST);
    let name = name.trim_end_matches('-');
    if name.is_empty() { "server".to_owned() } else { name.to_owned() }
}

/// As [`label`], made unlike all of `taken` by a number at its end.
pub(crate) fn unique(text: &str, taken: &[String]) -> String {
    let base = label(text);
    let mut name = base.clone();
    let mut number = 2;
    while taken.contains(&name) {
        let suffix = format!("-{number}");
        let kept = base.get(..base.len().min(LONGEST - suffix.len())).unwrap_or_default();
        name = format!("{}{suffix}", kept.trim_end_matches('-'));
        number += 1;
    }
    name
}

/// A server's name as the command line takes it: without the namespace where that is `default`.
pub(crate) fn server(server: &ServerId) -> String {
    if server.namespace == "default" { server.name.clone() } else { server.to_string() }
}

/// The name of an object, as given on the command line.
pub(crate) fn object(text: &str) -> Result<String, String> {
    let good = text.len() <= 253 && text.split('.').all(|part| is_label(part, |c| c.is_ascii_lowercase()));
    if good { Ok(text.to_owned()) } else { Err(refused()) }
}

/// The name of a namespace, as given on the command line.
pub(crate) fn namespace(text: &str) -> Result<String, String> {
    let good = text.len() <= 63 && is_label(text, |c| c.is_ascii_lowercase());
    if good { Ok(text.to_owned()) } else { Err(refused()) }
}

fn refused() -> String {
    "no Kubernetes name: use lower-case letters, digits and dashes, a letter or digit first and last"
        .to_owned()
}

/// Whether an object can have this label.
pub(crate) fn check_label(name: &str, value: &str) -> Result<(), String> {
    let (domain, short) = name.split_once('/').map_or((None, name), |(domain, short)| (Some(domain), short));
    let word =
        |text: &str| text.len() <= 63 && is_label(text, |c| c.is_ascii_alphabetic() || "_.".contains(c));
    let ends = |text: &str| {
        [text.chars().next(), text.chars().last()].iter().flatten().all(char::is_ascii_alphanumeric)
    };
    if domain.is_some_and(|domain| object(domain).is_err()) || !word(short) || !ends(short) {
        return Err(format!("{name:?} is no name of a label, such as team or example.com/team"));
    }
    if !(value.is_empty() || word(value) && ends(value)) {
        return Err(format!(
            "{value:?} is no value of a label: letters, digits, dashes, dots and underscores"
        ));
    }
    Ok(())
}

/// Letters, as `letter` has them, digits, and dashes within.
fn is_label(text: &str, letter: impl Fn(char) -> bool) -> bool {
    let inside = text.chars().all(|c| letter(c) || c.is_ascii_digit() || c == '-');
    inside && !text.is_empty() && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_kubernetes_refuses_is_refused() {
        for good in ["a", "key-ann", "0", "a.b"] {
            assert!(object(good).is_ok(), "{good}");
        }
        for bad in ["", "Bad_Name", "-a", "a-", "a..b", &"a".repeat(254)] {
            assert!(object(bad).is_err(), "{bad}");
        }
        assert!(namespace("team-a").is_ok() && namespace("a.b").is_err() && namespace("Bad_N").is_err());
        for (name, value) in [("team", "a"), ("example.com/Team_1", "A.b_c-1"), ("x", "")] {
            assert!(check_label(name, value).is_ok(), "{name}={value}");
        }
        for (name, value) in [("x y", "z"), ("x", "y z"), ("/x", ""), ("a/b/c", ""), ("_x", ""), ("x", "-")] {
            assert!(check_label(name, value).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn any_text_becomes_a_kubernetes_name() {
        assert_eq!(label("GitHub (work)"), "github-work");
        assert_eq!(label("@scope/server_name"), "scope-server-name");
        assert_eq!(label("…"), "server");
        assert_eq!(label(&"a".repeat(80)).len(), 32);
    }

    #[test]
    fn equal_names_are_told_apart() {
        assert_eq!(unique("Time", &["time".to_owned(), "time-2".to_owned()]), "time-3");
        assert_eq!(unique(&"a".repeat(40), &[label(&"a".repeat(40))]).len(), 32);
    }
}
