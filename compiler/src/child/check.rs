//! Mistakes in what users say of pods, said before an API server would: reserved names, mounts that lead nowhere.

use std::collections::{BTreeMap, BTreeSet};

use mcpmesh_crds::{
    ContainerTransport, EnvVar, McpServerSpec, Pod, ProxyFleet, Volume, VolumeMount, Workload,
};

use super::proxy::{FOLDERS, OURS, VARIABLES};
use crate::diagnostic::{Findings, Reason};

/// Labels and annotations of ours.
const OUR_DOMAIN: &str = "mcpmesh.io/";

/// Labels of ours of another domain.
const OUR_LABELS: [&str; 3] =
    ["app.kubernetes.io/name", "app.kubernetes.io/instance", "app.kubernetes.io/managed-by"];

/// Reports what of `spec.proxy` cannot be as it is said. Of a label of ours, ours holds.
pub(crate) fn check_gateway(proxy: &ProxyFleet, findings: &mut Findings) {
    let ProxyFleet { replicas, autoscaling, service, route: _, pod } = proxy;
    if replicas.is_some() && autoscaling.is_some() {
        let message = "replicas and autoscaling exclude each other: the autoscaler counts";
        findings.error("spec.proxy.replicas", Reason::InvalidUnion, message, "remove one");
    }
    let low =
        autoscaling.as_ref().filter(|given| given.min_replicas.is_some_and(|min| min > given.max_replicas));
    if low.is_some() {
        let path = "spec.proxy.autoscaling";
        findings.error(path, Reason::InvalidValue, "minReplicas is above maxReplicas", "swap them");
    }
    if let Some(service) = service {
        check_keys(&service.labels, "spec.proxy.service.labels", findings);
        check_keys(&service.annotations, "spec.proxy.service.annotations", findings);
    }
    check_pod(pod.as_ref(), "spec.proxy.pod", findings);
}

/// Reports what of a server cannot be run as it is said. Only a cluster runs bare argument lists: there the entry point
/// of an image is not known here.
pub(crate) fn check_server(spec: &McpServerSpec, in_cluster: bool, findings: &mut Findings) {
    if spec.workload.is_some() && spec.package.is_none() && spec.container.is_none() {
        let message = "only a package or container is run";
        findings.error("spec.workload", Reason::InvalidUnion, message, "remove it");
    }
    if let Some(workload) = &spec.workload {
        check_workload(workload, findings);
    }
    if !in_cluster {
        return;
    }
    if let Some(package) = &spec.package {
        check_variables(&package.env, "spec.package.env", findings);
    }
    let Some(container) = &spec.container else { return };
    if container.transport == ContainerTransport::Stdio {
        check_variables(&container.env, "spec.container.env", findings);
        if container.command.is_empty() {
            let message = "in a cluster, a proxy starts the process of a stdio server, and what the image itself starts \
                           is not known to it";
            let help = "add spec.container.command: the ENTRYPOINT of the image";
            findings.error("spec.container.command", Reason::InvalidUnion, message, help);
        }
    }
}

fn check_workload(workload: &Workload, findings: &mut Findings) {
    let Workload { replicas: _, pod, volumes, volume_mounts } = workload;
    check_pod(pod.as_ref(), "spec.workload.pod", findings);
    let names = check_volumes(volumes, findings);
    check_mounts(volume_mounts, &names, findings);
}

fn check_pod(pod: Option<&Pod>, path: &str, findings: &mut Findings) {
    let Some(pod) = pod else { return };
    check_keys(&pod.labels, &format!("{path}.labels"), findings);
    check_keys(&pod.annotations, &format!("{path}.annotations"), findings);
}

fn check_keys(given: &BTreeMap<String, String>, path: &str, findings: &mut Findings) {
    for key in given.keys().filter(|key| key.starts_with(OUR_DOMAIN) || OUR_LABELS.contains(&key.as_str())) {
        let message = format!("{key} is set by the mesh");
        findings.error(&format!("{path}.{key}"), Reason::InvalidValue, message, "choose another name");
    }
}

/// The proxy is in that container, too, and tells others its address by these.
fn check_variables(env: &[EnvVar], path: &str, findings: &mut Findings) {
    for (index, variable) in env.iter().enumerate().filter(|(_, one)| VARIABLES.contains(&one.name.as_str()))
    {
        let message = format!("{} is set by the mesh", variable.name);
        findings.error(
            &format!("{path}[{index}].name"),
            Reason::InvalidValue,
            message,
            "choose another name",
        );
    }
}

fn check_volumes<'v>(volumes: &'v [Volume], findings: &mut Findings) -> BTreeSet<&'v str> {
    let mut names = BTreeSet::new();
    for (index, volume) in volumes.iter().enumerate() {
        let Volume { name, config_map, secret, empty_dir, persistent_volume_claim } = volume;
        let path = format!("spec.workload.volumes[{index}]");
        let kinds =
            [config_map.is_some(), secret.is_some(), empty_dir.is_some(), persistent_volume_claim.is_some()];
        if kinds.into_iter().filter(|&kind| kind).count() != 1 {
            let help = "give one of configMap, secret, emptyDir and persistentVolumeClaim";
            findings.error(&path, Reason::InvalidUnion, "a volume has exactly one kind", help);
        }
        if name.starts_with(OURS) {
            let message = format!("names that begin with {OURS} are the mesh's");
            findings.error(&format!("{path}.name"), Reason::InvalidValue, message, "choose another");
        }
        if !names.insert(name.as_str()) {
            let message = format!("the volume {name} is there twice");
            findings.error(&format!("{path}.name"), Reason::DuplicateName, message, "remove one");
        }
    }
    names
}

fn check_mounts(mounts: &[VolumeMount], volumes: &BTreeSet<&str>, findings: &mut Findings) {
    let mut places = BTreeSet::new();
    for (index, mount) in mounts.iter().enumerate() {
        let path = format!("spec.workload.volumeMounts[{index}]");
        let place = mount.mount_path.trim_end_matches('/');
        if !volumes.contains(mount.name.as_str()) {
            let message = format!("no volume {}", mount.name);
            let help = "add it to spec.workload.volumes, or correct the name";
            findings.error(&format!("{path}.name"), Reason::InvalidValue, message, help);
        }
        let path = format!("{path}.mountPath");
        if !is_folder(place) {
            let message = format!("{:?} is not an absolute path", mount.mount_path);
            findings.error(&path, Reason::InvalidValue, message, "such as /data");
        }
        if FOLDERS.iter().any(|folder| overlaps(folder, place)) {
            let message = format!("{place} is the mesh's");
            findings.error(&path, Reason::InvalidValue, message, "choose another");
        }
        if !places.insert(place) {
            let message = format!("{place} is there twice");
            findings.error(&path, Reason::DuplicateName, message, "remove one");
        }
    }
}

fn is_folder(path: &str) -> bool {
    path.strip_prefix('/').is_some_and(|rest| {
        rest.split('/').all(|segment| !matches!(segment, "" | "." | "..")) && !rest.contains(['\0', ':'])
    })
}

/// Whether one is the other or lies in it.
fn overlaps(one: &str, other: &str) -> bool {
    let within = |inner: &str, outer: &str| {
        inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    within(one, other) || within(other, one)
}
