//! Medians, ratios, and whether what was to be reached is.

use std::fmt::{self, Write as _};

use serde_json::json;

use crate::workloads::{Kind, Workload};

/// One workload, one kind.
pub(crate) struct Row {
    name: String,
    kind: Kind,
    theirs: Vec<f64>,
    ours: Vec<f64>,
    goal: f64,
}

/// The one in the middle; of an even number the mean of the two.
fn median(times: &[f64]) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let half = sorted.len() / 2;
    match sorted.len() % 2 {
        _ if sorted.is_empty() => f64::NAN,
        0 => f64::midpoint(sorted[half - 1], sorted[half]),
        _ => sorted[half],
    }
}

impl Row {
    pub(crate) fn new(
        variant: &str,
        workload: &Workload,
        kind: Kind,
        theirs: Vec<f64>,
        ours: Vec<f64>,
    ) -> Self {
        let name = if variant.is_empty() {
            workload.name.to_owned()
        } else {
            format!("{} {variant}", workload.name)
        };
        Self {
            name,
            kind,
            theirs,
            ours,
            goal: workload.goal(kind, variant),
        }
    }

    fn ratio(&self) -> f64 {
        median(&self.ours) / median(&self.theirs)
    }

    fn met(&self) -> bool {
        self.ratio() <= self.goal
    }

    fn cells(&self) -> [String; 7] {
        [
            self.name.clone(),
            self.kind.name().to_owned(),
            format!("{:.2}", median(&self.theirs)),
            format!("{:.2}", median(&self.ours)),
            format!("{:.2}", self.ratio()),
            format!("{:.2}", self.goal),
            if self.met() { "met" } else { "missed" }.to_owned(),
        ]
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [name, kind, theirs, ours, ratio, goal, met] = self.cells();
        write!(
            f,
            "{name:<16} {kind:<6} BuildKit {theirs:>7} s  Slipway {ours:>7} s  ratio {ratio:>5} (at most {goal})  {met}"
        )
    }
}

/// All rows of a run.
pub(crate) struct Report {
    rows: Vec<Row>,
}

impl Report {
    pub(crate) fn new() -> Self {
        Self { rows: Vec::new() }
    }

    pub(crate) fn add(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(crate) fn all_met(&self) -> bool {
        self.rows.iter().all(Row::met)
    }

    /// For the terminal, with the count at its end.
    pub(crate) fn table(&self) -> String {
        let mut text = String::from("\n");
        for row in &self.rows {
            let _ = writeln!(text, "{row}");
        }
        let met = self.rows.iter().filter(|row| row.met()).count();
        let _ = write!(text, "{met} met, {} missed", self.rows.len() - met);
        text
    }

    /// For `docs/performance.md`.
    pub(crate) fn markdown(&self) -> String {
        let mut text = String::from(
            "| workload | kind | BuildKit, s | Slipway, s | ratio | at most | |\n|---|---|--:|--:|--:|--:|---|\n",
        );
        for row in &self.rows {
            let _ = writeln!(text, "| {} |", row.cells().join(" | "));
        }
        text
    }

    /// All times.
    pub(crate) fn json(&self) -> String {
        let rows: Vec<_> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "workload": row.name, "kind": row.kind.name(), "buildkit": row.theirs, "slipway": row.ours,
                    "ratio": row.ratio(), "goal": row.goal, "met": row.met(),
                })
            })
            .collect();
        json!(rows).to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workloads::ALL;

    #[test]
    fn the_middle_counts() {
        assert!((median(&[9.0, 1.0, 2.0]) - 2.0).abs() < 1e-9);
        assert!((median(&[1.0, 3.0]) - 2.0).abs() < 1e-9);
    }

    #[test]
    fn a_row_says_whether_its_goal_is_met() {
        let row = |ours: f64| Row::new("zstd", &ALL[5], Kind::Cold, vec![10.0], vec![ours]);
        assert!(row(3.4).met() && !row(3.6).met());
        assert!(row(3.4).to_string().contains("biglayer zstd") && row(3.6).to_string().ends_with("missed"));
    }
}
