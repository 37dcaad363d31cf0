//! Prints what became of the cases.

use std::{collections::BTreeMap, fmt::Write as _};

use crate::run::Report;

/// Lines of a failed build's output that are shown.
const TAIL: usize = 25;

/// A failed or skipped case, readable; nothing for one that holds.
pub(crate) fn describe(report: &Report) -> Option<String> {
    let mut text = String::new();
    if let Some(why) = &report.skipped {
        let _ = writeln!(text, "SKIP {} [{}]: {why}", report.id, report.area);
        return Some(text);
    }
    if report.failures.is_empty() {
        return None;
    }
    let _ = writeln!(
        text,
        "FAIL {} [{}] ({:.1} s)",
        report.id,
        report.area,
        report.took.as_secs_f64()
    );
    for failure in &report.failures {
        for (at, line) in failure.lines().enumerate() {
            let _ = writeln!(text, "  {}{line}", if at == 0 { "- " } else { "  " });
        }
    }
    let lines: Vec<&str> = report.log.lines().collect();
    for line in &lines[lines.len().saturating_sub(TAIL)..] {
        let _ = writeln!(text, "      | {line}");
    }
    if let Some(kept) = &report.kept {
        let _ = writeln!(text, "  kept in {}", kept.display());
    }
    Some(text)
}

/// The table by area and the last line.
pub(crate) fn summary(reports: &[Report]) -> String {
    let mut areas: BTreeMap<&str, [usize; 3]> = BTreeMap::new();
    let mut total = [0; 3];
    for report in reports {
        let column = usize::from(!report.failures.is_empty()) + 2 * usize::from(report.skipped.is_some());
        areas.entry(&report.area).or_default()[column] += 1;
        total[column] += 1;
    }
    let mut text = format!("{:<16} passed failed skipped\n", "area");
    for (area, [passed, failed, skipped]) in areas {
        let _ = writeln!(text, "{area:<16} {passed:>6} {failed:>6} {skipped:>7}");
    }
    let [passed, failed, skipped] = total;
    let _ = write!(text, "{passed} passed, {failed} failed");
    if skipped > 0 {
        let _ = write!(text, ", {skipped} skipped");
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn report(id: &str, failures: &[&str], skipped: Option<&str>) -> Report {
        Report {
            id: id.to_owned(),
            area: "RUN".to_owned(),
            failures: failures.iter().map(|text| (*text).to_owned()).collect(),
            skipped: skipped.map(str::to_owned),
            log: "line\n".repeat(100),
            took: Duration::ZERO,
            kept: None,
        }
    }

    #[test]
    fn the_last_line_counts() {
        let reports = [
            report("a", &[], None),
            report("b", &["x: expected 1, got 2"], None),
        ];
        assert_eq!(summary(&reports).lines().last(), Some("1 passed, 1 failed"));
        let reports = [report("a", &[], None), report("c", &[], Some("no root"))];
        assert_eq!(
            summary(&reports).lines().last(),
            Some("1 passed, 0 failed, 1 skipped")
        );
    }

    #[test]
    fn a_failure_shows_its_reasons_and_the_end_of_the_output() {
        assert_eq!(describe(&report("a", &[], None)), None);
        let text = describe(&report("b", &["x: expected 1,\ngot 2"], None)).unwrap();
        assert!(
            text.starts_with("FAIL b [RUN]") && text.contains("  - x: expected 1,\n    got 2\n"),
            "{text}"
        );
        assert_eq!(text.matches("| line").count(), TAIL);
    }
}
