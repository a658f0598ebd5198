//! A proxy's container in its three roles, and the volumes that it needs.

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapProjection, Container, ContainerPort, EmptyDirVolumeSource, EnvVar, EnvVarSource,
    HTTPGetAction, KeyToPath, ObjectFieldSelector, Probe, ProjectedVolumeSource, SeccompProfile,
    SecretVolumeSource, SecurityContext, ServiceAccountTokenProjection, Volume, VolumeMount,
    VolumeProjection,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use mcpmesh_ir::FleetId;
use mcpmesh_ir::push::{AUDIENCE, LAST_GOOD_KEY};

use super::OBSERVABILITY_PORT;
use super::name::{keys_name, last_good_name};
use crate::inputs::Cluster;

/// The user and group of every pod that we make.
pub(super) const USER: i64 = 65532;

/// The ConfigMap with the roots that proxies trust, in every namespace that has a fleet.
const ROOTS: &str = "mcpmesh-roots";

/// Every address of the pod, of both families.
const ANY_ADDRESS: &str = "::";

/// Volumes of ours begin so; users' may not.
pub(super) const OURS: &str = "mcpmesh-";
const IDENTITY: &str = "mcpmesh-identity";
const KEYS: &str = "mcpmesh-keys";
const STATE: &str = "mcpmesh-state";
const LAST_GOOD: &str = "mcpmesh-last-good";
pub(super) const BINARY: &str = "mcpmesh-binary";

/// Folders of ours in a container; users may mount nothing there.
pub(super) const FOLDERS: [&str; 2] = ["/var/run/mcpmesh", BINARY_FOLDER];
pub(super) const BINARY_FOLDER: &str = "/mcpmesh";

/// The container of a proxy beside a server.
pub(super) const BESIDE: &str = "mcpmesh-proxy";

/// Names of variables of ours.
pub(super) const VARIABLES: [&str; 2] = ["POD_NAME", "POD_IP"];

/// What every proxy is told.
pub(super) fn arguments(fleet: &FleetId, cluster: &Cluster) -> Vec<String> {
    let metrics = format!("[{ANY_ADDRESS}]:{OBSERVABILITY_PORT}");
    [
        "--operator",
        &cluster.operator_address,
        "--fleet",
        &fleet.to_string(),
        "--listen-address",
        ANY_ADDRESS,
        "--metrics",
        &metrics,
    ]
    .map(str::to_owned)
    .to_vec()
}

/// A container that is a proxy, whatever it is told.
pub(super) fn container(name: &str, image: &str) -> Container {
    Container {
        name: name.to_owned(),
        image: Some(image.to_owned()),
        env: Some(identity_env()),
        ports: Some(vec![port("metrics", OBSERVABILITY_PORT)]),
        startup_probe: Some(probe("/livez", 1, 60)),
        readiness_probe: Some(probe("/readyz", 5, 2)),
        liveness_probe: Some(probe("/livez", 10, 3)),
        security_context: Some(security_context()),
        volume_mounts: Some(mounts()),
        ..Container::default()
    }
}

pub(super) fn port(name: &str, number: u16) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: number.into(),
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

/// A startup probe asks only whether the proxy lives: with the operator away it is not ready, and starting it again
/// would not help; and beside a native sidecar nothing else starts before it has passed.
fn probe(path: &str, period: i32, failures: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(OBSERVABILITY_PORT.into()),
            ..HTTPGetAction::default()
        }),
        period_seconds: Some(period),
        failure_threshold: Some(failures),
        timeout_seconds: Some(2),
        ..Probe::default()
    }
}

/// Pod Security "restricted", and a root that nobody can write.
pub(super) fn security_context() -> SecurityContext {
    SecurityContext {
        allow_privilege_escalation: Some(false),
        capabilities: Some(Capabilities { drop: Some(vec!["ALL".to_owned()]), add: None }),
        privileged: Some(false),
        read_only_root_filesystem: Some(true),
        run_as_non_root: Some(true),
        run_as_user: Some(USER),
        run_as_group: Some(USER),
        seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".to_owned(), localhost_profile: None }),
        ..SecurityContext::default()
    }
}

pub(super) fn variable(name: &str, value: &str) -> EnvVar {
    EnvVar { name: name.to_owned(), value: Some(value.to_owned()), value_from: None }
}

pub(super) fn identity_env() -> Vec<EnvVar> {
    let field = |name: &str, path: &str| EnvVar {
        name: name.to_owned(),
        value: None,
        value_from: Some(EnvVarSource {
            field_ref: Some(ObjectFieldSelector { api_version: None, field_path: path.to_owned() }),
            ..EnvVarSource::default()
        }),
    };
    vec![field("POD_NAME", "metadata.name"), field("POD_IP", "status.podIP")]
}

pub(super) fn mount(volume: &str, path: &str, read_only: bool) -> VolumeMount {
    VolumeMount {
        name: volume.to_owned(),
        mount_path: path.to_owned(),
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    }
}

/// Where a proxy looks by default.
fn mounts() -> Vec<VolumeMount> {
    vec![
        mount(IDENTITY, "/var/run/mcpmesh/identity", true),
        mount(KEYS, "/var/run/mcpmesh/keys", true),
        mount(STATE, "/var/run/mcpmesh/state", false),
        mount(LAST_GOOD, "/var/run/mcpmesh/last-good", true),
    ]
}

/// What a proxy is, seals with and remembers.
pub(super) fn volumes(fleet: &FleetId) -> Vec<Volume> {
    vec![identity_volume(), keys_volume(fleet), empty_volume(STATE), last_good_volume(fleet)]
}

pub(super) fn empty_volume(name: &str) -> Volume {
    Volume { name: name.to_owned(), empty_dir: Some(EmptyDirVolumeSource::default()), ..Volume::default() }
}

/// A token for the operator alone, and the roots to know it by: the only credential in the pod.
fn identity_volume() -> Volume {
    let token = VolumeProjection {
        service_account_token: Some(ServiceAccountTokenProjection {
            audience: Some(AUDIENCE.to_owned()),
            expiration_seconds: Some(3600),
            path: "token".to_owned(),
        }),
        ..VolumeProjection::default()
    };
    let roots = VolumeProjection {
        config_map: Some(ConfigMapProjection {
            name: ROOTS.to_owned(),
            items: Some(vec![item("ca.crt")]),
            optional: None,
        }),
        ..VolumeProjection::default()
    };
    let sources = ProjectedVolumeSource { default_mode: Some(0o440), sources: Some(vec![token, roots]) };
    Volume { name: IDENTITY.to_owned(), projected: Some(sources), ..Volume::default() }
}

fn keys_volume(fleet: &FleetId) -> Volume {
    let secret = SecretVolumeSource {
        secret_name: Some(keys_name(fleet)),
        default_mode: Some(0o440),
        items: Some(vec![item("ring"), item("state")]),
        optional: None,
    };
    Volume { name: KEYS.to_owned(), secret: Some(secret), ..Volume::default() }
}

/// Optional: a pod starts before the first copy is written, and where none fits.
fn last_good_volume(fleet: &FleetId) -> Volume {
    let secret = SecretVolumeSource {
        secret_name: Some(last_good_name(fleet)),
        default_mode: Some(0o440),
        items: Some(vec![item(LAST_GOOD_KEY)]),
        optional: Some(true),
    };
    Volume { name: LAST_GOOD.to_owned(), secret: Some(secret), ..Volume::default() }
}

fn item(key: &str) -> KeyToPath {
    KeyToPath { key: key.to_owned(), path: key.to_owned(), mode: None }
}
