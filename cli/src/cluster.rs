//! The connection to a cluster: where it is, as whom, and errors in words that help.

pub mod follow;
pub mod log;
pub mod pods;

use crate::exit::Error;
use anyhow::Result;
use clap::Args;
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use slipway_crd::ImageBuild;
use std::path::PathBuf;

/// Which cluster, by kubectl's names.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterOptions {
    /// Namespace [default: that of the kubeconfig's context]
    #[arg(short, long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// The kubeconfig's context [default: its current one]
    #[arg(id = "kube_context", long = "context", value_name = "NAME")]
    pub context: Option<String>,
    /// Path of the kubeconfig [default: $KUBECONFIG, ~/.kube/config, or the pod's service account]
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The kubeconfig's cluster, in the place of the context's
    #[arg(id = "kube_cluster", long = "cluster", value_name = "NAME")]
    pub cluster: Option<String>,
    /// The kubeconfig's user, in the place of the context's
    #[arg(id = "kube_user", long = "user", value_name = "NAME")]
    pub user: Option<String>,
    /// Act as this user (impersonation)
    #[arg(long = "as", value_name = "USER")]
    pub act_as: Option<String>,
}

/// A cluster and a namespace of it.
#[derive(Clone)]
pub struct Cluster {
    /// The connection.
    pub client: Client,
    /// The namespace.
    pub namespace: String,
}

impl ClusterOptions {
    /// Finds the cluster. Nothing is asked of it yet.
    pub async fn connect(&self) -> Result<Cluster> {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut config = self.config().await?;
        if let Some(user) = &self.act_as {
            config.auth_info.impersonate = Some(user.clone());
        }
        let namespace = self
            .namespace
            .clone()
            .unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config)
            .map_err(|error| Error::Cluster(format!("failed to connect to the cluster: {error}")))?;
        Ok(Cluster { client, namespace })
    }

    async fn config(&self) -> Result<Config, Error> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            cluster: self.cluster.clone(),
            user: self.user.clone(),
        };
        let explicit = self.context.is_some() || self.cluster.is_some() || self.user.is_some();
        match &self.kubeconfig {
            Some(path) => {
                let read = Kubeconfig::read_from(path)
                    .map_err(|error| Error::Cluster(format!("failed to read {}: {}", path.display(), causes(&error))))?;
                Config::from_custom_kubeconfig(read, &options)
                    .await
                    .map_err(|error| Error::Cluster(format!("{}: {}", path.display(), causes(&error))))
            }
            None if explicit => Config::from_kubeconfig(&options)
                .await
                .map_err(|error| Error::Cluster(format!("the kubeconfig: {}", causes(&error)))),
            None => Config::infer().await.map_err(|error| {
                Error::Cluster(format!(
                    "no cluster: {}; set KUBECONFIG or give --kubeconfig FILE (to build without a cluster: slipway build --local)",
                    causes(&error)
                ))
            }),
        }
    }
}

impl Cluster {
    /// The builds of the namespace.
    pub fn builds(&self) -> Api<ImageBuild> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// The pods of the namespace.
    pub fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// A build of the namespace.
    pub async fn build(&self, name: &str) -> Result<ImageBuild> {
        let found = self.builds().get_opt(name).await;
        let found = found.map_err(|error| told(&error, &format!("read the ImageBuild {name}")))?;
        Ok(found.ok_or_else(|| self.no_build(name))?)
    }

    /// That there is no such build.
    pub fn no_build(&self, name: &str) -> Error {
        Error::Cluster(format!(
            "there is no ImageBuild {name:?} in namespace {:?}; `kubectl slipway list` shows those that are there",
            self.namespace
        ))
    }
}

/// What the API server said, and what to do about it.
pub fn told(error: &kube::Error, what: &str) -> Error {
    let text = match error {
        kube::Error::Api(status)
            if status.code == 404 && status.message.contains("could not find the requested resource") =>
        {
            format!(
                "failed to {what}: the cluster does not know ImageBuilds; install Slipway's chart (`kubectl slipway doctor` tells more)"
            )
        }
        kube::Error::Api(status) if status.code == 403 => {
            format!("failed to {what}: not allowed: {}", status.message)
        }
        kube::Error::Api(status) if status.code == 401 => format!(
            "failed to {what}: the cluster does not accept your credentials (expired?): {}",
            status.message
        ),
        kube::Error::Api(status) => format!("failed to {what}: {}", status.message),
        other => format!("failed to {what}: the cluster cannot be asked: {}", causes(other)),
    };
    Error::Cluster(text)
}

/// An error with all its causes in one line. Some errors print their cause themselves: it is told once.
pub fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::core::Status;

    fn api(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status::failure(message, "").with_code(code)))
    }

    #[test]
    fn the_api_servers_answers_are_told_with_what_helps() {
        let told = |code, message| told(&api(code, message), "read x").to_string();
        assert!(told(403, "pods is forbidden").contains("not allowed: pods is forbidden"));
        assert!(
            told(404, "the server could not find the requested resource").contains("install Slipway's chart")
        );
        assert!(told(401, "Unauthorized").contains("credentials"));
        assert_eq!(told(409, "conflict"), "failed to read x: conflict");
    }
}
