//! `Mcp-Param-*`: arguments that a tool's schema has mirrored into headers with `x-mcp-header`.

use std::borrow::Cow;

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use serde_json::{Map, Value};

use super::{Malformed, decode, encode};
use crate::mcp::era::single;
use crate::mcp::fault::Fault;
use crate::mcp::json;

const ANNOTATION: &str = "x-mcp-header";
/// Beyond this many a schema is refused: each costs a header on every call.
const MAX_PARAMS: usize = 32;
/// The largest integer that every JSON implementation keeps (2026-07-28, schema extension).
const MAX_SAFE: i64 = (1 << 53) - 1;

/// Why a tool's annotations, and so the tool, can't be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// The schema is no JSON object.
    #[error("the input schema is no JSON object")]
    Schema,
    /// Not a header name.
    #[error("x-mcp-header at {0} is no header name")]
    Name(String),
    /// The same header twice.
    #[error("x-mcp-header at {0} repeats another one")]
    Repeated(String),
    /// On something else than a string, an integer or a boolean.
    #[error("x-mcp-header at {0} is not on a string, an integer or a boolean")]
    Type(String),
    /// Not reached by `properties` alone.
    #[error("x-mcp-header at {0} is not reached by properties alone")]
    Unreachable(String),
    /// Too many.
    #[error("more than 32 x-mcp-header annotations")]
    TooMany,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Integer,
    Boolean,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Param {
    header: HeaderName,
    path: Vec<Box<str>>,
    kind: Kind,
}

/// The headers that one tool mirrors.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ParamHeaders {
    params: Vec<Param>,
}

impl ParamHeaders {
    /// Reads a tool's `inputSchema`.
    ///
    /// # Errors
    /// [`Invalid`]: the tool must be left out of lists.
    pub fn from_schema(schema: &[u8]) -> Result<Self, Invalid> {
        // Most schemas have none, and then need no tree.
        if memchr::memmem::find(schema, b"mcp-header").is_none() && !schema.contains(&b'\\') {
            return Ok(Self::default());
        }
        let Ok(Value::Object(schema)) = serde_json::from_slice(schema) else { return Err(Invalid::Schema) };
        let mut found = Self::default();
        found.collect(&schema, &mut Vec::new(), true)?;
        Ok(found)
    }

    /// Has the tool none?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.params.is_empty()
    }

    fn collect(
        &mut self,
        schema: &Map<String, Value>,
        path: &mut Vec<Box<str>>,
        reached: bool,
    ) -> Result<(), Invalid> {
        if let Some(annotation) = schema.get(ANNOTATION) {
            self.add(annotation, schema, path, reached)?;
        }
        for (keyword, value) in schema {
            match (keyword.as_str(), value) {
                // Data, not schemas.
                ("const" | "default" | "enum" | "examples" | ANNOTATION, _) => {}
                ("properties", Value::Object(properties)) => {
                    for (name, property) in properties {
                        path.push(name.as_str().into());
                        self.descend(property, path, reached)?;
                        path.pop();
                    }
                }
                (
                    "$defs" | "definitions" | "patternProperties" | "dependentSchemas",
                    Value::Object(schemas),
                ) => {
                    schemas.values().try_for_each(|schema| self.descend(schema, path, false))?;
                }
                (_, other) => self.descend(other, path, false)?,
            }
        }
        Ok(())
    }

    fn descend(&mut self, value: &Value, path: &mut Vec<Box<str>>, reached: bool) -> Result<(), Invalid> {
        match value {
            Value::Object(schema) => self.collect(schema, path, reached),
            Value::Array(schemas) => schemas.iter().try_for_each(|schema| self.descend(schema, path, false)),
            _ => Ok(()),
        }
    }

    fn add(
        &mut self,
        annotation: &Value,
        schema: &Map<String, Value>,
        path: &[Box<str>],
        reached: bool,
    ) -> Result<(), Invalid> {
        let place = || format!("/{}", path.join("/"));
        if !reached || path.is_empty() {
            return Err(Invalid::Unreachable(place()));
        }
        let name =
            annotation.as_str().filter(|name| !name.is_empty()).ok_or_else(|| Invalid::Name(place()))?;
        let header = HeaderName::try_from(format!("mcp-param-{name}")).map_err(|_| Invalid::Name(place()))?;
        let kind = match schema.get("type").and_then(Value::as_str) {
            Some("string") => Kind::Text,
            Some("integer") => Kind::Integer,
            Some("boolean") => Kind::Boolean,
            _ => return Err(Invalid::Type(place())),
        };
        if self.params.iter().any(|param| param.header == header) {
            return Err(Invalid::Repeated(place()));
        }
        if self.params.len() >= MAX_PARAMS {
            return Err(Invalid::TooMany);
        }
        self.params.push(Param { header, path: path.to_vec(), kind });
        Ok(())
    }

    /// Holds the headers of a call to its arguments.
    ///
    /// # Errors
    /// -32020 when one is missing, repeated, malformed, different, or there without an argument.
    pub fn check(&self, headers: &HeaderMap, arguments: Option<&[u8]>) -> Result<(), Fault> {
        for param in &self.params {
            let name = &param.header;
            let given = single(headers, name)?;
            let fault = |what: &str| Err(Fault::HeaderMismatch(format!("{name} {what}").into()));
            let (given, value) = match (given, param.value(arguments)) {
                (None, None) => continue,
                (None, Some(_)) => return fault("is required"),
                (Some(_), None) => return fault("has no argument in the body"),
                (Some(given), Some(value)) => (given, value),
            };
            match decode(given) {
                Err(Malformed) => return fault("is malformed"),
                Ok(given) if !param.equal(&given, value) => return fault("does not match the body"),
                Ok(_) => {}
            }
        }
        Ok(())
    }

    /// The headers of a call upstream. An argument whose type is not the schema's gets none: the
    /// upstream will say so better.
    #[must_use]
    pub fn build(&self, arguments: Option<&[u8]>) -> Vec<(HeaderName, HeaderValue)> {
        let header = |param: &Param| {
            let text = param.text(param.value(arguments)?)?;
            Some((param.header.clone(), HeaderValue::try_from(encode(&text).as_ref()).ok()?))
        };
        self.params.iter().filter_map(header).collect()
    }
}

impl Param {
    /// The argument at the property's path; null counts as none.
    fn value<'a>(&self, arguments: Option<&'a [u8]>) -> Option<&'a [u8]> {
        let value = self.path.iter().try_fold(arguments?, |object, name| json::member(object, name))?;
        (value != b"null").then_some(value)
    }

    fn text<'a>(&self, value: &'a [u8]) -> Option<Cow<'a, str>> {
        match self.kind {
            Kind::Text => json::text(value),
            Kind::Integer => {
                integer(std::str::from_utf8(value).ok()?).map(|number| number.to_string().into())
            }
            Kind::Boolean => match value {
                b"true" => Some("true".into()),
                b"false" => Some("false".into()),
                _ => None,
            },
        }
    }

    fn equal(&self, given: &str, value: &[u8]) -> bool {
        match (self.kind, self.text(value)) {
            (_, None) => false,
            (Kind::Integer, Some(expected)) => {
                integer(given).is_some_and(|given| given.to_string() == expected)
            }
            (_, Some(expected)) => given == expected,
        }
    }
}

/// An integer however it is written: `42`, `42.0`, `4.2e1`.
fn integer(text: &str) -> Option<i64> {
    json::check(text.as_bytes(), &json::Limits::default()).ok()?;
    let number = text.parse::<i64>().ok().or_else(|| {
        let number = text.parse::<f64>().ok()?;
        let whole = number.fract() == 0.0 && number.abs() <= MAX_SAFE as f64;
        whole.then_some(number as i64)
    })?;
    // The smallest integer has no absolute value of its own type.
    (number.unsigned_abs() <= MAX_SAFE.unsigned_abs()).then_some(number)
}
