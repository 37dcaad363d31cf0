//! Close names, for "did you mean".

/// Names that differ in three places or more are not meant.
const NEAR: usize = 3;

/// The candidate nearest to `name` by edit distance, if one is near enough to be meant; of equals the first. `None`
/// when a candidate is the name itself, for then the name is not the mistake.
pub fn closest<'a>(name: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    nearest(name, candidates, str::to_owned)
}

/// As [`closest`], with case ignored in the comparison and taken from `name` in the result.
pub fn closest_ignoring_case<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let near = nearest(&name.to_lowercase(), candidates, str::to_lowercase)?;
    Some(match name {
        _ if name == name.to_lowercase() => near.to_lowercase(),
        _ if name == name.to_uppercase() => near.to_uppercase(),
        _ => near.to_lowercase(),
    })
}

/// ` (did you mean X?)`, or nothing.
pub fn suggestion(near: Option<&str>) -> String {
    near.map(|near| format!(" (did you mean {near}?)"))
        .unwrap_or_default()
}

fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
    fold: impl Fn(&str) -> String,
) -> Option<&'a str> {
    let mut best = None;
    let mut least = NEAR;
    for candidate in candidates {
        let folded = fold(candidate);
        if folded == name {
            return None;
        }
        if let Some(distance) = distance_below(name, &folded, least) {
            least = distance;
            best = Some(candidate);
        }
    }
    best
}

/// The number of characters to insert, delete or replace, if it is below `bound`.
fn distance_below(a: &str, b: &str, bound: usize) -> Option<usize> {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    if a.len().abs_diff(b.len()) >= bound {
        return None;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.iter().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row.last().copied().filter(|distance| *distance < bound)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_names_are_found() {
        assert_eq!(closest("tmp", ["bind", "cache", "tmpfs"]), Some("tmpfs"));
        assert_eq!(closest("VARIENT", ["VARIANT"]), Some("VARIANT"));
        assert_eq!(closest("source", ["src"]), None);
        assert_eq!(closest("bind", ["bind", "bins"]), None);
        assert_eq!(closest_ignoring_case("RUNN", ["run"]).as_deref(), Some("RUN"));
        assert_eq!(closest_ignoring_case("Runn", ["RUN"]).as_deref(), Some("run"));
    }
}
