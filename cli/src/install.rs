//! `mcpmesh install`: the plain manifests of the operator, printed or applied.

use anyhow::{Context, bail};
use kube::api::{Patch, PatchParams};
use kube::core::{DynamicObject, GroupVersionKind};
use kube::discovery::{Scope, oneshot};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::args::InstallArgs;
use crate::cluster;
use crate::exit::Outcome;

/// Rendered from the chart, for its default namespace.
const MANIFEST: &str = include_str!("../../manifests/install.yaml");
const NAMESPACE: &str = "mcpmesh-system";

/// Whose fields these are.
const MANAGER: &str = "mcpmesh.io/cli";

/// Runs `mcpmesh install`.
pub(crate) async fn run(args: &InstallArgs) -> Outcome {
    let objects = objects(args)?;
    if args.dry_run {
        print(&objects)?;
        return Ok(());
    }
    let client = cluster::client(&args.cluster).await?;
    for object in objects {
        let name = apply(&client, object, args.force_conflicts).await?;
        anstream::println!("applied {name}");
    }
    anstream::println!(
        "\nWait for it:\n  kubectl -n {} rollout status deployment/mcpmesh-operator",
        args.namespace
    );
    Ok(())
}

fn print(objects: &[Value]) -> anyhow::Result<()> {
    for object in objects {
        anstream::print!("---\n{}", serde_saphyr::to_string(object).context("cannot write YAML")?);
    }
    Ok(())
}

/// The objects, with what the arguments change.
fn objects(args: &InstallArgs) -> anyhow::Result<Vec<Value>> {
    let documents: Vec<Value> =
        serde_saphyr::from_multiple(MANIFEST).context("the manifests that this program holds are broken")?;
    let mut objects: Vec<Value> = documents.into_iter().filter(Value::is_object).collect();
    for object in &mut objects {
        set_namespace(object, &args.namespace);
        if object["kind"] == "Deployment" {
            set_deployment(object, args)?;
        }
    }
    Ok(objects)
}

/// Wherever the manifests name the namespace, as a whole word of YAML: of objects, subjects and rights.
fn set_namespace(value: &mut Value, namespace: &str) {
    match value {
        Value::String(text) if text == NAMESPACE => namespace.clone_into(text),
        Value::Array(items) => items.iter_mut().for_each(|item| set_namespace(item, namespace)),
        Value::Object(fields) => fields.values_mut().for_each(|field| set_namespace(field, namespace)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn set_deployment(object: &mut Value, args: &InstallArgs) -> anyhow::Result<()> {
    if let Some(replicas) = args.replicas {
        object["spec"]["replicas"] = json!(replicas);
    }
    let container = object
        .pointer_mut("/spec/template/spec/containers/0")
        .context("the manifests that this program holds have no container of the operator")?;
    if let Some(image) = &args.operator_image {
        container["image"] = json!(image);
    }
    for (flag, image) in [
        ("--proxy-image=", &args.proxy_image),
        ("--npm-image=", &args.npm_image),
        ("--pypi-image=", &args.pypi_image),
    ] {
        let Some(image) = image else { continue };
        let words = container["args"].as_array_mut().into_iter().flatten();
        let Some(word) =
            words.into_iter().find(|word| word.as_str().is_some_and(|word| word.starts_with(flag)))
        else {
            bail!("the manifests that this program holds have no {flag}");
        };
        *word = json!(format!("{flag}{image}"));
    }
    Ok(())
}

/// Applies one object; what it is called.
async fn apply(client: &Client, object: Value, force: bool) -> anyhow::Result<String> {
    let object: DynamicObject = serde_json::from_value(object).context("an object has no kind")?;
    let types = object.types.clone().context("an object has no kind")?;
    let name = object.metadata.name.clone().context("an object has no name")?;
    let said = format!("{} {name}", types.kind);
    let kind = GroupVersionKind::try_from(&types).context("an object's apiVersion is malformed")?;
    let (resource, capabilities) = oneshot::pinned_kind(client, &kind)
        .await
        .with_context(|| format!("the cluster does not answer, or knows no {}", types.kind))?;
    let api: Api<DynamicObject> = match (&capabilities.scope, &object.metadata.namespace) {
        (Scope::Namespaced, Some(namespace)) => Api::namespaced_with(client.clone(), namespace, &resource),
        (Scope::Namespaced, None) => bail!("{said} has no namespace"),
        (Scope::Cluster, _) => Api::all_with(client.clone(), &resource),
    };
    let params = PatchParams { force, ..PatchParams::apply(MANAGER) };
    api.patch(&name, &params, &Patch::Apply(&object)).await.map_err(|error| explained(error, &said))?;
    Ok(said)
}

fn explained(error: kube::Error, said: &str) -> anyhow::Error {
    let conflict = matches!(&error, kube::Error::Api(status) if status.code == 409);
    let hint = if conflict { "; --force-conflicts takes these fields over" } else { "" };
    cluster::cause(error).context(format!("{said} was not applied{hint}"))
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::Value;

    use super::{MANIFEST, NAMESPACE, objects};
    use crate::args::{Cli, Command, InstallArgs};

    fn arguments(words: &[&str]) -> InstallArgs {
        let words = ["mcpmesh", "install"].iter().chain(words);
        let Command::Install(args) = Cli::parse_from(words).command else { panic!("not install") };
        args
    }

    #[test]
    fn another_namespace_leaves_no_trace_of_the_first() {
        let objects = objects(&arguments(&["--namespace", "mesh"])).expect("objects");
        assert!(MANIFEST.contains(NAMESPACE));
        let kinds: Vec<_> = objects.iter().map(|object| object["kind"].as_str().expect("a kind")).collect();
        assert_eq!(kinds.iter().filter(|kind| **kind == "CustomResourceDefinition").count(), 3);
        assert!(kinds.contains(&"Namespace") && kinds.contains(&"Deployment"));
        for object in objects {
            assert!(!object.to_string().contains(NAMESPACE), "{object}");
        }
    }

    #[test]
    fn images_and_replicas_are_what_the_arguments_say() {
        let words =
            ["--operator-image", "o:1", "--proxy-image", "p:1", "--npm-image", "n:1", "--replicas", "3"];
        let objects = objects(&arguments(&words)).expect("objects");
        let deployment = objects.iter().find(|object| object["kind"] == "Deployment").expect("a Deployment");
        let container = &deployment["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(deployment["spec"]["replicas"], 3);
        assert_eq!(container["image"], "o:1");
        let words: Vec<_> =
            container["args"].as_array().expect("args").iter().filter_map(Value::as_str).collect();
        assert!(words.contains(&"--proxy-image=p:1") && words.contains(&"--npm-image=n:1"), "{words:?}");
        assert!(words.iter().any(|word| word.starts_with("--pypi-image=ghcr.io/")), "{words:?}");
    }
}
