//! `slipway doctor`: whether a cluster is fit to build on, and what to do where it is not.

mod judge;

use super::{Format, write};
use crate::{
    cluster::{Cluster, ClusterOptions, causes},
    exit::FAILED,
    view::{
        look::{ColourMode, Look},
        table::{Table, cell},
    },
};
use anyhow::Result;
use clap::Args;
use judge::{Check, Verdict};
use k8s_openapi::api::{
    apps::v1::Deployment,
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    core::v1::{Namespace, Node},
    storage::v1::StorageClass,
};
use kube::{
    Api,
    api::{ListParams, PostParams},
};
use slipway_engine::progress::{Line, Paint};
use std::{io, process::ExitCode};

/// Flags of `doctor`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl slipway doctor
  kubectl slipway doctor -n team-web -o json

Nothing is changed. What you may not see is said to be unknown. The exit code is 1 when something would keep a build from
running.")]
pub struct Options {
    /// How the result is written
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    /// When to colour
    #[arg(long, value_enum, default_value = "auto")]
    color: ColourMode,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Examines a cluster.
pub async fn run(options: Options) -> Result<ExitCode> {
    let cluster = options.cluster.connect().await?;
    let checks = examine(&cluster).await;
    match options.output {
        Some(format @ (Format::Json | Format::Yaml)) => write(format, &checks)?,
        _ => Look::of(options.color, &io::stdout()).write(&mut io::stdout(), &lines(&checks))?,
    }
    let bad = checks.iter().any(|check| check.verdict == Verdict::Bad);
    Ok(if bad {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

fn lines(checks: &[Check]) -> Vec<Line> {
    let mut table = Table::default();
    for check in checks {
        let (paint, symbol) = match check.verdict {
            Verdict::Good => (Paint::Good, "✓"),
            Verdict::Warn => (Paint::Warn, "!"),
            Verdict::Bad => (Paint::Bad, "✗"),
            Verdict::Unknown => (Paint::Faint, "?"),
        };
        let name = Line::new()
            .with(paint, symbol)
            .with(Paint::Strong, format!(" {}", check.name));
        table.row(vec![name, cell(&check.detail)]);
    }
    table.lines()
}

async fn examine(cluster: &Cluster) -> Vec<Check> {
    let version = match cluster.client.apiserver_version().await {
        Ok(version) => version,
        Err(error) => {
            return vec![Check::new(
                "cluster",
                Verdict::Bad,
                format!("it cannot be asked: {}", causes(&error)),
            )];
        }
    };
    let mut checks = vec![Check::new(
        "cluster",
        Verdict::Good,
        format!("Kubernetes {}", version.git_version),
    )];
    checks.push(api(cluster).await);
    checks.push(operator(cluster).await);
    checks.push(nodes(cluster, &version.git_version).await);
    checks.push(namespace(cluster).await);
    checks.push(storage(cluster).await);
    checks.push(rights(cluster).await);
    checks
}

async fn api(cluster: &Cluster) -> Check {
    match cluster.builds().list(&ListParams::default().limit(1)).await {
        Ok(_) => Check::new("ImageBuild API", Verdict::Good, "slipway.build/v1alpha1"),
        Err(kube::Error::Api(status)) if status.code == 404 => Check::new(
            "ImageBuild API",
            Verdict::Bad,
            "not there; helm upgrade --install slipway charts/slipway --namespace slipway-system --create-namespace",
        ),
        Err(kube::Error::Api(status)) if status.code == 403 => Check::new(
            "ImageBuild API",
            Verdict::Bad,
            format!(
                "there, but you may not list ImageBuilds in {:?}: {}",
                cluster.namespace, status.message
            ),
        ),
        Err(error) => Check::new("ImageBuild API", Verdict::Bad, causes(&error)),
    }
}

async fn operator(cluster: &Cluster) -> Check {
    let all: Api<Deployment> = Api::all(cluster.client.clone());
    let params = ListParams::default().labels("app.kubernetes.io/name=slipway-operator");
    match all.list(&params).await {
        Ok(list) => judge::operator(&list.items),
        Err(error) => unknown("operator", &error),
    }
}

async fn nodes(cluster: &Cluster, version: &str) -> Check {
    let all: Api<Node> = Api::all(cluster.client.clone());
    match all.list(&ListParams::default()).await {
        Ok(list) => judge::user_namespaces(version, &list.items),
        Err(error) => unknown("user namespaces", &error),
    }
}

async fn namespace(cluster: &Cluster) -> Check {
    let all: Api<Namespace> = Api::all(cluster.client.clone());
    match all.get(&cluster.namespace).await {
        Ok(namespace) => judge::pod_security(&namespace),
        Err(kube::Error::Api(status)) if status.code == 404 => Check::new(
            "namespace",
            Verdict::Bad,
            format!(
                "there is no namespace {:?}; kubectl create namespace {0}",
                cluster.namespace
            ),
        ),
        Err(error) => unknown("namespace", &error),
    }
}

async fn storage(cluster: &Cluster) -> Check {
    let all: Api<StorageClass> = Api::all(cluster.client.clone());
    match all.list(&ListParams::default()).await {
        Ok(list) => judge::storage(&list.items),
        Err(error) => unknown("storage class", &error),
    }
}

/// What the command line needs, command by command: verb, group, resource, subresource, for what.
const RIGHTS: [(&str, &str, &str, &str, &str); 7] = [
    ("create", "slipway.build", "imagebuilds", "", "build"),
    ("patch", "slipway.build", "imagebuilds", "", "cancel, rebuild"),
    (
        "watch",
        "slipway.build",
        "imagebuilds",
        "",
        "build, status --watch",
    ),
    ("list", "", "pods", "", "logs"),
    ("get", "", "pods", "log", "logs"),
    ("create", "", "pods", "portforward", "build DIRECTORY"),
    ("create", "", "secrets", "", "build --secret"),
];

async fn rights(cluster: &Cluster) -> Check {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(cluster.client.clone());
    let mut missing = Vec::new();
    for (verb, group, resource, subresource, purpose) in RIGHTS {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    namespace: Some(cluster.namespace.clone()),
                    verb: Some(verb.into()),
                    group: Some(group.into()),
                    resource: Some(resource.into()),
                    subresource: (!subresource.is_empty()).then(|| subresource.into()),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        match reviews.create(&PostParams::default(), &review).await {
            Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => {}
            Ok(_) => {
                let of = if subresource.is_empty() {
                    String::new()
                } else {
                    format!("/{subresource}")
                };
                missing.push(format!("{verb} {resource}{of} (for {purpose})"));
            }
            Err(error) => return unknown("your rights", &error),
        }
    }
    judge::rights(&cluster.namespace, &missing)
}

fn unknown(name: &'static str, error: &kube::Error) -> Check {
    let why = match error {
        kube::Error::Api(status) if status.code == 403 => "you may not see it".to_owned(),
        other => causes(other),
    };
    Check::new(name, Verdict::Unknown, why)
}
