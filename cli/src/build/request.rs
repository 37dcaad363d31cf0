//! Flags into the plan request and the offers of a build.

use super::sources::Sources;
use crate::{csv::fields, options::BuildOptions};
use anyhow::{Context as _, Result, anyhow, bail};
use slipway_dockerfile::Dockerfile;
use slipway_engine::driver::Offers;
use slipway_oci::Platform;
use slipway_plan::{Entitlements, HostEntry, Network, PlanRequest, Ulimit, protocol::NoCache};
use std::{collections::BTreeMap, env, fs, path::Path, sync::Arc};
use zeroize::Zeroizing;

/// Build arguments that are taken over from the environment as they are everywhere else.
const PROXIES: [&str; 10] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "FTP_PROXY",
    "ftp_proxy",
    "NO_PROXY",
    "no_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// The plan's request.
pub(super) fn plan_request(
    options: &BuildOptions,
    sources: &Sources,
    dockerfile: Dockerfile,
) -> Result<PlanRequest> {
    let mut request = PlanRequest::new(dockerfile, Platform::host());
    request.platforms = options
        .platform
        .iter()
        .map(|text| {
            text.parse()
                .map_err(|error| anyhow!("invalid platform {text:?}: {error}"))
        })
        .collect::<Result<_>>()?;
    request.target.clone_from(&options.target);
    request.args = arguments(options);
    request.labels = pairs(&options.labels, "label")?;
    request.contexts.clone_from(&sources.contexts);
    request.no_cache = if options.no_cache {
        NoCache::All
    } else if options.no_cache_filter.is_empty() {
        NoCache::No
    } else {
        NoCache::Stages(options.no_cache_filter.clone())
    };
    let mut allow = Entitlements::default();
    for entitlement in &options.allow {
        match entitlement.as_str() {
            "network.host" => allow.network_host = true,
            "security.insecure" => allow.security_insecure = true,
            other => bail!("entitlement {other:?}: network.host or security.insecure is expected"),
        }
    }
    request.allow = allow;
    request.network = match options.network.as_deref() {
        None | Some("default" | "") => Network::Default,
        Some("none") => Network::None,
        Some("host") => Network::Host,
        Some(other) => bail!("network {other:?}: default, none or host is expected"),
    };
    request.hostname.clone_from(&options.hostname);
    request.add_hosts = options
        .add_hosts
        .iter()
        .map(|text| host(text))
        .collect::<Result<_>>()?;
    request.shm_size = options.shm_size.as_deref().map(size).transpose()?;
    request.ulimits = options
        .ulimits
        .iter()
        .map(|text| ulimit(text))
        .collect::<Result<_>>()?;
    request.ignore.clone_from(&sources.ignore);
    request.source_times.clone_from(&sources.times);
    Ok(request)
}

fn arguments(options: &BuildOptions) -> BTreeMap<String, String> {
    let mut arguments = BTreeMap::new();
    for name in PROXIES {
        if let Ok(value) = env::var(name) {
            arguments.insert(name.to_owned(), value);
        }
    }
    if let Ok(epoch) = env::var("SOURCE_DATE_EPOCH") {
        arguments.insert("SOURCE_DATE_EPOCH".to_owned(), epoch);
    }
    for text in &options.build_args {
        match text.split_once('=') {
            Some((name, value)) => {
                arguments.insert(name.to_owned(), value.to_owned());
            }
            None => {
                if let Ok(value) = env::var(text) {
                    arguments.insert(text.clone(), value);
                }
            }
        }
    }
    arguments
}

fn pairs(texts: &[String], what: &str) -> Result<BTreeMap<String, String>> {
    let pair = |text: &String| match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        None if !text.is_empty() => Ok((text.clone(), String::new())),
        _ => Err(anyhow!("{what} {text:?} is not KEY=VALUE")),
    };
    texts.iter().map(pair).collect()
}

fn host(text: &str) -> Result<HostEntry> {
    // `name=ip` too: an IPv6 address has colons of its own.
    let (host, ip) = text
        .split_once('=')
        .or_else(|| text.split_once(':'))
        .unwrap_or((text, ""));
    let ip = ip.trim_start_matches('[').trim_end_matches(']');
    if host.is_empty() || ip.parse::<std::net::IpAddr>().is_err() {
        bail!("--add-host {text:?} is not NAME:IP");
    }
    Ok(HostEntry {
        host: host.into(),
        ip: ip.into(),
    })
}

fn size(text: &str) -> Result<u64> {
    let lower = text.trim().to_lowercase();
    let digits = lower.trim_end_matches(|c: char| !c.is_ascii_digit());
    let factor: u64 = match lower[digits.len()..].trim() {
        "" | "b" => 1,
        "k" | "kb" | "kib" => 1 << 10,
        "m" | "mb" | "mib" => 1 << 20,
        "g" | "gb" | "gib" => 1 << 30,
        _ => bail!("size {text:?}: bytes, or a number with k, m or g is expected"),
    };
    let number: u64 = digits.parse().with_context(|| format!("size {text:?}"))?;
    number
        .checked_mul(factor)
        .with_context(|| format!("size {text:?} is too large"))
}

fn ulimit(text: &str) -> Result<Ulimit> {
    let wrong = || anyhow!("--ulimit {text:?} is not NAME=SOFT[:HARD]");
    let (name, limits) = text.split_once('=').ok_or_else(wrong)?;
    let (soft, hard) = limits.split_once(':').unwrap_or((limits, limits));
    let number = |text: &str| {
        if text == "unlimited" {
            Ok(-1)
        } else {
            text.parse().map_err(|_| wrong())
        }
    };
    Ok(Ulimit {
        name: name.to_lowercase(),
        soft: number(soft)?,
        hard: number(hard)?,
    })
}

/// `--secret`.
pub(super) fn secrets(options: &BuildOptions, offers: &mut Offers) -> Result<()> {
    for spec in &options.secrets {
        let (mut id, mut src, mut variable, mut kind) = (None, None, None, None);
        for (key, value) in fields(spec).map_err(anyhow::Error::msg)? {
            let value = value.with_context(|| format!("--secret {spec:?}: {key:?} has no value"))?;
            match key.as_str() {
                "id" => id = Some(value),
                "src" | "source" => src = Some(value),
                "env" => variable = Some(value),
                "type" => kind = Some(value),
                other => bail!("--secret {spec:?}: {other:?} is not known; id, src, env or type is expected"),
            }
        }
        let id = id.with_context(|| format!("--secret {spec:?} has no id=ID"))?;
        let value = match (kind.as_deref(), src, variable) {
            (Some("env"), source, variable) => {
                let name = variable.or(source).unwrap_or_else(|| id.clone());
                env::var(&name)
                    .with_context(|| format!("secret {id}: variable {name}"))?
                    .into_bytes()
            }
            (_, Some(path), _) => {
                fs::read(&path).with_context(|| format!("secret {id}: failed to read {path}"))?
            }
            (_, None, Some(name)) => env::var(&name)
                .with_context(|| format!("secret {id}: variable {name}"))?
                .into_bytes(),
            // As buildx: a file of the id's name, or a variable of it.
            (_, None, None) => match env::var(&id) {
                Ok(value) => value.into_bytes(),
                Err(_) => {
                    fs::read(Path::new(&id)).with_context(|| format!("secret {id}: failed to read {id}"))?
                }
            },
        };
        offers.secrets.insert(id, Arc::new(Zeroizing::new(value)));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_hosts_and_limits_are_read() {
        assert_eq!(size("128m").unwrap(), 134_217_728);
        assert_eq!(size("134217728").unwrap(), 134_217_728);
        assert!(size("12q").is_err());
        assert_eq!(host("a:10.1.2.3").unwrap().ip, "10.1.2.3");
        assert_eq!(host("a=[::1]").unwrap().ip, "::1");
        assert!(host("a").is_err());
        let limit = ulimit("nofile=1024:2048").unwrap();
        assert_eq!((limit.soft, limit.hard), (1024, 2048));
    }
}
