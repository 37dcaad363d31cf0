//! Condition types, and the one function that merges a new condition into a list.
//!
//! `Ready`, `Reconciling` and `Stalled` follow kstatus, so `kubectl wait`, Flux and Argo CD understand a build:
//!
//! | the build | Ready | Reconciling | Stalled |
//! |---|---|---|---|
//! | is on its way | Unknown | True | False |
//! | has an image | True | False | False |
//! | ended without one | False | False | True |

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// The image of the observed generation is at every tag.
pub const READY: &str = "Ready";
/// The operator is at work on the observed generation.
pub const RECONCILING: &str = "Reconciling";
/// Nothing will change until a person does something; the message says what.
pub const STALLED: &str = "Stalled";
/// Source, Secrets and ConfigMaps are there, and the plan pod could read the source.
pub const SOURCE_RESOLVED: &str = "SourceResolved";
/// The Dockerfile has been turned into a plan.
pub const PLANNED: &str = "Planned";
/// Every stage that the target needs is done.
pub const STAGES_COMPLETE: &str = "StagesComplete";
/// Every tag has been written, read back and verified.
pub const PUSHED: &str = "Pushed";

/// What the cache mounts hold is kept for the next build. Only there when a stage that runs has cache mounts.
pub const CACHE_MOUNTS_KEPT: &str = "CacheMountsKept";

/// Every type that each build has, in the order in which `kubectl describe` shows them.
pub const ALL: [&str; 7] = [
    READY,
    RECONCILING,
    STALLED,
    SOURCE_RESOLVED,
    PLANNED,
    STAGES_COMPLETE,
    PUSHED,
];

/// The longest message that a condition may have (the API's own bound).
pub const MESSAGE_LIMIT: usize = 32_768;

/// A condition's status.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// It holds.
    True,
    /// It does not.
    False,
    /// Not known yet.
    Unknown,
}

impl Status {
    /// As it stands in the API.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// Sets the condition of type `kind`. `lastTransitionTime` is `now` when the status changed, else it stays; nothing else
/// in Slipway writes that field.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: Status,
    reason: &str,
    message: impl Into<String>,
    generation: Option<i64>,
    now: Timestamp,
) {
    let mut message = message.into();
    message.truncate(message.floor_char_boundary(MESSAGE_LIMIT));
    let known = conditions.iter().position(|condition| condition.type_ == kind);
    let since = known
        .and_then(|index| conditions.get(index))
        .filter(|condition| condition.status == status.as_str())
        .map_or(Time(now), |condition| condition.last_transition_time.clone());
    let condition = Condition {
        type_: kind.to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.to_owned(),
        message,
        last_transition_time: since,
        observed_generation: generation,
    };
    match known.and_then(|index| conditions.get_mut(index)) {
        Some(place) => *place = condition,
        None => conditions.push(condition),
    }
}

/// The condition of type `kind`, if it is there.
pub fn get<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// Whether the condition of type `kind` has the status `True`.
pub fn is_true(conditions: &[Condition], kind: &str) -> bool {
    get(conditions, kind).is_some_and(|condition| condition.status == Status::True.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn the_transition_time_moves_with_the_status_only() {
        let mut all = Vec::new();
        set(&mut all, READY, Status::Unknown, "Planning", "a", Some(1), at(10));
        set(&mut all, READY, Status::Unknown, "Running", "b", Some(2), at(20));
        assert_eq!(all.len(), 1);
        assert_eq!(
            (
                all[0].last_transition_time.0,
                all[0].reason.as_str(),
                all[0].message.as_str(),
                all[0].observed_generation
            ),
            (at(10), "Running", "b", Some(2))
        );
        set(&mut all, READY, Status::True, "Succeeded", "c", Some(2), at(30));
        assert_eq!(all[0].last_transition_time.0, at(30));
        assert!(is_true(&all, READY) && !is_true(&all, STALLED));
    }

    #[test]
    fn a_message_is_cut_at_a_character_where_the_api_would_refuse_it() {
        let mut all = Vec::new();
        set(
            &mut all,
            READY,
            Status::False,
            "Failed",
            "é".repeat(MESSAGE_LIMIT),
            None,
            at(0),
        );
        assert_eq!(all[0].message.len(), MESSAGE_LIMIT);
    }
}
