//! One build step in namespaces of its own.
//!
//! ```text
//!  builder (many threads)                  helper (one thread)                    the step (PID 1 of its namespace)
//!  ──────────────────────                  ───────────────────                    ────────────────────────────────
//!  Step ── socket: JSON ──────────────────▶ unshare(mount, cgroup, net?)
//!  Running ◀─ pipes: stdout, stderr ──────── libcontainer: pid, ipc, uts, mounts ──▶ argv
//!     │                                      wait for: step ends │ socket closes
//!     └──── kill(), or the builder dies: the socket closes ───▶ SIGKILL ──────────▶ the whole tree ends
//!  Exit ◀── socket: JSON ──────────────────── code, signal, out of memory
//! ```
//!
//! * [`init`] is the first line of every `main` that builds; the helper is this same program, started again.
//! * [`enter`] gives the builder a mount namespace, and an ordinary user a user namespace.
//! * [`Overlay`] mounts layers; [`Step`] says what to run in it; [`spawn`] runs it.
//! * [`hold`] mounts the root of a step that has failed for a person, who looks at it through [`enter_held`].
//! * [`emulation`] has programs of other architectures run.
//! * [`passwd`] finds users and groups inside an image; [`probe`] tells what this machine or pod permits.
//!
//! The room knows no Dockerfile, no image and no registry, and keeps nothing between steps. It is the only one in the
//! project that may contain unsafe code, and has it in one place ([`unshare`](rustix::thread::unshare_unsafe), while
//! the process has a single thread).

pub mod emulation;
mod enter;
mod error;
mod exit;
mod helper;
mod hold;
mod ids;
mod mount_point;
mod overlay;
pub mod passwd;
mod probe;
mod running;
mod step;
mod stubs;
mod sys;

pub use enter::{IdRange, Identity, enter};
pub use error::Error;
pub use exit::Exit;
pub use helper::init;
pub use hold::{enter_held, hold};
pub use overlay::{Overlay, OverlaySpec};
pub use probe::{Probe, probe};
pub use running::{Killer, Running, spawn};
pub use step::{DEFAULT_HOSTNAME, Mount, MountKind, Network, SecretBytes, Security, Step, Ulimit, User};
