//! The command line that is supervised.

use crate::error::{Error, Result};
use std::path::{Path, PathBuf};

/// A launcher's command line with `ddl train` in it.
pub struct Line {
    words: Vec<String>,
    resumes: bool,
    /// The run's folder.
    pub out: PathBuf,
}

impl Line {
    /// # Errors
    /// Without `ddl train`, or without its `--out` (exit code 2).
    pub fn new(words: Vec<String>) -> Result<Self> {
        let is_ddl = |word: &str| Path::new(word).file_name().is_some_and(|name| name == "ddl");
        let Some(at) = words.windows(2).position(|pair| is_ddl(&pair[0]) && pair[1] == "train") else {
            return Err(Error::usage(
                "supervise",
                "the command has no ddl train",
                "write -- mpirun -n 4 ddl train JOB",
            ));
        };
        let train = &words[at + 2..];
        let out = train.iter().enumerate().find_map(|(i, word)| match word.strip_prefix("--out=") {
            Some(out) => Some(out.to_owned()),
            None if word == "--out" => train.get(i + 1).cloned(),
            None => None,
        });
        let Some(out) = out else {
            return Err(Error::usage("supervise", "ddl train has no --out", "name the run's folder: --out DIR"));
        };
        if out.contains("://") {
            let mend = "give a folder here; copy the run when it is done";
            return Err(Error::usage("supervise", format!("--out {out} is no folder of this host"), mend));
        }
        Ok(Self { out: out.into(), resumes: train.iter().any(|word| word == "--resume"), words })
    }

    /// Whether it goes on with a run from the first start on.
    pub(super) fn resumes(&self) -> bool {
        self.resumes
    }

    /// The words of the first start, or of one that goes on from a checkpoint.
    pub(super) fn words(&self, again: bool) -> Vec<String> {
        let mut words = self.words.clone();
        if again && !self.resumes {
            words.push("--resume".into());
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goes_on_with_resume_once() {
        let line = |text: &str| Line::new(text.split(' ').map(str::to_owned).collect());
        let plain = line("mpirun -n 4 /opt/ddl train a.toml --out=b").unwrap();
        assert_eq!(plain.out, Path::new("b"));
        assert_eq!(plain.words(false).last().unwrap(), "--out=b");
        assert_eq!(plain.words(true).last().unwrap(), "--resume");
        let resumes = line("ddl train a.toml --resume --out b").unwrap();
        assert_eq!(resumes.words(true), resumes.words(false));
        assert!(line("mpirun ddl evaluate a --out b").is_err() && line("ddl train a").is_err());
        assert!(line("ddl train a --out s3://bucket/b").is_err());
    }
}
