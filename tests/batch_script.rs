//! The shipped scripts for schedulers, with an srun, a scontrol, an mpirun and a qsub that only pretend.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

/// Runs the script where srun leaves `checkpoint` and ends with `code`. Its exit code, and whether it was queued again.
fn batch(folder: &Path, code: i32, checkpoint: Option<u64>) -> (Option<i32>, bool) {
    let tool = |name: &str, text: String| {
        let path = folder.join(name);
        fs::write(&path, format!("#!/bin/bash\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    let saved = checkpoint.map(|step| {
        format!("mkdir -p results/a-name/checkpoints; touch results/a-name/checkpoints/step-{step:08}.h5; ")
    });
    tool("srun", format!("echo \"$@\" >>calls; {}exit {code}", saved.unwrap_or_default()));
    tool("scontrol", "echo \"$@\" >>queued".into());
    fs::write(folder.join("job.toml"), "name = \"a-name\" # of the job\n[data]\nname = \"other\"\n").unwrap();
    let _ = fs::remove_file(folder.join("queued"));
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/train.sbatch");
    let path = format!("{}:{}", folder.display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command.arg(script).arg("job.toml").current_dir(folder).env("PATH", path).env("SLURM_JOB_ID", "17");
    let status = command.output().unwrap().status;
    let queued = fs::read_to_string(folder.join("queued")).unwrap_or_default();
    assert!(queued.is_empty() || queued == "requeue 17\n", "{queued}");
    (status.code(), !queued.is_empty())
}

#[test]
fn failures_are_queued_again_while_there_is_progress() {
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    for wrong in [0, 2, 65] {
        assert_eq!(batch(folder, wrong, None), (Some(wrong), false));
    }
    assert_eq!(batch(folder, 75, Some(4)), (Some(75), true));
    // A rank's death: three times without a new checkpoint.
    for queued in [true, true, true, false, false] {
        assert_eq!(batch(folder, 137, Some(4)), (Some(137), queued));
    }
    // From a new one on, also of nine digits, they count anew.
    for queued in [true, true, true, false] {
        assert_eq!(batch(folder, 70, Some(100_000_000)), (Some(70), queued));
    }
    assert_eq!(batch(folder, 75, None), (Some(75), true));
    assert_eq!(batch(folder, 74, None), (Some(74), true));
    let calls = fs::read_to_string(folder.join("calls")).unwrap();
    // Not every env can hold a signal back.
    let plain = |call: &str| call.replacen("env --block-signal=USR1 ", "", 1);
    let train = "--mpi=pmix ./target/release/ddl train job.toml --resume --out results/a-name";
    assert!(calls.lines().all(|call| plain(call) == train), "{calls}");
}

#[test]
fn a_run_that_never_saved_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    for queued in [true, true, true, false] {
        assert_eq!(batch(folder.path(), 1, None), (Some(1), queued));
    }
}

/// Runs another scheduler's script where mpirun ends with `code`: its exit code, what mpirun and qsub were called with.
fn other(script: &str, code: i32, variables: &[(&str, &str)]) -> (Option<i32>, String, String) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [("mpirun", format!("echo \"$@\" >calls; exit {code}")), ("qsub", "echo \"$@\" >queued".into())]
    {
        let path = folder.path().join(name);
        fs::write(&path, format!("#!/bin/bash\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    fs::write(folder.path().join("job.toml"), "name = \"a-name\"\n").unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs").join(script);
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").unwrap());
    let mut command = Command::new("bash");
    command
        .arg(script)
        .current_dir(folder.path())
        .env("PATH", path)
        .env("job", "job.toml")
        .envs(variables.iter().copied());
    let status = command.output().unwrap().status;
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap_or_default().trim_end().to_owned();
    (status.code(), read("calls"), read("queued"))
}

#[test]
fn scripts_for_pbs_and_lsf_stop_in_time_and_are_queued_again_for_75_alone() {
    let call = |out: &str| format!("./target/release/ddl train job.toml --resume --out {out} --max-hours 0.95");
    for code in [0, 2, 65, 70, 74, 75] {
        let again = if code == 75 { "-v job=job.toml,out=results/a-name jobs/train.pbs" } else { "" };
        let found = other("train.pbs", code, &[]);
        assert_eq!(found, (Some(code), call("results/a-name"), again.into()));
        // LSF queues by the exit code itself.
        let found = other("train.lsf", code, &[("out", "elsewhere")]);
        assert_eq!(found, (Some(code), call("elsewhere"), String::new()));
    }
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs/train.lsf")).unwrap();
    assert!(text.contains("\n#BSUB -Q \"75\"\n"));
}
