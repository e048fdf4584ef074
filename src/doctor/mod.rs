//! What would go wrong on this machine: facts are gathered from all ranks, judged by pure checks, and told with mends.

pub mod check;
pub mod facts;
pub mod finding;

use crate::comm::{Comm, on_root};
use crate::error::{Error, Result};
use crate::train::terminal::say;
use finding::{Finding, Severity};
use std::path::Path;

/// Looks, reports on rank 0, and fails with the first serious finding. `trouble` is why the ranks could not become one
/// job, `results` where results will go.
///
/// # Errors
/// `Io` for a disk, `Usage` for all else that is serious.
pub fn run(comm: &dyn Comm, trouble: Option<&Error>, results: &Path) -> Result<()> {
    let facts = facts::gather(comm, trouble.map(Error::parts), results);
    on_root(comm, || {
        let findings = check::check(&facts);
        if facts::speaks() {
            say(&report(&findings));
        }
        findings.iter().find(|finding| finding.severity == Severity::Serious).map_or(Ok(()), |first| Err(first.error()))
    })
}

/// A line a finding, its mend below it, and a last line that counts them.
fn report(findings: &[Finding]) -> String {
    let width = findings.iter().map(|finding| finding.subject.len()).max().unwrap_or(0);
    let mut text = String::new();
    for Finding { severity, subject, what, mend } in findings {
        text += &format!("{:<7}  {subject:<width$}  {what}\n", severity.name());
        if !mend.is_empty() {
            text += &format!("{:<7}  {:<width$}  -> {mend}\n", "", "");
        }
    }
    let count = |severity| findings.iter().filter(|finding| finding.severity == severity).count();
    let (serious, warnings) = (count(Severity::Serious), count(Severity::Warning));
    text + &format!("\n{serious} serious, {warnings} warning(s), {} ok", count(Severity::Good))
}
