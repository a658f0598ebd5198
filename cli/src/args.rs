//! The command line: every command, option and example that `--help` shows.

mod cluster;

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use mcpmesh_ir::{GatewayId, ServerId};

use crate::names;

pub(crate) use cluster::{ClusterArgs, InstallArgs, StatusArgs};

/// One MCP endpoint in front of any number of MCP servers, with API keys, permissions, limits and metrics.
#[derive(Debug, Parser)]
#[command(name = "mcpmesh", version, propagate_version = true, max_term_width = 100, after_help = EXAMPLES)]
pub(crate) struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXAMPLES: &str = "\
Examples:
  mcpmesh up                           serve the YAML or the .mcp.json of this folder
  mcpmesh connect claude-code --write  let a client use it
  mcpmesh check manifests/             compile without running anything

Exit codes: 0 good, 1 the objects or the call have errors, 2 wrong use.";

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Serve the servers of a folder at one endpoint
    Up(UpArgs),
    /// Compile a folder offline and report what is wrong, with file and line
    Check(CheckArgs),
    /// Compile objects into the file that `mcpmesh-proxy --config` serves
    Compile(CompileArgs),
    /// Say whether a user may use an object, and which rule decides
    #[command(name = "can-i")]
    CanI(CanIArgs),
    /// List the tools of an endpoint, or of a folder's servers
    Tools(ToolsArgs),
    /// Call a tool of an endpoint, or of a folder's servers
    Call(CallArgs),
    /// Turn a client's configuration (.mcp.json and its like) into YAML
    Import(ImportArgs),
    /// Show or write the configuration with which a client uses the endpoint
    Connect(ConnectArgs),
    /// Put the proxy of an McpServer beside the server in a Deployment of your own: YAML in, YAML out
    Inject(InjectArgs),
    /// Print the lock that pins the tools which servers offer now
    Lock(LockArgs),
    /// Make API keys
    #[command(
        subcommand,
        after_help = "\
Examples:
  mcpmesh key create --owner ann > keys/ann.yaml"
    )]
    Key(KeyCommand),
    /// Put the operator into a Kubernetes cluster
    Install(InstallArgs),
    /// Show the servers, gateways and policies of a cluster, and what is wrong with them
    Status(StatusArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Examples:\n  \
        mcpmesh completions bash > ~/.local/share/bash-completion/completions/mcpmesh\n  \
        mcpmesh completions zsh > ~/.zfunc/_mcpmesh\n  \
        mcpmesh completions fish > ~/.config/fish/completions/mcpmesh.fish")]
    Completions {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// `mcpmesh up`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mcpmesh up                                serve this folder
  mcpmesh up team.yaml keys/                serve these files and folders
  mcpmesh up ~/.cursor/mcp.json             serve what a client has
  mcpmesh up --listen 127.0.0.1:0           on a free port, printed at start

Where no YAML holds an McpServer, McpGateway, McpPolicy or Secret, an existing .mcp.json,
.cursor/mcp.json or .vscode/mcp.json is served: the first that has a server besides mcpmesh.
Without an McpGateway everything is open to anyone on this machine; as soon as there is a key
(`mcpmesh key create`), only to its owner. To listen on other addresses there must be one.")]
pub(crate) struct UpArgs {
    /// Files and folders of YAML, the same that a cluster takes
    #[arg(value_name = "PATH", default_value = ".")]
    pub(crate) paths: Vec<PathBuf>,
    /// Where the endpoint listens; port 0 picks a free one
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:8080", value_parser = address)]
    pub(crate) listen: SocketAddr,
    /// Where /metrics, /readyz and /livez listen
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:17020", value_parser = address)]
    pub(crate) metrics: SocketAddr,
    /// Where the redacted configuration is shown; loopback only
    #[arg(long, value_name = "ADDR:PORT", default_value = "127.0.0.1:17000", value_parser = address)]
    pub(crate) admin: SocketAddr,
    /// Write one JSON line a request: to a file, or - for standard error
    #[arg(long, value_name = "FILE")]
    pub(crate) access_log: Option<PathBuf>,
    /// Serve the files as they are now, whatever happens to them
    #[arg(long)]
    pub(crate) no_watch: bool,
    /// Where keys that outlive a restart are kept [default: ~/.local/state/mcpmesh]
    #[arg(long, value_name = "DIR")]
    pub(crate) state_dir: Option<PathBuf>,
}

/// `mcpmesh check`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mcpmesh check manifests/
  mcpmesh check . -o github        annotations in a GitHub workflow
  mcpmesh check . -o json | jq .
  helm template . | mcpmesh check --cluster /dev/stdin
  mcpmesh check --cluster deploy/   what is meant for a cluster, as its operator compiles it

Exit codes: 0 nothing to say, or only warnings; 1 errors; 2 wrong use.")]
pub(crate) struct CheckArgs {
    /// Files and folders of YAML
    #[arg(value_name = "PATH", default_value = ".")]
    pub(crate) paths: Vec<PathBuf>,
    /// How diagnostics are written
    #[arg(short, long, value_enum, default_value_t = DiagnosticFormat::Text)]
    pub(crate) output: DiagnosticFormat,
    /// Check objects for a cluster, as its operator compiles them. Services, and absent Secrets and ConfigMaps, are
    /// taken to be there
    #[arg(long)]
    pub(crate) cluster: bool,
    /// With --cluster: the operator's namespace, whose policies may have a namespaceSelector
    #[arg(long, value_name = "NAME", requires = "cluster", default_value = "mcpmesh-system")]
    pub(crate) operator_namespace: String,
    /// With --cluster: ranges that remote servers may be in, as the operator's --remote-ranges has them
    #[arg(long, value_name = "CIDRS", requires = "cluster", value_delimiter = ',', value_parser = mcpmesh_ir::egress::range)]
    pub(crate) remote_ranges: Vec<ipnet::IpNet>,
}

/// How diagnostics are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DiagnosticFormat {
    /// For people
    Text,
    /// An array of objects
    Json,
    /// Workflow commands that GitHub shows beside the line
    Github,
}

/// `mcpmesh compile`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mcpmesh compile . --out mesh.json && mcpmesh-proxy --config mesh.json

The file holds the values of the Secrets that servers use: it is readable by its owner only.
Package and container servers need `mcpmesh up`: mcpmesh-proxy starts no processes.

Exit codes: 0 good; 1 errors, and nothing is written; 2 wrong use.")]
pub(crate) struct CompileArgs {
    /// Files and folders of YAML
    #[arg(value_name = "PATH", default_value = ".")]
    pub(crate) paths: Vec<PathBuf>,
    /// Where the configuration is written
    #[arg(long, value_name = "FILE")]
    pub(crate) out: PathBuf,
}

/// `mcpmesh can-i`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mcpmesh can-i --as ann --group finance call payments/send -f manifests/
  mcpmesh can-i call payments/send -f .                    without credentials
  mcpmesh can-i --as ann read files file:///etc/hosts -f .
  mcpmesh can-i --as ann get team-a/docs/summary -f .      a server of another namespace

Exit codes: 0 yes, 1 no, or the objects have errors; 2 wrong use.")]
pub(crate) struct CanIArgs {
    /// The user; without it a caller without credentials
    #[arg(long = "as", value_name = "USER")]
    pub(crate) user: Option<String>,
    /// A group of the user; may be repeated
    #[arg(long = "group", value_name = "GROUP", requires = "user")]
    pub(crate) groups: Vec<String>,
    /// Judge as if the tool were annotated like this by its server, such as destructive=true
    #[arg(long = "hint", value_name = "HINT=BOOL", value_parser = hint)]
    pub(crate) hints: Vec<(String, bool)>,
    /// The gateway to ask at, where there are several
    #[arg(long, value_name = "[NAMESPACE/]NAME", value_parser = gateway_id)]
    pub(crate) gateway: Option<GatewayId>,
    /// What to do
    #[arg(value_enum)]
    pub(crate) verb: Verb,
    /// SERVER/TOOL to call, SERVER/PROMPT to get, SERVER to read from
    #[arg(value_name = "OBJECT")]
    pub(crate) object: String,
    /// The resource to read
    #[arg(value_name = "URI", required_if_eq("verb", "read"))]
    pub(crate) uri: Option<String>,
    /// Files and folders of YAML; may be repeated
    #[arg(short = 'f', long = "file", value_name = "PATH", default_value = ".")]
    pub(crate) paths: Vec<PathBuf>,
    /// How the answer is written
    #[arg(short, long, value_enum, default_value_t = AnswerFormat::Text)]
    pub(crate) output: AnswerFormat,
}

/// What `can-i` asks about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Verb {
    /// Call a tool
    Call,
    /// Read a resource
    Read,
    /// Get a prompt
    Get,
}

/// How answers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AnswerFormat {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Which MCP servers a client command talks to.
#[derive(Debug, Args)]
pub(crate) struct ServersArgs {
    /// A running endpoint [default: http://127.0.0.1:8080/mcp]
    #[arg(long, value_name = "URL", value_parser = endpoint, conflicts_with = "paths")]
    pub(crate) url: Option<url::Url>,
    /// Instead of an endpoint: the servers of these files and folders, started for this command
    #[arg(short = 'f', long = "file", value_name = "PATH")]
    pub(crate) paths: Vec<PathBuf>,
    /// A header for the endpoint; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header, conflicts_with = "paths")]
    pub(crate) headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// An API key for the endpoint
    #[arg(long, env = "MCPMESH_KEY", hide_env_values = true)]
    pub(crate) key: Option<String>,
    /// Seconds to wait for a server
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
}

/// `mcpmesh tools`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mcpmesh tools
  mcpmesh tools --url https://mcp.example.com/mcp --key \"$KEY\"
  mcpmesh tools -f manifests/ -o json")]
pub(crate) struct ToolsArgs {
    /// Which servers.
    #[command(flatten)]
    pub(crate) servers: ServersArgs,
    /// How the list is written
    #[arg(short, long, value_enum, default_value_t = AnswerFormat::Text)]
    pub(crate) output: AnswerFormat,
}

/// `mcpmesh call`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mcpmesh call time/get_current_time --args '{\"timezone\": \"Europe/Berlin\"}'
  mcpmesh call payments/send --args @payment.json --key \"$KEY\"
  mcpmesh call everything/echo --args '{\"message\": \"hi\"}' -f manifests/

Exit codes: 0 the tool answered, 1 it answered with an error or could not be called, 2 wrong use.")]
pub(crate) struct CallArgs {
    /// At an endpoint: the server's prefix there (mostly its name) and the tool, or a name as `mcpmesh tools` lists it.
    /// With -f: [NAMESPACE/]SERVER/TOOL, by the server's own name of the tool or the one that its McpServer gives it
    #[arg(value_name = "SERVER/TOOL")]
    pub(crate) tool: String,
    /// The arguments: a JSON object, @FILE, or - for stdin
    #[arg(long, value_name = "JSON", default_value = "{}")]
    pub(crate) args: String,
    /// Which servers.
    #[command(flatten)]
    pub(crate) servers: ServersArgs,
    /// How the result is written
    #[arg(short, long, value_enum, default_value_t = AnswerFormat::Text)]
    pub(crate) output: AnswerFormat,
}

/// `mcpmesh inject`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mcpmesh inject -f deployment.yaml > injected.yaml
  mcpmesh inject -f deployment.yaml --server search -n team-a | kubectl apply -f -
  helm template . | mcpmesh inject -f - -n team-a

A Deployment is meant when its annotation mcpmesh.io/server names an McpServer with
`service: {.., sidecar: Injected}`. Other documents stay as they are. Injecting again replaces what
was injected.

Exit codes: 0 good; 1 something cannot have a proxy, and nothing is printed; 2 wrong use.")]
pub(crate) struct InjectArgs {
    /// YAML or JSON with the Deployment; - for standard input
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The McpServer of the one Deployment without the annotation
    #[arg(long, value_name = "NAME")]
    pub(crate) server: Option<String>,
    /// The namespace of Deployments that name none
    #[arg(short, long, value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// The image of the proxy
    #[arg(long, value_name = "IMAGE", default_value = PROXY_IMAGE)]
    pub(crate) proxy_image: String,
    /// Where proxies find the operator
    #[arg(long, value_name = "HOST:PORT", default_value = "mcpmesh-operator.mcpmesh-system.svc:9443")]
    pub(crate) operator_address: String,
}

/// That of the chart.
const PROXY_IMAGE: &str = concat!("ghcr.io/mcpmesh/mcpmesh-proxy:", env!("CARGO_PKG_VERSION"));

/// `mcpmesh lock`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mcpmesh lock files -f manifests/                 start it, and print the patch that pins its tools
  mcpmesh lock orders --url http://127.0.0.1:8081/mcp   ask a server where it is, such as at the end
                                                   of `kubectl port-forward`; not a gateway, which
                                                   may rename tools
  mcpmesh lock files > lock.yaml && kubectl patch mcpserver files --type merge --patch-file lock.yaml

Only the tools that the McpServer keeps are pinned. Look at what changed before you apply it: a lock is
what you approve of.

Exit codes: 0 good, 1 a server could not be asked, 2 wrong use.")]
pub(crate) struct LockArgs {
    /// The McpServers: NAME or NAMESPACE/NAME
    #[arg(value_name = "SERVER", required = true, value_parser = server_id)]
    pub(crate) names: Vec<ServerId>,
    /// What becomes of tools that are not as pinned
    #[arg(long, value_enum, default_value_t = LockMode::Enforce)]
    pub(crate) mode: LockMode,
    /// Files and folders of YAML with the McpServers, started for this command; may be repeated
    #[arg(short = 'f', long = "file", value_name = "PATH", default_value = ".", conflicts_with = "url")]
    pub(crate) paths: Vec<PathBuf>,
    /// The one server's own endpoint
    #[arg(long, value_name = "URL", value_parser = endpoint)]
    pub(crate) url: Option<url::Url>,
    /// A header for that endpoint; may be repeated
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = header, requires = "url")]
    pub(crate) headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Seconds to wait for a server
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
}

/// What becomes of tools that are not as pinned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LockMode {
    /// The server's status says so
    Warn,
    /// They are not there for anybody
    Enforce,
}

/// `mcpmesh import`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mcpmesh import .mcp.json > servers.yaml       secrets become ${env:NAME} references
  mcpmesh import ~/.cursor/mcp.json --out mesh/ secrets go to mesh/secrets.yaml, readable by you only
  mcpmesh import .vscode/mcp.json --out mesh/ --secrets env")]
pub(crate) struct ImportArgs {
    /// The configuration of Claude, Cursor, VS Code, Windsurf or another client
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Write files to this folder instead of printing
    #[arg(long, value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
    /// What becomes of secret values [default: file with --out, else env]
    #[arg(long, value_enum)]
    pub(crate) secrets: Option<SecretsTo>,
    /// The namespace of the objects
    #[arg(long, value_name = "NAME", default_value = "default", value_parser = names::namespace)]
    pub(crate) namespace: String,
}

/// What `import` does with secret values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum SecretsTo {
    /// Refer to environment variables, which you set
    Env,
    /// Write them to a file that only you can read
    File,
}

/// `mcpmesh connect`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mcpmesh connect cursor                      show the configuration and an install link
  mcpmesh connect claude-code --write         add it to .mcp.json of this folder
  mcpmesh connect vscode --key-env MESH_KEY   take the API key from the environment
  mcpmesh connect windsurf --url https://mcp.example.com/mcp --write")]
pub(crate) struct ConnectArgs {
    /// The client
    #[arg(value_enum)]
    pub(crate) client: Client,
    /// The endpoint
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080/mcp", value_parser = endpoint)]
    pub(crate) url: url::Url,
    /// The name that the client shows
    #[arg(long, default_value = "mcpmesh", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    pub(crate) name: String,
    /// An API key, put into the configuration as it is
    #[arg(long, conflicts_with = "key_env")]
    pub(crate) key: Option<String>,
    /// An environment variable from which the client takes the API key; for claude-desktop it holds `Bearer KEY`
    #[arg(long, value_name = "NAME")]
    pub(crate) key_env: Option<String>,
    /// Write the client's configuration file, keeping a backup and everything else in it
    #[arg(long)]
    pub(crate) write: bool,
    /// That file, when it is not where the client usually has it
    #[arg(long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,
}

/// The clients that `connect` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Client {
    /// Cursor
    Cursor,
    /// Claude Code
    ClaudeCode,
    /// Claude Desktop
    ClaudeDesktop,
    /// Visual Studio Code
    Vscode,
    /// Windsurf
    Windsurf,
}

/// `mcpmesh key`
#[derive(Debug, Subcommand)]
pub(crate) enum KeyCommand {
    /// Make a key: its Secret goes to stdout, the key itself, once, to stderr
    #[command(after_help = "\
Examples:
  mcpmesh key create --owner ann > keys/ann.yaml
  mcpmesh key create --owner ci --group bots --expires 90d --out keys/ci.yaml

Only the key's hash is kept. A caller sends the key as `Authorization: Bearer KEY`.")]
    Create(KeyCreateArgs),
}

/// `mcpmesh key create`
#[derive(Debug, Args)]
pub(crate) struct KeyCreateArgs {
    /// The user that the key stands for
    #[arg(long, value_name = "USER", value_parser = user)]
    pub(crate) owner: String,
    /// A group of that user; may be repeated
    #[arg(long = "group", value_name = "GROUP")]
    pub(crate) groups: Vec<String>,
    /// When the key stops working: a time (2027-01-31T00:00:00Z) or a span from now (90d, 12h)
    #[arg(long, value_name = "WHEN")]
    pub(crate) expires: Option<String>,
    /// The Secret's name [default: key-USER]
    #[arg(long, value_parser = names::object)]
    pub(crate) name: Option<String>,
    /// The Secret's namespace: that of the gateway
    #[arg(long, default_value = "default", value_parser = names::namespace)]
    pub(crate) namespace: String,
    /// A further label, where the gateway chooses its keys by one; may be repeated
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    pub(crate) labels: Vec<(String, String)>,
    /// Write the Secret to this file, readable by you only, instead of stdout
    #[arg(long, value_name = "FILE")]
    pub(crate) out: Option<PathBuf>,
}

/// Where to listen: a name could mean several addresses, but for the one that everybody has.
fn address(text: &str) -> Result<SocketAddr, String> {
    let port = text.strip_prefix("localhost:");
    let address = port.map_or_else(|| text.to_owned(), |port| format!("127.0.0.1:{port}"));
    address.parse().map_err(|_| "write it as ADDRESS:PORT in numbers, such as 127.0.0.1:8080".to_owned())
}

fn endpoint(text: &str) -> Result<url::Url, String> {
    let url = url::Url::parse(text).ok().filter(|url| matches!(url.scheme(), "http" | "https"));
    url.ok_or_else(|| "write the whole URL of an endpoint, such as http://127.0.0.1:8080/mcp".to_owned())
}

fn user(text: &str) -> Result<String, String> {
    let no_name = "no name of a user: 1 to 256 printable characters, without blanks around them";
    if mcpmesh_compiler::is_user(text) { Ok(text.to_owned()) } else { Err(no_name.to_owned()) }
}

fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as NAME=VALUE")?;
    if name == "mcpmesh.io/api-key" {
        return Err("this label is always true: without it the Secret is no key".to_owned());
    }
    names::check_label(name, value)?;
    Ok((name.to_owned(), value.to_owned()))
}

fn hint(text: &str) -> Result<(String, bool), String> {
    const KNOWN: [&str; 4] = ["readOnly", "destructive", "idempotent", "openWorld"];
    let (name, value) = text.split_once('=').unwrap_or((text, "true"));
    let name = name.strip_suffix("Hint").unwrap_or(name);
    let name = KNOWN
        .iter()
        .find(|known| known.eq_ignore_ascii_case(name))
        .ok_or_else(|| format!("there is no hint {name:?}; there are {}", KNOWN.join(", ")))?;
    let value = value.parse().map_err(|_| format!("{value:?} is neither true nor false"))?;
    Ok(((*name).to_owned(), value))
}

fn header(text: &str) -> Result<(http::HeaderName, http::HeaderValue), String> {
    let (name, value) = text.split_once(':').ok_or("write it as 'NAME: VALUE'")?;
    let name = name.trim().parse().map_err(|_| format!("{name:?} is no header name"))?;
    let mut value: http::HeaderValue =
        value.trim().parse().map_err(|_| "the value holds characters that no header can".to_owned())?;
    value.set_sensitive(true);
    Ok((name, value))
}

fn gateway_id(text: &str) -> Result<GatewayId, String> {
    qualified(text).map(|(namespace, name)| GatewayId::new(namespace, name))
}

/// `namespace/name`, or a name in the namespace `default`.
pub(crate) fn server_id(text: &str) -> Result<ServerId, String> {
    qualified(text).map(|(namespace, name)| ServerId::new(namespace, name))
}

fn qualified(text: &str) -> Result<(&str, &str), String> {
    let (namespace, name) = text.split_once('/').unwrap_or(("default", text));
    if namespace.is_empty() || name.is_empty() || name.contains('/') {
        return Err(format!("{text:?} is neither NAME nor NAMESPACE/NAME"));
    }
    Ok((namespace, name))
}
