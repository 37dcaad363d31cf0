//! Symbolic modes: `u=rwX,go-w`, by POSIX `chmod` with no umask.

/// Applies a symbolic mode to the twelve bits of a file. Clauses that cannot be read change nothing: planning has
/// refused them.
pub(crate) fn apply(symbolic: &str, mode: u32, is_dir: bool) -> u32 {
    let mut result = mode;
    for clause in symbolic.split(',') {
        let actions_at = clause.find(['+', '-', '=']).unwrap_or(clause.len());
        let (who, mut actions) = clause.split_at(actions_at);
        let who = if who.is_empty() { "a" } else { who };
        while let Some(operator) = actions.chars().next() {
            let rest = &actions[1..];
            let end = rest.find(['+', '-', '=']).unwrap_or(rest.len());
            let bits = wanted(&rest[..end], who, mode, result, is_dir);
            let mask = mask(who);
            match operator {
                '+' => result |= bits,
                '-' => result &= !bits,
                _ => result = (result & !mask) | bits,
            }
            actions = &rest[end..];
        }
    }
    result
}

/// The bits that the classes in `who` own.
fn mask(who: &str) -> u32 {
    who.chars().fold(0, |mask, class| {
        mask | match class {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o0007,
            _ => 0o7777,
        }
    })
}

fn wanted(permissions: &str, who: &str, original: u32, current: u32, is_dir: bool) -> u32 {
    let all = |bits: u32| bits << 6 | bits << 3 | bits;
    let mut bits = 0;
    for permission in permissions.chars() {
        bits |= match permission {
            'r' => all(4),
            'w' => all(2),
            'x' => all(1),
            'X' if is_dir || original & 0o111 != 0 => all(1),
            's' => 0o6000,
            't' => 0o1000,
            'u' => all(current >> 6 & 7),
            'g' => all(current >> 3 & 7),
            'o' => all(current & 7),
            _ => 0,
        };
    }
    // The sticky bit is the file's, whoever is named.
    bits & (mask(who) | 0o1000)
}

#[cfg(test)]
mod tests {
    use super::apply;

    #[test]
    fn clauses_apply_from_left_to_right() {
        let cases = [
            ("go-w", 0o666, false, 0o644),
            ("u=rw,g=r,o=r", 0o666, false, 0o644),
            ("a+X", 0o666, false, 0o666),
            ("a+X", 0o744, true, 0o755),
            ("u+x,o=", 0o666, false, 0o760),
            ("ug=rwX,o-w", 0o744, true, 0o774),
            ("+x", 0o644, false, 0o755),
            ("u+s,g+s,+t", 0o755, false, 0o7755),
            ("g=u", 0o740, false, 0o770),
            ("u=r+x-r", 0o700, false, 0o100),
        ];
        for (symbolic, mode, is_dir, expected) in cases {
            assert_eq!(apply(symbolic, mode, is_dir), expected, "{symbolic} on {mode:o}");
        }
    }
}
