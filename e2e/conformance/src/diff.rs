//! The differential test: random valid Dockerfiles and contexts, built by BuildKit and by us, compared in all that a
//! user can see. The same seed gives the same cases; a difference is printed with its seed, made small.

mod compare;
mod copy;
mod generate;
mod inputs;
mod instructions;
mod random;
mod run;

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs,
    path::Path,
    sync::{
        Mutex, RwLock,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use self::{
    compare::{Built, differences},
    generate::Recipe,
};
use crate::{
    case::{Case, NoCache},
    run::Runner,
};

/// A case whose two results differ.
struct Found {
    seed: u64,
    differences: Vec<String>,
    case: Value,
}

/// The two builders and what to do with them.
pub(crate) struct Diff<'a> {
    pub(crate) ours: &'a Runner<'a>,
    pub(crate) theirs: &'a Runner<'a>,
    pub(crate) seed: u64,
    pub(crate) count: u64,
    pub(crate) jobs: usize,
    /// Held for writing while a difference is looked into: then nothing else is built.
    pub(crate) alone: RwLock<()>,
}

impl Diff<'_> {
    /// Builds all cases with both; gives whether there was no difference.
    pub(crate) fn run(&self) -> Result<bool> {
        let (next, found, refused) = (
            AtomicU64::new(0),
            Mutex::new(Vec::new()),
            Mutex::new(BTreeMap::new()),
        );
        thread::scope(|scope| {
            for _ in 0..self.jobs.max(1) {
                scope.spawn(|| {
                    loop {
                        let at = next.fetch_add(1, Ordering::SeqCst);
                        if at >= self.count {
                            break;
                        }
                        let seed = self.seed + at;
                        match self.one(seed) {
                            Ok((None, None)) => {}
                            Ok((None, Some(why))) => {
                                if let Ok(mut refused) = refused.lock() {
                                    *refused.entry(why).or_insert(0_u64) += 1;
                                }
                            }
                            Ok((Some(one), _)) => {
                                print(&one);
                                if let Ok(mut found) = found.lock() {
                                    found.push(one);
                                }
                            }
                            Err(error) => {
                                eprintln!("seed {seed}: {error:#}");
                                if let Ok(mut found) = found.lock() {
                                    found.push(Found {
                                        seed,
                                        differences: vec![error.to_string()],
                                        case: json!({}),
                                    });
                                }
                            }
                        }
                    }
                });
            }
        });
        let found = found
            .into_inner()
            .ok()
            .context("a thread of the differential test died")?;
        let seeds: Vec<u64> = found.iter().map(|found| found.seed).collect();
        let refused = refused
            .into_inner()
            .ok()
            .context("a thread of the differential test died")?;
        println!(
            "{} cases from seed {}; both refused {}",
            self.count,
            self.seed,
            refused.values().sum::<u64>()
        );
        for (why, count) in refused {
            println!("  {count} × {why}");
        }
        if !seeds.is_empty() {
            println!("seeds with a difference: {seeds:?}");
        }
        println!(
            "{} alike, {} different",
            self.count - found.len() as u64,
            found.len()
        );
        Ok(found.is_empty())
    }

    /// One seed: the difference, made small; or why both builders refused the case, if they did.
    fn one(&self, seed: u64) -> Result<(Option<Found>, Option<String>)> {
        let mut recipe = generate::recipe(seed);
        let name = format!("seed{seed}");
        {
            let _beside_others = self.alone.read();
            let (differences, failed) = self.compare(&recipe, &name, false)?;
            if differences.is_empty() {
                return Ok((None, failed));
            }
        }
        let _alone = self.alone.write();
        let (mut differences, failed) = self.compare(&recipe, &name, true)?;
        if differences.is_empty() {
            return Ok((None, failed));
        }
        // Take away one piece at a time for as long as the same kind of difference stays.
        let kind = kind_of(&differences);
        let mut at = 0;
        while at < recipe.len() {
            let smaller = recipe.without(at);
            match self.compare(&smaller, &name, true) {
                Ok((fewer, _)) if !fewer.is_empty() && kind_of(&fewer) == kind => {
                    recipe = smaller;
                    differences = fewer;
                }
                _ => at += 1,
            }
        }
        Ok((
            Some(Found {
                seed,
                differences,
                case: recipe.case(seed),
            }),
            None,
        ))
    }

    /// Builds with both. `anew` without what the builders know of earlier cases.
    fn compare(&self, recipe: &Recipe, name: &str, anew: bool) -> Result<(Vec<String>, Option<String>)> {
        let mut case =
            Case::parse(&recipe.case(0).to_string()).context("the generator made no valid case")?;
        if anew {
            case.first.no_cache = Some(NoCache::All(true));
            self.ours.builder.forget()?;
            self.theirs.builder.forget()?;
        }
        let ours = Built::of(self.ours, &case, &self.ours.work.join(format!("{name}-ours")))?;
        let theirs = Built::of(
            self.theirs,
            &case,
            &self.theirs.work.join(format!("{name}-theirs")),
        )?;
        let refused = (!ours.success && !theirs.success).then(|| theirs.reason());
        let result = (differences(&theirs, &ours), refused);
        if !self.ours.keep {
            for end in ["ours", "theirs"] {
                remove(&self.ours.work.join(format!("{name}-{end}")));
            }
        }
        Ok(result)
    }
}

fn remove(path: &Path) {
    let _ = fs::remove_dir_all(path);
}

/// What the first difference is about, without its details.
fn kind_of(differences: &[String]) -> String {
    let first = differences.first().map(String::as_str).unwrap_or_default();
    first
        .split(':')
        .next()
        .unwrap_or_default()
        .split_whitespace()
        .next()
        .unwrap_or_default()
        .to_owned()
}

fn print(found: &Found) {
    let mut text = format!("DIFFERENT seed {}\n", found.seed);
    for line in found.differences.iter().take(12) {
        let _ = writeln!(text, "  - {line}");
    }
    for line in found.case["dockerfile"].as_str().unwrap_or_default().lines() {
        let _ = writeln!(text, "      | {line}");
    }
    let _ = writeln!(text, "  case: {}", found.case);
    print!("{text}");
}
