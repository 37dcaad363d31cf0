//! What a pod's container may do, by the chart's `isolation.mode`. The operator never goes from one mode to another by itself.

use k8s_openapi::api::core::v1::{AppArmorProfile, Capabilities, Pod, SecurityContext};

use crate::config::IsolationMode;

/// The capabilities of a runner. They act inside the pod's user namespace only: on the node the pod's root is nobody.
const CAPABILITIES: [&str; 14] = [
    // Mounts the overlay of a step, its /proc and /dev.
    "SYS_ADMIN",
    // Enters the step's root: seccomp's RuntimeDefault refuses pivot_root.
    "SYS_CHROOT",
    // Makes whiteouts (a character device 0/0) in an overlay.
    "MKNOD",
    // Gives files the owners that an image or COPY --chown says.
    "CHOWN",
    // Reads and writes files of owners other than root in a layer.
    "DAC_OVERRIDE",
    // Sets modes, times and attributes of files of other owners.
    "FOWNER",
    // Keeps setuid and setgid bits when a file of another owner is written.
    "FSETID",
    // USER, and su and the like in a RUN.
    "SETUID",
    // The same for groups.
    "SETGID",
    // Layers hold files with capabilities (ping).
    "SETFCAP",
    // Takes capabilities away from a step.
    "SETPCAP",
    // Stops a step's processes of other users.
    "KILL",
    // Programs like useradd and sudo write audit records and fail if they may not.
    "AUDIT_WRITE",
    // Tests in a RUN bind ports below 1024, as they can under Docker.
    "NET_BIND_SERVICE",
];

/// The value of `hostUsers`.
pub(super) const fn host_users(mode: IsolationMode) -> Option<bool> {
    match mode {
        // Root in the pod is nobody on the node: what escapes from a step has no rights there.
        IsolationMode::UserNamespace => Some(false),
        IsolationMode::Privileged => None,
    }
}

/// Whether the API server has kept the user namespace that was asked for. One that does not know the field, or a webhook,
/// drops it in silence, and the pod's capabilities would then be those of the node.
pub fn keeps_user_namespace(asked: &Pod, got: &Pod) -> bool {
    let of = |pod: &Pod| pod.spec.as_ref().and_then(|spec| spec.host_users);
    of(asked) != Some(false) || of(got) == Some(false)
}

/// The security settings of the container.
pub(super) fn security() -> SecurityContext {
    SecurityContext {
        privileged: Some(false),
        // Root of the pod's user namespace, not of the node: steps need owners other than their own.
        run_as_user: Some(0),
        run_as_group: Some(0),
        // The image's files cannot be changed by what comes out of a step; the store and /tmp are volumes.
        read_only_root_filesystem: Some(true),
        // With false every step would inherit no_new_privs, and sudo, su and ping fail in a RUN. Inside a user
        // namespace setuid programs gain nothing on the node.
        allow_privilege_escalation: Some(true),
        capabilities: Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: Some(CAPABILITIES.map(ToOwned::to_owned).to_vec()),
        }),
        // The default AppArmor profile refuses mounts, also inside a user namespace. Means nothing on nodes without it.
        app_armor_profile: Some(AppArmorProfile {
            type_: "Unconfined".to_owned(),
            localhost_profile: None,
        }),
        ..SecurityContext::default()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::PodSpec;

    use super::*;

    #[test]
    fn a_user_namespace_that_was_dropped_is_noticed() {
        let pod = |host_users| Pod {
            spec: Some(PodSpec {
                host_users,
                ..PodSpec::default()
            }),
            ..Pod::default()
        };
        for (asked, got, kept) in [
            (Some(false), Some(false), true),
            (Some(false), None, false),
            (Some(false), Some(true), false),
            (None, None, true),
        ] {
            assert_eq!(
                keeps_user_namespace(&pod(asked), &pod(got)),
                kept,
                "{asked:?} {got:?}"
            );
        }
    }
}
