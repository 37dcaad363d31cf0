use super::*;
use crate::parse;

fn first(text: &str) -> Diagnostic {
    parse("Dockerfile", text).unwrap_err().remove(0)
}

#[test]
fn an_error_shows_the_line_and_points_at_the_word() {
    let got = first("FROM scratch\nRUNN x\nUSER y\n").render();
    let want = "\
error[unknown-instruction]: unknown instruction: RUNN (did you mean RUN?)
 --> Dockerfile:2:1
  |
1 | FROM scratch
2 | RUNN x
  | ^^^^
  = help: if this is a part of the line above, end that line with the escape character
";
    assert_eq!(got, want);
}

#[test]
fn carets_stand_below_their_word_on_a_continuation_line() {
    let got = first("FROM a\nCOPY --from=é \\\n\t--frm=x \\\n  b c\n").render();
    let want = "\
error[unknown-flag]: unknown flag: --frm (did you mean from?)
 --> Dockerfile:3:2
  |
1 | FROM a
2 | COPY --from=é \\
3 |     --frm=x \\
  |     ^^^^^^^
4 |   b c
  = help: COPY takes --chmod, --chown, --exclude, --from, --link, --parents
";
    assert_eq!(got, want);
}

#[test]
fn all_lines_of_the_instruction_are_error_lines() {
    assert_eq!(
        first("FROM a\nCOPY --frm=x \\\n  b \\\n c\n").error_lines(),
        [2, 3, 4]
    );
    assert_eq!(first("FROM busybox\nRUN <<EOF\necho\n").error_lines(), [2, 3]);
}

#[test]
fn a_long_instruction_is_shown_in_part() {
    let text = format!("FROM a\nCOPY --nope \\\n{} b c\n", "  x \\\n".repeat(100));
    let got = first(&text);
    assert!(got.excerpt.len() < 15);
    assert!(got.render().contains("\n    :\n"), "{}", got.render());
}

#[test]
fn a_long_line_is_shown_around_the_carets() {
    let text = format!("FROM a\nENV A={} B\n", "x".repeat(1000));
    let got = first(&text).render();
    assert!(got.lines().all(|line| line.chars().count() < 320), "{got}");
    assert!(got.contains("Dockerfile:2:1008\n"), "{got}");
    let caret = got
        .lines()
        .find(|line| line.trim_end().ends_with('^'))
        .unwrap()
        .chars()
        .count();
    let line = got
        .lines()
        .find(|line| line.starts_with("2 |"))
        .unwrap()
        .chars()
        .count();
    assert_eq!(caret, line, "{got}");
}

#[test]
fn control_characters_do_not_reach_the_terminal() {
    let got = first("FROM a\nX\u{1b}[31m \u{202e}y\n").render();
    assert!(!got.contains(['\u{1b}', '\u{202e}']), "{got}");
}

#[test]
fn a_diagnostic_survives_json() {
    let error = first("FROM a\nCOPY --frm=x b c\n");
    let back: Diagnostic = serde_json::from_str(&serde_json::to_string(&error).unwrap()).unwrap();
    assert_eq!(back, error);
    assert_eq!(
        back.to_string(),
        "Dockerfile:2: unknown flag: --frm (did you mean from?)"
    );
}

#[test]
fn a_diagnostic_without_a_place_is_a_sentence() {
    assert_eq!(
        Diagnostic::warning("x", "it is late").render(),
        "warning[x]: it is late\n"
    );
}
