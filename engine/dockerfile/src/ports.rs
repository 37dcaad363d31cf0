//! One word of `EXPOSE`, after expansion.
//!
//! Address and host port are accepted for old files' sake and have no effect; [`Spec::is_mapping`] lets a lint say so.

use std::net::IpAddr;

/// A container port, written `80/tcp`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Port {
    /// Its number.
    pub number: u16,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
}

impl std::fmt::Display for Port {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.number, self.protocol)
    }
}

/// Why a word is not a port.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason} in EXPOSE {spec:?}")]
pub struct PortError {
    /// The word.
    pub spec: String,
    /// What is wrong with it.
    pub reason: String,
}

/// The parts of a word, not yet judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spec<'a> {
    /// The address in front, or empty.
    pub address: &'a str,
    /// The host's port or range, or empty.
    pub host: &'a str,
    /// The container's port or range.
    pub container: &'a str,
    /// The protocol as written; `tcp` when none is.
    pub protocol: &'a str,
}

impl<'a> Spec<'a> {
    /// Takes a word apart: `[address:][host:]container[/protocol]`.
    pub fn split(word: &'a str) -> Self {
        let (front, last) = word.rsplit_once(':').unwrap_or(("", word));
        let (address, host) = front.rsplit_once(':').unwrap_or(("", front));
        let (container, protocol) = last.split_once('/').unwrap_or((last, ""));
        let protocol = if protocol.is_empty() { "tcp" } else { protocol };
        Self {
            address,
            host,
            container,
            protocol,
        }
    }

    /// Whether there is more than the container's port.
    pub fn is_mapping(self) -> bool {
        !self.address.is_empty() || !self.host.is_empty()
    }
}

/// Reads one word: a port or a range, with an optional protocol; host parts are accepted and dropped.
pub fn parse(word: &str) -> Result<Vec<Port>, PortError> {
    let fail = |reason: String| PortError {
        spec: word.to_owned(),
        reason,
    };
    let Spec {
        address,
        host,
        container,
        protocol,
    } = Spec::split(word);
    if container.is_empty() {
        return Err(fail("no port specified".to_owned()));
    }
    let protocol = protocol.to_lowercase();
    if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
        return Err(fail(format!("invalid proto: {protocol}")));
    }
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(address);
    if !bare.is_empty() && bare.parse::<IpAddr>().is_err() {
        return Err(fail(format!("invalid IP address: {address}")));
    }
    let (first, last) =
        range(container).ok_or_else(|| fail(format!("invalid containerPort: {container}")))?;
    if !host.is_empty() {
        let (host_first, host_last) = range(host).ok_or_else(|| fail(format!("invalid hostPort: {host}")))?;
        if first != last && last - first != host_last - host_first {
            let reason =
                format!("invalid ranges specified for container and host Ports: {container} and {host}");
            return Err(fail(reason));
        }
    }
    Ok((first..=last)
        .map(|number| Port {
            number,
            protocol: protocol.clone(),
        })
        .collect())
}

fn range(text: &str) -> Option<(u16, u16)> {
    let number = |text: &str| -> Option<u16> {
        text.bytes()
            .all(|digit| digit.is_ascii_digit())
            .then(|| text.parse().ok())?
    };
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first)?, number(last)?),
        None => (number(text)?, number(text)?),
    };
    (first <= last).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Case {
        input: String,
        expect: Expect,
    }

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Expect {
        Ports(Vec<String>),
        Error(String),
    }

    #[test]
    fn ports_are_read_as_recorded() {
        let cases: Vec<Case> = crate::testdata::cases("expose.json");
        assert_eq!(cases.len(), 24);
        for case in cases {
            let got = parse(&case.input).map(|ports| ports.iter().map(Port::to_string).collect::<Vec<_>>());
            match case.expect {
                Expect::Ports(want) => assert_eq!(got, Ok(want), "{}", case.input),
                Expect::Error(word) => assert!(word == "error" && got.is_err(), "{}: {got:?}", case.input),
            }
        }
    }

    #[test]
    fn an_error_names_the_part() {
        assert!(
            parse("abc")
                .unwrap_err()
                .to_string()
                .contains("invalid containerPort: abc")
        );
        assert!(
            parse("80/foo")
                .unwrap_err()
                .to_string()
                .contains("invalid proto: foo")
        );
    }
}
