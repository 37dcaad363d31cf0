//! The CEL rules, as constants beside each other so that their wording stays alike: field, what is wrong, what to do.
//!
//! The API server bounds the cost of a rule by the bounds of the schema: every list and text that a rule walks has one.

/// One source.
pub(crate) const ONE_SOURCE: (&str, &str) = (
    "[has(self.configMap)].exists_one(given, given)",
    "spec.source: give exactly one source; this version has configMap, for example source: {configMap: {name: my-files}}",
);
/// A source, or a Dockerfile that needs none.
pub(crate) const SOURCE_OR_INLINE: (&str, &str) = (
    "has(self.source) || has(self.dockerfile.inline)",
    "spec.source: is required unless spec.dockerfile.inline holds the Dockerfile; add source.configMap or dockerfile.inline",
);
/// Path or text of the Dockerfile.
pub(crate) const PATH_XOR_INLINE: (&str, &str) = (
    "has(self.path) != has(self.inline)",
    "spec.dockerfile: give either path (a file of the source) or inline (the text itself), not both and not neither",
);
/// A path that stays in the source.
pub(crate) const DOCKERFILE_PATH: (&str, &str) = (
    "!self.startsWith('/') && self.split('/').all(part, part != '..')",
    "spec.dockerfile.path: must be relative and stay in the source; write Dockerfile or dir/Dockerfile, without a leading / and without ..",
);
/// A path that stays in the source.
pub(crate) const ITEM_PATH: (&str, &str) = (
    "!self.startsWith('/') && self.split('/').all(part, part != '..')",
    "spec.source.configMap.items[].path: must be relative and stay in the source; remove the leading / and every ..",
);
/// Platforms that a runner can build for.
pub(crate) const PLATFORMS: (&str, &str) = (
    "self.all(p, p.matches('^linux/(386|amd64(/v[1-4])?|arm(/v[5-8])?|arm64(/v[89](\\\\.[0-9])?)?|loong64|mips64le|ppc64le|riscv64|s390x)$'))",
    "spec.platforms: each must be linux/ARCHITECTURE with an optional variant, for example linux/amd64, linux/arm64 or linux/arm/v7",
);
/// Names of stages.
pub(crate) const GATES: (&str, &str) = (
    "self.all(gate, gate.matches('^[A-Za-z][A-Za-z0-9_.-]*$'))",
    "spec.gates: each must be the name of a stage as in FROM ... AS name: a letter, then letters, digits, _, - and .; give the stage a name if it has none",
);
/// No digest in a name to push to.
pub(crate) const IMAGES_NO_DIGEST: (&str, &str) = (
    "self.all(image, !image.contains('@'))",
    "spec.output.images: a digest cannot be chosen, it follows from the content; replace @sha256:... by a tag, for example registry.example.com/team/app:1.4",
);
/// Names to push to.
pub(crate) const IMAGES: (&str, &str) = (
    "self.all(image, image.contains('@') || image.matches('^([a-zA-Z0-9.-]+(:[0-9]{1,5})?/)?[a-z0-9]+((\\\\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\\\\.|_|__|-+)[a-z0-9]+)*)*:[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$'))",
    "spec.output.images: each must be REGISTRY/REPOSITORY:TAG with the repository in lower case, for example registry.example.com/team/app:1.4",
);
/// Keys of annotations.
pub(crate) const ANNOTATIONS: (&str, &str) = (
    "self.all(key, key.size() > 0 && key.size() <= 256)",
    "spec.output.annotations: a key must have 1 to 256 characters, for example org.opencontainers.image.source",
);
/// A repository.
pub(crate) const CACHE_REPOSITORY: (&str, &str) = (
    "self.matches('^([a-zA-Z0-9.-]+(:[0-9]{1,5})?/)?[a-z0-9]+((\\\\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\\\\.|_|__|-+)[a-z0-9]+)*)*$')",
    "spec.cache.repository: must be REGISTRY/REPOSITORY in lower case without tag and digest, for example registry.example.com/team/app/cache",
);
/// Repositories to read from.
pub(crate) const CACHE_FROM: (&str, &str) = (
    "self.all(name, name.matches('^([a-zA-Z0-9.-]+(:[0-9]{1,5})?/)?[a-z0-9]+((\\\\.|_|__|-+)[a-z0-9]+)*(/[a-z0-9]+((\\\\.|_|__|-+)[a-z0-9]+)*)*$'))",
    "spec.cache.from: each must be REGISTRY/REPOSITORY in lower case without tag and digest, for example registry.example.com/team/app/cache",
);
/// A scope becomes a part of tags.
pub(crate) const CACHE_SCOPE: (&str, &str) = (
    "self.matches('^[a-z0-9]([a-z0-9-]*[a-z0-9])?$')",
    "spec.cache.scope: must be lower case letters, digits and -, and neither begin nor end with -, for example pr-17",
);
/// All stages or some.
pub(crate) const NO_CACHE_ONCE: (&str, &str) = (
    "!(has(self.noCache) && self.noCache && has(self.noCacheStages) && size(self.noCacheStages) > 0)",
    "spec.cache: give either noCache: true (all stages) or noCacheStages (some), not both",
);
/// An amount of storage.
pub(crate) const CACHE_MOUNT_SIZE: (&str, &str) = (
    "self.matches('^[0-9]+([.][0-9]+)?(Ki|Mi|Gi|Ti|Pi|k|M|G|T|P)?$') && self.matches('[1-9]')",
    "spec.cache.mounts.size: must be an amount of storage greater than 0, for example 500Mi or 10Gi",
);
/// The name of a class.
pub(crate) const STORAGE_CLASS: (&str, &str) = (
    "self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?([.][a-z0-9]([-a-z0-9]*[a-z0-9])?)*$')",
    "spec.cache.mounts.storageClassName: must be the name of a StorageClass, as kubectl get storageclasses shows it; leave it out for the cluster's default",
);
/// Names of arguments.
pub(crate) const ARG_NAME: (&str, &str) = (
    "self.matches('^[A-Za-z_][A-Za-z0-9_]*$')",
    "spec.args[].name: must be the name of an ARG: letters, digits and _, not beginning with a digit",
);
/// One value.
pub(crate) const ARG_VALUE: (&str, &str) = (
    "has(self.value) != has(self.valueFrom)",
    "spec.args[]: give either value or valueFrom, not both and not neither; a secret belongs into spec.secrets, never into an argument",
);
/// Ids become file names.
pub(crate) const SECRET_ID: (&str, &str) = (
    "self.matches('^[A-Za-z0-9_][A-Za-z0-9_.-]*$')",
    "spec.secrets[].id: must be letters, digits, _, - and . and not begin with - or ., as in RUN --mount=type=secret,id=npm_token",
);
/// Unique ids.
pub(crate) const SECRET_IDS: (&str, &str) = (
    "self.all(a, self.exists_one(b, b.id == a.id))",
    "spec.secrets: each id may stand once; rename or remove the second secret with the same id",
);
/// A length of time.
pub(crate) const TIMEOUT: (&str, &str) = (
    "self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && self != '' && duration(self) >= duration('1s') && duration(self) <= duration('168h')",
    "spec.timeout: must be a length of time between 1s and 168h, for example 90s, 30m or 1h30m",
);
/// How long to hold.
pub(crate) const HOLD_FAILED: (&str, &str) = (
    "self.matches('^([0-9]+h)?([0-9]+m)?([0-9]+s)?$') && self != '' && duration(self) >= duration('1s') && duration(self) <= duration('24h')",
    "spec.debug.holdFailed: must be a length of time between 1s and 24h, for example 15m; leave it out to hold nothing",
);
/// A factor above 1 with two decimals.
pub(crate) const RETRY_MEMORY_FACTOR: (&str, &str) = (
    "self.matches('^(1\\\\.([0-9]?[1-9]|[1-9]0)|[23](\\\\.[0-9]{1,2})?|4(\\\\.00?)?)$')",
    "spec.retryMemoryFactor: must be a factor above 1 and up to 4 with at most two decimals, in quotes, for example \"1.5\"; leave it out to try again with the same memory",
);
/// Names of environment variables.
pub(crate) const ENV_NAME: (&str, &str) = (
    "self.matches('^[A-Za-z_][A-Za-z0-9_]*$')",
    "spec.pods.env[].name: must be the name of a variable: letters, digits and _, not beginning with a digit",
);
/// A group's name is fit for a label value.
pub(crate) const CONCURRENCY_GROUP: (&str, &str) = (
    "self.matches('^[A-Za-z0-9]([A-Za-z0-9_.-]*[A-Za-z0-9])?$')",
    "spec.concurrency.group: must be letters, digits, -, _ and . and begin and end with a letter or digit, for example shop or feature-login",
);
/// Labels of pods that are ours.
pub(crate) const POD_LABELS: (&str, &str) = (
    "self.all(key, !key.startsWith('slipway.build/') && !key.startsWith('cache.slipway.build/') && !key.startsWith('app.kubernetes.io/'))",
    "spec.pods.labels and spec.pods.stages.*.labels: the prefixes slipway.build/, cache.slipway.build/ and app.kubernetes.io/ belong to the operator; choose another prefix",
);
