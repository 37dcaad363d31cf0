//! The conformance cases as far as a plan can show them: config, environment, history, number of layers, errors, build
//! checks. The cases are not part of this repository; `SLIPWAY_CASES` names the file, and without it the test says so
//! and passes.

use serde_json::Value;
use slipway_dockerfile::{Diagnostic, Severity, ignore, parse};
use slipway_oci::{Digest, ImageConfig, Platform};
use slipway_plan::{
    BaseError, BaseRequest, Bases, BuildPlan, Entitlements, HostEntry, Network, Outcome, PlanRequest,
    ResolvedBase, Source, Ulimit, plan,
    protocol::{FailureReason, NoCache},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

/// What an error is about that only running the plan can show.
const AT_RUN_TIME: [&str; 18] = [
    "did not complete successfully",
    "/bin/sh -c",
    "not found",
    "exit code",
    "digest mismatch",
    "invalid response status",
    "secret none",
    "no SSH key",
    "mkdir /",
    "cannot replace to directory",
    "invalid user index",
    "no such file or directory",
    "illegal exclusion pattern",
    "checksum",
    "no match",
    "commit",
    "dumb",
    "this is invalid",
];

type Images = BTreeMap<String, (ImageConfig, Digest)>;

fn busybox() -> ImageConfig {
    let layer = Digest::of(b"busybox layer");
    serde_json::from_value(serde_json::json!({
        "architecture": "amd64", "os": "linux", "created": "2020-01-01T00:00:00Z",
        "config": {"Env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"], "Cmd": ["sh"]},
        "rootfs": {"type": "layers", "diff_ids": [layer]},
        "history": [
            {"created": "2020-01-01T00:00:00Z", "created_by": "base rootfs"},
            {"created": "2020-01-01T00:00:00Z", "created_by": "CMD [\"sh\"]", "empty_layer": true},
        ],
    }))
    .unwrap()
}

fn text<'a>(case: &'a Value, key: &str) -> Option<&'a str> {
    case.get(key).and_then(Value::as_str)
}

fn strings(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many
            .iter()
            .filter_map(|it| it.as_str().map(str::to_owned))
            .collect(),
        _ => Vec::new(),
    }
}

fn map(value: Option<&Value>) -> BTreeMap<String, String> {
    value
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned())))
        .collect()
}

/// The text of a file of a case.
fn file(files: Option<&Value>, name: &str) -> Option<String> {
    let entry = files?.get(name)?;
    if let Some(target) = entry.get("symlink").and_then(Value::as_str) {
        return file(files, target);
    }
    entry
        .as_str()
        .or_else(|| entry.get("content").and_then(Value::as_str))
        .map(str::to_owned)
}

fn dockerfile(case: &Value) -> Option<String> {
    let name = text(case, "filename").unwrap_or("Dockerfile");
    text(case, "dockerfile").map(str::to_owned).or_else(|| {
        ["dockerfile_files", "files"].into_iter().find_map(|key| {
            let files = case.get(key);
            file(files, name).or_else(|| file(files, &name.to_lowercase()))
        })
    })
}

fn ignore_patterns(case: &Value) -> Vec<String> {
    let name = text(case, "filename").unwrap_or("Dockerfile");
    let own = file(case.get("dockerfile_files"), &format!("{name}.dockerignore"))
        .or_else(|| file(case.get("files"), &format!("{name}.dockerignore")));
    let text = own
        .or_else(|| file(case.get("files"), ".dockerignore"))
        .unwrap_or_default();
    ignore::read(text.as_bytes())
        .into_iter()
        .map(|line| line.pattern)
        .collect()
}

fn request(case: &Value, images: &Images) -> Result<PlanRequest, Vec<Diagnostic>> {
    let amd64 = Platform::new("linux", "amd64", "");
    let parsed = parse("Dockerfile", &dockerfile(case).unwrap_or_default())?;
    let mut request = PlanRequest::new(parsed, amd64);
    let platforms =
        text(case, "platform").map(|list| list.split(',').map(str::parse).collect::<Result<_, _>>());
    request.platforms = match platforms {
        None => Vec::new(),
        Some(Ok(platforms)) => platforms,
        Some(Err(error)) => {
            let error: slipway_oci::PlatformError = error;
            return Err(vec![Diagnostic::error("platform", error.to_string())]);
        }
    };
    request.target = text(case, "target").map(str::to_owned);
    request.args = map(case.get("args"));
    request.labels = map(case.get("labels"));
    request.ignore = ignore_patterns(case);
    for (name, context) in case
        .get("contexts")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let input = context
            .as_str()
            .map_or_else(|| format!("local:{name}"), str::to_owned);
        request.contexts.insert(name.clone(), input);
    }
    for name in images.keys() {
        request
            .contexts
            .insert(name.clone(), format!("docker-image://{name}"));
    }
    let allowed = strings(case.get("allow"));
    let allows = |name: &str| allowed.iter().any(|it| it == name);
    request.allow = Entitlements {
        network_host: allows("network.host"),
        security_insecure: allows("security.insecure"),
    };
    let options = map(case.get("opts"));
    request.hostname = options.get("hostname").cloned();
    request.network = match options.get("force-network-mode").map(String::as_str) {
        Some("host") => Network::Host,
        Some("none") => Network::None,
        _ => Network::Default,
    };
    if let Some((host, ip)) = options.get("add-hosts").and_then(|entry| entry.split_once('=')) {
        request.add_hosts.push(HostEntry {
            host: host.into(),
            ip: ip.into(),
        });
    }
    request.shm_size = options.get("shm-size").and_then(|size| size.parse().ok());
    if options.contains_key("ulimit") {
        request.ulimits.push(Ulimit {
            name: "nofile".into(),
            soft: 1062,
            hard: 1062,
        });
    }
    request.no_cache = match case.get("no_cache") {
        Some(Value::Bool(true)) => NoCache::All,
        Some(Value::String(stage)) => NoCache::Stages(vec![stage.clone()]),
        _ => NoCache::No,
    };
    request.all_stages = text(case, "call") == Some("lint") && request.target.is_none();
    Ok(request)
}

fn answer(request: &BaseRequest, images: &Images) -> Result<ResolvedBase, BaseError> {
    let name = request.reference.familiar();
    let name = name.strip_suffix(":latest").unwrap_or(&name);
    match images.get(name) {
        Some((config, digest)) => Ok(ResolvedBase {
            digest: digest.clone(),
            config: config.clone(),
        }),
        None => Err(BaseError {
            message: format!("{}: not found", request.reference),
            reason: FailureReason::ImageNotFound,
            retry_after: None,
        }),
    }
}

fn build(case: &Value, images: &Images) -> Result<BuildPlan, Vec<Diagnostic>> {
    let request = request(case, images)?;
    let mut bases = Bases::new();
    for _ in 0..10 {
        match plan(&request, &bases)? {
            Outcome::Ready(plan) => return Ok(*plan),
            Outcome::Need(wanted) => {
                assert!(!wanted.is_empty());
                for base in wanted {
                    assert!(bases.get(&base).is_none(), "asked twice for {base:?}");
                    let found = answer(&base, images);
                    bases.insert(base, found);
                }
            }
        }
    }
    panic!("the planner never stops asking")
}

/// The image of a build as a base of another: layers get made-up digests.
fn as_image(plan: &BuildPlan) -> (ImageConfig, Digest) {
    let mut config = plan.results[0].config.clone();
    let layers = config.history.iter().filter(|entry| !entry.empty_layer).count();
    while config.rootfs.diff_ids.len() < layers {
        let name = format!("{}", config.rootfs.diff_ids.len());
        config.rootfs.diff_ids.push(Digest::of(name.as_bytes()));
    }
    let digest = Digest::of(serde_json::to_string(&config).unwrap().as_bytes());
    (config, digest)
}

/// Objects key by key, everything else for equality; `null` is absent or empty.
fn subset(want: &Value, got: &Value, path: &str, errors: &mut Vec<String>) {
    match want {
        Value::Object(object) => {
            for (key, value) in object {
                subset(
                    value,
                    got.get(key).unwrap_or(&Value::Null),
                    &format!("{path}.{key}"),
                    errors,
                );
            }
        }
        Value::Null => {
            let empty = match got {
                Value::Null | Value::Bool(false) => true,
                Value::String(text) => text.is_empty(),
                Value::Array(list) => list.is_empty(),
                Value::Object(map) => map.is_empty(),
                Value::Number(number) => number.as_i64() == Some(0),
                Value::Bool(true) => false,
            };
            if !empty {
                errors.push(format!("{path}: want nothing, got {got}"));
            }
        }
        want if want != got => errors.push(format!("{path}: want {want}, got {got}")),
        _ => {}
    }
}

fn check_image(expect: &Value, config: &ImageConfig, stage_base: &Source, errors: &mut Vec<String>) {
    let whole = serde_json::to_value(config).unwrap();
    if let Some(want) = expect.get("config") {
        subset(want, &whole["config"], "config", errors);
    }
    if let Some(want) = expect.get("image") {
        subset(want, &whole, "image", errors);
    }
    for entry in strings(expect.get("env_has")) {
        if !config.config.env.contains(&entry) {
            errors.push(format!("Env lacks {entry}: {:?}", config.config.env));
        }
    }
    for name in strings(expect.get("env_lacks")) {
        if config.config.env(&name).is_some() {
            errors.push(format!("Env has {name}"));
        }
    }
    let from_busybox = config.rootfs.diff_ids.first() == Some(&Digest::of(b"busybox layer"));
    let own = &config.history[if from_busybox { 2 } else { 0 }..];
    if let Some(want) = expect.get("layers").and_then(Value::as_u64) {
        let in_base = usize::from(matches!(stage_base, Source::Named(_)));
        let got = own.iter().filter(|entry| !entry.empty_layer).count() + in_base;
        if got as u64 != want {
            errors.push(format!("layers: want {want}, got {got}"));
        }
    }
    let Some(want) = expect.get("history").and_then(Value::as_array) else {
        return;
    };
    if own.len() != want.len() {
        let got: Vec<&str> = own.iter().map(|entry| entry.created_by.as_str()).collect();
        errors.push(format!("history: want {} entries, got {got:?}", want.len()));
        return;
    }
    for (want, got) in want.iter().zip(own) {
        let contains = want.as_str().or_else(|| text(want, "contains"));
        if contains.is_some_and(|part| !got.created_by.contains(part))
            || text(want, "is").is_some_and(|whole| whole != got.created_by)
            || want
                .get("empty_layer")
                .and_then(Value::as_bool)
                .is_some_and(|empty| empty != got.empty_layer)
            || text(want, "created").is_some_and(|time| got.created.as_deref() != Some(time))
        {
            errors.push(format!("history: want {want}, got {got:?}"));
        }
    }
}

fn check_warnings(
    expect: &Value,
    found: impl Iterator<Item = (String, u32, String)>,
    errors: &mut Vec<String>,
) {
    let Some(wanted) = expect.get("warnings").and_then(Value::as_array) else {
        return;
    };
    let mut left: Vec<_> = found.collect::<BTreeSet<_>>().into_iter().collect();
    for want in wanted {
        let hit = left.iter().position(|(rule, line, detail)| {
            text(want, "rule") == Some(rule)
                && want
                    .get("line")
                    .and_then(Value::as_u64)
                    .is_none_or(|wanted| wanted == u64::from(*line))
                && detail.contains(text(want, "detail_contains").unwrap_or(""))
        });
        match hit {
            Some(hit) => drop(left.remove(hit)),
            None => errors.push(format!("warning missing: {want}; got {left:?}")),
        }
    }
    if !left.is_empty() {
        errors.push(format!("unexpected warnings: {left:?}"));
    }
}

enum Verdict {
    Passed,
    /// Nothing that a plan shows.
    Left,
}

fn check(case: &Value) -> Result<Verdict, Vec<String>> {
    // A context from elsewhere brings its own Dockerfile, and a missing or huge one is the reader's error.
    let elsewhere = case.pointer("/opts/context").is_some();
    if elsewhere || dockerfile(case).is_none_or(|text| text.is_empty() && !case["dockerfile"].is_string()) {
        return Ok(Verdict::Left);
    }
    let mut images = Images::from([("busybox".to_owned(), (busybox(), Digest::of(b"busybox")))]);
    for (name, image) in case
        .get("images")
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
    {
        let built = build(image, &images).map_err(|errors| vec![format!("image {name}: {errors:?}")])?;
        images.insert(name.clone(), as_image(&built));
    }
    let expect = case.get("expect").cloned().unwrap_or_default();
    let wanted: Vec<String> = strings(expect.get("error_contains"));
    let wants_error = expect.get("error_contains").is_some() || expect.get("error_matches").is_some();
    let mut errors = Vec::new();
    match build(case, &images) {
        Err(found) => {
            let message = found
                .iter()
                .filter(|it| it.severity == Severity::Error)
                .map(|it| it.message.clone())
                .collect::<Vec<_>>()
                .join("\n");
            if !wants_error {
                return Err(vec![format!("failed: {message}")]);
            }
            for part in wanted.iter().filter(|part| !message.contains(part.as_str())) {
                errors.push(format!("error lacks {part:?}: {message}"));
            }
            if let Some(lines) = expect.get("error_lines").and_then(Value::as_array) {
                let want: Vec<u64> = lines.iter().filter_map(Value::as_u64).collect();
                let got: Vec<u64> = found[0].error_lines().into_iter().map(u64::from).collect();
                if got != want {
                    errors.push(format!("error lines: want {want:?}, got {got:?}"));
                }
            }
            let warnings = found.iter().filter(|it| it.severity == Severity::Warning);
            check_warnings(
                &expect,
                warnings.map(|it| (it.code.clone(), it.error_lines()[0], it.message.clone())),
                &mut errors,
            );
        }
        Ok(plan) => {
            if wants_error {
                let later = wanted
                    .iter()
                    .any(|part| AT_RUN_TIME.iter().any(|it| part.contains(it)));
                if !later && !wanted.is_empty() {
                    errors.push(format!("planned, but this error was expected: {wanted:?}"));
                }
                return if errors.is_empty() {
                    Ok(Verdict::Left)
                } else {
                    Err(errors)
                };
            }
            for result in &plan.results {
                let base = &plan.stages[result.stage].base;
                match expect.get("platforms").and_then(Value::as_object) {
                    Some(platforms) => match platforms.get(&result.platform.to_string()) {
                        Some(expect) => check_image(expect, &result.config, base, &mut errors),
                        None => errors.push(format!("platform {} was not asked for", result.platform)),
                    },
                    None => check_image(&expect, &result.config, base, &mut errors),
                }
            }
            let warnings = plan.warnings.iter();
            check_warnings(
                &expect,
                warnings.map(|it| (format!("{:?}", it.rule), it.line, it.detail.clone())),
                &mut errors,
            );
            let json = serde_json::to_string(&plan).unwrap();
            assert_eq!(
                serde_json::from_str::<BuildPlan>(&json).unwrap(),
                plan,
                "a plan survives its JSON"
            );
        }
    }
    if errors.is_empty() {
        Ok(Verdict::Passed)
    } else {
        Err(errors)
    }
}

#[test]
fn the_conformance_cases_plan_as_buildkit_does() {
    let path = std::env::var_os("SLIPWAY_CASES").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../../shared/conformance/cases.jsonl"
            ))
        },
        PathBuf::from,
    );
    let Ok(cases) = std::fs::read_to_string(&path) else {
        println!(
            "skipped: no conformance cases at {}; set SLIPWAY_CASES",
            path.display()
        );
        return;
    };
    let (mut passed, mut left, mut failed) = (0, 0, Vec::new());
    for line in cases.lines().filter(|line| !line.trim().is_empty()) {
        let line = line
            .replace("@HTTP@", "http://127.0.0.1:1")
            .replace("@RUN@", "run");
        let case: Value = serde_json::from_str(&line).unwrap();
        match check(&case) {
            Ok(Verdict::Passed) => passed += 1,
            Ok(Verdict::Left) => left += 1,
            Err(errors) => failed.push(format!(
                "{}: {}",
                text(&case, "id").unwrap_or("?"),
                errors.join("; ")
            )),
        }
    }
    println!(
        "{passed} passed, {} failed, {left} left to the executor",
        failed.len()
    );
    assert!(failed.is_empty(), "{}", failed.join("\n"));
}
