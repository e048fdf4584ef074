//! Ranks that were started differently end at once, each with the same exit code, and say how they differ.

mod support;

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;
use support::{run, training};

/// mpirun with one rank for each of `commands`: variables, then arguments of `ddl`.
fn each(commands: &[(&[&str], &[&str])]) -> Output {
    let mut mpirun = Command::new("mpirun");
    mpirun.args(["--oversubscribe", "--bind-to", "none"]);
    for (variables, args) in commands {
        mpirun.args(["-n", "1", "env"]).args(*variables).arg(env!("CARGO_BIN_EXE_ddl")).args(*args).arg(":");
    }
    mpirun.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    run(&mut mpirun, Duration::from_secs(60))
}

#[track_caller]
fn refused(commands: &[(&[&str], &[&str])], parts: &[&str]) {
    let output = each(commands);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert_eq!(stderr.matches("error: ranks differ").count(), 1, "{stderr}");
    for part in parts {
        assert!(stderr.contains(part), "no {part:?} in {stderr}");
    }
}

#[test]
fn other_commands_jobs_and_settings_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let [job, other, out] = ["a.toml", "b.toml", "out"].map(|name| folder.path().join(name).display().to_string());
    fs::write(&job, training::images(8, "type = \"sgd\"\nlr = 0.02")).unwrap();
    fs::write(&other, training::images(4, "type = \"sgd\"\nlr = 0.02")).unwrap();
    let train: &[&str] = &["train", &job, "--out", &out];
    let set = [train, &["--set", "seed=2"]].concat();
    let same: (&[&str], &[&str]) = (&[], train);
    refused(&[same, same, (&[], &set)], &["in their arguments: rank 2 on ", "--set seed=2`, rank 0 on "]);
    refused(&[same, (&[], &["train", &other, "--out", &out])], &["rank 1 on ", "b.toml", "a.toml"]);
    refused(&[same, (&[], &["inspect", &job])], &["`inspect "]);
    // Neither help nor wrong arguments leave the others waiting, on whichever rank.
    refused(&[same, (&[], &["--help"])], &["`--help`"]);
    refused(&[(&[], &["train", "--what"]), same], &["rank 1 on ", "`train --what`"]);
    refused(&[(&["DDL_TRAIN_EPOCHS=3"], train), same], &["in their job, train.epochs: rank 1 on ", "`2`", "`3`"]);
    assert!(!fs::exists(&out).unwrap(), "nothing was trained");
}

#[test]
fn alike_they_get_help_and_errors_once() {
    let help: (&[&str], &[&str]) = (&[], &["train", "--help"]);
    let output = each(&[help, help]);
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(String::from_utf8_lossy(&output.stdout).matches("Usage:").count(), 1);
    let wrong: (&[&str], &[&str]) = (&[], &["train", "--what"]);
    let output = each(&[wrong, wrong]);
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8_lossy(&output.stderr).matches("unexpected argument").count(), 1);
}
