//! `SOURCE_DATE_EPOCH`: the time that the image and its history get.

use super::{Fallible, Planner};

const NAME: &str = "SOURCE_DATE_EPOCH";

impl Planner<'_> {
    /// Reads the epoch from the build argument or the global `ARG`'s default: a number of seconds, or the name of a source
    /// whose time it is to be. A source without a time gives none. From then on the argument is the number.
    pub(super) fn resolve_epoch(&mut self) -> Fallible<()> {
        let value = match self.args.get(NAME) {
            Some(value) => value.clone(),
            None => match self.globals.value(NAME) {
                Some(value) if !value.is_empty() => value.to_owned(),
                _ => return Ok(()),
            },
        };
        self.epoch = if value.is_empty() {
            None
        } else if let Ok(seconds) = value.parse::<i64>() {
            Some(seconds)
        } else {
            let is_stage = self
                .file
                .stages
                .iter()
                .filter_map(|stage| stage.name.as_deref())
                .any(|name| name.eq_ignore_ascii_case(&value));
            if value != "context" && !self.contexts.contains_key(&value) && !is_stage {
                let span = self
                    .file
                    .global_args
                    .first()
                    .map(|instruction| instruction.span)
                    .unwrap_or_default();
                let mut error = self.error("epoch", format!("invalid {NAME}: {value}"), span);
                if self.args.contains_key(NAME) {
                    (error.span, error.excerpt) = (None, Vec::new());
                }
                return Err(Box::new(error.advise(
                    "Give seconds since 1970, \"context\", or the name of a named context or stage.",
                )));
            }
            self.request.source_times.get(&value).copied()
        };
        let resolved = self.epoch.map(|seconds| seconds.to_string());
        if self.args.contains_key(NAME) {
            match &resolved {
                Some(seconds) => self.args.insert(NAME.to_owned(), seconds.clone()),
                None => self.args.remove(NAME),
            };
        }
        if self.globals.value(NAME).is_some() {
            match &resolved {
                Some(seconds) => self.globals.set(NAME, seconds),
                None => self.globals.remove(NAME),
            }
        }
        Ok(())
    }
}
