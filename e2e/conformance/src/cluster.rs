//! Cases on a real cluster: each build is an ImageBuild, its files a ConfigMap, its result what the registry holds. The
//! checks are those of a local build.
//!
//! ```text
//!  case ─▶ ConfigMap, Secret, ImageBuild ─ kubectl create ─▶ operator, pods ─▶ registry ─ pull ─▶ OCI layout ─▶ check
//!                                          kubectl get -w ─▶ status
//! ```

mod object;
mod registry;

use std::{
    collections::{BTreeMap, VecDeque},
    env, fs,
    io::{BufReader, Write as _},
    process::{Child, Command, Stdio},
    sync::{Arc, Condvar, Mutex},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use self::registry::Registry;
use crate::{
    base::Base,
    builder::{Asked, Builder, Source},
    case::Case,
    check::Outcome,
    wording::{self, Row},
};

/// How long one build may take when six share two cores.
const LIMIT: Duration = Duration::from_mins(6);
/// File beside a pulled image: the name by which pods know it.
const REFERENCE: &str = "reference";

/// The newest state of each ImageBuild, and a bell for whoever waits for one.
type States = Arc<(Mutex<BTreeMap<String, Value>>, Condvar)>;

/// A namespace of a cluster, to build in.
pub(crate) struct Cluster {
    namespace: String,
    registry: Registry,
    /// The registry as pods know it.
    known_as: String,
    base: String,
    states: States,
    watch: Child,
}

/// The cases that the cluster can be asked for, at most `count` of them and from every area, and why the others cannot.
pub(crate) fn choose(cases: Vec<Case>, count: usize) -> (Vec<Case>, BTreeMap<&'static str, usize>) {
    let mut areas: BTreeMap<String, VecDeque<Case>> = BTreeMap::new();
    let mut left = BTreeMap::new();
    for case in cases {
        match object::unsuitable(&case) {
            None => areas.entry(case.first.area.clone()).or_default().push_back(case),
            Some(why) => *left.entry(why).or_insert(0) += 1,
        }
    }
    let mut chosen = Vec::new();
    while chosen.len() < count {
        let before = chosen.len();
        for cases in areas.values_mut() {
            if chosen.len() < count {
                chosen.extend(cases.pop_front());
            }
        }
        if chosen.len() == before {
            break;
        }
    }
    (chosen, left)
}

fn kubectl(args: &[&str], input: Option<&str>) -> Result<String> {
    let mut command = Command::new("kubectl");
    command
        .args(args)
        .stdin(if input.is_some() {
            Stdio::piped()
        } else {
            Stdio::null()
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("failed to start kubectl")?;
    if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(input.as_bytes())?;
    }
    let output = child.wait_with_output()?;
    ensure!(
        output.status.success(),
        "kubectl {}: {}",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8(output.stdout)?)
}

impl Cluster {
    /// Makes a namespace in the cluster that the environment names, and pushes the base image.
    pub(crate) fn start(base: &Base, run_id: &str) -> Result<Self> {
        let variable = |name: &str| {
            env::var(name).with_context(|| format!("{name} is not set; run this by `slipway-e2e env`"))
        };
        let (known_as, url) = (variable("SLIPWAY_REGISTRY")?, variable("SLIPWAY_REGISTRY_URL")?);
        let registry = Registry::at(&url)?;
        let namespace = format!("conformance-{run_id}");
        registry.push(&base.dir, &base.digest, &format!("{namespace}/base"), "v1")?;
        kubectl(&["create", "namespace", &namespace], None)?;
        let mut watch = Command::new("kubectl")
            .args([
                "get",
                "imagebuilds",
                "--watch",
                "--output",
                "json",
                "--namespace",
                &namespace,
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("failed to start kubectl")?;
        let stream = watch.stdout.take().context("no pipe")?;
        let states = States::default();
        let told = states.clone();
        thread::spawn(move || {
            let objects = serde_json::Deserializer::from_reader(BufReader::new(stream)).into_iter::<Value>();
            for object in objects.map_while(Result::ok) {
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                if let Ok(mut states) = told.0.lock() {
                    states.insert(name, object);
                }
                told.1.notify_all();
            }
        });
        Ok(Self {
            base: format!("{known_as}/{namespace}/base:v1"),
            namespace,
            registry,
            known_as,
            states,
            watch,
        })
    }

    /// Waits for the end of a build and gives its status.
    fn status(&self, name: &str) -> Result<Value> {
        let begun = Instant::now();
        let mut states = self.states.0.lock().ok().context("a thread of the watch died")?;
        loop {
            let status = states.get(name).map(|object| &object["status"]);
            if let Some(status) = status
                && matches!(
                    status["phase"].as_str(),
                    Some("Succeeded" | "Failed" | "Cancelled")
                )
            {
                return Ok(status.clone());
            }
            let Some(left) = LIMIT.checked_sub(begun.elapsed()) else {
                bail!(
                    "the ImageBuild did not end within {} s: {status:?}",
                    LIMIT.as_secs()
                );
            };
            states = self
                .states
                .1
                .wait_timeout(states, left)
                .ok()
                .context("a thread of the watch died")?
                .0;
        }
    }
}

impl Builder for Cluster {
    fn build(&self, asked: &Asked<'_>) -> Result<Outcome> {
        let prepared = asked.prepared;
        let mut images = BTreeMap::from([("busybox".to_owned(), self.base.clone())]);
        for (name, source) in &prepared.named {
            let Source::Layout { dir, .. } = source else {
                bail!("{name} is no image")
            };
            images.insert(name.clone(), fs::read_to_string(dir.join(REFERENCE))?);
        }
        let part = |path: &std::path::Path| path.file_name().unwrap_or_default().display().to_string();
        let name: String = format!("{}-{}", part(&prepared.work), part(&prepared.out))
            .to_lowercase()
            .replace(|c: char| !c.is_ascii_alphanumeric(), "-");
        let repository = format!("{}/{name}", self.namespace);
        let image = format!("{}/{repository}:v1", self.known_as);
        let dockerfile = object::with_images(asked.build.dockerfile.as_deref().unwrap_or_default(), &images);
        let objects = object::objects(asked.build, &name, &image, &dockerfile).to_string();
        let made = kubectl(
            &["create", "--namespace", &self.namespace, "--filename", "-"],
            Some(&objects),
        );
        if let Err(error) = made {
            // What the API refuses is a failed build: its schema speaks for the operator.
            return Ok(Outcome {
                success: false,
                broken: None,
                log: format!("error: {error:#}"),
            });
        }
        let status = self.status(&name)?;
        let success = status["phase"] == "Succeeded";
        if success {
            self.registry.pull(&repository, "v1", &prepared.out)?;
            fs::write(prepared.out.join(REFERENCE), &image)?;
        }
        let failure = &status["failure"];
        let text = |field: &str| failure[field].as_str().unwrap_or_default().to_owned();
        Ok(Outcome {
            success,
            broken: None,
            log: format!(
                "{}\nerror: {}: {}\n",
                text("log"),
                text("reason"),
                text("message")
            ),
        })
    }

    fn wording(&self) -> &'static [Row] {
        wording::TABLE
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        let _ = self.watch.kill();
        let _ = self.watch.wait();
        let _ = kubectl(&["delete", "namespace", &self.namespace, "--wait=false"], None);
    }
}
