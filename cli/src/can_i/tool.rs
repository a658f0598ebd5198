//! The tool that is asked about: under which name rules know it, and what its server may say of it.

use mcpmesh_ir::Server;
use mcpmesh_ir::catalog::Hints;
use mcpmesh_ir::policy::{Caller, Object, Prepared, Target, decide};

use super::answer::Answer;
use crate::tool_rules;

/// The server's own name of a tool that is asked for by that name or by the one that clients see; none where the
/// McpServer leaves it out.
pub(super) fn find<'a>(
    server: &'a Server,
    asked: &'a str,
    answer: &mut Answer,
) -> anyhow::Result<Option<&'a str>> {
    let name = tool_rules::own_name(server, asked);
    if name != asked {
        answer.note(format!("{asked} is what clients see of the tool {name}, which rules know by that name"));
    } else if let Some(shown) = tool_rules::shown_name(server, name) {
        answer.note(format!("clients see it as {shown}"));
    }
    Ok(tool_rules::exists(server, name)?.then_some(name))
}

/// The hints that the McpServer pins.
pub(super) fn pinned(server: &Server, name: &str) -> Hints {
    server.tools.overrides.get(name).map_or_else(Hints::default, |over| over.annotations)
}

/// The hints of `--hint`.
pub(super) fn claimed(given: &[(String, bool)]) -> Hints {
    let mut hints = Hints::default();
    for (name, value) in given {
        if let Some(index) = NAMES.iter().position(|known| known == name) {
            *slot(&mut hints, index) = Some(*value);
        }
    }
    hints
}

const NAMES: [&str; 4] = ["readOnly", "destructive", "idempotent", "openWorld"];

fn slot(hints: &mut Hints, index: usize) -> &mut Option<bool> {
    match index {
        0 => &mut hints.read_only_hint,
        1 => &mut hints.destructive_hint,
        2 => &mut hints.idempotent_hint,
        _ => &mut hints.open_world_hint,
    }
}

/// The fewest hints that would turn the answer if the server claimed them, as options write them; none where the
/// answer stands whatever it claims.
pub(super) fn that_turn(
    prepared: &Prepared,
    caller: &Caller,
    target: &Target<'_>,
    allowed: bool,
) -> Option<String> {
    let Object::Tool { name, pinned, claimed } = target.object else { return None };
    // Each hint is claimed to be true, to be false, or as it is: 81 ways.
    let ways = (0..81_usize).filter_map(|number| {
        let (mut claimed, mut pinned, mut said) = (claimed, pinned, Vec::new());
        for (index, hint) in NAMES.iter().enumerate() {
            let value = match number / 3_usize.pow(u32::try_from(index).ok()?) % 3 {
                0 => continue,
                digit => digit == 1,
            };
            if slot(&mut claimed, index).is_some() || slot(&mut pinned, index).is_some() {
                return None;
            }
            *slot(&mut claimed, index) = Some(value);
            said.push(format!("{hint}={value}"));
        }
        let target = Target { object: Object::Tool { name, pinned, claimed }, ..*target };
        (decide(prepared, caller, &target).allowed() != allowed).then_some(said)
    });
    ways.min_by_key(Vec::len).map(|said| said.join(" --hint "))
}
