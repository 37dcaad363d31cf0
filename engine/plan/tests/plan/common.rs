//! Short ways to plan a text in tests.

use slipway_dockerfile::{Diagnostic, parse};
use slipway_oci::{Digest, ImageConfig, Platform};
use slipway_plan::{
    BaseError, Bases, BuildPlan, Op, Outcome, PlanRequest, ResolvedBase, RunOp, StagePlan, Step, plan,
    protocol::FailureReason,
};

pub(crate) fn amd64() -> Platform {
    Platform::new("linux", "amd64", "")
}

pub(crate) fn arm64() -> Platform {
    Platform::new("linux", "arm64", "")
}

/// A request for a text that has to parse.
pub(crate) fn request(text: &str) -> PlanRequest {
    PlanRequest::new(parse("Dockerfile", text).unwrap(), amd64())
}

/// The config of the image `alpine`: one layer, a `PATH`, a command.
pub(crate) fn base_config(platform: &Platform) -> ImageConfig {
    let mut config = ImageConfig::scratch(platform);
    config.config.working_dir.clear();
    config.config.cmd = vec!["sh".into()];
    config.config.env.push("BASE=1".into());
    config
        .rootfs
        .diff_ids
        .push(Digest::of(platform.to_string().as_bytes()));
    config
}

/// Plans with images made by `image` (by familiar name).
pub(crate) fn plan_with(
    request: &PlanRequest,
    image: impl Fn(&str, &Platform) -> Option<ImageConfig>,
) -> Result<BuildPlan, Vec<Diagnostic>> {
    let mut bases = Bases::new();
    loop {
        match plan(request, &bases)? {
            Outcome::Ready(plan) => return Ok(*plan),
            Outcome::Need(needs) => {
                for need in needs {
                    let name = need.reference.familiar();
                    let answer = match image(&name, &need.platform) {
                        Some(config) => Ok(ResolvedBase {
                            digest: Digest::of(format!("{name} {}", need.platform).as_bytes()),
                            config,
                        }),
                        None => Err(BaseError {
                            message: "not found".into(),
                            reason: FailureReason::ImageNotFound,
                            retry_after: None,
                        }),
                    };
                    bases.insert(need, answer);
                }
            }
        }
    }
}

/// Plans where `alpine` is the only image.
pub(crate) fn try_plan(request: &PlanRequest) -> Result<BuildPlan, Vec<Diagnostic>> {
    plan_with(request, |name, platform| {
        (name == "alpine:latest").then(|| base_config(platform))
    })
}

pub(crate) fn planned(request: &PlanRequest) -> BuildPlan {
    try_plan(request).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

/// The plan of a text for one platform, nothing special.
pub(crate) fn plan_text(text: &str) -> BuildPlan {
    planned(&request(text))
}

/// The message of the first error of a text.
pub(crate) fn error_of(request: &PlanRequest) -> String {
    match try_plan(request) {
        Ok(plan) => panic!("planned: {plan:#?}"),
        Err(errors) => errors[0].message.clone(),
    }
}

pub(crate) fn stage<'a>(plan: &'a BuildPlan, id: &str) -> &'a StagePlan {
    plan.stages
        .iter()
        .find(|stage| stage.id == id)
        .unwrap_or_else(|| {
            panic!(
                "no stage {id} in {:?}",
                plan.stages.iter().map(|stage| &stage.id).collect::<Vec<_>>()
            )
        })
}

pub(crate) fn ids(plan: &BuildPlan) -> Vec<&str> {
    plan.stages.iter().map(|stage| stage.id.as_str()).collect()
}

/// The `RUN`s of a stage.
pub(crate) fn runs(stage: &StagePlan) -> Vec<&RunOp> {
    stage
        .steps
        .iter()
        .filter_map(|step| match &step.op {
            Op::Run(run) => Some(&**run),
            _ => None,
        })
        .collect()
}

/// The steps that make layers.
pub(crate) fn work(stage: &StagePlan) -> Vec<&Step> {
    stage.steps.iter().filter(|step| step.makes_layer()).collect()
}
