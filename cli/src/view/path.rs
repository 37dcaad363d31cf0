//! The critical path: the chain of stages that decided when the build ended.

use jiff::{SignedDuration, Timestamp};

/// When a stage ran, and which stages it reads from.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ran {
    /// When its first pod was created; none for a stage that needed no pod or has not begun.
    pub from: Option<Timestamp>,
    /// When it ended; none while it runs.
    pub to: Option<Timestamp>,
    /// Places of the stages that it reads from.
    pub needs: Vec<usize>,
}

/// A part of the critical path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// The stage's place.
    pub stage: usize,
    /// By how much it moved the end: from the end of the part before it to its own.
    pub took: SignedDuration,
}

/// The stages that decided the end, first to last: from the one that ended last (or still runs), each time the one that
/// ended last among those it reads from. `began` is when the first of them could have begun. What a stage does before it
/// reads from another is not known here, so a stage that waited for nothing may have another before it on the path.
pub fn critical_path(stages: &[Ran], began: Timestamp, now: Timestamp) -> Vec<Part> {
    let end = |stage: usize| {
        let ran = stages.get(stage)?;
        ran.from.map(|_| ran.to.unwrap_or(now))
    };
    // Of two that still run, the one that has run longer.
    let rank = |stage: usize| {
        let ran = stages.get(stage)?;
        let running_from = if ran.to.is_none() { ran.from } else { None };
        Some((end(stage)?, std::cmp::Reverse(running_from), stage))
    };
    let last_of = |places: &mut dyn Iterator<Item = usize>| {
        let last = places.filter_map(rank).max();
        last.map(|(ended, _, stage)| (ended, stage))
    };
    let mut path = Vec::new();
    let mut next = last_of(&mut (0..stages.len()));
    while let Some((ended, stage)) = next {
        path.push((stage, ended));
        // A plan's stages come after those that they need; a status that says otherwise must not loop.
        let before = &mut stages[stage].needs.iter().copied().filter(|need| *need < stage);
        next = last_of(before);
    }
    path.reverse();
    let mut last = began;
    path.into_iter()
        .map(|(stage, ended)| {
            let took = ended.duration_since(last).max(SignedDuration::ZERO);
            last = last.max(ended);
            Part { stage, took }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_000_000 + second).unwrap()
    }

    fn ran(from: i64, to: i64, needs: &[usize]) -> Ran {
        Ran {
            from: Some(at(from)),
            to: (to >= 0).then(|| at(to)),
            needs: needs.to_vec(),
        }
    }

    fn path(stages: &[Ran], now: i64) -> Vec<(usize, i64)> {
        critical_path(stages, at(1), at(now))
            .into_iter()
            .map(|part| (part.stage, part.took.as_secs()))
            .collect()
    }

    #[test]
    fn it_goes_through_what_ended_last() {
        let cached = Ran::default();
        // base ─▶ build (long), lint (short) ─▶ final
        let diamond = [
            ran(1, 4, &[]),
            ran(4, 20, &[0]),
            ran(4, 6, &[0]),
            ran(20, 22, &[1, 2]),
        ];
        assert_eq!(path(&diamond, 30), [(0, 3), (1, 16), (3, 2)]);
        // Two that are independent: the later one alone.
        assert_eq!(path(&[ran(1, 9, &[]), ran(1, 5, &[])], 30), [(0, 8)]);
        // What was cached took no time.
        assert_eq!(path(&[cached.clone(), ran(2, 5, &[0])], 30), [(1, 4)]);
        // One that still runs is the last, and those that wait do not count.
        let waiting = Ran {
            needs: vec![1],
            ..Ran::default()
        };
        assert_eq!(
            path(&[ran(1, 4, &[]), ran(4, -1, &[0]), waiting], 30),
            [(0, 3), (1, 26)]
        );
        assert_eq!(path(&[], 30), []);
        assert_eq!(path(&[cached], 30), []);
        // A need that ended after its reader (a stage that failed first) takes no negative time.
        assert_eq!(path(&[ran(1, 9, &[]), ran(1, 9, &[0])], 30), [(0, 8), (1, 0)]);
    }

    #[test]
    fn a_status_with_a_circle_ends() {
        assert_eq!(path(&[ran(1, 3, &[0, 1, 7]), ran(1, 2, &[0, 1])], 9), [(0, 2)]);
    }
}
