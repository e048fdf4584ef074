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
    #[error("step {step}: the loss is {loss}; lower optimizer.lr, add train.clip_norm or warm-up, or check the data")]
    Diverged {
        /// The optimizer step, counted from 1 over the whole run.
        step: u64,
        /// The loss as text (`NaN`, `inf`).
        loss: String,
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
    /// Several runs were stopped early (exit code 75).
    #[error("{place}: stopped on request; what is done is kept: run the same command again")]
    Interrupted {
        /// Where.
        place: String,
    },
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
        Self::Usage { place: line(place), what: line(what), mend: line(mend) }
    }

    /// Bad data.
    pub fn data(place: impl Into<String>, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self::Data { place: line(place), what: line(what), mend: line(mend) }
    }

    /// Input or output failed at `path`.
    pub fn io(path: &Path, what: impl std::fmt::Display, mend: impl Into<String>) -> Self {
        Self::Io { place: line(path.display().to_string()), what: line(what.to_string()), mend: line(mend) }
    }

    /// A state that a correct program does not reach.
    pub fn internal(place: impl Into<String>, what: impl std::fmt::Display) -> Self {
        Self::Internal { place: line(place), what: line(what.to_string()) }
    }

    /// The exit code of the contract: 2 usage, 65 data, 70 internal or diverged, 74 input or output, 75 stopped.
    pub fn exit_code(&self) -> i32 {
        match self {
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
    fn a_message_is_one_line() {
        let error = Error::data("a\nb.csv", "\"x\0y\" is no number\n", "correct it");
        assert_eq!(error.to_string(), "a b.csv: \"x y\" is no number; correct it");
    }
}
