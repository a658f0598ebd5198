//! The conformance suite against the fixture servers themselves, so that a failure behind the mesh is the mesh's.

use anyhow::ensure;
use mcpmesh_e2e::conformance::{self, Target};
use mcpmesh_e2e::fixture::Fixture;

async fn passes_directly(fixture: Fixture) -> anyhow::Result<()> {
    let (_process, url) = fixture.start().await?;
    let mut runs = Vec::new();
    for (target, _) in Target::ALL {
        runs.push((fixture.name(), conformance::run(&url, target).await?));
    }
    conformance::print_table("conformance, directly", &runs)?;
    for ((_, expected), (_, report)) in Target::ALL.iter().zip(&runs) {
        ensure!(report.score(true) == (*expected, *expected), "{}", report.failures());
        for scenario in report.scenarios.iter().filter(|scenario| !scenario.scored) {
            let tasks = scenario.name.starts_with("tasks-") && !fixture.has_tasks();
            ensure!(scenario.passed || tasks, "{}", report.failures());
        }
    }
    Ok(())
}

#[tokio::test]
async fn python_fixture_passes_directly() -> anyhow::Result<()> {
    passes_directly(Fixture::Python).await
}

#[tokio::test]
async fn rmcp_fixture_passes_directly() -> anyhow::Result<()> {
    passes_directly(Fixture::Rmcp).await
}
