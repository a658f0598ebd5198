//! The conformance suite through `mcpmesh up`, with each fixture server behind it. `conformance_direct` runs the same
//! without the mesh.

use anyhow::ensure;
use mcpmesh_e2e::conformance::{self, Report, Target};
use mcpmesh_e2e::federation::{open_gateway, remote};
use mcpmesh_e2e::fixture::Fixture;
use mcpmesh_e2e::http::Client;
use mcpmesh_e2e::mesh::{Manifests, Mesh};
use mcpmesh_e2e::process::eventually;
use serde_json::json;

/// Scenarios that the suite has for 2026-07-28 besides those that count.
const UNSCORED: usize = 13;

async fn passes_through_the_mesh(fixture: Fixture) -> anyhow::Result<()> {
    let (_process, url) = fixture.start().await?;
    let manifests = Manifests::new()?;
    // A single server must come through without prefixes.
    manifests.write("mesh.yaml", &(open_gateway("OnConflict") + &remote("fixture", &url)))?;
    let mesh = Mesh::up(manifests.path(), &[]).await?;
    let client = Client::new(&mesh.endpoint)?;
    eventually("the fixture's tools are listed", || async {
        let listed = client.modern("tools/list", json!({})).await?.response()?;
        ensure!(listed.to_string().contains(r#""name":"test_simple_text""#), "{listed}");
        Ok(())
    })
    .await?;
    let mut runs = Vec::new();
    for (target, _) in Target::ALL {
        runs.push((fixture.name(), conformance::run(&mesh.endpoint, target).await?));
    }
    conformance::print_table("conformance, through the mesh", &runs)?;
    let failures: String = runs.iter().map(|(_, report)| report.failures()).collect();
    for ((_, expected), (_, report)) in Target::ALL.iter().zip(&runs) {
        ensure!(report.score(true) == (*expected, *expected), "{failures}\n{}", mesh.process.output());
        ensure!(others_pass(report), "{failures}");
        let others = report.score(false).1;
        ensure!(report.target.revision() != "2026-07-28" || others == UNSCORED, "{others} are not scored");
    }
    Ok(())
}

/// Tasks through the mesh come later; all else that is not scored must pass all the same.
fn others_pass(report: &Report) -> bool {
    report.scenarios.iter().all(|scenario| scenario.passed || scenario.name.starts_with("tasks-"))
}

#[tokio::test]
async fn python_fixture_passes_through_the_mesh() -> anyhow::Result<()> {
    passes_through_the_mesh(Fixture::Python).await
}

#[tokio::test]
async fn rmcp_fixture_passes_through_the_mesh() -> anyhow::Result<()> {
    passes_through_the_mesh(Fixture::Rmcp).await
}
