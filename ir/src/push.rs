//! The push protocol's messages: gRPC service `mcpmesh.push.v1.Push`, Protocol Buffers encoding. The envelope only:
//! bodies are the canonical JSON of [`crate::resource`].
//!
//! A proxy opens `Subscribe` and says who it is and what it has. The operator answers with differences, each one
//! transaction, which the proxy acknowledges with what it rejected and why. Fields are only ever added.

use prost::bytes::Bytes;
use prost::{Message, Oneof};

/// The full name of the service.
pub const SERVICE: &str = "mcpmesh.push.v1.Push";

/// The audience of the service-account token by which a proxy proves itself.
pub const AUDIENCE: &str = "mcpmesh-operator";

/// From a proxy, on `Subscribe`.
#[derive(Clone, PartialEq, Message)]
pub struct FromProxy {
    /// One of them.
    #[prost(oneof = "Said", tags = "1, 2, 3")]
    pub said: Option<Said>,
}

/// What a proxy says.
#[derive(Clone, PartialEq, Oneof)]
pub enum Said {
    /// The first message of a stream, and only that.
    #[prost(message, tag = "1")]
    Hello(Hello),
    /// Answers an [`Update`].
    #[prost(message, tag = "2")]
    Ack(Ack),
    /// What an observer saw of a server.
    #[prost(message, tag = "3")]
    Observation(Observation),
}

/// Who a proxy is and what it has.
#[derive(Clone, PartialEq, Message)]
pub struct Hello {
    /// [`crate::fleet::FleetId`] as text. The token decides whether it is given.
    #[prost(string, tag = "1")]
    pub fleet: String,
    /// The pod's name: tells the proxies of a fleet apart.
    #[prost(string, tag = "2")]
    pub pod: String,
    /// The proxy's version.
    #[prost(string, tag = "3")]
    pub version: String,
    /// The watermark of what it has.
    #[prost(message, optional, tag = "4")]
    pub watermark: Option<Watermark>,
    /// What it has.
    #[prost(message, repeated, tag = "5")]
    pub have: Vec<Have>,
}

/// [`crate::fleet::Watermark`]
#[derive(Clone, PartialEq, Message)]
pub struct Watermark {
    /// Comparable within one epoch.
    #[prost(string, tag = "1")]
    pub epoch: String,
    /// By kind of object.
    #[prost(btree_map = "string, uint64", tag = "2")]
    pub versions: std::collections::BTreeMap<String, u64>,
}

/// A version of a resource.
#[derive(Clone, PartialEq, Message)]
pub struct Have {
    /// The resource's type.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Its version; empty in a list of what was removed.
    #[prost(string, tag = "3")]
    pub version: String,
}

/// The whole of an update is in force, but for what was rejected.
#[derive(Clone, PartialEq, Message)]
pub struct Ack {
    /// That of the update.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// The revision in force.
    #[prost(string, tag = "2")]
    pub revision: String,
    /// Everything that is rejected of the configuration in force, not only of this update.
    #[prost(message, repeated, tag = "3")]
    pub rejections: Vec<Rejection>,
}

/// A resource that a proxy cannot apply.
#[derive(Clone, PartialEq, Message)]
pub struct Rejection {
    /// The resource's type.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// Why, for the status of the object that it was compiled from.
    #[prost(string, tag = "3")]
    pub reason: String,
}

/// What a proxy saw of a server that it was told to observe.
#[derive(Clone, PartialEq, Message)]
pub struct Observation {
    /// `namespace/name`
    #[prost(string, tag = "1")]
    pub server: String,
    /// JSON of [`crate::catalog::Observed`].
    #[prost(bytes = "bytes", tag = "2")]
    pub body: Bytes,
}

/// From the operator, on `Subscribe`.
#[derive(Clone, PartialEq, Message)]
pub struct ToProxy {
    /// One of them.
    #[prost(oneof = "Told", tags = "1, 2")]
    pub told: Option<Told>,
}

/// What a proxy is told.
#[derive(Clone, PartialEq, Oneof)]
pub enum Told {
    /// A change of configuration.
    #[prost(message, tag = "1")]
    Update(Update),
    /// This replica has not yet seen what the proxy already has: wait, or ask another.
    #[prost(message, tag = "2")]
    Behind(Behind),
}

/// One transaction: prepared as a whole, put in force by one swap.
#[derive(Clone, PartialEq, Message)]
pub struct Update {
    /// Counts up within a stream.
    #[prost(uint64, tag = "1")]
    pub sequence: u64,
    /// The revision that this leads to ([`crate::fleet::Fleet::revision`]).
    #[prost(string, tag = "2")]
    pub revision: String,
    /// What it was compiled from.
    #[prost(message, optional, tag = "3")]
    pub watermark: Option<Watermark>,
    /// New resources and versions.
    #[prost(message, repeated, tag = "4")]
    pub changed: Vec<Resource>,
    /// What is there no more.
    #[prost(message, repeated, tag = "5")]
    pub removed: Vec<Have>,
    /// How many proxies share the fleet's limits; outside the revision. 0: not known, as 1.
    #[prost(uint32, tag = "6")]
    pub fleet_size: u32,
    /// The servers that this proxy is to observe, as `namespace/name`; outside the revision.
    #[prost(string, repeated, tag = "7")]
    pub observe: Vec<String>,
    /// The servers to observe are those of the update before: `observe` is empty.
    #[prost(bool, tag = "9")]
    pub same_observe: bool,
    /// Everything that is trusted at present, in PEM, as in [`SignResponse::roots`]; outside the revision. Empty: as before.
    #[prost(string, tag = "8")]
    pub roots: String,
}

/// [`crate::Resource`]
#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    /// Its type.
    #[prost(string, tag = "1")]
    pub kind: String,
    /// Its name.
    #[prost(string, tag = "2")]
    pub name: String,
    /// The hash of the body.
    #[prost(string, tag = "3")]
    pub version: String,
    /// Features that a reader must know.
    #[prost(string, repeated, tag = "4")]
    pub requires: Vec<String>,
    /// Canonical JSON.
    #[prost(bytes = "bytes", tag = "5")]
    pub body: Bytes,
}

/// See [`Told::Behind`].
#[derive(Clone, PartialEq, Message)]
pub struct Behind {}

/// Asks for a certificate of the fleet that the token stands for.
#[derive(Clone, PartialEq, Message)]
pub struct SignRequest {
    /// [`crate::fleet::FleetId`] as text.
    #[prost(string, tag = "1")]
    pub fleet: String,
    /// A PKCS #10 request in DER: its public key counts, nothing else of it.
    #[prost(bytes = "vec", tag = "2")]
    pub csr: Vec<u8>,
}

/// A certificate.
#[derive(Clone, PartialEq, Message)]
pub struct SignResponse {
    /// The certificate and its issuers, in PEM.
    #[prost(string, tag = "1")]
    pub chain: String,
    /// Everything that is trusted at present, in PEM: the new and the old roots while they overlap.
    #[prost(string, tag = "2")]
    pub roots: String,
}

/// From an operator replica to the one that leads, on `Report`: what the proxies connected to it said.
#[derive(Clone, PartialEq, Message)]
pub struct Report {
    /// The replica's pod.
    #[prost(string, tag = "1")]
    pub replica: String,
    /// All of its proxies: replaces what it said before.
    #[prost(message, repeated, tag = "2")]
    pub proxies: Vec<ProxyReport>,
}

/// A proxy as its replica knows it.
#[derive(Clone, PartialEq, Message)]
pub struct ProxyReport {
    /// [`crate::fleet::FleetId`] as text.
    #[prost(string, tag = "1")]
    pub fleet: String,
    /// The pod's name.
    #[prost(string, tag = "2")]
    pub pod: String,
    /// The revision in force there; empty before the first acknowledgement.
    #[prost(string, tag = "3")]
    pub revision: String,
    /// What it rejects.
    #[prost(message, repeated, tag = "4")]
    pub rejections: Vec<Rejection>,
    /// What it observed last, of each server.
    #[prost(message, repeated, tag = "5")]
    pub observations: Vec<Observation>,
}

/// Answers a [`Report`].
#[derive(Clone, PartialEq, Message)]
pub struct Reported {}

/// What a fleet's last-good Secret holds, compressed (gzip): what a new pod boots from while every operator is away
/// (decisions.md 12).
#[derive(Clone, PartialEq, Message)]
pub struct LastGood {
    /// [`crate::fleet::FleetId`] as text: no other fleet's is taken.
    #[prost(string, tag = "1")]
    pub fleet: String,
    /// The whole configuration, as one update from nothing.
    #[prost(message, optional, tag = "2")]
    pub update: Option<Update>,
    /// Seconds since 1970 when it was written.
    #[prost(uint64, tag = "3")]
    pub at: u64,
}

/// The key of the last-good Secret that holds a [`LastGood`].
pub const LAST_GOOD_KEY: &str = "configuration";

impl From<&crate::Resource> for Resource {
    fn from(resource: &crate::Resource) -> Self {
        Self {
            kind: resource.kind.to_string(),
            name: resource.name.clone(),
            version: resource.version.as_str().to_owned(),
            requires: resource.requires.clone(),
            body: Bytes::copy_from_slice(resource.body.get().as_bytes()),
        }
    }
}

/// A resource that cannot be read from the wire. It is rejected alone and closes nothing by itself: what needs it says so
/// in `requires`, or names it and finds it missing.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A type of a later version.
    #[error(transparent)]
    Kind(#[from] crate::resource::UnknownKind),
    /// Not JSON.
    #[error("the body of {0} is not JSON")]
    Body(String, #[source] serde_json::Error),
}

impl TryFrom<Resource> for crate::Resource {
    type Error = Error;

    fn try_from(resource: Resource) -> Result<Self, Error> {
        let Resource { kind, name, version, requires, body } = resource;
        let body = serde_json::from_slice(&body).map_err(|error| Error::Body(name.clone(), error))?;
        Ok(Self { kind: kind.parse()?, name, version: version.into(), requires, body })
    }
}

impl From<crate::Watermark> for Watermark {
    fn from(mark: crate::Watermark) -> Self {
        let crate::Watermark { epoch, versions } = mark;
        Self { epoch, versions }
    }
}

impl From<Watermark> for crate::Watermark {
    fn from(mark: Watermark) -> Self {
        let Watermark { epoch, versions } = mark;
        Self { epoch, versions }
    }
}
