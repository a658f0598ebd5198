use super::*;

fn read(text: &'static str, target: Revision) -> Bytes {
    response(&Bytes::from_static(text.as_bytes()), target)
}

#[test]
fn clients_before_2025_06_18_see_neither_structured_content_nor_links() {
    let text = r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"a", "n":1.0},{"type":"resource_link","uri":"a:b","name":"log"},{"type":"audio","data":"AA==","mimeType":"audio/wav"}],"structuredContent":{"a":1},"isError":false}}"#;
    assert_eq!(
        read(text, Revision::V2025_03_26),
        r#"{"jsonrpc":"2.0","id":1,"result":{"content":[{"type":"text","text":"a", "n":1.0},{"type":"text","text":"log: a:b"},{"type":"audio","data":"AA==","mimeType":"audio/wav"}],"isError":false}}"#
    );
    assert!(
        read(text, Revision::V2024_11_05)
            .ends_with(br#"{"type":"text","text":"[audio/wav]"}],"isError":false}}"#)
    );
    assert_eq!(read(text, Revision::V2025_06_18), text);
}

#[test]
fn prompts_and_errors_are_downgraded_or_left_alone() {
    let prompt = r#"{"id":1,"result":{"messages":[{"role":"user","content":{"type":"resource_link","uri":"a:b","name":"n"}}]}}"#;
    assert_eq!(
        read(prompt, Revision::V2025_03_26),
        r#"{"id":1,"result":{"messages":[{"role":"user","content":{"type":"text","text":"n: a:b"}}]}}"#
    );
    let error = r#"{"id":1,"error":{"code":1,"message":"m"}}"#;
    assert_eq!(read(error, Revision::V2024_11_05), error);
}

#[test]
fn list_entries_lose_what_their_revision_lacks() {
    let tool =
        r#"{"name":"t","title":"T", "inputSchema":{"type" : "object"},"outputSchema":{"type":"array"}}"#;
    let seen = |target| item(tool.as_bytes(), target);
    assert_eq!(seen(Revision::V2025_03_26), r#"{"name":"t","inputSchema":{"type" : "object"}}"#);
    assert_eq!(seen(Revision::V2025_11_25), r#"{"name":"t","title":"T","inputSchema":{"type" : "object"}}"#);
    assert_eq!(seen(Revision::V2026_07_28), tool);
    let object = r#"{"name":"t", "outputSchema":{"type":"object"}}"#;
    assert_eq!(item(object.as_bytes(), Revision::V2025_06_18), object);
}
