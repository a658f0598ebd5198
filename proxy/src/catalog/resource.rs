//! Whose resource a URI is, when no list says so.

/// Whether a URI could be an expansion of an RFC 6570 template: its literal parts stand in it, in order, and it
/// begins and ends with the first and the last.
pub(super) fn could_expand(template: &str, uri: &str) -> bool {
    let mut literals = Vec::new();
    let mut rest = template;
    while let Some((literal, tail)) = rest.split_once('{') {
        let Some((_, after)) = tail.split_once('}') else { return false };
        literals.push(literal);
        rest = after;
    }
    let Some(mut uri) = literals.first().and_then(|first| uri.strip_prefix(first)) else {
        return template == uri;
    };
    let Some(middle) = uri.strip_suffix(rest) else { return false };
    uri = middle;
    for literal in literals.iter().skip(1) {
        let Some(at) = uri.find(literal) else { return false };
        uri = uri.get(at + literal.len()..).unwrap_or_default();
    }
    true
}

#[cfg(test)]
mod tests {
    use super::could_expand;

    #[test]
    fn a_uri_fits_a_template_by_its_literal_parts() {
        for (template, uri, fits) in [
            ("file:///{path}", "file:///a/b", true),
            ("file:///{path}", "http:///a", false),
            ("db://{table}/rows/{id}", "db://t/rows/1", true),
            ("db://{table}/rows/{id}", "db://t/cols/1", false),
            ("x://{a}.json", "x://q.json", true),
            ("x://{a}.json", "x://q.xml", false),
            ("x://fixed", "x://fixed", true),
            ("x://fixed", "x://other", false),
            ("x://{broken", "x://a", false),
        ] {
            assert_eq!(could_expand(template, uri), fits, "{template} {uri}");
        }
    }
}
