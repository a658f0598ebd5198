//! What an observer tells of a server (decisions.md 15): names, hints and digests of its definitions, no texts.

use mcpmesh_ir::catalog::{CatalogIndex, Hints, IndexedTool, Observed, ObservedState, ServerInfo};
use mcpmesh_ir::resource::canonical;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use super::catalogue::{Item, Observation, State};

/// A tool's definition, as far as an index holds it.
#[derive(Default, Deserialize)]
struct Definition {
    #[serde(default)]
    annotations: Hints,
}

#[derive(Deserialize)]
struct Named {
    #[serde(default)]
    name: String,
    #[serde(default)]
    version: String,
}

impl Observation {
    /// As the operator is told it.
    #[must_use]
    pub fn observed(&self) -> Observed {
        let state = match &self.state {
            State::Connecting => ObservedState::Connecting,
            // It answers: that its lists could not be read again is the proxy's own business.
            State::Ready | State::Degraded { .. } => ObservedState::Ready,
            State::Failed { reason, .. } => ObservedState::Failed { reason: reason.clone() },
        };
        let named = self.server_info.as_deref().and_then(|raw| serde_json::from_slice::<Named>(raw).ok());
        let server_info = named.map(|Named { name, version }| ServerInfo { name, version });
        let spoken = self.eras.modern || self.eras.legacy.is_some();
        Observed { state, server_info, index: spoken.then(|| self.index()) }
    }

    fn index(&self) -> CatalogIndex {
        let keys = |items: &[Item]| items.iter().map(|item| item.key.clone()).collect();
        CatalogIndex {
            versions: self.eras.revisions().into_iter().map(str::to_owned).collect(),
            tools: self.tools.iter().map(indexed).collect(),
            prompts: keys(&self.prompts),
            resources: keys(&self.resources),
            resource_templates: keys(&self.templates),
        }
    }
}

fn indexed(tool: &Item) -> IndexedTool {
    let Definition { annotations: hints } = serde_json::from_slice(&tool.raw).unwrap_or_default();
    IndexedTool { name: tool.key.clone(), hints, digest: digest(&tool.raw) }
}

/// What a lock pins: hex SHA-256 of a definition's canonical JSON (RFC 8785), so that the order of members and blanks
/// don't count. What has no canonical form (a number out of range) is taken byte for byte.
#[must_use]
pub fn digest(definition: &[u8]) -> String {
    let value: Option<serde_json::Value> = serde_json::from_slice(definition).ok();
    let canonical = value.and_then(|value| canonical(&value).ok());
    let bytes = canonical.as_ref().map_or(definition, |text| text.get().as_bytes());
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::catalogue::Eras;
    use super::*;
    use crate::mcp::era::Revision;

    fn tool(raw: &'static str) -> Item {
        Item { key: "t".to_owned(), raw: Bytes::from_static(raw.as_bytes()) }
    }

    #[test]
    fn a_digest_is_of_what_a_definition_says_and_not_of_how_it_is_written() {
        let one = digest(br#"{"name":"t","inputSchema":{"type":"object","a":1.0}}"#);
        assert_eq!(one, digest(br#"{ "inputSchema": {"a": 1, "type":"object"}, "name":"\u0074" }"#));
        assert_ne!(one, digest(br#"{"name":"t","inputSchema":{"type":"object","a":2}}"#));
        assert_eq!(one.len(), 64);
    }

    #[test]
    fn an_index_appears_once_the_server_was_spoken_to_and_outlives_its_failure() {
        let unknown = Observation::default().observed();
        assert_eq!((unknown.state, unknown.index), (ObservedState::Connecting, None));
        let known = Observation {
            state: State::Failed { reason: "gone".to_owned(), since: std::time::SystemTime::UNIX_EPOCH },
            eras: Eras { modern: true, legacy: Some(Revision::V2025_11_25) },
            server_info: Some(Bytes::from_static(br#"{"name":"s","version":"2","title":"x"}"#)),
            tools: [tool(r#"{"name":"t","annotations":{"readOnlyHint":true,"title":"x"}}"#)].into(),
            ..Observation::default()
        };
        let observed = known.observed();
        assert_eq!(observed.state, ObservedState::Failed { reason: "gone".to_owned() });
        assert_eq!(observed.server_info, Some(ServerInfo { name: "s".into(), version: "2".into() }));
        let index = observed.index.unwrap();
        assert_eq!(index.versions, ["2026-07-28", "2025-11-25"]);
        assert!(index.tools[0].hints.read_only());
    }
}
