//! A check's result, and the error it may end with.

use crate::error::Error;

/// The subject of findings about disks.
pub(super) const DISK: &str = "disk";

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Good,
    /// Slower, or trouble to come.
    Warning,
    /// Wrong results of a measurement, or a run that fails.
    Serious,
}

impl Severity {
    /// For the report.
    pub fn name(self) -> &'static str {
        match self {
            Severity::Good => "ok",
            Severity::Warning => "warning",
            Severity::Serious => "serious",
        }
    }
}

/// One check's result.
#[derive(Debug, Clone, PartialEq)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// What was checked.
    pub subject: &'static str,
    /// What was found.
    pub what: String,
    /// What to do; empty where nothing is to be done.
    pub mend: String,
}

impl Finding {
    /// As it should be.
    pub(super) fn good(subject: &'static str, what: impl Into<String>) -> Self {
        Self { severity: Severity::Good, subject, what: what.into(), mend: String::new() }
    }

    /// With what to do.
    pub(super) fn warning(subject: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, subject, what: what.into(), mend: mend.into() }
    }

    /// With what to do.
    pub(super) fn serious(subject: &'static str, what: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { severity: Severity::Serious, ..Self::warning(subject, what, mend) }
    }

    /// The error that a serious finding ends with: disks are input and output, all else is how ddl is used.
    pub fn error(&self) -> Error {
        let (place, what, mend) = (format!("ddl doctor, {}", self.subject), self.what.clone(), self.mend.clone());
        if self.subject == DISK { Error::Io { place, what, mend } } else { Error::usage(place, what, mend) }
    }
}
