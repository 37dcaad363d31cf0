//! `--network=none`: an empty network namespace with its loopback interface up.

use std::{
    fs,
    io::{self, BufRead, BufReader, Write},
    os::fd::AsFd,
    process::Stdio,
};

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink, recv, sendto,
    socket_with,
};
use rustix::thread::{LinkNameSpaceType, UnshareFlags, move_into_link_name_space};

use super::Task;
use crate::sys;

/// Length of a netlink header and of an `ifinfomsg` (linux/netlink.h, linux/rtnetlink.h).
const HEADER: usize = 16;
const IFINFO: usize = 16;
/// Protocol 0 of the family, which is `None` in this interface.
const NETLINK_ROUTE: Option<rustix::net::Protocol> = None;
const RTM_NEWLINK: u16 = 16;
const NLM_F_REQUEST_ACK: u16 = 1 | 4;
const IFF_UP: u32 = 1;
/// The loopback interface is the first of every network namespace.
const LOOPBACK: i32 = 1;

/// Bit of CAP_NET_ADMIN.
const NET_ADMIN: u32 = 12;

/// Moves this process into an empty network namespace with a loopback interface that works.
///
/// Bringing it up needs CAP_NET_ADMIN in the user namespace that owns the network, which a pod's capabilities do not
/// include. So without it a helper makes the network in a user namespace of its own, where it may do everything, and this
/// process joins it: the owner of a user namespace may.
pub(super) fn leave() -> io::Result<()> {
    if sys::capabilities("CapEff") >> NET_ADMIN & 1 == 1 {
        sys::unshare(UnshareFlags::NEWNET)?;
        return loopback_up();
    }
    let mut maker = Task::Network
        .command()
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut answer = String::new();
    if let Some(output) = maker.stdout.take() {
        BufReader::new(output).read_line(&mut answer)?;
    }
    let joined = if answer == READY {
        fs::File::open(format!("/proc/{}/ns/net", maker.id())).and_then(|network| {
            Ok(move_into_link_name_space(
                network.as_fd(),
                Some(LinkNameSpaceType::Network),
            )?)
        })
    } else {
        Err(io::Error::other(answer.trim().to_owned()))
    };
    // The end of its input tells it to go; the namespace stays with this process.
    drop(maker.stdin.take());
    maker.wait()?;
    joined
}

const READY: &str = "ready\n";

/// Entry of the helper that makes a network: says when it is there, and stays until told to go.
pub(super) fn main() -> i32 {
    let made = sys::unshare(UnshareFlags::NEWUSER | UnshareFlags::NEWNET).and_then(|()| loopback_up());
    let answer = match &made {
        Ok(()) => READY.to_owned(),
        Err(error) => format!("{error}\n"),
    };
    let written = io::stdout().write_all(answer.as_bytes());
    let _ = io::copy(&mut io::stdin(), &mut io::sink());
    i32::from(made.is_err() || written.is_err())
}

/// Brings the loopback interface of the current network namespace up.
fn loopback_up() -> io::Result<()> {
    let socket = socket_with(
        AddressFamily::NETLINK,
        SocketType::RAW,
        SocketFlags::CLOEXEC,
        NETLINK_ROUTE,
    )?;
    let mut message = [0u8; HEADER + IFINFO];
    message[0..4].copy_from_slice(&((HEADER + IFINFO) as u32).to_ne_bytes());
    message[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
    message[6..8].copy_from_slice(&NLM_F_REQUEST_ACK.to_ne_bytes());
    message[HEADER + 4..HEADER + 8].copy_from_slice(&LOOPBACK.to_ne_bytes());
    message[HEADER + 8..HEADER + 12].copy_from_slice(&IFF_UP.to_ne_bytes());
    message[HEADER + 12..HEADER + 16].copy_from_slice(&IFF_UP.to_ne_bytes());
    sendto(
        &socket,
        &message,
        SendFlags::empty(),
        &SocketAddrNetlink::new(0, 0),
    )?;
    let mut answer = [0u8; 4096];
    let (n, _) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    // An answer of type NLMSG_ERROR with the errno, 0 for success.
    if n < HEADER + 4 {
        return Err(io::Error::other("a short answer from netlink"));
    }
    let errno = i32::from_ne_bytes([
        answer[HEADER],
        answer[HEADER + 1],
        answer[HEADER + 2],
        answer[HEADER + 3],
    ]);
    if errno == 0 {
        Ok(())
    } else {
        Err(io::Error::from_raw_os_error(-errno))
    }
}
