//! Broken job files of every kind: none panics, and what resolves does so again.

#[path = "../fuzz/targets/job.rs"]
mod job;

use ddl::config::{Job, Override};
use job::survives;
use proptest::prelude::*;

const FULL: &str = include_str!("support/full.toml");

/// Tokens that make what is almost a job.
const TOKENS: &[&str] = &[
    "",
    "\n",
    "=",
    "[",
    "]",
    "{",
    "}",
    "\"",
    "'",
    ",",
    ".",
    "#",
    "-",
    "0",
    "1e400",
    "nan",
    "inf",
    "-1",
    "true",
    "\u{0}",
    "é",
    "`",
    "[train]",
    "[[data]]",
    "type",
    "layers",
    "data.source = 3",
    "9223372036854775807",
    "99999999999999999999",
    "1979-05-27",
    "residual",
    "lstm",
    "shortcut",
    "normalize",
    "mean",
];

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_text_survives(text in "\\PC*") {
        survives(&text);
    }

    #[test]
    fn any_tokens_survive(tokens in prop::collection::vec(prop::sample::select(TOKENS), 0..12)) {
        survives(&tokens.join(" "));
    }

    /// A valid job with some stretches cut out or replaced.
    #[test]
    fn any_mutation_survives(
        edits in prop::collection::vec((0usize..2000, 0usize..12, prop::sample::select(TOKENS)), 1..4),
    ) {
        let mut text: Vec<char> = FULL.chars().collect();
        for (at, cut, token) in edits {
            let start = at.min(text.len());
            let end = (start + cut).min(text.len());
            text.splice(start..end, token.chars());
        }
        survives(&text.into_iter().collect::<String>());
    }

    /// A valid job with two lines swapped.
    #[test]
    fn swapped_lines_survive(a in 0usize..46, b in 0usize..46) {
        let mut lines: Vec<&str> = FULL.lines().collect();
        let count = lines.len();
        lines.swap(a % count, b % count);
        survives(&lines.join("\n"));
    }

    #[test]
    fn any_override_survives(text in "[a-z.\\[\\]0-9=\" {}]{0,40}", section in prop::sample::select(TOKENS)) {
        let (layer, data) = (format!("model.layers.0.{text}"), format!("data.{text}=1"));
        let section = format!("{section}={text}");
        for text in [text, layer, data, section] {
            if let Ok(change) = Override::parse(&text)
                && let Err(error) = Job::parse(FULL, "job.toml", &[change]).and_then(|job| job.resolved())
            {
                prop_assert_eq!(error.exit_code(), 2, "{}: {}", text, error);
            }
        }
    }
}
