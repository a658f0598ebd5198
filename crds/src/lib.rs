//! The user's words: the three kinds of `mcpmesh.io/v1alpha1` as Rust types, with the schemas and CEL rules that
//! become their CustomResourceDefinitions.
//!
//! A field that is not implemented is not here, and a field that is not here is an error: nothing is accepted and
//! ignored. Names with a meaning of their own (`env`, label selectors) have the shape of their Kubernetes namesakes.

#![expect(unreachable_pub, reason = "KubeSchema repeats each struct inside a function")]

mod definition;
mod duration;
mod env;
mod fleet;
mod gateway;
mod lock;
mod pod;
mod policy;
mod selector;
mod server;
mod status;
mod workload;

pub use definition::{Error as DefinitionError, definitions};
pub use duration::{Duration, InvalidDuration};
pub use env::{EnvFromSource, EnvKeySelector, EnvReference, EnvSource, EnvVar, EnvVarSource};
pub use fleet::{Autoscaling, ParentReference, ProxyFleet, ProxyRoute, ProxyService, ServiceType};
pub use gateway::{
    Anonymous, ApiKeys, GatewayAuthentication, Listener, ListenerTls, McpGateway, McpGatewaySpec, Naming,
    Prefixing, SecretRef, ServerRef, ServerSelection, ServiceAccounts,
};
pub use lock::{Lock, LockMode, LockedTool};
pub use pod::{
    Affinity, InvalidQuantity, LocalObjectReference, NodeAffinity, NodeSelector, NodeSelectorOperator,
    NodeSelectorRequirement, NodeSelectorTerm, Pod, PodAffinity, PodAffinityTerm, PreferredSchedulingTerm,
    Quantity, Resources, TaintEffect, Toleration, TolerationOperator, TopologySpreadConstraint,
    WeightedPodAffinityTerm, WhenUnsatisfiable,
};
pub use policy::{
    AccessRule, Dimension, Effect, Empty, GatewayRef, Limit, McpPolicy, McpPolicySpec, Method, Mode,
    Requests, ServiceAccountRef, Subject, TargetKind, TargetRef, To,
};
pub use selector::{From, LabelSelector, LabelSelectorRequirement, NamespaceSelection, SelectorOperator};
pub use server::{
    Container, ContainerTransport, CredentialHeader, Credentials, ExportTo, McpServer, McpServerSpec,
    Package, Registry, Remote, RemoteTransport, SecretKeyRef, Service, ServiceSidecar, State, Timeouts,
    ToolAnnotations, ToolOverride, Tools,
};

pub use status::{
    AncestorRef, CatalogStatus, McpGatewayStatus, McpPolicyStatus, McpServerStatus, PolicyAncestor,
    ProtocolStatus, ProxiesStatus, ServerInfo, ServersStatus, condition,
};
pub use workload::{
    ClaimVolume, ConfigMapVolume, EmptyDir, KeyToPath, Medium, SecretVolume, Volume, VolumeMount, Workload,
};

/// The field manager of everything that the operator writes, and its `controllerName`.
pub const CONTROLLER: &str = "mcpmesh.io/operator";

/// The API group of the three kinds.
pub const GROUP: &str = "mcpmesh.io";

/// The version of the three kinds.
pub const VERSION: &str = "v1alpha1";

/// The label that makes a Secret an API key (with the value `true`).
pub const API_KEY_LABEL: &str = "mcpmesh.io/api-key";
