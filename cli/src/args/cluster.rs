//! The commands that talk to a Kubernetes cluster.

use clap::Args;

use super::AnswerFormat;
use crate::names;

/// Which cluster a command talks to.
#[derive(Debug, Args)]
pub(crate) struct ClusterArgs {
    /// The context of the kubeconfig [default: its current one]
    #[arg(long, value_name = "NAME")]
    pub(crate) context: Option<String>,
}

/// `mcpmesh install`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mcpmesh install                             into the cluster of the current context
  mcpmesh install --dry-run > install.yaml    for GitOps: print, touch nothing
  mcpmesh install --proxy-image registry.example.com/mcpmesh-proxy:0.1.0

Applies what manifests/install.yaml holds, by server-side apply: run it again to upgrade. For more
settings use the Helm chart (docs/install.md).

Exit codes: 0 applied, 1 the cluster refused something, 2 wrong use.")]
pub(crate) struct InstallArgs {
    /// Print the objects instead of applying them; no cluster is asked
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// The namespace of the operator; made when it is absent
    #[arg(long, value_name = "NAME", default_value = "mcpmesh-system", value_parser = names::namespace)]
    pub(crate) namespace: String,
    /// Replicas of the operator
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) replicas: Option<u32>,
    /// The image of the operator
    #[arg(long, value_name = "IMAGE")]
    pub(crate) operator_image: Option<String>,
    /// The image of gateways and sidecars
    #[arg(long, value_name = "IMAGE")]
    pub(crate) proxy_image: Option<String>,
    /// The image with npx in which npm packages run
    #[arg(long, value_name = "IMAGE")]
    pub(crate) npm_image: Option<String>,
    /// The image with uvx in which PyPI packages run
    #[arg(long, value_name = "IMAGE")]
    pub(crate) pypi_image: Option<String>,
    /// Take over fields that another tool has set, such as helm
    #[arg(long)]
    pub(crate) force_conflicts: bool,
    /// Which cluster.
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}

/// `mcpmesh status`
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  mcpmesh status                 the namespace of the current context
  mcpmesh status -n team-a
  mcpmesh status -A -o json | jq '.[] | select(.ready != \"True\")'

Exit codes: 0 everything is ready, 1 something is not or the cluster does not answer, 2 wrong use.")]
pub(crate) struct StatusArgs {
    /// The namespace [default: that of the context]
    #[arg(short, long, value_name = "NAME", conflicts_with = "all_namespaces")]
    pub(crate) namespace: Option<String>,
    /// Every namespace
    #[arg(short = 'A', long)]
    pub(crate) all_namespaces: bool,
    /// How the table is written
    #[arg(short, long, value_enum, default_value_t = AnswerFormat::Text)]
    pub(crate) output: AnswerFormat,
    /// Which cluster.
    #[command(flatten)]
    pub(crate) cluster: ClusterArgs,
}
