//! Resources of a build pod's container: what the spec says, over what the chart says, never without limits.

use std::collections::BTreeMap;

use k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity};

use crate::quantity::{Factor, mebibytes, milli};

/// What nobody has limited is limited by this: a build is somebody else's program on the node.
const LIMITS: [(&str, &str); 2] = [("cpu", "4"), ("memory", "4Gi")];
const MEMORY: &str = "memory";

/// Memory that a stage gets beyond what was asked, because it ran out of it before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Raise {
    /// What each time multiplies it by.
    pub(super) factor: Factor,
    /// How often.
    pub(super) times: u32,
    /// Not beyond so many bytes.
    pub(super) max: Option<u128>,
}

/// Each resource from the first of `levels` (the most special first) that names it.
pub(super) fn resources(
    levels: &[Option<&ResourceRequirements>],
    raise: Option<Raise>,
) -> ResourceRequirements {
    let levels = || levels.iter().rev().copied().flatten();
    let mut limits: BTreeMap<String, Quantity> = LIMITS
        .into_iter()
        .map(|(name, amount)| (name.to_owned(), Quantity(amount.to_owned())))
        .collect();
    let mut requests: BTreeMap<String, Quantity> = BTreeMap::new();
    let mut claims = None;
    for level in levels() {
        let asked = level.requests.clone().unwrap_or_default();
        let bounds = level.limits.clone().unwrap_or_default();
        // What one level says holds against what another said of the other side.
        for (name, amount) in &asked {
            if !bounds.contains_key(name) && exceeds(Some(amount), limits.get(name)) {
                limits.insert(name.clone(), amount.clone());
            }
        }
        for (name, amount) in &bounds {
            if !asked.contains_key(name) && exceeds(requests.get(name), Some(amount)) {
                requests.insert(name.clone(), amount.clone());
            }
        }
        requests.extend(asked);
        limits.extend(bounds);
        claims = level.claims.clone().or(claims);
    }
    if let Some(raise) = raise.filter(|raise| raise.times > 0) {
        raise_memory(&mut requests, &mut limits, raise);
    }
    ResourceRequirements {
        limits: Some(limits),
        requests: (!requests.is_empty()).then_some(requests),
        claims,
    }
}

fn exceeds(amount: Option<&Quantity>, bound: Option<&Quantity>) -> bool {
    match (amount.and_then(milli), bound.and_then(milli)) {
        (Some(amount), Some(bound)) => amount > bound,
        // What cannot be read is for the API server to refuse, in its own words.
        _ => false,
    }
}

fn raise_memory(
    requests: &mut BTreeMap<String, Quantity>,
    limits: &mut BTreeMap<String, Quantity>,
    raise: Raise,
) {
    for amounts in [requests, limits] {
        let Some(amount) = amounts.get_mut(MEMORY) else {
            continue;
        };
        let Some(bytes) = milli(amount).map(|milli| milli / 1000) else {
            continue;
        };
        // Never less than what was asked: the bound is for raising.
        let most = raise.max.map_or(u128::MAX, |max| max.max(bytes));
        let raised = raise.factor.apply(bytes, raise.times).min(most);
        if raised > bytes {
            *amount = mebibytes(raised);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[allow(clippy::needless_pass_by_value, reason = "takes what json! gives")]
    fn level(value: Value) -> ResourceRequirements {
        serde_json::from_value(value).unwrap()
    }

    fn merged(levels: &[Value], raise: Option<Raise>) -> Value {
        let levels: Vec<_> = levels.iter().cloned().map(level).collect();
        let levels: Vec<_> = levels.iter().map(Some).collect();
        serde_json::to_value(resources(&levels, raise)).unwrap()
    }

    #[test]
    fn each_resource_comes_from_the_most_special_that_names_it_and_none_is_without_limits() {
        let chart =
            json!({"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"cpu": "4", "memory": "4Gi"}});
        for (levels, expected) in [
            (vec![], json!({"limits": {"cpu": "4", "memory": "4Gi"}})),
            (
                vec![json!({}), chart.clone()],
                json!({"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"cpu": "4", "memory": "4Gi"}}),
            ),
            (
                vec![json!({"limits": {"memory": "1Gi"}}), chart.clone()],
                json!({"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"cpu": "4", "memory": "1Gi"}}),
            ),
            (
                vec![
                    json!({"limits": {"cpu": "8"}}),
                    json!({"limits": {"cpu": "1", "ephemeral-storage": "5Gi"}}),
                    chart.clone(),
                ],
                json!({
                    "requests": {"cpu": "250m", "memory": "256Mi"},
                    "limits": {"cpu": "8", "memory": "4Gi", "ephemeral-storage": "5Gi"},
                }),
            ),
            // A request above the chart's limit lifts that limit; a limit below the chart's request lowers that request.
            (
                vec![
                    json!({"requests": {"memory": "8Gi"}, "limits": {"cpu": "100m"}}),
                    chart,
                ],
                json!({
                    "requests": {"cpu": "100m", "memory": "8Gi"},
                    "limits": {"cpu": "100m", "memory": "8Gi"},
                }),
            ),
        ] {
            assert_eq!(merged(&levels, None), expected, "{levels:?}");
        }
    }

    #[test]
    fn want_of_memory_raises_limit_and_request_up_to_the_bound() {
        let asked = json!({"requests": {"memory": "100Mi"}, "limits": {"cpu": "1", "memory": "1Gi"}});
        for (factor, times, max, request, limit) in [
            ("1.5", 0, None, "100Mi", "1Gi"),
            ("1.5", 1, None, "150Mi", "1536Mi"),
            ("1.5", 2, None, "225Mi", "2304Mi"),
            ("4", 2, Some(2 << 30), "1600Mi", "2048Mi"),
            ("2", 1, Some(1 << 20), "100Mi", "1Gi"),
        ] {
            let raise = Raise {
                factor: Factor::parse(factor).unwrap(),
                times,
                max,
            };
            let got = merged(std::slice::from_ref(&asked), Some(raise));
            assert_eq!(
                (&got["requests"]["memory"], &got["limits"]["memory"]),
                (&json!(request), &json!(limit)),
                "{factor} {times} {max:?}"
            );
            assert_eq!(got["limits"]["cpu"], "1");
        }
    }
}
