//! How long a compile of 10,000 servers takes, and one after each kind of change: `cargo run --release --example scale`.

#![expect(clippy::print_stdout, reason = "an example shows what it measured")]

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mcpmesh_compiler::{Cluster, Inputs, Install, Memo, Service, manifest};
use mcpmesh_ir::ServerId;

/// 100 namespaces with a gateway, a policy and 100 servers each: half of them Services, half run.
fn inputs() -> Inputs {
    let head = "apiVersion: mcpmesh.io/v1alpha1\nkind:";
    let mut objects = Vec::new();
    for team in 0..100 {
        let mut text = format!(
            "{head} McpGateway\nmetadata: {{name: main, namespace: t{team}}}\nspec: {{authentication: {{anonymous: Allow}}}}\n---\n\
             {head} McpPolicy\nmetadata: {{name: p, namespace: t{team}}}\nspec: {{targetRefs: [{{kind: McpGateway, name: main}}], access: \
             [{{name: r, effect: Allow, from: [{{anyone: {{}}}}], to: {{tools: ['get_*']}}}}]}}\n"
        );
        for number in 0..100 {
            let source = if number % 2 == 0 {
                format!("service: {{name: s{number}, port: 80}}")
            } else {
                "package: {registry: Npm, name: a, version: 1.0.0}".to_owned()
            };
            text.push_str(&format!(
                "---\n{head} McpServer\nmetadata: {{name: s{number}, namespace: t{team}}}\nspec: {{{source}}}\n"
            ));
        }
        objects.extend(manifest::parse("in.yaml", &text).objects);
    }
    let cluster = Cluster { operator_namespace: "mcpmesh-system".to_owned(), ..Cluster::default() };
    let install = Install { cluster: Some(cluster), ..Install::default() };
    let mut inputs = manifest::gather(&objects, install).0;
    let ids: Vec<ServerId> = inputs.servers().map(|(id, _)| id.clone()).collect();
    for id in ids {
        inputs.of_mut(&id.namespace).services.insert(id.name, service(1));
    }
    inputs
}

fn service(last: u8) -> Arc<Service> {
    let address = SocketAddr::from(([10, 0, 0, last], 80));
    Arc::new(Service { ports: [(80, vec![address])].into() })
}

fn main() {
    let mut inputs = inputs();
    let mut memo = Memo::default();
    let mut measure = |what: &str, inputs: &Inputs| {
        let start = Instant::now();
        let compiled = memo.compile(inputs);
        println!(
            "{what:>28}: {:6.1} ms, {} fleets",
            start.elapsed().as_secs_f64() * 1e3,
            compiled.values().map(|of| of.fleets.len()).sum::<usize>()
        );
    };
    measure("everything", &inputs);
    measure("nothing", &inputs);
    inputs.of_mut("t7").services.insert("s0".to_owned(), service(2));
    measure("one EndpointSlice", &inputs);
    if let Some(server) = inputs.of_mut("t7").servers.get_mut(&ServerId::new("t7", "s1")) {
        Arc::make_mut(server).spec.timeouts =
            Some(mcpmesh_crds::Timeouts { total: "9s".parse().ok(), ..mcpmesh_crds::Timeouts::default() });
    }
    measure("one McpServer", &inputs);
    for objects in inputs.namespaces.values_mut() {
        for server in Arc::make_mut(objects).servers.values_mut() {
            Arc::make_mut(server).metadata.resource_version = Some("2".to_owned());
        }
    }
    measure("the status of all servers", &inputs);
}
