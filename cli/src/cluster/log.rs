//! The log of one pod, line by line, to its end, over breaks of the connection.

use anyhow::Result;
use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::LogParams};
use std::time::Duration;
use tokio::sync::mpsc;

/// How often a broken log is taken up again when nothing new comes.
const TRIES: u32 = 5;

/// Sends each line, made into something by `wrap`, until the log ends; with `follow`, until the container ends. Gives
/// `false` if the pod is gone. Ends early when nobody receives any more.
pub async fn read<T>(
    pods: &Api<Pod>,
    pod: &str,
    container: &str,
    follow: bool,
    lines: &mpsc::Sender<T>,
    wrap: impl Fn(String) -> T,
) -> Result<bool, kube::Error> {
    // The kubelet's time of each line, so that nothing is lost or told twice when the connection breaks.
    let mut last: Option<Timestamp> = None;
    let mut failures = 0;
    loop {
        let params = LogParams {
            container: Some(container.to_owned()),
            follow,
            timestamps: true,
            since_time: last,
            ..LogParams::default()
        };
        let before = last;
        match pods.log_stream(pod, &params).await {
            Ok(stream) => {
                let mut parts = stream.lines();
                loop {
                    match parts.try_next().await {
                        Ok(Some(text)) => {
                            let (time, line) = stamped(&text);
                            if time.is_some() && time <= before {
                                continue;
                            }
                            last = time.or(last);
                            failures = 0;
                            if lines.send(wrap(line.to_owned())).await.is_err() {
                                return Ok(true);
                            }
                        }
                        Ok(None) => break,
                        Err(_) => {
                            failures += 1;
                            break;
                        }
                    }
                }
                if !follow || (failures == 0 && ended(pods, pod, container).await?) {
                    return Ok(true);
                }
            }
            Err(kube::Error::Api(status)) if status.code == 404 => return Ok(false),
            Err(error @ kube::Error::Api(_)) if failures + 1 >= TRIES => return Err(error),
            Err(error) => {
                if failures + 1 >= TRIES {
                    return Err(error);
                }
            }
        }
        failures += 1;
        if failures > TRIES {
            return Ok(true);
        }
        tokio::time::sleep(Duration::from_millis(200) * failures).await;
    }
}

/// Whether a container has ended, or its pod is gone: then nothing more is to come.
async fn ended(pods: &Api<Pod>, pod: &str, container: &str) -> Result<bool, kube::Error> {
    let Some(pod) = pods.get_opt(pod).await? else {
        return Ok(true);
    };
    let statuses = pod
        .status
        .and_then(|status| status.container_statuses)
        .unwrap_or_default();
    let status = statuses.into_iter().find(|status| status.name == container);
    Ok(status
        .and_then(|status| status.state)
        .is_some_and(|state| state.terminated.is_some()))
}

/// Time and text of a line as the kubelet gives it.
fn stamped(line: &str) -> (Option<Timestamp>, &str) {
    if let Some((time, rest)) = line.split_once(' ')
        && let Ok(time) = time.parse()
    {
        return (Some(time), rest);
    }
    // An empty line has its time and nothing else.
    match line.parse() {
        Ok(time) => (Some(time), ""),
        Err(_) => (None, line),
    }
}

#[cfg(test)]
mod tests {
    use super::stamped;

    #[test]
    fn the_kubelets_time_is_taken_off() {
        let (time, line) = stamped("2026-11-27T22:00:00.123456789Z #1 [a 1/2] RUN x");
        assert_eq!(line, "#1 [a 1/2] RUN x");
        assert_eq!(time.unwrap().subsec_nanosecond(), 123_456_789);
        assert_eq!(stamped("2026-11-27T22:00:00.1Z ").1, "");
        assert_eq!(stamped("2026-11-27T22:00:00.1Z").1, "");
        assert_eq!(stamped("no time here"), (None, "no time here"));
    }
}
