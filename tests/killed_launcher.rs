//! mpirun is killed (SIGKILL) and cleans nothing up: its ranks end, and what the dead job has left is removed at the next start,
//! that and nothing else.

mod support;

use std::fs::{self, File};
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};
use support::{command, ddl_ok, training};

const LIMIT: Duration = Duration::from_secs(60);

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "{what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Files in /dev/shm that a process has mapped.
fn mapped(process: &str) -> Vec<PathBuf> {
    let maps = fs::read_to_string(format!("/proc/{process}/maps")).unwrap_or_default();
    let mut paths: Vec<PathBuf> =
        maps.lines().filter_map(|line| line.find("/dev/shm/").map(|at| PathBuf::from(&line[at..]))).collect();
    paths.sort();
    paths.dedup();
    paths.retain(|path| path.exists());
    paths
}

fn lives(process: &str) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    status.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

/// As if it had been left two minutes ago: younger ones may be of a job that starts at this moment.
fn age(path: &Path) {
    let then = SystemTime::now() - Duration::from_secs(120);
    File::options().write(true).open(path).unwrap().set_modified(then).unwrap();
}

/// A segment of a job that lives, as far as anyone can see: this process maps it. It goes with this.
struct Alive {
    path: PathBuf,
    _file: File,
}

impl Alive {
    fn new() -> Self {
        let name = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
        let path = PathBuf::from(format!("/dev/shm/vader_segment.{}.0.{}.0", name.trim(), std::process::id()));
        fs::write(&path, [0; 4096]).unwrap();
        age(&path);
        let file = File::open(&path).unwrap();
        // SAFETY: a new mapping that nobody touches, of a file that is open.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), 4096, libc::PROT_READ, libc::MAP_SHARED, file.as_raw_fd(), 0) };
        assert_ne!(at, libc::MAP_FAILED);
        Self { path, _file: file }
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

#[test]
fn what_a_killed_mpirun_leaves_is_removed_at_the_next_start_and_nothing_else() {
    let folder = tempfile::tempdir().unwrap();
    let [job, out] = ["job.toml", "out"].map(|name| folder.path().join(name));
    fs::write(&job, training::images(8, "type = \"sgd\"\nlr = 0.02")).unwrap();
    let args = ["train", job.to_str().unwrap(), "--out", out.to_str().unwrap(), "--set"];
    let endless = [&args[..], &["train.epochs=1000000", "--set", "train.checkpoint_steps=1"]].concat();
    let mut mpirun = command(2, &endless);
    let mut mpirun = mpirun.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let checkpoints = out.join("checkpoints");
    let newest = || ddl::store::checkpoint::list(&checkpoints).ok().and_then(|mut list| list.pop());
    wait_until("nothing is saved", || checkpoints.exists() && newest().is_some());
    let children = format!("/proc/{0}/task/{0}/children", mpirun.id());
    let ranks: Vec<String> = fs::read_to_string(children).unwrap().split_whitespace().map(String::from).collect();
    let segments: Vec<PathBuf> = ranks.iter().flat_map(|rank| mapped(rank)).collect();
    assert!(ranks.len() == 2 && !segments.is_empty(), "{ranks:?} map {segments:?}");

    mpirun.kill().unwrap();
    mpirun.wait().unwrap();
    wait_until("ranks go on without mpirun", || !ranks.iter().any(|rank| lives(rank)));
    let left: Vec<&PathBuf> = segments.iter().filter(|path| path.exists()).collect();
    assert!(!left.is_empty(), "nothing to be removed of {segments:?}");
    left.iter().for_each(|path| age(path));
    // What a kill in the middle of a checkpoint leaves.
    let half = checkpoints.join("step-00999999.h5.tmp");
    let whole = fs::read(newest().unwrap()).unwrap();
    fs::write(&half, &whole[..whole.len() / 2]).unwrap();
    let (alive, foreign) = (Alive::new(), checkpoints.join("mine.tmp"));
    fs::write(&foreign, "mine").unwrap();

    let at = ddl::store::checkpoint::read(&newest().unwrap()).unwrap().step;
    let steps = format!("train.max_steps={}", at + 2);
    let resumed = ddl_ok(2, &[&args[..], &["train.epochs=1000000", "--set", &steps, "--resume"]].concat());
    assert!(resumed.0.contains(&format!("step {at},")), "{}", resumed.0);
    assert!(!left.iter().any(|path| path.exists()), "left: {left:?}");
    assert!(!half.exists() && !out.join("run.lock").exists());
    assert!(alive.path.exists() && foreign.exists(), "something else was removed");
    let inspect = Command::new(env!("CARGO_BIN_EXE_ddl")).arg("inspect").arg(out.join("run.h5")).output().unwrap();
    assert!(inspect.status.success(), "{inspect:?}");
}
