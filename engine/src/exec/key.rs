//! What of an operation decides its result, in a form that can be hashed.

use crate::{
    copy::Request,
    error::{BuildError, Result},
};
use slipway_plan::{CopySource, Mount, Op, RunOp, Source, protocol::FailureReason};

/// The operation without what does not decide the result (proxies) and without what is hashed by content (sources).
pub(super) fn normalised(op: &Op) -> Result<Vec<u8>> {
    let mut op = op.clone();
    match &mut op {
        Op::Run(run) => {
            run.proxy_env.clear();
            for mount in &mut run.mounts {
                if let Mount::Bind { source, .. } | Mount::Cache { source, .. } = mount {
                    *source = Source::Scratch;
                }
            }
        }
        Op::Copy(copy) => {
            for source in &mut copy.sources {
                // A file that was downloaded is named by its path; where it came from does not show in the result.
                source.source = Source::Scratch;
            }
        }
        Op::Metadata | Op::Mkdir(_) => {}
    }
    serde_json::to_vec(&op)
        .map_err(|error| BuildError::new(FailureReason::Internal, format!("failed to hash a step: {error}")))
}

/// Every source that an operation reads, with the part of it that it reads.
pub(crate) fn reads(op: &Op) -> Vec<(&Source, Request<'_>)> {
    match op {
        Op::Metadata | Op::Mkdir(_) => Vec::new(),
        Op::Copy(copy) => copy
            .sources
            .iter()
            .map(|source| (&source.source, request(source, &copy.exclude)))
            .collect(),
        Op::Run(run) => mounts(run),
    }
}

fn mounts(run: &RunOp) -> Vec<(&Source, Request<'_>)> {
    let path = |path| Request {
        path,
        follow: true,
        ..Request::default()
    };
    run.mounts
        .iter()
        .filter_map(|mount| match mount {
            Mount::Bind {
                source, path: from, ..
            } => Some((source, path(from.as_str()))),
            Mount::Cache {
                source, path: from, ..
            } if *source != Source::Scratch => Some((source, path(from.as_str()))),
            _ => None,
        })
        .collect()
}

/// What a source of a copy selects.
pub(crate) fn request<'a>(source: &'a CopySource, exclude: &'a [String]) -> Request<'a> {
    Request {
        path: &source.path,
        wildcard: source.wildcard,
        follow: source.follow,
        include: source.include.as_deref(),
        required: source.required.as_deref(),
        exclude,
    }
}
