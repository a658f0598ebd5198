//! Text in, text out: Deployments that teams make themselves get the proxy of their McpServer beside them.
//!
//! Only the Deployments that are meant are written anew, and only when something in them changes; every other document
//! stays as it is, to the byte.

mod text;

use k8s_openapi::api::apps::v1::Deployment;
use mcpmesh_ir::ServerId;
use serde_json::Value;

use crate::child::{self, Injection};
use crate::diagnostic::{Diagnostic, Location, Reason, Severity, printable};
use crate::inputs::Cluster;
use crate::manifest;
use crate::server::service::is_path;
use crate::sidecar::RESERVED_PORTS;
use text::Piece;

/// On a Deployment: the McpServer whose proxy it gets.
pub const SERVER_ANNOTATION: &str = "mcpmesh.io/server";

/// On a Deployment: the port on which the server listens, where its containers name none or several.
pub const PORT_ANNOTATION: &str = "mcpmesh.io/port";

/// On a Deployment: the path of the server's MCP endpoint, where it is not `/mcp` and the McpServer is not in the text.
pub const PATH_ANNOTATION: &str = "mcpmesh.io/path";

/// What is asked for besides what the Deployments say.
#[derive(Debug, Clone, Copy)]
pub struct Request<'r> {
    /// The McpServer of the one Deployment without an annotation.
    pub server: Option<&'r str>,
    /// The namespace of Deployments that name none.
    pub namespace: Option<&'r str>,
    /// The installation: of it the proxy's image and the operator's address.
    pub cluster: &'r Cluster,
}

/// The text with the proxies in it. Injecting twice is injecting once.
///
/// # Errors
///
/// What is wrong, with its places; then nothing is made.
pub fn inject(file: &str, text: &str, request: &Request<'_>) -> Result<String, Vec<Diagnostic>> {
    let pieces = text::pieces(file, text).map_err(|found| vec![found])?;
    let mut found = Vec::new();
    let mut out = String::with_capacity(text.len() * 2);
    let mut injected = 0;
    let mut by_flag = 0;
    for piece in &pieces {
        let context = Context { file, pieces: &pieces, request };
        match context.wanted(piece) {
            Ok(None) => out.push_str(piece.text),
            Ok(Some(wanted)) => {
                injected += 1;
                by_flag += usize::from(wanted.by_flag);
                if wanted.by_flag && by_flag > 1 {
                    let help = format!("add the annotation {SERVER_ANNOTATION} to each that is meant");
                    found.push(context.mistake(
                        piece,
                        "metadata.name",
                        "a second Deployment for --server",
                        &help,
                    ));
                }
                match context.made(piece, &wanted.server) {
                    Ok(made) if made == piece.value => out.push_str(piece.text),
                    Ok(made) => out.push_str(&piece.rewritten(&made).map_err(|error| {
                        vec![context.mistake(piece, "", &error.to_string(), "write it otherwise")]
                    })?),
                    Err(mistake) => found.push(*mistake),
                }
            }
            Err(mistake) => found.push(*mistake),
        }
    }
    if injected == 0 && found.is_empty() {
        found.push(nothing_to_do(file));
    }
    if found.is_empty() { Ok(out) } else { Err(found) }
}

fn nothing_to_do(file: &str) -> Diagnostic {
    Diagnostic {
        object: None,
        path: String::new(),
        severity: Severity::Error,
        reason: Reason::InvalidField,
        message: "no Deployment is to have a proxy".to_owned(),
        help: Some(format!(
            "add the annotation {SERVER_ANNOTATION} with the McpServer's name to the Deployment, or give --server"
        )),
        location: Some(Location { file: file.to_owned(), line: 0, column: 0 }),
    }
}

/// Which McpServer a Deployment is.
struct Wanted {
    server: String,
    by_flag: bool,
}

struct Context<'c> {
    file: &'c str,
    pieces: &'c [Piece<'c>],
    request: &'c Request<'c>,
}

type Mistaken<T> = Result<T, Box<Diagnostic>>;

impl Context<'_> {
    fn mistake(&self, piece: &Piece<'_>, path: &str, message: &str, help: &str) -> Diagnostic {
        let name = piece.named();
        Diagnostic {
            object: None,
            path: path.to_owned(),
            severity: Severity::Error,
            reason: Reason::InvalidField,
            message: printable(if name.is_empty() {
                message.to_owned()
            } else {
                format!("{name}: {message}")
            }),
            help: Some(help.to_owned()),
            location: Some(piece.location(self.file, path)),
        }
    }

    fn refused<T>(&self, piece: &Piece<'_>, path: &str, message: &str, help: &str) -> Mistaken<T> {
        Err(Box::new(self.mistake(piece, path, message, help)))
    }

    fn wanted(&self, piece: &Piece<'_>) -> Mistaken<Option<Wanted>> {
        let is_deployment =
            (piece.at("/apiVersion"), piece.at("/kind")) == (Some("apps/v1"), Some("Deployment"));
        let annotation = annotation(&piece.value, SERVER_ANNOTATION);
        let path = format!("metadata.annotations.{SERVER_ANNOTATION}");
        if !is_deployment {
            let mut items = piece.value.get("items").and_then(Value::as_array).into_iter().flatten();
            if annotation.is_some() {
                let help = "run the server by a Deployment, or remove the annotation";
                return self.refused(piece, &path, "only an apps/v1 Deployment is given a proxy", help);
            }
            if let Some(index) = items.position(|one| self::annotation(one, SERVER_ANNOTATION).is_some()) {
                let help = "write each item as a document of its own";
                return self.refused(
                    piece,
                    &format!("items[{index}]"),
                    "an item of a list is not given a proxy",
                    help,
                );
            }
            return Ok(None);
        }
        let chosen = match (annotation, self.request.server) {
            (Some(Value::String(name)), _) => Some(Wanted { server: name.clone(), by_flag: false }),
            (Some(_), _) => {
                return self.refused(piece, &path, "the annotation is not a string", "put quotes around it");
            }
            (None, Some(name)) => Some(Wanted { server: name.to_owned(), by_flag: true }),
            (None, None) => None,
        };
        match chosen {
            Some(wanted) if !manifest::is_name(&wanted.server) => {
                let message = format!("{:?} is not the name of an McpServer", wanted.server);
                self.refused(piece, &path, &message, "the name alone: it is of the Deployment's namespace")
            }
            chosen => Ok(chosen),
        }
    }

    fn made(&self, piece: &Piece<'_>, server: &str) -> Mistaken<Value> {
        let typed: Result<Deployment, _> = serde_path_to_error::deserialize(&piece.value);
        if let Err(error) = typed {
            let (path, message) = (error.path().to_string(), error.inner().to_string());
            let is_text = message.ends_with("expected a string");
            let help = if is_text { "put quotes around it" } else { "see `kubectl explain deployment`" };
            return self.refused(piece, &path, &message, help);
        }
        let namespace = match (piece.at("/metadata/namespace"), self.request.namespace) {
            (Some(own), None) => own,
            (Some(own), Some(given)) if own == given => own,
            (Some(own), Some(given)) => {
                let message = format!("it is in namespace {own}, and --namespace says {given}");
                return self.refused(
                    piece,
                    "metadata.namespace",
                    &message,
                    "an McpServer is of its Deployment's namespace",
                );
            }
            (None, Some(given)) => given,
            (None, None) => {
                let help = "add metadata.namespace, or give --namespace: the proxy must know whose it is";
                return self.refused(piece, "metadata", "no namespace", help);
            }
        };
        let object = self.object(server, namespace);
        let how = Injection {
            server: ServerId::new(namespace, server),
            port: self.port(piece)?,
            path: self.path(piece, object)?,
            cluster: self.request.cluster,
        };
        child::inject(&piece.value, &how)
            .or_else(|refusal| self.refused(piece, &refusal.path(), &refusal.to_string(), &refusal.help()))
    }

    /// The McpServer itself, when it is in the text.
    fn object(&self, name: &str, namespace: &str) -> Option<&Piece<'_>> {
        let is = |piece: &&Piece<'_>| {
            piece.at("/kind") == Some("McpServer")
                && piece.at("/metadata/name") == Some(name)
                && piece.at("/metadata/namespace").is_none_or(|given| given == namespace)
        };
        self.pieces.iter().find(is)
    }

    /// Where the server listens in its pod.
    fn port(&self, piece: &Piece<'_>) -> Mistaken<u16> {
        if let Some(given) = annotation(&piece.value, PORT_ANNOTATION) {
            let port = given.as_str().and_then(|text| text.parse().ok()).filter(|port| *port > 0);
            return match port {
                Some(port) if !RESERVED_PORTS.contains(&port) => Ok(port),
                _ => {
                    let path = format!("metadata.annotations.{PORT_ANNOTATION}");
                    let help = "a port in quotes that is none of the proxy's (17000, 17020, 17080, 17081)";
                    self.refused(piece, &path, "not a port", help)
                }
            };
        }
        let containers = piece.value.pointer("/spec/template/spec/containers").and_then(Value::as_array);
        let ports = containers.into_iter().flatten().filter_map(|one| one.get("ports")?.as_array()).flatten();
        let mut numbers = ports.filter_map(|port| port.get("containerPort")?.as_u64()?.try_into().ok());
        match (numbers.next(), numbers.next()) {
            (Some(only), None) => Ok(only),
            (first, _) => {
                let message = if first.is_none() {
                    "no container names a port"
                } else {
                    "the containers name several ports"
                };
                let help = format!("say where the server listens: add the annotation {PORT_ANNOTATION}");
                self.refused(piece, "spec.template.spec.containers", message, &help)
            }
        }
    }

    /// The path of its MCP endpoint: as the annotation says, else as the McpServer does.
    fn path(&self, piece: &Piece<'_>, object: Option<&Piece<'_>>) -> Mistaken<String> {
        if let Some(object) = object
            && object.at("/spec/service/sidecar") != Some("Injected")
        {
            let help = "gateways go to the proxy only then: add `sidecar: Injected` to spec.service";
            return self.refused(
                object,
                "spec.service",
                "a Deployment of this text is to have its proxy",
                help,
            );
        }
        let told = object.and_then(|object| object.at("/spec/service/path")).unwrap_or("/mcp");
        let given = annotation(&piece.value, PATH_ANNOTATION).map_or(Some(told), Value::as_str);
        match given.filter(|path| is_path(path)) {
            Some(path) => Ok(path.to_owned()),
            None => {
                let path = format!("metadata.annotations.{PATH_ANNOTATION}");
                self.refused(piece, &path, "not a path", "such as /mcp")
            }
        }
    }
}

fn annotation<'v>(object: &'v Value, name: &str) -> Option<&'v Value> {
    object.get("metadata")?.get("annotations")?.get(name)
}

#[cfg(test)]
mod tests;
