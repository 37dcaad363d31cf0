//! The embedded cluster, the images, and what the end-to-end tests stand on.
//!
//! A real Kubernetes on one machine, from Go modules alone: no Docker, no virtual machine, no download of a binary.
//!
//! ```text
//!  machine (its own network namespace)                     node = network namespace slipway-NAME-K
//! ┌───────────────────────────────────────────┐  bridge   ┌────────────────────────────────────────┐
//! │ etcd ◀─ kube-apiserver ◀─ controller-mgr  │  swbI     │ containerd ─▶ shims ─▶ pods 10.P.K.0/24 │
//! │            172.30.I.1  ◀─ scheduler       │◀─ veth ──▶│ kubelet      172.30.I.(K+1)             │
//! │ CoreDNS :53   registry :5000   local-path │           │ kube-proxy (nftables of that namespace) │
//! └───────────────────────────────────────────┘           └────────────────────────────────────────┘
//!  cgroups:  /slipway-NAME/system (every program)   /slipway-NAME/node-K/kubepods (every pod)
//!  files:    $SLIPWAY_STATE/NAME (all state, logs)  $SLIPWAY_CACHE/tools (programs, kept)
//! ```
//!
//! Each node lives in a network namespace of its own, the first one too: the machine's firewall, sysctls and service
//! rules stay untouched, two clusters run side by side, and deleting the namespace deletes every rule in it.
//!
//! What this crate may not do: be depended on by anything that ships. It may use `anyhow`, since its errors are read by
//! people only; every other room has typed errors.

pub mod base;
pub mod binfmt;
pub mod cgroup;
pub mod cluster;
pub mod command;
pub mod config;
pub mod demo;
pub mod foreign;
pub mod images;
pub mod install;
pub mod network;
pub mod oci;
pub mod packages;
pub mod pki;
pub mod preflight;
pub mod process;
pub mod registry;
pub mod scenario;
pub mod servers;
pub mod tools;
pub mod wait;
pub mod yaml;
