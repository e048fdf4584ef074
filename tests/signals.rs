//! Signals at any moment: a warning (USR1) that comes during start-up is remembered, and a lost terminal (HUP) stops a run
//! as Ctrl-C does.

mod support;

use std::fs;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use support::{command, training};

const LIMIT: Duration = Duration::from_secs(60);

/// A run that does not end by itself.
fn endless(ranks: usize, folder: &Path) -> Command {
    let job = folder.join("job.toml");
    fs::write(&job, training::images(8, "type = \"sgd\"\nlr = 0.02")).unwrap();
    let [job, out] = [job, folder.join("out")].map(|path| path.display().to_string());
    let mut command = command(ranks, &["train", &job, "--out", &out, "--set", "train.epochs=1000000"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn send(process: u32, signal: i32) {
    // SAFETY: a plain system call.
    unsafe { libc::kill(process as i32, signal) };
}

/// Whether a process has a handler for a signal; true of one that is gone.
fn catches(process: u32, signal: i32) -> bool {
    has("SigCgt:", process, signal)
}

/// Whether a signal is in this set of a process; true of one that is gone.
fn has(set: &str, process: u32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix(set)).map(str::trim);
    mask.is_none_or(|mask| u64::from_str_radix(mask, 16).unwrap() >> (signal - 1) & 1 == 1)
}

/// The processes that `process` has started.
fn children(process: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{process}/task/{process}/children")).unwrap_or_default();
    text.split_whitespace().map(|number| number.parse().unwrap()).collect()
}

fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < LIMIT, "{what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

fn end_of(mut child: Child) -> ExitStatus {
    let began = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        if began.elapsed() > LIMIT {
            let _ = child.kill();
            panic!("the run does not end");
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

fn checkpoints(folder: &Path) -> usize {
    ddl::store::checkpoint::list(&folder.join("out/checkpoints")).unwrap().len()
}

/// The signal waits already when the program's first instruction runs.
#[test]
fn a_warning_from_before_the_start_is_remembered() {
    let folder = tempfile::tempdir().unwrap();
    let mut command = endless(0, folder.path());
    // SAFETY: system calls that may be made between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigaddset(&mut set, libc::SIGUSR1);
            libc::sigprocmask(libc::SIG_BLOCK, &set, std::ptr::null_mut());
            libc::raise(libc::SIGUSR1);
            Ok(())
        });
    }
    assert_eq!(end_of(command.spawn().unwrap()).code(), Some(75));
    assert!(checkpoints(folder.path()) > 0);
}

/// Some moments in the first half second, told from the process's number.
fn moments(process: u32) -> impl Iterator<Item = Duration> {
    let mut state = process;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        Duration::from_micros(u64::from(state >> 16) % 40_000)
    })
}

#[test]
fn a_flood_of_warnings_ends_with_a_checkpoint() {
    for _ in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let mut child = endless(0, folder.path()).spawn().unwrap();
        wait_until("no handler stands", || catches(child.id(), libc::SIGUSR1));
        for pause in moments(child.id()).take(25) {
            std::thread::sleep(pause);
            if child.try_wait().unwrap().is_none() {
                send(child.id(), libc::SIGUSR1);
            }
        }
        let status = end_of(child);
        assert_eq!(status.code(), Some(75), "{status}, signal {:?}", status.signal());
        assert!(checkpoints(folder.path()) > 0);
    }
}

/// What mpirun forwards to a process that has not begun, and to itself when all have ended, is its own.
#[test]
fn a_warning_to_mpirun_while_ranks_start_ends_with_a_checkpoint() {
    for number in 0..4 {
        let folder = tempfile::tempdir().unwrap();
        let child = endless(2, folder.path()).spawn().unwrap();
        let program = Path::new(env!("CARGO_BIN_EXE_ddl"));
        let ready = |rank: &u32| {
            let runs = fs::read_link(format!("/proc/{rank}/exe")).is_ok_and(|exe| exe == program);
            runs && catches(*rank, libc::SIGUSR1)
        };
        wait_until("the ranks do not start", || children(child.id()).iter().filter(|rank| ready(rank)).count() == 2);
        for pause in moments(child.id()).take(number) {
            std::thread::sleep(pause);
        }
        send(child.id(), libc::SIGUSR1);
        let status = end_of(child);
        assert_eq!(status.code(), Some(75), "{status}, signal {:?}", status.signal());
        assert!(checkpoints(folder.path()) > 0);
    }
}

/// As README and the Slurm script start it: the signal comes while the program is being loaded, and waits.
#[test]
fn a_warning_that_is_held_back_is_taken_when_the_program_can() {
    let held = ["--block-signal=USR1", env!("CARGO_BIN_EXE_ddl")];
    if !Command::new("env").args([held[0], "true"]).status().is_ok_and(|status| status.success()) {
        eprintln!("an env that cannot hold signals back: not tested");
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let plain = endless(2, folder.path());
    let mut command = Command::new("mpirun");
    let (own, program): (Vec<_>, Vec<_>) = plain.get_args().partition(|arg| *arg != held[1]);
    assert_eq!(program.len(), 1);
    let at = own.iter().position(|arg| *arg == "train").unwrap();
    command.args(&own[..at]).arg("env").args(held).args(&own[at..]);
    for (name, value) in plain.get_envs() {
        command.env(name, value.unwrap());
    }
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let mpirun = child.id();
    let held = |rank: &u32| {
        // mpirun's own child, before it becomes env, has mpirun's handlers.
        let begun = fs::read_link(format!("/proc/{rank}/exe")).is_ok_and(|exe| !exe.ends_with("orterun"));
        begun && (has("SigBlk:", *rank, libc::SIGUSR1) || catches(*rank, libc::SIGUSR1))
    };
    wait_until("the ranks do not start", || children(mpirun).iter().filter(|rank| held(rank)).count() == 2);
    send(mpirun, libc::SIGUSR1);
    let status = end_of(child);
    assert_eq!(status.code(), Some(75), "{status}, signal {:?}", status.signal());
    assert!(checkpoints(folder.path()) > 0);
}

#[test]
fn a_lost_terminal_stops_a_run_unless_it_is_to_be_outlived() {
    for outlived in [false, true] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = endless(0, folder.path());
        command.args(["--set", "train.checkpoint_steps=1"]);
        // As nohup leaves it or, whoever started the tests, as a terminal does.
        let to_hup = if outlived { libc::SIG_IGN } else { libc::SIG_DFL };
        // SAFETY: a system call that may be made between fork and exec.
        unsafe {
            command.pre_exec(move || {
                libc::signal(libc::SIGHUP, to_hup);
                Ok(())
            });
        }
        let mut child = command.spawn().unwrap();
        wait_until("nothing is saved", || folder.path().join("out").exists() && checkpoints(folder.path()) > 0);
        send(child.id(), libc::SIGHUP);
        if outlived {
            std::thread::sleep(Duration::from_millis(200));
            assert!(child.try_wait().unwrap().is_none(), "HUP was to be ignored");
            send(child.id(), libc::SIGUSR1);
        }
        assert_eq!(end_of(child).code(), Some(75), "outlived: {outlived}");
    }
}

#[test]
fn a_run_ends_with_a_checkpoint_after_so_many_hours_or_before_its_slurm_job_does() {
    let folder = tempfile::tempdir().unwrap();
    for ranks in [0, 2] {
        let mut limited = endless(ranks, folder.path());
        assert_eq!(end_of(limited.args(["--max-hours", "0.0002", "--resume"]).spawn().unwrap()).code(), Some(75));
        assert!(checkpoints(folder.path()) > 0);
    }
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let mut in_a_job = endless(0, folder.path());
    in_a_job.arg("--resume").env("SLURM_JOB_END_TIME", (now.as_secs() + 3).to_string());
    assert_eq!(end_of(in_a_job.spawn().unwrap()).code(), Some(75));
    for hours in ["0", "-1", "inf", "soon"] {
        let mut wrong = endless(0, folder.path());
        assert_eq!(end_of(wrong.args(["--max-hours", hours]).spawn().unwrap()).code(), Some(2));
    }
}
