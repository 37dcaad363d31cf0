//! `--network=none`: an empty network namespace with its loopback interface up.

use std::io;

use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, netlink::SocketAddrNetlink, recv, sendto,
    socket_with,
};

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

/// Brings the loopback interface of the current network namespace up.
pub(super) fn loopback_up() -> io::Result<()> {
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
