//! The Kubernetes cluster that the kubeconfig or the pod's own account leads to.

use anyhow::{Context, anyhow};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

use crate::args::ClusterArgs;

/// A client of the cluster, as kubectl would find it.
///
/// # Errors
/// When there is no configuration for one, or it is malformed.
pub(crate) async fn client(args: &ClusterArgs) -> anyhow::Result<Client> {
    let config = match &args.context {
        Some(context) => {
            let options = KubeConfigOptions { context: Some(context.clone()), ..Default::default() };
            let file = Kubeconfig::read().context("cannot read the kubeconfig")?;
            Config::from_custom_kubeconfig(file, &options)
                .await
                .with_context(|| format!("cannot use the context {context:?}"))?
        }
        None => Config::infer()
            .await
            .context("there is no cluster: set KUBECONFIG, or make the context that kubectl uses")?,
    };
    Client::try_from(config).context("cannot make a client of the cluster")
}

/// Why a request failed: what the API server answered, in its own words and once.
pub(crate) fn cause(error: kube::Error) -> anyhow::Error {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => anyhow!("{}", status.message),
        other => anyhow::Error::new(other),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::cause;

    #[test]
    fn an_answer_of_the_api_server_is_told_once() {
        let error =
            kube::Error::Api(Box::new(Status::failure("pods is forbidden", "Forbidden").with_code(403)));
        assert_eq!(format!("{:#}", cause(error)), "pods is forbidden");
        assert!(!cause(kube::Error::LinesCodecMaxLineLengthExceeded).to_string().is_empty());
    }
}
