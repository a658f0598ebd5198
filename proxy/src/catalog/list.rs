//! Lists as they go out: filtered by caller, cut into pages, kept by class of caller.

use std::hash::{DefaultHasher, Hash, Hasher};

use bytes::Bytes;

/// Objects on one page. Most clients read the first page only.
const PAGE: usize = 1000;

/// The lists of MCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "the words of MCP")]
pub enum ListKind {
    Tools,
    Prompts,
    Resources,
    Templates,
}

impl ListKind {
    /// All.
    pub const ALL: [Self; 4] = [Self::Tools, Self::Prompts, Self::Resources, Self::Templates];

    /// The member of the result that holds the objects.
    #[must_use]
    pub fn member(self) -> &'static str {
        match self {
            Self::Tools => "tools",
            Self::Prompts => "prompts",
            Self::Resources => "resources",
            Self::Templates => "resourceTemplates",
        }
    }
}

/// One list for one class of callers.
#[derive(Debug)]
pub struct List {
    pages: Vec<Bytes>,
    digest: u64,
}

impl List {
    /// Cuts `objects` into pages, each the member with its array: `"tools":[...]`.
    pub(super) fn new(kind: ListKind, objects: &[Bytes]) -> Self {
        let mut hasher = DefaultHasher::new();
        objects.hash(&mut hasher);
        let mut pages: Vec<Bytes> = objects.chunks(PAGE).map(|page| Self::page_of(kind, page)).collect();
        if pages.is_empty() {
            pages.push(Self::page_of(kind, &[]));
        }
        Self { pages, digest: hasher.finish() }
    }

    fn page_of(kind: ListKind, objects: &[Bytes]) -> Bytes {
        let size: usize = objects.iter().map(|object| object.len() + 1).sum();
        let mut page = Vec::with_capacity(size + 24);
        page.push(b'"');
        page.extend_from_slice(kind.member().as_bytes());
        page.extend_from_slice(b"\":[");
        for (index, object) in objects.iter().enumerate() {
            if index > 0 {
                page.push(b',');
            }
            page.extend_from_slice(object);
        }
        page.push(b']');
        Bytes::from(page)
    }

    /// One page and whether another follows.
    #[must_use]
    pub fn page(&self, index: usize) -> Option<(Bytes, bool)> {
        self.pages.get(index).map(|page| (page.clone(), index + 1 < self.pages.len()))
    }

    /// Equal for equal content: what tells a change of the list.
    #[must_use]
    pub fn digest(&self) -> u64 {
        self.digest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_is_one_empty_page() {
        let list = List::new(ListKind::Templates, &[]);
        assert_eq!(list.page(0), Some((Bytes::from_static(b"\"resourceTemplates\":[]"), false)));
        assert_eq!(list.page(1), None);
    }

    #[test]
    fn pages_hold_every_object_once_and_in_order() {
        let objects: Vec<_> = (0..PAGE * 2 + 1).map(|number| Bytes::from(number.to_string())).collect();
        let list = List::new(ListKind::Tools, &objects);
        let pages: Vec<_> = (0..3).map(|index| list.page(index).unwrap()).collect();
        assert_eq!(pages.iter().map(|(_, more)| *more).collect::<Vec<_>>(), [true, true, false]);
        let text: Vec<_> = pages
            .iter()
            .map(|(page, _)| {
                std::str::from_utf8(page).unwrap().trim_start_matches("\"tools\":[").trim_end_matches(']')
            })
            .collect();
        let all: Vec<_> = objects.iter().map(|object| std::str::from_utf8(object).unwrap()).collect();
        assert_eq!(text.join(","), all.join(","));
    }
}
