//! What servers list and a gateway does not: told once for each change of it, and counted while it is so.

use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::upstream::{Lists, Remark};

/// Names of one server and reason that are told; the others are counted.
const TOLD: usize = 8;
/// Characters of a name that are told.
const NAME: usize = 64;

/// Why an object is not listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Why {
    /// Its name has blanks or characters other than ASCII, with which names can be disguised.
    Name,
    /// Its server lists another one that would be called the same.
    Twice,
    /// Its definition is not as the protocol defines it, names a member twice, or is too large or too deep to be read.
    Definition,
    /// The headers that mirror its arguments cannot be built (SEP-2243).
    Headers,
    /// It cannot be called but as a task.
    TaskOnly,
    /// Its URI could not be read, or looks like another.
    Uri,
}

impl Why {
    /// All.
    pub const ALL: [Self; 6] =
        [Self::Name, Self::Twice, Self::Definition, Self::Headers, Self::TaskOnly, Self::Uri];

    /// As a label says it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Twice => "twice",
            Self::Definition => "definition",
            Self::Headers => "headers",
            Self::TaskOnly => "task_only",
            Self::Uri => "uri",
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => {
                "a name may have visible ASCII characters only (spec.tools.overrides can rename a tool)"
            }
            Self::Twice => "its server lists another one that would be called the same",
            Self::Definition => {
                "its definition is not as the protocol defines it, names a member twice, or is too deep"
            }
            Self::Headers => "its x-mcp-header is invalid",
            Self::TaskOnly => "it runs as a task only",
            Self::Uri => "its URI could not be read",
        })
    }
}

/// The objects of one server that are left out for one reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Objects {
    /// All of them.
    count: usize,
    /// The first of those that are to be told, cut.
    told: Vec<String>,
    /// Of all names that are to be told.
    digest: u64,
}

/// See the module. By index of the server.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct LeftOut(BTreeMap<(usize, Why), Objects>);

impl LeftOut {
    /// One object, to be told.
    pub(super) fn add(&mut self, server: usize, why: Why, name: &str) {
        let objects = self.0.entry((server, why)).or_default();
        objects.count += 1;
        let mut hasher = DefaultHasher::new();
        (objects.digest, name).hash(&mut hasher);
        objects.digest = hasher.finish();
        if objects.told.len() < TOLD {
            objects.told.push(name.chars().take(NAME).collect());
        }
    }

    /// What was left out, and told, when the server's lists were read.
    pub(super) fn add_unread(&mut self, server: usize, lists: &Lists) {
        for remark in &lists.remarks {
            let (why, count) = match remark {
                Remark::Headers { .. } => (Why::Headers, 1),
                Remark::TaskOnly { .. } => (Why::TaskOnly, 1),
                Remark::Unreadable { items, .. } => (Why::Definition, *items),
                Remark::Twice { .. } | Remark::Cut { .. } | Remark::Missing { .. } | Remark::Late { .. } => {
                    continue;
                }
            };
            self.0.entry((server, why)).or_default().count += count;
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many objects of a server are left out for this.
    pub(super) fn count(&self, server: usize, why: Why) -> usize {
        self.0.get(&(server, why)).map_or(0, |objects| objects.count)
    }

    /// What is to be told of a server and was not by any of `before`, each with its place of the server there: how many objects, and the names of
    /// the first of them.
    pub(super) fn news<'a>(
        &'a self,
        server: usize,
        before: &'a [(&'a Self, usize)],
    ) -> impl Iterator<Item = (Why, usize, &'a [String])> {
        let own = self.0.iter().filter(move |((of, _), objects)| *of == server && !objects.told.is_empty());
        own.filter_map(move |((_, why), objects)| {
            let known = before.iter().filter_map(|(before, server)| before.0.get(&(*server, *why)));
            let is_same = |known: &Objects| (known.count, known.digest) == (objects.count, objects.digest);
            (!known.into_iter().any(is_same)).then_some((*why, objects.count, objects.told.as_slice()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left_out(server: usize, names: &[&str]) -> LeftOut {
        let mut left_out = LeftOut::default();
        names.iter().for_each(|name| left_out.add(server, Why::Name, name));
        left_out
    }

    #[test]
    fn what_was_told_is_told_again_only_once_it_is_other() {
        let now = left_out(1, &["get weather", "b c"]);
        let told =
            |before: &[(&LeftOut, usize)]| now.news(1, before).map(|(_, count, _)| count).collect::<Vec<_>>();
        assert_eq!(told(&[]), [2]);
        assert_eq!(told(&[(&LeftOut::default(), 0), (&now, 1)]), Vec::<usize>::new());
        assert_eq!(
            told(&[(&left_out(0, &["get weather", "b c"]), 0)]),
            Vec::<usize>::new(),
            "at another place"
        );
        assert_eq!(told(&[(&left_out(1, &["get weather"]), 1)]), [2]);
        assert_eq!(told(&[(&left_out(1, &["get weather", "b d"]), 1)]), [2]);
        assert_eq!(now.news(0, &[]).count(), 0, "another server's");
    }

    #[test]
    fn of_many_or_long_names_a_few_and_their_beginnings_are_told() {
        let long = "é ".repeat(1000);
        let now = left_out(0, &vec![long.as_str(); 1000]);
        let (_, count, names) = now.news(0, &[]).next().unwrap();
        assert_eq!((count, names.len(), names[0].chars().count()), (1000, TOLD, NAME));
        let mut other = vec![long.as_str(); 999];
        other.push("x y");
        assert_eq!(now.news(0, &[(&left_out(0, &other), 0)]).count(), 1, "also when the last one differs");
    }

    #[test]
    fn what_was_told_when_the_lists_were_read_is_counted_and_not_told_again() {
        let remarks = [
            Remark::TaskOnly { tool: "a".into() },
            Remark::TaskOnly { tool: "b".into() },
            Remark::Unreadable { method: "tools/list", items: 3, first: String::new() },
            Remark::Cut { method: "tools/list" },
        ];
        let mut left_out = LeftOut::default();
        left_out.add_unread(0, &Lists { remarks: remarks.into(), ..Lists::default() });
        let counts = Why::ALL.map(|why| left_out.count(0, why));
        assert_eq!(counts, [0, 0, 3, 0, 2, 0]);
        assert_eq!(left_out.news(0, &[]).count(), 0);
    }
}
