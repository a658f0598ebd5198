//! Advertised names: deterministic, unambiguous, and never decided by who came first (decisions.md 16).

use std::collections::HashMap;

use mcpmesh_ir::gateway::Naming;
use sha2::{Digest, Sha256};

/// What LLM APIs take as a tool's name.
const MAX_NAME: usize = 64;

/// One object that wants a name.
#[derive(Debug, Clone, Copy)]
pub struct Claim<'a> {
    /// The server's prefix, unique in the gateway, without an underscore.
    pub prefix: &'a str,
    /// The object's name before the prefix.
    pub base: &'a str,
}

/// Who answers to which name. Indices are those of the claims.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// What each claim is listed as; none when its own server claims the name twice.
    pub advertised: Vec<Option<String>>,
    /// Every name that resolves: advertised names and, in both modes, the prefixed forms.
    pub resolve: HashMap<String, usize>,
}

/// Gives out the names.
#[must_use]
pub fn allot(naming: Naming, claims: &[Claim<'_>]) -> Names {
    let prefixed: Vec<String> = claims.iter().map(|claim| prefixed(claim.prefix, claim.base)).collect();
    let mut by_prefixed: HashMap<&str, Vec<usize>> = HashMap::new();
    let mut by_base: HashMap<&str, Vec<usize>> = HashMap::new();
    for (index, claim) in claims.iter().enumerate() {
        by_prefixed.entry(&prefixed[index]).or_default().push(index);
        by_base.entry(claim.base).or_default().push(index);
    }
    let mut names = Names::default();
    for (index, claim) in claims.iter().enumerate() {
        if by_prefixed.get(prefixed[index].as_str()).is_none_or(|holders| holders.len() > 1) {
            names.advertised.push(None);
            continue;
        }
        names.resolve.insert(prefixed[index].clone(), index);
        let bare = naming == Naming::OnConflict
            && claim.base.len() <= MAX_NAME
            && by_base.get(claim.base).is_some_and(|holders| holders.len() == 1)
            && !by_prefixed.contains_key(claim.base);
        if bare {
            names.resolve.insert(claim.base.to_owned(), index);
        }
        names.advertised.push(Some(if bare { claim.base.to_owned() } else { prefixed[index].clone() }));
    }
    names
}

/// `<prefix>_<base>`; a longer one is cut and ends in a hash of the whole.
fn prefixed(prefix: &str, base: &str) -> String {
    let name = format!("{prefix}_{base}");
    if name.len() <= MAX_NAME {
        return name;
    }
    let hash = hex::encode(&Sha256::digest(name.as_bytes())[..6]);
    let mut cut = MAX_NAME - hash.len() - 1;
    while !name.is_char_boundary(cut) {
        cut -= 1;
    }
    format!("{}_{hash}", &name[..cut])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allotted(naming: Naming, claims: &[(&str, &str)]) -> Names {
        let claims: Vec<_> = claims.iter().map(|&(prefix, base)| Claim { prefix, base }).collect();
        allot(naming, &claims)
    }

    fn advertised(naming: Naming, claims: &[(&str, &str)]) -> Vec<Option<String>> {
        allotted(naming, claims).advertised
    }

    fn some(names: &[&str]) -> Vec<Option<String>> {
        names.iter().map(|name| Some((*name).to_owned())).collect()
    }

    #[test]
    fn always_prefixes_and_the_bare_name_is_unknown() {
        let names = allotted(Naming::Always, &[("a", "read")]);
        assert_eq!(names.advertised, some(&["a_read"]));
        assert!(!names.resolve.contains_key("read"));
    }

    #[test]
    fn on_conflict_prefixes_every_holder_and_the_bare_name_is_nobodys() {
        let names = allotted(Naming::OnConflict, &[("a", "read"), ("b", "read"), ("b", "write")]);
        assert_eq!(names.advertised, some(&["a_read", "b_read", "write"]));
        assert!(!names.resolve.contains_key("read"));
        assert_eq!(names.resolve["b_write"], 2, "the prefixed form always resolves");
    }

    #[test]
    fn a_bare_name_that_mimics_another_servers_prefixed_form_is_prefixed_itself() {
        let names = allotted(Naming::OnConflict, &[("a", "b_read"), ("b", "read")]);
        assert_eq!(names.advertised, some(&["a_b_read", "read"]));
        assert_eq!(names.resolve["b_read"], 1);
    }

    #[test]
    fn a_name_that_one_server_claims_twice_is_nobodys() {
        assert_eq!(advertised(Naming::Always, &[("a", "x"), ("a", "x")]), [None, None]);
        assert!(allotted(Naming::OnConflict, &[("a", "x"), ("a", "x")]).resolve.is_empty());
    }

    #[test]
    fn long_names_are_cut_to_64_and_stay_apart() {
        let (x, y) = ("x".repeat(100) + "1", "x".repeat(100) + "2");
        let names = advertised(Naming::OnConflict, &[("a", &x), ("a", &y)]);
        assert_ne!(names[0], names[1]);
        assert!(names.iter().flatten().all(|name| name.len() == 64));
    }

    #[test]
    fn names_do_not_depend_on_the_order_of_claims() {
        let mut claims = vec![("a", "x"), ("b", "x"), ("b", "a_x"), ("c", "y")];
        let forward = advertised(Naming::OnConflict, &claims);
        claims.reverse();
        let mut backward = advertised(Naming::OnConflict, &claims);
        backward.reverse();
        assert_eq!(forward, backward);
    }
}
