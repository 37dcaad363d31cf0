//! Whatever the text, nothing panics and every place is inside it.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::Value;

use crate::{
    ast::Span,
    expand::Lexer,
    lint::{self, LintConfig},
    mount, nodes, parse_lenient, parse_onbuild,
};

/// Lines that look like a Dockerfile, so that more than the first error is reached.
fn dockerfile() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-zA-Z0-9_./:=-]{1,8}",
        prop::sample::select(vec![
            "FROM",
            "AS",
            "RUN",
            "COPY",
            "ADD",
            "ENV",
            "ARG",
            "LABEL",
            "ONBUILD",
            "HEALTHCHECK",
            "CMD",
            "VOLUME",
            "SHELL",
            "EXPOSE",
            "NONE",
            "WORKDIR",
            "from",
        ])
        .prop_map(str::to_owned),
        prop::sample::select(vec![
            " ",
            " ",
            "\t",
            "\n",
            "\n",
            "\r\n",
            "\\\n",
            "\\ \n",
            "`\n",
            "#",
            "# check=skip=all\n",
            "# escape=`\n",
            "\u{feff}",
            "\"",
            "'",
            "\\",
            "$A",
            "${A:-b}",
            "${",
            "}",
            "<<EOF",
            "<<-'E F'",
            "EOF\n",
            "E F\n",
            "3<<X",
            "[",
            "]",
            ",",
            "[\"a\"]",
            "--",
            "--from=x",
            "--mount=type=cache,target=$X",
            "--chown",
            "é",
            "\u{2028}",
            "\0",
        ])
        .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

fn inside(text: &str, span: Span) -> bool {
    let lines = text.matches('\n').count() as u32 + 1;
    span.start <= span.end
        && span.end <= text.len()
        && text.is_char_boundary(span.start)
        && text.is_char_boundary(span.end)
        && 1 <= span.first_line
        && span.first_line <= span.last_line
        && span.last_line <= lines
}

/// All spans in a tree, found by their form.
fn spans(value: &Value, out: &mut Vec<Span>) {
    match value {
        Value::Object(fields) if fields.contains_key("first_line") => {
            out.push(serde_json::from_value(value.clone()).unwrap());
        }
        Value::Object(fields) => fields.values().for_each(|value| spans(value, out)),
        Value::Array(values) => values.iter().for_each(|value| spans(value, out)),
        _ => {}
    }
}

fn examine(text: &str) -> Result<(), TestCaseError> {
    let mut all = Vec::new();
    for node in &nodes::scan("D", text).nodes {
        spans(&serde_json::to_value(node).unwrap(), &mut all);
    }
    let (dockerfile, errors) = parse_lenient("D", text);
    prop_assert_eq!(errors.is_empty(), crate::parse("D", text).is_ok());
    spans(&serde_json::to_value(&dockerfile).unwrap(), &mut all);
    for error in &errors {
        all.extend(error.span);
        all.extend(error.focus);
        let _ = error.render();
    }
    for span in all {
        prop_assert!(inside(text, span), "{span:?} in {text:?}");
    }
    let config = LintConfig::default();
    for warning in lint::check(&dockerfile, &config) {
        let _ = warning.diagnostic(&dockerfile).render();
    }
    for stage in &dockerfile.stages {
        let _ = lint::check_stage(stage, &config, false);
    }
    let _ = parse_onbuild("image", text);
    Ok(())
}

proptest! {
    #[test]
    fn any_text_is_read(text in any::<String>()) {
        examine(&text)?;
    }

    #[test]
    fn anything_like_a_dockerfile_is_read(text in dockerfile()) {
        examine(&text)?;
    }

    #[test]
    fn any_word_is_expanded(
        word in "[$a{}:/#%?*\\\\'\"`<> é+-]{0,30}",
        value in "[ab*/\\\\$]{0,8}",
        escape in prop::sample::select(vec!['\\', '`']),
        flags in any::<[bool; 4]>(),
    ) {
        let env: BTreeMap<String, String> = [("a".to_owned(), value)].into();
        let [raw_quotes, raw_escapes, skip_process_quotes, skip_unset_env] = flags;
        let lexer = Lexer { escape, raw_quotes, raw_escapes, skip_process_quotes, skip_unset_env };
        let _ = lexer.process(&word, &env);
        let _ = lexer.process_words(&word, &env);
    }

    #[test]
    fn any_mount_is_read(value in "[a-z=,\"$0-9 ]{0,30}") {
        let _ = mount::check(&value);
        let _ = mount::parse(&value, &mut |text| Ok(text.to_owned()));
    }

    #[test]
    fn words_without_specials_stay_as_they_are(word in "[a-zA-Z0-9_./:=,@^ -]{0,40}") {
        let env: BTreeMap<String, String> = BTreeMap::new();
        prop_assert_eq!(Lexer::new('\\').process(&word, &env).unwrap().text, word);
    }
}
