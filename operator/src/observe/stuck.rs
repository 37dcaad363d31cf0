//! Why a pod that has its node does not start: only the node's events say so.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Event;
use kube::{Api, Client, api::ListParams};

use crate::pod_view::{self, PodState, PodView, Wait};

/// Older words are of a trouble that may be over.
const RECENT: SignedDuration = SignedDuration::from_mins(2);

/// Asks for the events of the pods that should have started by now, and puts what the node says into their state.
///
/// # Errors
/// When the events cannot be listed.
pub async fn explain(
    client: &Client,
    namespace: &str,
    pods: &mut [PodView],
    now: Timestamp,
) -> Result<(), kube::Error> {
    let events: Api<Event> = Api::namespaced(client.clone(), namespace);
    for pod in pods.iter_mut().filter(|pod| pod.is_stuck(now)) {
        let selector = format!(
            "involvedObject.kind=Pod,involvedObject.name={},type=Warning",
            pod.name
        );
        let found = events
            .list(&ListParams::default().fields(&selector).limit(50))
            .await?;
        if let Some(wait) = word(&found.items, now) {
            pod.state = PodState::Waiting(wait);
        }
    }
    Ok(())
}

/// What the newest event says that is about starting.
fn word(events: &[Event], now: Timestamp) -> Option<Wait> {
    let at = |event: &Event| {
        let series = event
            .series
            .as_ref()
            .and_then(|series| series.last_observed_time.as_ref());
        series
            .map(|time| time.0)
            .or(event.last_timestamp.as_ref().map(|time| time.0))
            .or(event.event_time.as_ref().map(|time| time.0))
    };
    events
        .iter()
        .filter_map(|event| Some((at(event)?, event)))
        .filter(|(at, _)| now.duration_since(*at) <= RECENT)
        .filter_map(|(at, event)| {
            let reason = event.reason.as_deref()?;
            let wait = pod_view::of_event(reason, event.message.as_deref().unwrap_or_default())?;
            Some((at, wait))
        })
        .max_by_key(|(at, _)| *at)
        .map(|(_, wait)| wait)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures::at;

    #[test]
    fn the_newest_recent_word_about_starting_counts() {
        let event = |reason: &str, message: &str, second: i64| -> Event {
            let mut event: Event = serde_json::from_value(json!({
                "metadata": {}, "involvedObject": {}, "reason": reason, "message": message,
            }))
            .unwrap();
            event.last_timestamp = Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(at(second)));
            event
        };
        let mount = event("FailedMount", "no such secret", 90);
        let sandbox = event(
            "FailedCreatePodSandBox",
            "the runtime does not support user namespaces",
            100,
        );
        let scheduling = event("FailedScheduling", "0/1 nodes", 110);
        let all = [mount.clone(), sandbox, scheduling.clone()];
        assert!(
            matches!(word(&all, at(120)), Some(Wait::NoUserNamespaces(text)) if text.contains("runtime"))
        );
        assert!(
            matches!(word(std::slice::from_ref(&mount), at(120)), Some(Wait::CannotStart(text)) if text == "FailedMount: no such secret")
        );
        assert_eq!(word(&[mount], at(300)), None, "long ago");
        assert_eq!(word(&[scheduling], at(120)), None);
    }
}
