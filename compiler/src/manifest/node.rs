//! A YAML or JSON document as a tree that remembers where everything stands.

use std::collections::BTreeMap;
use std::fmt;

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_saphyr::{Location, Spanned};

/// A value with its places.
pub(super) enum Node {
    Scalar(Value),
    List(Vec<Spanned<Node>>),
    Map(Vec<(Spanned<String>, Spanned<Node>)>),
}

/// Line and column, both from 1.
pub(crate) type Place = (u64, u64);

/// A document: the plain value, and the places of its keys and values by path.
#[derive(Default)]
pub(crate) struct Document {
    pub(crate) value: Value,
    /// Where a reader looks first: a scalar itself, else the key that holds the list or mapping.
    pub(crate) places: BTreeMap<String, Place>,
    /// Where each key stands.
    pub(super) keys: BTreeMap<String, Place>,
}

impl Document {
    pub(super) fn new(root: Spanned<Node>) -> Self {
        let mut document = Self::default();
        document.places.insert(String::new(), place(root.referenced));
        document.value = document.take(root.value, "");
        document
    }

    /// The items of a list as documents of their own, with their places. None when it has no list of items.
    pub(super) fn items(self) -> Option<Vec<Self>> {
        let Self { mut value, places, keys } = self;
        let Value::Array(items) = value.get_mut("items")?.take() else { return None };
        let items = items.into_iter().enumerate().map(|(index, value)| {
            let item = format!("items[{index}]");
            Self { value, places: below(&places, &item), keys: below(&keys, &item) }
        });
        Some(items.collect())
    }

    fn take(&mut self, node: Node, path: &str) -> Value {
        match node {
            Node::Scalar(value) => value,
            Node::List(items) => {
                let items = items.into_iter().enumerate().map(|(index, item)| {
                    let path = format!("{path}[{index}]");
                    self.places.insert(path.clone(), place(item.referenced));
                    self.take(item.value, &path)
                });
                Value::Array(items.collect())
            }
            Node::Map(entries) => {
                let entries = entries.into_iter().map(|(key, item)| {
                    let path =
                        if path.is_empty() { key.value.clone() } else { format!("{path}.{}", key.value) };
                    let key_place = place(key.referenced);
                    let scalar = matches!(item.value, Node::Scalar(_));
                    self.places.insert(path.clone(), if scalar { place(item.referenced) } else { key_place });
                    self.keys.insert(path.clone(), key_place);
                    let value = self.take(item.value, &path);
                    (key.value, value)
                });
                Value::Object(entries.collect())
            }
        }
    }
}

/// The places of `root` and of what is in it, by paths from there.
fn below(places: &BTreeMap<String, Place>, root: &str) -> BTreeMap<String, Place> {
    let inside = places.range(root.to_owned()..).take_while(|(path, _)| path.starts_with(root));
    let path = |path: &str| path.strip_prefix(root).map(|rest| rest.trim_start_matches('.').to_owned());
    inside.filter_map(|(whole, place)| Some((path(whole)?, *place))).collect()
}

fn place(location: Location) -> Place {
    (location.line(), location.column())
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E: Error>(self) -> Result<Node, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Node, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("not a finite number"))?;
        Ok(Node::Scalar(Value::Number(number)))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_string<E>(self, value: String) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Node, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Node::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Node::Map(entries))
    }
}
