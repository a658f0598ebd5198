//! Makes Kubernetes names of texts that people chose freely.

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

#[cfg(test)]
mod tests {
    use super::*;

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
