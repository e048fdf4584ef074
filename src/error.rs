//! The one error type. Every error says what was wrong, where, and what to do about it.

use std::path::Path;

/// `Result` with the crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong, by exit code. `place` names the file, line, byte, key, layer or rank; `mend` what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum Error {
    /// Wrong usage or job file (exit code 2).
    #[error("{place}: {what}; {mend}")]
    Usage {
        /// Where: a flag, or a job file with line and key.
        place: String,
        /// What is wrong.
        what: String,
        /// What to do.
        mend: String,
    },
    /// Bad data (exit code 65).
    #[error("{place}: {what}; {mend}")]
    Data {
        /// Where: a file with line, byte or array name.
        place: String,
        /// What is wrong.
        what: String,
        /// What to do.
        mend: String,
    },
    /// Something that should not happen (exit code 70).
    #[error("internal error in {place}: {what}; please report it with the job file")]
    Internal {
        /// Where.
        place: String,
        /// What is wrong.
        what: String,
    },
    /// The loss is no longer finite (exit code 70).
    #[error(
        "step {step}: the loss is {loss}{first}; lower optimizer.lr, add train.clip_norm or warm-up, or check the data"
    )]
    Diverged {
        /// The optimizer step, counted from 1 over the whole run.
        step: u64,
        /// The loss as text (`NaN`, `inf`).
        loss: String,
        /// Where it was seen first, in brackets behind a space, or nothing.
        first: String,
    },
    /// A run failed by no fault of the job (exit code 70).
    #[error("{place}: {what}; {mend}")]
    Failed {
        /// Which run, or at which step.
        place: String,
        /// How it ended.
        what: String,
        /// What to do.
        mend: String,
    },
    /// Input or output failed (exit code 74).
    #[error("{place}: {what}; {mend}")]
    Io {
        /// The path.
        place: String,
        /// What failed.
        what: String,
        /// What to do.
        mend: String,
    },
    /// Stopped early with a good checkpoint (exit code 75).
    #[error("stopped at step {step} on request; the checkpoint {checkpoint} is whole: run again with --resume")]
    Stopped {
        /// The last finished step.
        step: u64,
        /// Path of the checkpoint.
        checkpoint: String,
    },
    /// A command that ddl started ended so, and ends ddl with its own exit code.
    #[error("{place}: {what}; {mend}")]
    Ended {
        /// Who started it.
        place: String,
        /// How it ended.
        what: String,
        /// What to do.
        mend: String,
        /// Its exit code.
        code: i32,
    },
    /// Two things that were compared differ, which was told already (exit code 1).
    #[error("")]
    Differs,
    /// Several runs were stopped early (exit code 75).
    #[error("{place}: stopped on request; what is done is kept: run the same command again")]
    Interrupted {
        /// Where.
        place: String,
    },
}

/// Input that a message repeats is cut to so many characters: it may be of any length.
const QUOTED: usize = 80;
/// No name of a file is longer, so a longer word is input too.
const WORD: usize = 255;
/// Longer texts end here.
const TEXT: usize = 2000;

/// Cuts input to what a message may repeat of it.
pub fn shorten(input: &str) -> String {
    match input.char_indices().nth(QUOTED) {
        Some((end, _)) => format!("{}...", &input[..end]),
        None => input.to_owned(),
    }
}

/// A message's text, of which what stands in quotation marks, words and the whole are cut to readable lengths.
fn readable(text: impl Into<String>) -> String {
    let text = line(text);
    if text.len() <= QUOTED {
        return text;
    }
    let mut out = String::new();
    let mut rest = text.as_str();
    while !rest.is_empty() && out.len() <= TEXT {
        // Each quotation with its marks, and each word between them with the space behind it.
        let quoted = rest.chars().next().filter(|mark| "\"`".contains(*mark));
        let inside = quoted.and_then(|mark| rest[1..].find(mark).map(|end| &rest[..end + 1]));
        let (piece, most) = match inside {
            Some(piece) => (piece, QUOTED + 1),
            None => {
                let end = rest.char_indices().skip(1).find(|(_, c)| c.is_whitespace() || "\"`".contains(*c));
                (end.map_or(rest, |(end, _)| &rest[..end]), WORD)
            }
        };
        rest = &rest[piece.len()..];
        match piece.char_indices().nth(most) {
            Some(_) => {
                let end = piece.char_indices().nth(QUOTED + 1).map_or(piece.len(), |(end, _)| end);
                out.extend([&piece[..end], "..."]);
            }
            None => out.push_str(piece),
        }
        if let (Some(_), Some(mark)) = (inside, quoted) {
            out.push(mark);
            rest = &rest[1..];
        }
    }
    match out.char_indices().nth(TEXT) {
        Some((end, _)) => format!("{}...", &out[..end]),
        None => out,
    }
}

/// A message's text on one line: what a file or a library says may hold line breaks and NUL.
fn line(text: impl Into<String>) -> String {
    let text = text.into();
    let text = if text.contains(char::is_control) { text.replace(char::is_control, " ") } else { text };
    text.trim_end().to_owned()
}

impl Error {
    /// Wrong usage or job file.
    pub fn usage(place: impl Into<String>, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::Usage { place: readable(place), what: readable(what), mend: readable(mend) }
    }

    /// Bad data.
    pub fn data(place: impl Into<String>, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::Data { place: readable(place), what: readable(what), mend: readable(mend) }
    }

    /// Input or output failed at `path`.
    pub fn io(path: &Path, what: impl std::fmt::Display, mend: impl Into<String>) -> Self {
        Self::Io { place: line(path.display().to_string()), what: readable(what.to_string()), mend: readable(mend) }
    }

    /// A state that a correct program does not reach.
    pub fn internal(place: impl Into<String>, what: impl std::fmt::Display) -> Self {
        Self::Internal { place: readable(place), what: readable(what.to_string()) }
    }

    /// What is wrong and where, and the mend, if there is one.
    pub fn parts(&self) -> (String, String) {
        match self {
            Self::Usage { place, what, mend }
            | Self::Data { place, what, mend }
            | Self::Failed { place, what, mend }
            | Self::Io { place, what, mend } => (format!("{place}: {what}"), mend.clone()),
            _ => (self.to_string(), String::new()),
        }
    }

    /// The exit code of the contract: 2 usage, 65 data, 70 internal or diverged, 74 input or output, 75 stopped.
    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Differs => 1,
            Self::Ended { code, .. } => *code,
            Self::Usage { .. } => 2,
            Self::Data { .. } => 65,
            Self::Internal { .. } | Self::Diverged { .. } | Self::Failed { .. } => 70,
            Self::Io { .. } => 74,
            Self::Stopped { .. } | Self::Interrupted { .. } => 75,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_message_repeats_is_cut_and_the_rest_is_not() {
        let long = "é".repeat(1_000_000);
        let error = Error::data("a.csv:3", format!("\"{long}\" is no number, nor is \"x\""), "correct it");
        assert_eq!(
            error.to_string(),
            format!("a.csv:3: \"{}...\" is no number, nor is \"x\"; correct it", "é".repeat(80))
        );
        let key = Error::usage(format!("job.toml:1, {long}"), format!("unknown key `{long}`"), long.clone());
        assert!(key.to_string().len() < 600 && key.to_string().starts_with("job.toml:1, é"), "{key}");
        assert!(key.to_string().contains("...`; é"), "{key}");
        let words = Error::internal("x", "word ".repeat(1_000_000)).to_string();
        assert!(words.len() < 2100 && words.contains("..."), "{words}");
        // Messages of any usual length stay as they are, paths and unpaired marks too.
        let path = format!("/{}/run.h5: \"a", "folder/".repeat(30));
        assert_eq!(Error::data(path.clone(), "\"", "`").to_string(), format!("{path}: \"; `"));
        assert_eq!(shorten(&long), format!("{}...", "é".repeat(80)));
    }
}
