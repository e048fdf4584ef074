//! `ddl supervise` starts a training again after a failure, with the bits of an uninterrupted run, and gives up where that is of no use.

mod support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use support::{ddl, ddl_ok, training};

const LIMIT: Duration = Duration::from_secs(100);
const DDL: &str = env!("CARGO_BIN_EXE_ddl");

/// Some hundred steps with a checkpoint every few.
fn job(folder: &Path) -> String {
    let job = folder.join("job.toml");
    fs::write(&job, training::images(8, "type = \"sgd\"\nlr = 0.02")).unwrap();
    job.display().to_string()
}

const SETTINGS: [&str; 8] = [
    "--set",
    "train.epochs=60",
    "--set",
    "train.checkpoint_steps=5",
    "--set",
    "train.keep_checkpoints=2",
    "--set",
    "distributed.reduction=reproducible",
];

/// Supervises 2 ranks under mpirun that train into `out`.
fn supervise(job: &str, out: &str, more: &[&str]) -> Child {
    let mut command = Command::new(DDL);
    command.args(["supervise", "--", "mpirun", "-n", "2", "--oversubscribe", "--bind-to", "none", DDL, "train", job]);
    command.args(["--out", out]).args(SETTINGS).args(more);
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Processes that have `word` among their arguments and "train" too, but for those of `supervise` itself and mpirun.
fn ranks(word: &str) -> Vec<i32> {
    let all = fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let is_rank = |process: &i32| {
        let line = fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
        let words: Vec<&str> = line.split('\0').collect();
        words.first() == Some(&DDL) && words.get(1) == Some(&"train") && words.contains(&word)
    };
    all.filter(is_rank).collect()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn end_of(child: Child) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    (status.code(), String::from_utf8_lossy(&stderr).into_owned())
}

fn newest(out: &str) -> u64 {
    let list = ddl::store::checkpoint::list(&Path::new(out).join("checkpoints")).unwrap();
    list.last().and_then(|path| ddl::store::checkpoint::step_of(path)).unwrap_or(0)
}

fn send(process: i32, signal: i32) {
    // SAFETY: a plain system call.
    unsafe { libc::kill(process, signal) };
}

#[test]
fn a_killed_rank_costs_nothing_but_time() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, cut] = ["whole", "cut"].map(|name| folder.path().join(name).display().to_string());
    let job = job(folder.path());
    let mut args = vec!["train", &job, "--out", &whole];
    args.extend(SETTINGS);
    ddl_ok(0, &args);
    let mut child = supervise(&job, &cut, &[]);
    // Twice, where the machine is not so quick that it is done before.
    for _ in 0..2 {
        let (before, mut killed) = (newest(&cut), false);
        wait_until("a rank to kill", || {
            let found = ranks(&cut);
            if newest(&cut) > before && found.len() == 2 {
                send(found[1], libc::SIGKILL);
                killed = true;
            }
            killed || child.try_wait().unwrap().is_some()
        });
        wait_until("its end", || ranks(&cut).len() != 2);
    }
    let (code, told) = end_of(child);
    assert_eq!(code, Some(0), "{told}");
    assert!(
        told.contains("supervise: failure 1 of 3") && told.contains("starting again from the checkpoint of step "),
        "{told}"
    );
    let same = ddl(0, &["compare", &whole, &cut]);
    assert_eq!(same.status.code(), Some(0), "{}", String::from_utf8_lossy(&same.stdout));
    assert!(ranks(&cut).is_empty());
}

#[test]
fn a_warning_stops_it_with_a_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out").display().to_string();
    let child = supervise(&job(folder.path()), &out, &["--set", "train.epochs=1000000"]);
    wait_until("a checkpoint", || newest(&out) > 0);
    // As `timeout` does it: to the process, and to its group.
    send(child.id() as i32, libc::SIGTERM);
    std::thread::sleep(Duration::from_millis(30));
    send(child.id() as i32, libc::SIGTERM);
    let (code, told) = end_of(child);
    assert_eq!(code, Some(75), "{told}");
    assert!(ranks(&out).is_empty() && ddl(0, &["verify", &out]).status.success());
}

/// A program that is called ddl and always ends so.
#[test]
fn what_no_restart_mends_is_given_up() {
    let folder = tempfile::tempdir().unwrap();
    let (program, starts) = (folder.path().join("ddl"), folder.path().join("starts"));
    for (code, expected) in [(2, 1), (65, 1), (75, 1), (70, 2), (137, 3)] {
        fs::write(&program, format!("#!/bin/sh\necho \"$@\" >>{}\nexit {code}\n", starts.display())).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let _ = fs::remove_file(&starts);
        let out = folder.path().join("out").display().to_string();
        let done = ddl(0, &["supervise", "--", program.to_str().unwrap(), "train", "a.toml", "--out", &out]);
        assert_eq!(done.status.code(), Some(code));
        let lines = fs::read_to_string(&starts).unwrap();
        assert_eq!(lines.lines().count(), expected, "{code}: {lines}");
        assert!(lines.lines().skip(1).all(|line| line.ends_with(" --resume")), "{lines}");
    }
    // Asked to stop while the command fails: there is no other start.
    fs::write(&program, format!("#!/bin/sh\necho >>{}\nkill -TERM $PPID\nexit 137\n", starts.display())).unwrap();
    fs::remove_file(&starts).unwrap();
    let done = ddl(0, &["supervise", "--", program.to_str().unwrap(), "train", "a.toml", "--out", "b"]);
    assert_eq!((done.status.code(), fs::read_to_string(&starts).unwrap().lines().count()), (Some(137), 1));
    for wrong in [&["supervise"][..], &["supervise", "--", "mpirun", "ddl", "train", "a"], &["supervise", "--", "true"]]
    {
        assert_eq!(ddl(0, wrong).status.code(), Some(2));
    }
    let absent = ddl(0, &["supervise", "--", "/nowhere/ddl", "train", "a", "--out", "b"]);
    assert_eq!(absent.status.code(), Some(2));
}

/// The first start dies before the new run takes the folder: what is there is not what goes on.
#[test]
fn an_earlier_run_in_the_folder_is_not_taken_for_the_new_one() {
    let folder = tempfile::tempdir().unwrap();
    let (program, out) = (folder.path().join("ddl"), folder.path().join("out").display().to_string());
    let job = job(folder.path());
    ddl_ok(0, &["train", &job, "--out", &out, "--set", "train.epochs=1"]);
    let started = folder.path().join("started").display().to_string();
    let text = format!("#!/bin/sh\n[ -e {started} ] || {{ : >{started}; exit 137; }}\nexec {DDL} \"$@\"\n");
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let new = ["train", &job, "--out", &out, "--set", "train.epochs=2", "--set", "seed=5"];
    let done = ddl(0, &[&["supervise", "--", program.to_str().unwrap()], &new[..]].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let alone = folder.path().join("alone").display().to_string();
    ddl_ok(0, &["train", &job, "--out", &alone, "--set", "train.epochs=2", "--set", "seed=5"]);
    let same = ddl(0, &["compare", &alone, &out]);
    assert_eq!(same.status.code(), Some(0), "{}", String::from_utf8_lossy(&same.stdout));
    assert!(Path::new(&out).join("earlier-1/run.h5").exists());
}

/// A supervisor that is killed takes the training with it, which saves what it can.
#[test]
fn no_training_outlives_its_supervisor() {
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out").display().to_string();
    let mut child = supervise(&job(folder.path()), &out, &["--set", "train.epochs=1000000"]);
    wait_until("ranks", || ranks(&out).len() == 2 && newest(&out) > 0);
    child.kill().unwrap();
    child.wait().unwrap();
    wait_until("the ranks' end", || ranks(&out).is_empty());
}
