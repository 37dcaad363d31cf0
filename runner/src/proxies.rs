//! The pod's proxies, for every `RUN` of its stage: as the build arguments of these names do, they reach the step and are in no
//! layer, history or key. They come from the pod and not from the plan, so that no proxy's password is published with it.

use slipway_plan::{Op, PROXIES, StagePlan};

/// Adds the proxies that `variable` knows to each `RUN`, where neither the Dockerfile nor a build argument has said another.
pub(crate) fn add(stage: &mut StagePlan, variable: &dyn Fn(&str) -> Option<String>) {
    let known: Vec<(&str, String)> = PROXIES
        .iter()
        .filter_map(|name| {
            let value = variable(name).or_else(|| variable(&name.to_uppercase()))?;
            (!value.is_empty()).then_some((*name, value))
        })
        .collect();
    for step in &mut stage.steps {
        let Op::Run(run) = &mut step.op else { continue };
        for (name, value) in &known {
            let is_said = run.env.iter().chain(&run.proxy_env).any(|variable| {
                let given = variable
                    .split_once('=')
                    .map_or(variable.as_str(), |(given, _)| given);
                given.eq_ignore_ascii_case(name)
            });
            if !is_said {
                run.proxy_env.push(format!("{}={value}", name.to_uppercase()));
                run.proxy_env.push(format!("{name}={value}"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use slipway_oci::Platform;
    use slipway_plan::{Bases, Outcome, PlanRequest};

    use super::*;

    #[test]
    fn a_proxy_of_the_pod_reaches_every_run_that_has_no_other_and_changes_no_key() {
        let text = "FROM scratch\nRUN [\"/a\"]\nENV https_proxy=own\nRUN [\"/b\"]\n";
        let file = slipway_dockerfile::parse("Dockerfile", text).unwrap();
        let mut request = PlanRequest::new(file, Platform::new("linux", "amd64", ""));
        request.args.insert("NO_PROXY".into(), "localhost".into());
        let Ok(Outcome::Ready(plan)) = slipway_plan::plan(&request, &Bases::new()) else {
            panic!("a plan without images")
        };
        let plan = *plan;
        let mut with = plan.clone();
        add(&mut with.stages[0], &|name| {
            match name {
                "http_proxy" => Some("http://proxy:3128"),
                "HTTPS_PROXY" => Some("http://secure:3128"),
                "no_proxy" => Some("pod"),
                "ftp_proxy" => Some(""),
                _ => None,
            }
            .map(ToOwned::to_owned)
        });
        let runs: Vec<_> = with.stages[0]
            .steps
            .iter()
            .filter_map(|step| match &step.op {
                Op::Run(run) => Some(run.proxy_env.clone()),
                _ => None,
            })
            .collect();
        let both = ["NO_PROXY=localhost", "no_proxy=localhost"];
        let http = ["HTTP_PROXY=http://proxy:3128", "http_proxy=http://proxy:3128"];
        let https = ["HTTPS_PROXY=http://secure:3128", "https_proxy=http://secure:3128"];
        assert_eq!(runs[0], [both, http, https].concat());
        assert_eq!(runs[1], [both, http].concat(), "the Dockerfile's own word stands");
        let key =
            |plan: &slipway_plan::BuildPlan| slipway_plan::keys(plan, &|_| None).stages[0].result.clone();
        assert_eq!(key(&plan), key(&with));
    }
}
