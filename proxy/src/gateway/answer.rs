//! The JSON-RPC messages that the gateway writes itself.

use bytes::Bytes;
use http::StatusCode;

use crate::http::{self as web, Answer};
use crate::mcp::envelope::{Id, Outcome, Response};
use crate::mcp::era::Era;
use crate::mcp::json;

/// How the gateway calls itself to its clients.
pub(super) const SERVER_INFO: &str =
    concat!(r#"{"name":"mcpmesh","title":"MCP Mesh","version":""#, env!("CARGO_PKG_VERSION"), r#""}"#);

/// A result whose members are given in pieces that are not joined; ends what a modern result needs.
pub(super) fn result(id: &Id, era: Era, pieces: impl IntoIterator<Item = Bytes>) -> Vec<Bytes> {
    let mut head = Vec::with_capacity(96);
    head.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    head.extend_from_slice(id.as_json());
    head.extend_from_slice(br#","result":{"#);
    if era == Era::Modern {
        head.extend_from_slice(br#""resultType":"complete""#);
    }
    let mut out = vec![Bytes::from(head)];
    let mut first = era == Era::Legacy;
    for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
        if !first {
            out.push(Bytes::from_static(b","));
        }
        first = false;
        out.push(piece);
    }
    out.push(match era {
        Era::Modern => {
            let open = if first { "" } else { "," };
            Bytes::from(format!(
                r#"{open}"_meta":{{"io.modelcontextprotocol/serverInfo":{SERVER_INFO}}}}}}}"#
            ))
        }
        Era::Legacy => Bytes::from_static(b"}}"),
    });
    out
}

/// One member: `"key":value`.
pub(super) fn member(key: &str, value: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(key.len() + value.len() + 3);
    json::push_text(&mut out, key);
    out.push(b':');
    out.extend_from_slice(value);
    Bytes::from(out)
}

/// A JSON string.
pub(super) fn text(text: &str) -> Bytes {
    let mut out = Vec::with_capacity(text.len() + 2);
    json::push_text(&mut out, text);
    Bytes::from(out)
}

/// An empty result.
pub(super) fn empty(id: &Id, era: Era) -> Answer {
    web::json(StatusCode::OK, result(id, era, []))
}

/// A notification without or with params (a whole object).
pub(super) fn notification(method: &str, params: Option<&[u8]>) -> Bytes {
    let mut out = Vec::with_capacity(method.len() + params.map_or(0, <[u8]>::len) + 48);
    out.extend_from_slice(br#"{"jsonrpc":"2.0","method":"#);
    json::push_text(&mut out, method);
    if let Some(params) = params {
        out.extend_from_slice(br#","params":"#);
        out.extend_from_slice(params);
    }
    out.push(b'}');
    Bytes::from(out)
}

/// A client's answer under the id that its server asked with.
pub(super) fn readdressed(response: &Response, id: &Id) -> Bytes {
    let (key, value) = match &response.outcome {
        Outcome::Result(value) => ("result", value),
        Outcome::Error(value) => ("error", value),
    };
    let mut out = Vec::with_capacity(value.len() + 64);
    out.extend_from_slice(br#"{"jsonrpc":"2.0","id":"#);
    out.extend_from_slice(id.as_json());
    out.push(b',');
    out.extend_from_slice(&member(key, value));
    out.push(b'}');
    Bytes::from(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(pieces: &[Bytes]) -> serde_json::Value {
        serde_json::from_slice(&pieces.concat()).unwrap()
    }

    #[test]
    fn results_are_whole_with_any_number_of_members() {
        let id = Id::from(7);
        for pieces in
            [vec![], vec![member("a", b"1")], vec![member("a", b"1"), Bytes::new(), member("b", b"2")]]
        {
            let modern = joined(&result(&id, Era::Modern, pieces.clone()));
            assert_eq!(modern["result"]["resultType"], "complete");
            assert_eq!(modern["result"]["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "mcpmesh");
            let legacy = joined(&result(&id, Era::Legacy, pieces.clone()));
            assert_eq!(
                legacy["result"].as_object().unwrap().len(),
                pieces.iter().filter(|p| !p.is_empty()).count()
            );
        }
    }
}
