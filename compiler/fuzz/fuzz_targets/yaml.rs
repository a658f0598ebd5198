//! Any text is read into objects or diagnostics and compiled: never a panic, never unbounded memory, and the same
//! text makes the same bytes.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mcpmesh_compiler::inputs::Install;
use mcpmesh_compiler::{compile, manifest};
use mcpmesh_ir::EgressRule;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let remotes = EgressRule::private();
    let install = Install { implied_gateway: true, remotes, version_key: [7; 32], ..Install::default() };
    let read = || {
        let parsed = manifest::parse("fuzz.yaml", text);
        let (inputs, mut diagnostics) = manifest::gather(&parsed.objects, install.clone());
        let mut compiled = compile(&inputs);
        manifest::locate(&parsed.objects, &mut compiled.diagnostics);
        diagnostics.extend(parsed.diagnostics);
        diagnostics.extend(compiled.diagnostics.iter().cloned());
        (compiled, diagnostics)
    };
    let ((one, said), (other, again)) = (read(), read());
    assert_eq!(one.snapshots, other.snapshots);
    assert_eq!(said, again);
    assert!(said.iter().all(|diagnostic| !diagnostic.to_string().contains('\u{1b}')));
});
