//! The health check for Argo CD that the documentation gives, run by a real Lua on objects in each state.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use mcpmesh_crds::{McpGatewayStatus, McpPolicyStatus, McpServerStatus, condition};
use mcpmesh_e2e::tools::crate_folder;
use mlua::{Lua, LuaSerdeExt as _, Value as LuaValue};
use serde_json::{Value, json};

fn page() -> PathBuf {
    crate_folder().join("../docs/gitops.md")
}

/// The script below `health.lua: |`, as YAML reads it.
fn script() -> anyhow::Result<String> {
    let page = std::fs::read_to_string(page())?;
    let mut lines = page.lines().skip_while(|line| line.trim() != "health.lua: |");
    let key = lines.next().context("the page has no health.lua")?;
    let indent = key.len() - key.trim_start().len() + 2;
    let body: Vec<&str> =
        lines.map_while(|line| line.get(indent..).filter(|_| line.starts_with("  "))).collect();
    ensure!(body.last() == Some(&"return health"), "{body:?}");
    Ok(body.join("\n"))
}

/// What Argo CD would show: status and message.
fn health(object: &Value) -> anyhow::Result<(String, String)> {
    let lua = Lua::new();
    // As Argo CD has it: what is null in JSON is not there.
    let options =
        mlua::serde::SerializeOptions::new().serialize_none_to_null(false).serialize_unit_to_null(false);
    lua.globals().set("obj", lua.to_value_with(object, options)?)?;
    let answer: LuaValue = lua.load(script()?).eval()?;
    let answer: Value = lua.from_value(answer)?;
    let word =
        |key: &str| answer[key].as_str().map(str::to_owned).with_context(|| format!("no {key}: {answer}"));
    Ok((word("status")?, word("message")?))
}

fn conditions(all: &[(&str, &str)]) -> Vec<Condition> {
    let one = |(kind, status): &(&str, &str)| Condition {
        type_: (*kind).to_owned(),
        status: (*status).to_owned(),
        reason: "Because".to_owned(),
        message: format!("{kind} is {status}"),
        observed_generation: Some(2),
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    };
    all.iter().map(one).collect()
}

/// An object of generation 2.
fn object(kind: &str, status: &Value) -> Value {
    json!({
        "apiVersion": "mcpmesh.io/v1alpha1", "kind": kind,
        "metadata": {"name": "a", "namespace": "b", "generation": 2}, "spec": {}, "status": status,
    })
}

/// The status of each kind with these conditions.
fn each(observed: Option<i64>, all: &[(&str, &str)]) -> [Value; 3] {
    let gateway = McpGatewayStatus {
        observed_generation: observed,
        conditions: conditions(all),
        ..McpGatewayStatus::default()
    };
    let server = McpServerStatus {
        observed_generation: observed,
        conditions: conditions(all),
        ..McpServerStatus::default()
    };
    let policy = McpPolicyStatus {
        observed_generation: observed,
        conditions: conditions(all),
        ..McpPolicyStatus::default()
    };
    [
        object("McpGateway", &json!(gateway)),
        object("McpServer", &json!(server)),
        object("McpPolicy", &json!(policy)),
    ]
}

/// The observed generation and the conditions of an object; status and message that Argo CD shows.
type Case<'a> = (Option<i64>, &'a [(&'a str, &'a str)], &'a str, &'a str);

#[test]
fn argo_cd_reads_the_health_of_each_kind_in_each_state() -> anyhow::Result<()> {
    let (ready, stalled) = (condition::READY, condition::STALLED);
    let accepted = condition::ACCEPTED;
    let cases: [Case; 6] = [
        (None, &[(ready, "Unknown")], "Progressing", "waiting for the operator"),
        (Some(1), &[(accepted, "True"), (ready, "True")], "Progressing", "waiting for the operator"),
        (Some(2), &[(accepted, "True"), (ready, "True")], "Healthy", "Ready is True"),
        (Some(2), &[(accepted, "True"), (ready, "False")], "Progressing", "Ready is False"),
        (Some(2), &[(accepted, "False"), (ready, "False"), (stalled, "True")], "Degraded", "Stalled is True"),
        (Some(2), &[(accepted, "True")], "Progressing", "waiting for the operator"),
    ];
    for (observed, all, status, message) in cases {
        for object in each(observed, all) {
            let found = health(&object)?;
            ensure!(found == (status.to_owned(), message.to_owned()), "{found:?} of {object}");
        }
    }
    Ok(())
}

#[test]
fn argo_cd_waits_for_an_object_without_a_status() -> anyhow::Result<()> {
    for status in [Value::Null, json!({}), json!({"observedGeneration": 2})] {
        let (found, _) = health(&object("McpServer", &status))?;
        ensure!(found == "Progressing", "{found} of {status}");
    }
    Ok(())
}

#[test]
fn the_customization_holds_for_all_kinds_of_our_group() -> anyhow::Result<()> {
    let page = std::fs::read_to_string(page())?;
    ensure!(page.contains(&format!("\"{}/*\":\n      health.lua: |", mcpmesh_crds::GROUP)), "another group");
    Ok(())
}
