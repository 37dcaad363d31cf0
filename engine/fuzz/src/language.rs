//! Dockerfiles, words, ignore files.

use slipway_dockerfile::{
    Dockerfile, Span,
    expand::{Lexer, MAX_LENGTH},
    ignore::{self, Matcher, ParentState},
    lint::{self, LintConfig},
    mount, parse_lenient, parse_onbuild, ports,
};
use slipway_oci::{Digest, ImageConfig, Platform};
use slipway_plan::{Bases, Outcome, PlanRequest, ResolvedBase, plan};

use crate::halves;

/// Reads, checks and plans a Dockerfile; what follows a zero byte is a base image's `ONBUILD`.
pub fn dockerfile(data: &[u8]) {
    let (text, onbuild) = halves(data);
    let text = String::from_utf8_lossy(text);
    let (file, errors) = parse_lenient("Dockerfile", &text);
    for error in &errors {
        error.span.iter().for_each(|span| inside(&text, *span));
        assert!(!error.to_string().is_empty());
    }
    if let Ok(config) = LintConfig::of(&file, None) {
        for warning in lint::check(&file, &config) {
            inside(&text, warning.span);
        }
    }
    for stage in &file.stages {
        inside(&text, stage.span);
        for instruction in &stage.instructions {
            inside(&text, instruction.span);
        }
    }
    let onbuild = String::from_utf8_lossy(onbuild);
    let _ = parse_onbuild("base", &onbuild);
    if errors.is_empty() {
        plan_it(file, &onbuild);
    }
}

fn inside(text: &str, span: Span) {
    assert!(
        span.start <= span.end && span.end <= text.len(),
        "{span:?} of {}",
        text.len()
    );
    assert!(
        text.is_char_boundary(span.start) && text.is_char_boundary(span.end),
        "{span:?}"
    );
}

/// Plans with base images that are all alike, until nothing more is asked for.
fn plan_it(file: Dockerfile, onbuild: &str) {
    let platform = Platform::new("linux", "amd64", "");
    let mut config = ImageConfig::scratch(&platform);
    config.config.on_build = onbuild.lines().map(str::to_owned).collect();
    let answer = ResolvedBase {
        digest: Digest::of(b"base"),
        config,
    };
    let request = PlanRequest::new(file, platform);
    let mut bases = Bases::new();
    loop {
        match plan(&request, &bases) {
            Ok(Outcome::Need(needed)) => {
                assert!(needed.iter().all(|base| bases.get(base).is_none()), "asked twice");
                for base in needed {
                    bases.insert(base, Ok(answer.clone()));
                }
            }
            Ok(Outcome::Ready(plan)) => {
                let stages = plan.stages.len();
                assert!(plan.results.iter().all(|result| result.stage < stages));
                let text = serde_json::to_vec(&plan).expect("a plan can be written");
                let again: slipway_plan::BuildPlan =
                    serde_json::from_slice(&text).expect("a plan can be read");
                assert_eq!(again, *plan);
                return;
            }
            Err(diagnostics) => {
                assert!(!diagnostics.is_empty());
                return;
            }
        }
    }
}

/// Expands a word; what follows a zero byte is the environment, `NAME=value` a line.
pub fn expansion(data: &[u8]) {
    let (word, env) = halves(data);
    let (word, env) = (String::from_utf8_lossy(word), String::from_utf8_lossy(env));
    let env: Vec<(String, String)> = env
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for lexer in [
        Lexer::new('\\'),
        Lexer::new('`'),
        Lexer::heredoc(),
        Lexer::display('\\'),
    ] {
        if let Ok(expansion) = lexer.process(&word, &env) {
            assert!(expansion.text.len() <= MAX_LENGTH);
        }
        let _ = lexer.process_words(&word, &env);
    }
    let _ = mount::check(&word);
    let _ = mount::parse(&word, &mut |text| {
        Lexer::new('\\')
            .process(text, &env)
            .map(|expansion| expansion.text)
    });
    let _ = ports::parse(&word);
}

/// Reads an ignore file; what follows a zero byte are paths to match.
pub fn ignore(data: &[u8]) {
    let (text, paths) = halves(data);
    let lines = ignore::read(text);
    let Ok(matcher) = Matcher::new(lines.iter().map(|line| &line.pattern)) else {
        return;
    };
    for path in String::from_utf8_lossy(paths).lines().take(64) {
        let alone = matcher.matches(path);
        // A walk hands down what the directories above said; both ways must come to the same end.
        let (mut state, mut below, mut excluded) = (ParentState::default(), String::new(), Ok(false));
        let parts: Vec<&str> = path.split('/').collect();
        if parts.iter().any(|part| matches!(*part, "" | "." | "..")) {
            continue;
        }
        for part in parts {
            if !below.is_empty() {
                below.push('/');
            }
            below.push_str(part);
            match matcher.matches_with_parents(&below, &state) {
                Ok(verdict) => {
                    state = verdict.state;
                    excluded = Ok(verdict.excluded);
                }
                Err(error) => excluded = Err(error),
            }
        }
        assert_eq!(alone, excluded, "{path:?}");
    }
}
