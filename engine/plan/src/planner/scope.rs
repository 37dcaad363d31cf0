//! Variables: what the global scope holds, and lists of variables in the order in which they were set.

use super::{Fallible, Planner};
use crate::model::PROXIES;
use slipway_dockerfile::{InstructionKind, expand::Env};
use std::collections::{BTreeMap, BTreeSet};

/// Variables in the order of their last setting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Vars(Vec<(String, String)>);

impl Vars {
    pub(super) fn set(&mut self, name: &str, value: &str) {
        self.remove(name);
        self.0.push((name.to_owned(), value.to_owned()));
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.0.retain(|(key, _)| key != name);
    }

    pub(super) fn value(&self, name: &str) -> Option<&str> {
        self.0
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(key, _)| key.as_str())
    }

    /// `NAME=value` for each.
    pub(super) fn to_list(&self) -> Vec<String> {
        self.0
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect()
    }
}

impl Env for Vars {
    fn get(&self, name: &str) -> Option<&str> {
        self.value(name)
    }
}

/// A global `ARG`, for the outline.
#[derive(Debug, Clone, Default)]
pub(super) struct GlobalArg {
    pub(super) value: String,
    pub(super) doc: String,
    pub(super) line: u32,
    /// The variables that its default uses.
    pub(super) uses: BTreeSet<String>,
}

/// Variables that steer the builder and never are in a step's environment.
pub(super) const NOT_IN_ENVIRONMENT: [&str; 2] = ["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"];

impl Planner<'_> {
    /// The arguments that are there without an `ARG`: the platforms and the target stage.
    pub(super) fn predefined(&self) -> Vars {
        let (build, target) = (&self.request.build_platform, &self.target);
        let stage = self.request.target.clone().unwrap_or_else(|| {
            self.file
                .stages
                .last()
                .and_then(|stage| stage.name.clone())
                .unwrap_or_else(|| "default".to_owned())
        });
        let stage = if stage.is_empty() {
            "default".to_owned()
        } else {
            stage
        };
        // FormatAll writes the version of the system too, Format does not; the build platform gets the short form.
        let build_name = slipway_oci::Platform {
            os_version: None,
            os_features: Vec::new(),
            ..build.clone()
        };
        let or_empty = |text: &Option<String>| text.clone().unwrap_or_default();
        let mut vars = Vars::default();
        for (name, value) in [
            ("BUILDPLATFORM", build_name.to_string()),
            ("BUILDOS", build.os.clone()),
            ("BUILDOSVERSION", or_empty(&build.os_version)),
            ("BUILDARCH", build.architecture.clone()),
            ("BUILDVARIANT", or_empty(&build.variant)),
            ("TARGETPLATFORM", target.to_string()),
            ("TARGETOS", target.os.clone()),
            ("TARGETOSVERSION", or_empty(&target.os_version)),
            ("TARGETARCH", target.architecture.clone()),
            ("TARGETVARIANT", or_empty(&target.variant)),
            ("TARGETSTAGE", stage),
        ] {
            let value = self.args.get(name).cloned().unwrap_or(value);
            vars.set(name, &value);
        }
        vars
    }

    /// The predefined arguments and the global `ARG`s on top of them. `args` wins over defaults.
    pub(super) fn global_scope(
        &self,
        predefined: Vars,
        args: &BTreeMap<String, String>,
    ) -> Fallible<(Vars, BTreeMap<String, GlobalArg>)> {
        let mut vars = predefined;
        let mut declared: BTreeMap<String, GlobalArg> = BTreeMap::new();
        for instruction in &self.file.global_args {
            let InstructionKind::Arg(declarations) = &instruction.kind else {
                continue;
            };
            for declaration in declarations {
                let name = &declaration.name.text;
                let mut global = GlobalArg {
                    doc: declaration.doc.clone(),
                    line: instruction.span.first_line,
                    ..GlobalArg::default()
                };
                let value = match (args.get(name), &declaration.default) {
                    (Some(given), _) => Some(given.clone()),
                    (None, Some(default)) => {
                        let expansion = self
                            .lexer
                            .process(&default.text, &vars)
                            .map_err(|error| self.error("expansion", error.to_string(), instruction.span))?;
                        global.uses = expansion.matched;
                        if global.uses.remove(name)
                            && let Some(old) = declared.get(name)
                        {
                            global.uses.extend(old.uses.iter().cloned());
                        }
                        Some(expansion.text)
                    }
                    (None, None) => None,
                };
                if let Some(value) = value {
                    vars.set(name, &value);
                    global.value = value;
                }
                declared.insert(name.clone(), global);
            }
        }
        Ok((vars, declared))
    }

    /// The proxy variables of the build arguments, in both cases, as every `RUN` gets them.
    pub(super) fn proxy_env(&self) -> Vec<String> {
        let mut found: BTreeMap<&str, &str> = BTreeMap::new();
        for (name, value) in &self.args {
            if let Some(proxy) = PROXIES.iter().find(|proxy| name.eq_ignore_ascii_case(proxy)) {
                found.insert(proxy, value);
            }
        }
        found
            .into_iter()
            .filter(|(_, value)| !value.is_empty())
            .flat_map(|(name, value)| {
                [
                    format!("{}={value}", name.to_uppercase()),
                    format!("{name}={value}"),
                ]
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_moves_to_the_end_when_it_is_set_again() {
        let mut vars = Vars::default();
        for (name, value) in [("A", "1"), ("B", "2"), ("A", "3")] {
            vars.set(name, value);
        }
        assert_eq!(vars.to_list(), ["B=2", "A=3"]);
        vars.remove("B");
        assert_eq!(vars.names().collect::<Vec<_>>(), ["A"]);
        assert_eq!((vars.value("A"), Env::get(&vars, "C")), (Some("3"), None));
    }
}
