//! Which images a Dockerfile may name, as the platform team says. Pure.

use slipway_plan::{BaseError, BaseRequest, protocol::FailureReason};

/// The first of `bases` that is not among `allowed`, and what is wrong with it. All are allowed when nothing is said.
pub(crate) fn first_refusal(bases: &[BaseRequest], allowed: &[String]) -> Option<(BaseRequest, BaseError)> {
    let base = bases
        .iter()
        .find(|base| !is_allowed(&base.reference.without_tag_and_digest(), allowed))?;
    let refusal = BaseError {
        message: format!(
            "{} is not among the images that the platform team allows a Dockerfile to use: {}",
            base.reference.without_tag_and_digest(),
            allowed.join(", ")
        ),
        reason: FailureReason::PolicyViolation,
        retry_after: None,
    };
    Some((base.clone(), refusal))
}

/// `name` is registry and repository in full; an entry is a registry, or one and the beginning of a repository's path.
fn is_allowed(name: &str, allowed: &[String]) -> bool {
    let below = |entry: &String| {
        let rest = name.strip_prefix(entry.trim_end_matches('/'));
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    allowed.is_empty() || allowed.iter().any(below)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_allows_what_is_below_it_and_not_what_only_begins_alike() {
        let allowed: Vec<String> = ["r.example.com", "docker.io/library/debian", "q.example.com/team/"]
            .map(ToOwned::to_owned)
            .to_vec();
        for (reference, expected) in [
            ("r.example.com/any/thing:1", true),
            ("r.example.com.evil.test/any:1", false),
            ("r.example.com:5000/any:1", false),
            ("debian:12", true),
            (
                "docker.io/library/debian@sha256:0000000000000000000000000000000000000000000000000000000000000000",
                true,
            ),
            ("debian-evil:12", false),
            ("alpine:3", false),
            ("q.example.com/team/app:1", true),
            ("q.example.com/team-b/app:1", false),
        ] {
            let base = BaseRequest {
                reference: reference.parse().unwrap(),
                platform: "linux/amd64".parse().unwrap(),
                layout: None,
            };
            let refusal = first_refusal(std::slice::from_ref(&base), &allowed);
            assert_eq!(refusal.is_none(), expected, "{reference}");
            if let Some((_, refusal)) = refusal {
                assert!(
                    refusal.message.contains("docker.io/library/debian"),
                    "the policy is named"
                );
            }
            assert!(
                first_refusal(&[base], &[]).is_none(),
                "without a policy all are allowed"
            );
        }
    }
}
