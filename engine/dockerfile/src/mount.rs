//! The values of `RUN --mount`.

use serde::{Deserialize, Serialize};

use crate::{csv, distance, expand::ExpandError, units};

/// One mount of a `RUN`. Absent means not written; planning applies the defaults that depend on the stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mount {
    /// `type`
    pub kind: MountKind,
    /// `from`
    pub from: Option<String>,
    /// `source`, `src`
    pub source: Option<String>,
    /// `target`, `dst`, `destination`
    pub target: Option<String>,
    /// `readonly`, `ro`, `rw`, or the type's default.
    pub readonly: bool,
    /// `size` of a tmpfs, bytes.
    pub size: Option<i64>,
    /// `id` of a cache, secret or ssh mount.
    pub id: Option<String>,
    /// `sharing` of a cache.
    pub sharing: Option<Sharing>,
    /// `required` of a secret or ssh mount.
    pub required: bool,
    /// `env` of a secret.
    pub env: Option<String>,
    /// `mode`
    pub mode: Option<u32>,
    /// `uid`
    pub uid: Option<u32>,
    /// `gid`
    pub gid: Option<u32>,
}

/// `type` of a mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MountKind {
    /// Files of the context, a stage or an image.
    Bind,
    /// A directory that outlives the build.
    Cache,
    /// Memory.
    Tmpfs,
    /// A secret as a file or a variable.
    Secret,
    /// An SSH agent's socket.
    Ssh,
}

/// `sharing` of a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sharing {
    /// Several steps at once.
    #[default]
    Shared,
    /// A second step gets a fresh directory.
    Private,
    /// A second step waits.
    Locked,
}

/// Why a mount cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MountError {
    /// Not what BuildKit takes either.
    #[error("{0}")]
    Invalid(String),
    /// A variable in it cannot be expanded.
    #[error(transparent)]
    Expand(#[from] ExpandError),
}

/// Expands one option's value.
pub type Expander<'a> = dyn FnMut(&str) -> Result<String, ExpandError> + 'a;

/// The keys that a mount may have, for suggestions.
const KEYS: [&str; 19] = [
    "type",
    "from",
    "source",
    "target",
    "readonly",
    "id",
    "sharing",
    "required",
    "size",
    "mode",
    "uid",
    "gid",
    "env",
    "src",
    "dst",
    "destination",
    "ro",
    "rw",
    "readwrite",
];

/// Looks at a mount before variables are known: only its form and `from`, which may not hold any.
pub fn check(value: &str) -> Result<(), MountError> {
    for field in fields(value)? {
        if let Some((key, value)) = field.split_once('=')
            && key.eq_ignore_ascii_case("from")
            && value.find('$').is_some_and(|at| at + 1 < value.len())
        {
            return Err(invalid(format!(
                "'{}' doesn't support variable expansion, define alias stage instead",
                key.to_lowercase()
            )));
        }
    }
    Ok(())
}

/// Reads the value of one `--mount`, option by option from left to right; `expand` is applied to each value. An option
/// is judged by the type that stands to its left, so `type` has to come first.
pub fn parse(value: &str, expand: &mut Expander<'_>) -> Result<Mount, MountError> {
    let mut mount = Mount {
        kind: MountKind::Bind,
        from: None,
        source: None,
        target: None,
        readonly: true,
        size: None,
        id: None,
        sharing: None,
        required: false,
        env: None,
        mode: None,
        uid: None,
        gid: None,
    };
    let mut readonly = None;
    for field in fields(value)? {
        let Some((key, value)) = field.split_once('=') else {
            match field.to_lowercase().as_str() {
                "readonly" | "ro" => readonly = Some(true),
                "readwrite" | "rw" => readonly = Some(false),
                "required" if matches!(mount.kind, MountKind::Secret | MountKind::Ssh) => {
                    mount.required = true;
                }
                key @ "required" => return Err(unexpected(key, mount.kind)),
                _ => {
                    return Err(invalid(format!(
                        "invalid field '{field}' must be a key=value pair"
                    )));
                }
            }
            continue;
        };
        let key = key.to_lowercase();
        let value = expand(value)?;
        option(&mut mount, &mut readonly, &field, &key, value)?;
    }
    validate(&mount)?;
    // Empty is the same as not written, but has to count as written above.
    for text in [
        &mut mount.from,
        &mut mount.source,
        &mut mount.target,
        &mut mount.id,
    ] {
        *text = text.take().filter(|text| !text.is_empty());
    }
    mount.readonly = readonly.unwrap_or(!matches!(mount.kind, MountKind::Cache | MountKind::Tmpfs));
    Ok(mount)
}

fn option(
    mount: &mut Mount,
    readonly: &mut Option<bool>,
    field: &str,
    key: &str,
    value: String,
) -> Result<(), MountError> {
    let boolean = |value: &str| {
        units::boolean(value).ok_or_else(|| invalid(format!("invalid value for {key}: {value}")))
    };
    match key {
        "type" => mount.kind = kind(&value)?,
        "from" => mount.from = Some(value),
        "source" | "src" => mount.source = Some(value),
        "target" | "dst" | "destination" => mount.target = Some(value),
        "readonly" | "ro" => *readonly = Some(boolean(&value)?),
        "readwrite" | "rw" => *readonly = Some(!boolean(&value)?),
        "required" if matches!(mount.kind, MountKind::Secret | MountKind::Ssh) => {
            mount.required = boolean(&value)?;
        }
        "size" if mount.kind == MountKind::Tmpfs => {
            let size = units::memory(&value);
            mount.size = Some(size.ok_or_else(|| invalid(format!("invalid value for {key}: {value}")))?);
        }
        "env" if mount.kind == MountKind::Secret => mount.env = Some(value),
        "required" | "size" | "env" => return Err(unexpected(key, mount.kind)),
        "id" => mount.id = Some(value),
        "sharing" => mount.sharing = Some(sharing(&value)?),
        "mode" => mount.mode = Some(number(key, &value, 8)?),
        "uid" => mount.uid = Some(number(key, &value, 10)?),
        "gid" => mount.gid = Some(number(key, &value, 10)?),
        _ => {
            let near = distance::suggestion(distance::closest(key, KEYS));
            return Err(invalid(format!("unexpected key '{key}' in '{field}'{near}")));
        }
    }
    Ok(())
}

fn validate(mount: &Mount) -> Result<(), MountError> {
    let kind = mount.kind;
    if matches!(kind, MountKind::Bind | MountKind::Tmpfs) {
        for (key, set) in [
            ("mode", mount.mode.is_some()),
            ("uid", mount.uid.is_some()),
            ("gid", mount.gid.is_some()),
        ] {
            if set {
                return Err(invalid(format!("{key} not allowed for \"{kind}\" type mounts")));
            }
        }
    }
    let given = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    if kind == MountKind::Secret {
        if given(&mount.from) {
            return Err(invalid("secret mount should not have a from"));
        }
        if mount.sharing.is_some() {
            return Err(invalid("secret mount should not define sharing"));
        }
        if !given(&mount.source) && !given(&mount.target) && !given(&mount.id) {
            return Err(invalid("invalid secret mount. one of source, target required"));
        }
        if given(&mount.source) && given(&mount.id) {
            return Err(invalid("both source and id can't be set"));
        }
    }
    if mount.sharing.is_some() && kind != MountKind::Cache {
        return Err(invalid(format!("invalid cache sharing set for {kind} mount")));
    }
    Ok(())
}

fn fields(value: &str) -> Result<Vec<String>, MountError> {
    csv::fields(value).map_err(|error| invalid(format!("failed to parse csv mounts: {error}")))
}

fn kind(value: &str) -> Result<MountKind, MountError> {
    const KINDS: [MountKind; 5] = [
        MountKind::Bind,
        MountKind::Cache,
        MountKind::Secret,
        MountKind::Ssh,
        MountKind::Tmpfs,
    ];
    let wanted = value.to_lowercase();
    KINDS
        .into_iter()
        .find(|kind| kind.name() == wanted)
        .ok_or_else(|| {
            let near = distance::suggestion(distance::closest(value, KINDS.map(MountKind::name)));
            invalid(format!("unsupported mount type {value:?}{near}"))
        })
}

fn sharing(value: &str) -> Result<Sharing, MountError> {
    match value.to_lowercase().as_str() {
        "shared" => Ok(Sharing::Shared),
        "private" => Ok(Sharing::Private),
        "locked" => Ok(Sharing::Locked),
        _ => {
            let near = distance::suggestion(distance::closest(value, ["locked", "private", "shared"]));
            Err(invalid(format!("unsupported sharing value {value:?}{near}")))
        }
    }
}

fn number(key: &str, value: &str, radix: u32) -> Result<u32, MountError> {
    // `from_str_radix` takes a sign, which has no place here.
    let digits = !value.starts_with(['+', '-']);
    u32::from_str_radix(value, radix)
        .ok()
        .filter(|_| digits)
        .ok_or_else(|| invalid(format!("invalid value {value} for {key}")))
}

fn unexpected(key: &str, kind: MountKind) -> MountError {
    invalid(format!("unexpected key '{key}' for mount type '{kind}'"))
}

fn invalid(message: impl Into<String>) -> MountError {
    MountError::Invalid(message.into())
}

impl MountKind {
    /// As it is written.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Bind => "bind",
            Self::Cache => "cache",
            Self::Tmpfs => "tmpfs",
            Self::Secret => "secret",
            Self::Ssh => "ssh",
        }
    }
}

impl std::fmt::Display for MountKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}
