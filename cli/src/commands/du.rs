//! `slipway du` and `slipway prune`: what Slipway keeps for later builds, and the removal of what nobody has used for long.
//! Claims of cache mounts are seen through the Kubernetes API; the layer cache in the registry with the credentials of the
//! user's docker configuration; the store of local builds on this machine's disk.

use super::{Format, explain::cache_repository, write};
use crate::{
    cluster::{Cluster, ClusterOptions, told},
    exit::{Error, FAILED},
    view::{
        look::{ColourMode, Look},
        usage::{self, Claim, Kept, Usage},
    },
};
use anyhow::{Context as _, Result};
use clap::Args;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use slipway_engine::Store;
use slipway_oci::Reference;
use slipway_registry::kept::{self, Policy};
use std::{collections::BTreeSet, io, path::PathBuf, process::ExitCode, time::Duration};

/// What is looked at.
#[derive(Debug, Args)]
struct Places {
    /// The store of local builds, and nothing of a cluster
    #[arg(long)]
    local: bool,
    /// Cache mounts alone
    #[arg(long, conflicts_with = "registry")]
    mounts: bool,
    /// The layer cache alone
    #[arg(long)]
    registry: bool,
    /// This repository [default: those of the namespace's ImageBuilds]; may be given several times
    #[arg(long = "repository", value_name = "REPOSITORY")]
    repositories: Vec<String>,
    /// Speak plain HTTP to this registry
    #[arg(long = "insecure-registry", value_name = "HOST")]
    insecure_registries: Vec<String>,
    /// Where local builds keep their results
    #[arg(long, value_name = "DIR", env = "SLIPWAY_STORE")]
    store: Option<PathBuf>,
    /// How the result is written
    #[arg(short, long, value_enum, value_name = "FORMAT")]
    output: Option<Format>,
    /// When to colour
    #[arg(long, value_enum, default_value = "auto")]
    color: ColourMode,
    #[command(flatten)]
    cluster: ClusterOptions,
}

/// Flags of `du`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl slipway du
  kubectl slipway du --mounts -n team-web
  kubectl slipway du --registry --repository registry.example.com/shop/cache
  slipway du --local

Of a claim the size of its volume is shown: how full it is, only its node knows.")]
pub struct DuOptions {
    #[command(flatten)]
    places: Places,
}

/// Flags of `prune`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  kubectl slipway prune --dry-run
  kubectl slipway prune --older-than 14d --mounts
  kubectl slipway prune --mounts --id npm --older-than 0d
  kubectl slipway prune --registry --keep 20GB
  slipway prune --local --older-than 7d

A claim that a pod uses never goes. Images and their tags are never removed from a registry. The chart's policies
cache.prune and cache.mounts.prune do the same by themselves.")]
pub struct PruneOptions {
    /// Only say what would be removed
    #[arg(long)]
    dry_run: bool,
    /// What nobody has used for so long: `12h`, `30d`
    #[arg(long, value_name = "TIME", default_value = "30d", value_parser = age)]
    older_than: Duration,
    /// Of what is older in a registry, keep the newest until so much is kept: `20GB`
    #[arg(long, value_name = "SIZE", value_parser = bytes, default_value = "0")]
    keep: u64,
    /// Cache mounts of this id alone
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    #[command(flatten)]
    places: Places,
}

/// `12h`, `30d`, `90m`, `10s`.
fn age(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?}: a number with s, m, h or d is expected");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86400,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    Ok(Duration::from_secs(number.saturating_mul(factor)))
}

/// `500MB`, `20GB`: powers of ten, as sizes are shown.
fn bytes(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?}: a number with kB, MB, GB or TB is expected");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match text[digits.len()..].to_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "m" | "mb" => 1_000_000,
        "g" | "gb" => 1_000_000_000,
        "t" | "tb" => 1_000_000_000_000,
        _ => return Err(wrong()),
    };
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number.checked_mul(factor).ok_or_else(wrong)
}

/// Shows what is kept.
pub async fn run_du(options: DuOptions) -> Result<ExitCode> {
    let places = options.places;
    if places.local {
        let store = Store::open(store_dir(&places)?)?;
        return show(
            &places,
            &Usage {
                local: Some(store.usage()?.into()),
                ..Usage::default()
            },
        );
    }
    let cluster = places.cluster.connect().await?;
    let mut usage = Usage::default();
    if !places.registry {
        usage.claims = claims(&cluster).await?;
    }
    if !places.mounts {
        let registries = crate::build::registries(&places.insecure_registries)?;
        for repository in repositories(&cluster, &places.repositories).await? {
            let kept = kept::usage(&registries.repository(&repository)).await;
            usage.registry.push(Kept::of(&repository, kept));
        }
    }
    show(&places, &usage)
}

/// Removes what nobody has used for long.
pub async fn run_prune(options: PruneOptions) -> Result<ExitCode> {
    let places = &options.places;
    if places.local {
        return prune_local(&options);
    }
    let cluster = places.cluster.connect().await?;
    let mut usage = Usage {
        removed: true,
        dry_run: options.dry_run,
        ..Usage::default()
    };
    if !places.registry {
        usage.claims = prune_claims(&cluster, &options).await?;
    }
    if !places.mounts && options.id.is_none() {
        let registries = crate::build::registries(&places.insecure_registries)?;
        let policy = Policy {
            max_age: options.older_than,
            keep: options.keep,
            dry_run: options.dry_run,
        };
        for repository in repositories(&cluster, &places.repositories).await? {
            let removed = kept::prune(&registries.repository(&repository), &policy).await;
            usage.registry.push(Kept::of(&repository, removed));
        }
    }
    show(places, &usage)
}

fn show(places: &Places, usage: &Usage) -> Result<ExitCode> {
    if let Some(format @ (Format::Json | Format::Yaml)) = places.output {
        write(format, usage)?;
    } else {
        let lines = usage::lines(usage, Timestamp::now());
        Look::of(places.color, &io::stdout()).write(&mut io::stdout(), &lines)?;
    }
    let blind = usage.registry.iter().any(|kept| kept.error.is_some());
    Ok(if blind {
        ExitCode::from(FAILED)
    } else {
        ExitCode::SUCCESS
    })
}

/// The claims of cache mounts, with what is known of their use.
async fn claims(cluster: &Cluster) -> Result<Vec<Claim>> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let params = ListParams::default().labels("slipway.build/kind=cache");
    let list = api
        .list(&params)
        .await
        .map_err(|error| told(&error, "list the claims of cache mounts"))?;
    // A pod that is over holds its claims no more.
    let pods = cluster
        .pods()
        .list(&ListParams::default().labels("app.kubernetes.io/managed-by=slipway"))
        .await;
    let pods = pods.map_err(|error| told(&error, "list the pods that may use them"))?;
    let is_alive = |phase: Option<&str>| !matches!(phase, Some("Succeeded" | "Failed"));
    let used: BTreeSet<String> = pods
        .items
        .iter()
        .filter(|pod| is_alive(pod.status.as_ref().and_then(|status| status.phase.as_deref())))
        .filter_map(|pod| pod.spec.as_ref()?.volumes.as_ref())
        .flatten()
        .filter_map(|volume| Some(volume.persistent_volume_claim.as_ref()?.claim_name.clone()))
        .collect();
    Ok(list.items.iter().map(|claim| Claim::of(claim, &used)).collect())
}

async fn prune_claims(cluster: &Cluster, options: &PruneOptions) -> Result<Vec<Claim>> {
    let api: Api<PersistentVolumeClaim> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let now = Timestamp::now();
    let mut chosen = claims(cluster).await?;
    chosen.retain(|claim| claim.may_go(options.id.as_deref(), options.older_than, now));
    if !options.dry_run {
        for claim in &chosen {
            let deleted = api.delete(&claim.name, &DeleteParams::default()).await;
            deleted.map_err(|error| told(&error, &format!("delete the claim {}", claim.name)))?;
        }
    }
    Ok(chosen)
}

/// The repositories that were named, or those in which the namespace's builds keep their results.
async fn repositories(cluster: &Cluster, named: &[String]) -> Result<Vec<Reference>> {
    if !named.is_empty() {
        let parse = |name: &String| {
            name.parse()
                .map_err(|error| Error::Usage(format!("--repository {name:?}: {error}")))
        };
        return Ok(named.iter().map(parse).collect::<Result<_, _>>()?);
    }
    let builds = cluster.builds().list(&ListParams::default()).await;
    let builds = builds.map_err(|error| told(&error, "list ImageBuilds"))?;
    let mut found: Vec<Reference> = Vec::new();
    for build in &builds.items {
        let repository = cache_repository(build)?;
        let same = |other: &Reference| other.without_tag_and_digest() == repository.without_tag_and_digest();
        if !found.iter().any(same) {
            found.push(repository);
        }
    }
    Ok(found)
}

fn store_dir(places: &Places) -> Result<PathBuf> {
    let dir = crate::build::store_dir(places.store.as_deref());
    std::path::absolute(&dir).with_context(|| format!("failed to find {}", dir.display()))
}

fn prune_local(options: &PruneOptions) -> Result<ExitCode> {
    if options.dry_run {
        return Err(Error::Usage(
            "--dry-run does not work with --local; `slipway du --local` shows what there is".into(),
        )
        .into());
    }
    let dir = store_dir(&options.places)?;
    if !dir.is_dir() {
        println!("nothing is kept in {}", dir.display());
        return Ok(ExitCode::SUCCESS);
    }
    let collected = Store::gc(&dir, options.older_than, true)
        .context("the store is in use: wait until no local build runs")?;
    println!(
        "removed {} steps, {} snapshots and {} blobs ({}), and cache mounts that were not used, from {}",
        collected.steps,
        collected.snapshots,
        collected.blobs,
        slipway_engine::progress::size(collected.blob_bytes),
        dir.display()
    );
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_are_read() {
        assert_eq!(age("30d").unwrap(), Duration::from_hours(30 * 24));
        assert_eq!(age("90m").unwrap(), Duration::from_mins(90));
        assert!(age("30").is_err() && age("d").is_err() && age("1w").is_err());
        assert_eq!(bytes("20GB").unwrap(), 20_000_000_000);
        assert_eq!(bytes("0").unwrap(), 0);
        assert!(bytes("x").is_err() && bytes("99999999TB").is_err());
    }
}
