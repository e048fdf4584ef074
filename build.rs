//! Notes the commit for the run file.

use std::path::Path;
use std::process::Command;

fn main() {
    let commit = git(&["describe", "--always", "--dirty", "--abbrev=12"]);
    println!("cargo:rustc-env=SOURCE_COMMIT={commit}");
    println!("cargo:rerun-if-changed=build.rs");
    // The log of HEAD grows with each commit and checkout; in a worktree it lies elsewhere, in a tarball there is none, and
    // a file that is missing would have everything built anew each time.
    let log = git(&["rev-parse", "--git-path", "logs/HEAD"]);
    if Path::new(&log).is_file() {
        println!("cargo:rerun-if-changed={log}");
    }
}

/// What git answers, or nothing.
fn git(arguments: &[&str]) -> String {
    let output = Command::new("git").args(arguments).output();
    let answer = output.ok().filter(|output| output.status.success()).map(|output| output.stdout);
    String::from_utf8_lossy(&answer.unwrap_or_default()).trim().to_owned()
}
