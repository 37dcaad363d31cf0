//! The bridge between machine and nodes, and each node's network namespace.

use std::{fs, net::Ipv4Addr, path::Path};

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::{
    command,
    config::{Layout, Spec},
};

fn ip(args: &[&str]) -> Result<String> {
    command::output(command::find("ip").context("the command ip is missing")?, args)
}

/// The lowest index whose addresses and bridge nobody on this machine uses.
///
/// # Errors
/// When all are taken: the message says by what the last one is.
pub fn free_index() -> Result<u8> {
    let mut taken = Vec::new();
    for (what, args) in [
        ("address", ["-j", "-4", "addr", "show"].as_slice()),
        ("route", &["-j", "-4", "route", "show", "table", "all"]),
    ] {
        let list: Value = serde_json::from_str(&ip(args)?).unwrap_or_default();
        taken.extend(ranges(&list).into_iter().map(|r| (what, r)));
    }
    let mut reason = String::new();
    for index in 0..=100_u8 {
        let wanted = [
            (Ipv4Addr::new(172, 30, index, 0), 24),
            (Ipv4Addr::new(10, 244 - index, 0, 0), 16),
        ];
        let clash = taken
            .iter()
            .find(|(_, range)| wanted.iter().any(|w| overlap(*w, *range)));
        if let Some((what, (address, bits))) = clash {
            reason = format!("{what} {address}/{bits}");
        } else if Path::new(&format!("/sys/class/net/swb{index}")).exists() {
            reason = format!("bridge swb{index}");
        } else {
            return Ok(index);
        }
    }
    bail!(
        "no free address range in 172.30.0.0/16 and 10.144-244.0.0/16 for the cluster: taken, last by {reason}"
    )
}

/// The ranges in the JSON of `ip addr` or `ip route`; the default route is none.
fn ranges(list: &Value) -> Vec<(Ipv4Addr, u32)> {
    let mut found = Vec::new();
    for entry in list.as_array().into_iter().flatten() {
        for address in entry["addr_info"].as_array().into_iter().flatten() {
            if let (Some(Ok(ip)), Some(bits)) = (
                address["local"].as_str().map(str::parse),
                address["prefixlen"].as_u64(),
            ) {
                found.push((ip, bits as u32));
            }
        }
        let Some(dst) = entry["dst"].as_str() else {
            continue;
        };
        let (ip, bits) = dst.split_once('/').unwrap_or((dst, "32"));
        if let (Ok(ip), Ok(bits)) = (ip.parse(), bits.parse()) {
            found.push((ip, bits));
        }
    }
    // A route as wide as "everything" clashes with nothing in particular.
    found.retain(|(_, bits)| *bits > 1);
    found
}

fn overlap((a, a_bits): (Ipv4Addr, u32), (b, b_bits): (Ipv4Addr, u32)) -> bool {
    let shift = 32 - a_bits.min(b_bits);
    u64::from(a.to_bits()) >> shift == u64::from(b.to_bits()) >> shift
}

/// Creates what is missing of the machine's side: the bridge, and with `internet` the way out.
pub fn ensure_bridge(layout: &Layout, spec: &Spec) -> Result<()> {
    let bridge = spec.bridge();
    if !Path::new("/sys/class/net").join(&bridge).exists() {
        ip(&["link", "add", &bridge, "type", "bridge"])?;
    }
    ip(&["addr", "replace", &format!("{}/24", spec.host()), "dev", &bridge])?;
    ip(&["link", "set", &bridge, "up"])?;
    if spec.internet {
        write_sysctl("net.ipv4.ip_forward", "1")?;
        let (pods, nodes) = (spec.pod_range(), spec.node_range());
        let inside = format!("{{ {pods}, {nodes} }}");
        let table = format!(
            "table ip {name}\ndelete table ip {name}\ntable ip {name} {{ chain out {{ \
             type nat hook postrouting priority srcnat; ip saddr {inside} ip daddr != {inside} masquerade; }} }}\n",
            name = layout.cgroup()
        );
        command::with_input(
            command::find("nft").context("the command nft is missing")?,
            &["-f", "-"],
            &table,
        )?;
    }
    Ok(())
}

/// Creates what is missing of node `number`'s namespace, its link to the bridge and the routes to its pods.
pub fn ensure_node(layout: &Layout, spec: &Spec, number: u8) -> Result<()> {
    let name = layout.node(number).name;
    let link = link(spec, number);
    let inside = format!("/run/netns/{name}");
    let known = ip(&["netns", "list"])?
        .lines()
        .any(|l| l.split(' ').next() == Some(&name));
    if !known {
        // A file that is no mounted namespace is what a crash in the middle leaves.
        let _ = fs::remove_file(&inside);
        ip(&["netns", "add", &name])?;
    }
    if !ip(&["-n", &name, "-o", "link", "show"])?.contains(" eth0@") {
        let _ = ip(&["link", "del", &link]);
        ip(&[
            "link", "add", &link, "type", "veth", "peer", "name", "eth0", "netns", &name,
        ])?;
    }
    ip(&["link", "set", &link, "master", &spec.bridge(), "up"])?;
    ip(&["-n", &name, "link", "set", "lo", "up"])?;
    ip(&[
        "-n",
        &name,
        "addr",
        "replace",
        &format!("{}/24", spec.node_address(number)),
        "dev",
        "eth0",
    ])?;
    ip(&["-n", &name, "link", "set", "eth0", "up"])?;
    ip(&[
        "-n",
        &name,
        "route",
        "replace",
        "default",
        "via",
        &spec.host().to_string(),
    ])?;
    // Pods of a node speak to each other and to the machine through it.
    ip(&[
        "netns",
        "exec",
        &name,
        "sh",
        "-c",
        "echo 1 > /proc/sys/net/ipv4/ip_forward",
    ])?;

    let via = spec.node_address(number).to_string();
    let pods = spec.node_pod_range(number);
    ip(&["route", "replace", &pods, "via", &via, "dev", &spec.bridge()])?;
    for other in (1..=spec.nodes).filter(|o| *o != number) {
        let other_name = layout.node(other).name;
        if Path::new("/run/netns").join(&other_name).exists() {
            ip(&["-n", &other_name, "route", "replace", &pods, "via", &via])?;
            let other_pods = spec.node_pod_range(other);
            ip(&[
                "-n",
                &name,
                "route",
                "replace",
                &other_pods,
                "via",
                &spec.node_address(other).to_string(),
            ])?;
        }
    }
    Ok(())
}

/// Deletes everything that [`ensure_bridge`] and [`ensure_node`] made.
pub fn remove(layout: &Layout, spec: Option<&Spec>) -> Result<()> {
    let prefix = format!("slipway-{}-", layout.name);
    for entry in fs::read_dir("/run/netns").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if name
            .strip_prefix(&prefix)
            .is_some_and(|n| n.parse::<u8>().is_ok())
        {
            ip(&["netns", "del", &name])?;
        }
    }
    // `ip netns` mounts this folder on itself at its first use, and makes it anew when it is needed again.
    if fs::read_dir("/run/netns").is_ok_and(|mut names| names.next().is_none()) {
        let _ = rustix::mount::unmount("/run/netns", rustix::mount::UnmountFlags::empty());
        let _ = fs::remove_dir("/run/netns");
    }
    let Some(spec) = spec else { return Ok(()) };
    for number in 1..=spec.nodes {
        // The kernel deletes a dead namespace's links a little later; do not leave the bridge with them till then.
        let _ = ip(&["link", "del", &link(spec, number)]);
    }
    if Path::new("/sys/class/net").join(spec.bridge()).exists() {
        ip(&["link", "del", &spec.bridge()])?;
    }
    if spec.internet {
        let nft = command::find("nft").context("the command nft is missing")?;
        command::succeeds(nft, &["delete", "table", "ip", &layout.cgroup()]);
    }
    Ok(())
}

fn link(spec: &Spec, number: u8) -> String {
    format!("swv{}-{number}", spec.index)
}

/// Reads a kernel setting of the machine.
pub fn read_sysctl(name: &str) -> Option<String> {
    fs::read_to_string(sysctl_file(name))
        .ok()
        .map(|s| s.trim().to_owned())
}

/// Sets a kernel setting of the machine.
pub fn write_sysctl(name: &str, value: &str) -> Result<()> {
    fs::write(sysctl_file(name), value).with_context(|| format!("failed to set {name} to {value}"))
}

fn sysctl_file(name: &str) -> String {
    format!("/proc/sys/{}", name.replace('.', "/"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_overlap_when_one_holds_the_other() {
        let range = |text: &str| {
            let (ip, bits) = text.split_once('/').unwrap();
            (ip.parse().unwrap(), bits.parse().unwrap())
        };
        assert!(overlap(range("172.30.0.0/24"), range("172.16.0.0/12")));
        assert!(overlap(range("10.244.3.7/32"), range("10.244.0.0/16")));
        assert!(!overlap(range("172.30.0.0/24"), range("172.30.1.0/24")));
    }

    #[test]
    fn addresses_and_routes_are_read_but_the_default_route() {
        let list = serde_json::json!([
            {"addr_info": [{"local": "192.0.2.2", "prefixlen": 24}]},
            {"dst": "default"}, {"dst": "10.1.0.0/16"}, {"dst": "10.9.9.9"},
        ]);
        let found: Vec<String> = ranges(&list).iter().map(|(a, b)| format!("{a}/{b}")).collect();
        assert_eq!(found, ["192.0.2.2/24", "10.1.0.0/16", "10.9.9.9/32"]);
    }
}
