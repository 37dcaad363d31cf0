//! `slipway build --local`.

use crate::{
    exit,
    options::{BuildOptions, ProgressMode},
    view::look::{ColourMode, Look},
};
use anyhow::{Context as _, Result, bail};
use slipway_engine::{
    BuildError, Fetcher, Packing, Progress, StepCache, Store,
    cache::{CacheMode, CachePlace, Imported, Recorder},
    driver::{Driver, Offers, Pack},
    export::{self, AnnotationSet, Images as Exported},
    image,
    images::Images,
    progress::{Plain, Quiet, RawJson, Sink, Size, Tty},
};
use slipway_layer::Compression;
use slipway_oci::{Platform, Reference};
use slipway_plan::BuildPlan;
use slipway_registry::{Config, Credentials, HostConfig, Registries};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::Arc,
};
use tokio_util::sync::CancellationToken;

mod agent;
mod calls;
mod outputs;
mod request;
mod sources;

use outputs::{Kind, Output};

/// Builds, and gives the exit code: 0, or 1 for a failed build, or 2 for wrong flags.
pub fn run(options: BuildOptions) -> ExitCode {
    if !options.local && options.call.is_none() && !options.check {
        eprintln!("error: building on a cluster is not there yet; add --local");
        return ExitCode::from(2);
    }
    // While there is one thread only.
    let identity = match slipway_sandbox::enter() {
        Ok(identity) => identity,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(note) = &identity.note {
        eprintln!("note: {note}");
    }
    // One provider for the whole process; a second call would only say that there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: failed to start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = runtime.block_on(build(options));
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    match outcome {
        Ok(code) => code,
        Err(error) if exit::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            match error.downcast_ref::<BuildError>() {
                Some(error) if error.is_cancelled() => {
                    eprintln!("\n{}", error.render());
                    return ExitCode::from(exit::INTERRUPTED);
                }
                Some(error) => eprintln!("\n{}", error.render()),
                None => eprintln!("\nerror: {error:#}"),
            }
            exit::code(&error)
        }
    }
}

/// The printer that the flags ask for, on standard error.
pub(crate) fn sink(mode: ProgressMode) -> Arc<dyn Sink> {
    let err = || Box::new(std::io::stderr());
    let look = Look::of(ColourMode::Auto, &std::io::stderr());
    let measure = || Size::of(std::io::stderr());
    match mode {
        ProgressMode::Quiet => Arc::new(Quiet),
        ProgressMode::Rawjson => Arc::new(RawJson::new(err())),
        ProgressMode::Tty => Arc::new(Tty::new(err(), Box::new(measure), look.colour)),
        ProgressMode::Auto if look.terminal => Arc::new(Tty::new(err(), Box::new(measure), look.colour)),
        ProgressMode::Auto | ProgressMode::Plain => Arc::new(Plain::new(err())),
    }
}

/// Where local builds keep their results.
pub(crate) fn store_dir(named: Option<&Path>) -> PathBuf {
    if let Some(dir) = named {
        return dir.to_owned();
    }
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute());
    let home = || {
        std::env::var_os("HOME")
            .map_or_else(std::env::temp_dir, PathBuf::from)
            .join(".cache")
    };
    cache.unwrap_or_else(home).join("slipway/store")
}

/// Registries with the credentials of the user's docker configuration; plain HTTP for those that are named.
pub(crate) fn registries(insecure: &[String]) -> Result<Registries> {
    let mut config = Config::default();
    for host in insecure {
        config
            .hosts
            .entry(host.clone())
            .or_insert_with(HostConfig::default)
            .insecure = true;
    }
    config.credentials = Credentials::from_docker_cli().map_err(BuildError::from)?;
    Registries::new(config).map_err(|error| BuildError::from(error).into())
}

async fn build(options: BuildOptions) -> Result<ExitCode> {
    let outputs = outputs::parse(&options).map_err(exit::usage)?;
    let store = Store::open(absolute(&store_dir(options.store.as_deref()))?)?;
    let progress = Progress::new(sink(options.progress()));
    let driver = Driver {
        store: store.clone(),
        progress: progress.clone(),
        images: Arc::new(Images::new(registries(&options.insecure_registries)?)),
        fetcher: Fetcher::new()?,
        cancel: CancellationToken::new(),
    };
    let cancel = driver.cancel.clone();
    tokio::spawn(async move {
        if tokio::signal::ctrl_c().await.is_ok() {
            cancel.cancel();
            // A second one does not wait for steps to end, or for a context on standard input.
            if tokio::signal::ctrl_c().await.is_ok() {
                std::process::exit(exit::INTERRUPTED.into());
            }
        }
    });
    let sources = sources::open(&options, &driver).await?;
    let mut offers = Offers {
        context: Some(sources.context.clone()),
        named: sources.named.clone(),
        ..Offers::default()
    };
    request::secrets(&options, &mut offers).map_err(exit::usage)?;
    let agents = agent::offer(&options.ssh, &mut offers)?;
    if let Some(call) = calls::wanted(&options).map_err(exit::usage)? {
        return calls::run(&call, &options, &driver, &sources).await;
    }
    let dockerfile = sources.parse()?;
    let request = request::plan_request(&options, &sources, dockerfile)?;
    let plan = match driver.plan(&request).await {
        Ok(plan) => Arc::new(plan),
        Err(error) => {
            progress.finish();
            return Err(error.into());
        }
    };
    slipway_engine::driver::tell_warnings(&progress, &plan);
    let built = finish(&options, &driver, &plan, offers, &outputs).await;
    progress.finish();
    drop(agents);
    let exported = built?;
    report(&options, exported.as_ref())?;
    Ok(ExitCode::SUCCESS)
}

fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("failed to find {}", path.display()))
}

struct Finished {
    images: Exported,
    names: Vec<Reference>,
}

async fn finish(
    options: &BuildOptions,
    driver: &Driver,
    plan: &Arc<BuildPlan>,
    offers: Offers,
    outputs: &[Output],
) -> Result<Option<Finished>> {
    let mut caches: Vec<Arc<dyn StepCache>> = Vec::new();
    let registries = driver.images.registries();
    for spec in &options.cache_from {
        let (place, _) = cache_place(spec)?;
        match Imported::open(registries, &place).await {
            Ok(imported) => caches.push(Arc::new(imported)),
            // A cache that is not there makes a build slow, not wrong.
            Err(error) => driver
                .progress
                .start(format!("import cache {spec}"))
                .failed(error.message()),
        }
    }
    let recorder = Arc::new(Recorder::default());
    let cache_to: Vec<(CachePlace, CacheMode)> = options
        .cache_to
        .iter()
        .map(|spec| cache_place(spec))
        .collect::<Result<_>>()?;
    if !cache_to.is_empty() {
        caches.push(recorder.clone());
    }
    let image = outputs.iter().find(|output| output.kind.is_image());
    let packing = image.map_or_else(|| Packing::new(Compression::GZIP), |output| output.packing(plan));
    let wants_all = cache_to.iter().any(|(_, mode)| *mode == CacheMode::Max);
    let pack = match (image, wants_all) {
        (_, true) => Pack::All(packing.clone()),
        (Some(_), false) => Pack::Results(packing.clone()),
        (None, false) => Pack::None,
    };
    let stages = driver.run(plan, offers, caches, &pack).await?;
    let mut finished = None;
    for output in outputs {
        let epoch = output.epoch.or(plan.epoch);
        let clamp = if output.rewrite_timestamp { epoch } else { None };
        match &output.kind {
            Kind::Image { .. } | Kind::Layout { .. } => {
                let packing = output.packing(plan);
                let mut annotations = output.annotations.clone();
                for flag in &options.annotations {
                    annotations.add_flag(flag).map_err(anyhow::Error::msg)?;
                }
                let images = collect(driver, plan, &stages, &packing, &annotations, output).await?;
                let names = output.names(&options.tags)?;
                write_image(driver, &images, &names, output).await?;
                finished = Some(Finished { images, names });
            }
            Kind::Tar { dest } => {
                export::export_tar(&driver.store, roots(plan, &stages), clamp, dest).await?;
            }
            Kind::Local { dest } => {
                let owners = export::Owners::Caller;
                let roots = roots(plan, &stages);
                export::export_directory(&driver.store, roots, clamp, owners, dest).await?;
            }
        }
    }
    let results: Vec<_> = stages.iter().map(|stage| stage.root.clone()).collect();
    for (place, mode) in &cache_to {
        let vertex = driver.progress.start("export cache");
        recorder
            .export(&driver.store, registries, place, *mode, &results, &packing)
            .await?;
        vertex.done();
    }
    Ok(finished)
}

/// Names for directories beside the roots; several platforms get one each.
fn roots(plan: &BuildPlan, stages: &[slipway_engine::StageResult]) -> Vec<(String, slipway_engine::Root)> {
    plan.results
        .iter()
        .zip(stages)
        .map(|(result, stage)| (result.platform.to_string().replace('/', "_"), stage.root.clone()))
        .collect()
}

async fn collect(
    driver: &Driver,
    plan: &Arc<BuildPlan>,
    stages: &[slipway_engine::StageResult],
    packing: &Packing,
    annotations: &AnnotationSet,
    output: &Output,
) -> Result<Exported> {
    let epoch = output.epoch.or(plan.epoch);
    let mut parts: Vec<(Platform, _, _)> = Vec::new();
    for (result, stage) in plan.results.iter().zip(stages) {
        let mut layers = stage.root.layers.clone();
        for index in 0..layers.len() {
            let below = slipway_engine::Root {
                layers: layers[..index].to_vec(),
                ..Default::default()
            };
            let packed =
                slipway_engine::pack_layer(&driver.store, &stage.root.layers[index], &below, packing).await?;
            layers[index].desc = Some(packed);
        }
        let config = image::config(plan, result, &layers, epoch);
        parts.push((result.platform.clone(), config, layers));
    }
    Ok(export::collect(
        &driver.store,
        parts,
        packing.docker,
        annotations,
        epoch,
    )?)
}

async fn write_image(driver: &Driver, images: &Exported, names: &[Reference], output: &Output) -> Result<()> {
    match &output.kind {
        Kind::Image { push: true } => {
            if names.is_empty() {
                bail!("a push needs a name: add --tag NAME");
            }
            export::push(
                &driver.store,
                driver.images.registries(),
                images,
                names,
                &driver.progress,
            )
            .await?;
        }
        Kind::Layout { tar, docker, dest } => {
            let options = export::LayoutOptions {
                names: names.to_vec(),
                tar: *tar,
                docker: *docker,
            };
            let vertex = driver.progress.start("export the image");
            export::write_layout(&driver.store, images, &options, dest).await?;
            if let Some(digest) = images.digest() {
                vertex.line(&format!("manifest {digest}"));
            }
            vertex.done();
        }
        _ => {}
    }
    Ok(())
}

fn cache_place(spec: &str) -> Result<(CachePlace, CacheMode)> {
    let mut attributes: BTreeMap<String, String> = BTreeMap::new();
    for (key, value) in crate::csv::fields(spec).map_err(anyhow::Error::msg)? {
        match value {
            Some(value) => attributes.insert(key, value),
            // A bare name is a reference.
            None => attributes.insert("ref".into(), key),
        };
    }
    let mode = match attributes.get("mode").map(String::as_str) {
        None | Some("min") => CacheMode::Min,
        Some("max") => CacheMode::Max,
        Some(other) => bail!("cache mode {other:?}: min or max is expected"),
    };
    let kind = attributes.get("type").map_or("registry", String::as_str);
    let place = match kind {
        "local" => {
            let dir = attributes.get("dest").or_else(|| attributes.get("src"));
            CachePlace::Local(absolute(Path::new(
                dir.context("a local cache needs src=DIR or dest=DIR")?,
            ))?)
        }
        "registry" => {
            let reference = attributes.get("ref").context("a registry cache needs ref=NAME")?;
            CachePlace::Registry(
                reference
                    .parse()
                    .with_context(|| format!("cache reference {reference:?}"))?,
            )
        }
        other => bail!("cache type {other:?} is not there; use local or registry"),
    };
    Ok((place, mode))
}

/// The files that were asked for, and the id for `--quiet`.
fn report(options: &BuildOptions, finished: Option<&Finished>) -> Result<()> {
    let Some(finished) = finished else { return Ok(()) };
    let digest = finished
        .images
        .digest()
        .map(ToString::to_string)
        .unwrap_or_default();
    let id = match finished.images.images.as_slice() {
        [only] => only.config_digest.to_string(),
        _ => digest.clone(),
    };
    if let Some(path) = &options.iidfile {
        fs::write(path, &id).with_context(|| format!("failed to write {}", path.display()))?;
    }
    if let Some(path) = &options.metadata_file {
        let mut metadata = serde_json::Map::new();
        metadata.insert("containerimage.digest".into(), digest.into());
        if let [only] = finished.images.images.as_slice() {
            metadata.insert(
                "containerimage.config.digest".into(),
                only.config_digest.to_string().into(),
            );
        }
        if !finished.names.is_empty() {
            let names: Vec<_> = finished.names.iter().map(ToString::to_string).collect();
            metadata.insert("image.name".into(), names.join(",").into());
        }
        let text = serde_json::to_string_pretty(&metadata)?;
        fs::write(path, text).with_context(|| format!("failed to write {}", path.display()))?;
    }
    if options.progress() == ProgressMode::Quiet {
        println!("{id}");
    }
    Ok(())
}
