//! What several integration tests share: running the program, the golden formula, reading a run file.
#![allow(dead_code)] // each test binary compiles all of it and uses a part

pub mod broken;
pub mod training;
pub mod web;

use std::fs::File;
use std::io::{Read, Seek};
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(120);

/// Runs `ddl` with `args` on `ranks` ranks under mpirun, or without mpirun for 0 ranks. After 120 s it is killed, which
/// the status (a signal) and the last line of stderr tell.
pub fn ddl(ranks: usize, args: &[&str]) -> Output {
    run(&mut command(ranks, args), LIMIT)
}

/// `ddl` with `args` on `ranks` ranks under mpirun, or without mpirun for 0 ranks, not yet started.
pub fn command(ranks: usize, args: &[&str]) -> Command {
    let program = env!("CARGO_BIN_EXE_ddl");
    let mut command = if ranks == 0 {
        Command::new(program)
    } else {
        let mut mpirun = Command::new("mpirun");
        // Tests run at the same time: bound ranks would all sit on the first cores.
        mpirun.args(["-n", &ranks.to_string(), "--oversubscribe", "--bind-to", "none", program]);
        mpirun.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        mpirun
    };
    command.args(args);
    command
}

/// As [`ddl`], which must succeed: what it wrote to stdout and stderr.
pub fn ddl_ok(ranks: usize, args: &[&str]) -> (String, String) {
    succeeded(&mut command(ranks, args))
}

/// The same of a command of [`command`].
pub fn succeeded(command: &mut Command) -> (String, String) {
    let output = run(command, LIMIT);
    let [stdout, stderr] = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(output.status.success(), "{command:?}: {}\n{stdout}\n{stderr}", output.status);
    (stdout, stderr)
}

/// Runs a command, killing it after `limit`. Its output goes to files, since a full pipe would stop it.
pub fn run(command: &mut Command, limit: Duration) -> Output {
    let mut stdout = tempfile::tempfile().expect("a temporary file for stdout");
    let mut stderr = tempfile::tempfile().expect("a temporary file for stderr");
    command.stdin(Stdio::null());
    command.stdout(stdout.try_clone().expect("stdout's handle"));
    command.stderr(stderr.try_clone().expect("stderr's handle"));
    let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
    let start = Instant::now();
    let mut killed = false;
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child's status") {
            break status;
        }
        if start.elapsed() > limit && !killed {
            child.kill().expect("the child can be killed");
            killed = true;
        }
        std::thread::sleep(Duration::from_millis(5));
    };
    let mut output = Output { status, stdout: contents(&mut stdout), stderr: contents(&mut stderr) };
    if killed {
        output.stderr.extend(format!("\nkilled after {} s\n", limit.as_secs()).bytes());
    }
    output
}

/// How a run of `ddl` ended on each of its ranks.
#[derive(Debug)]
pub struct Ended {
    /// Exit codes, in no order of ranks.
    pub codes: Vec<i32>,
    /// The lines of stderr that begin with `error: `.
    pub errors: Vec<String>,
    /// All of stderr.
    pub stderr: String,
    /// All of stdout.
    pub stdout: String,
}

/// Runs `ddl` on `ranks` ranks, each in a shell that runs `before` first and then tells the rank's exit code, which
/// mpirun alone does not. Killed after `limit`.
pub fn ended(ranks: usize, before: &str, args: &[&str], limit: Duration) -> Ended {
    let mut command = Command::new("mpirun");
    command.args(["-n", &ranks.to_string(), "--oversubscribe", "--bind-to", "none", "sh", "-c"]);
    command.arg(format!("{before}\n\"$0\" \"$@\"; echo code=$?")).arg(env!("CARGO_BIN_EXE_ddl")).args(args);
    command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
    let output = run(&mut command, limit);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (stdout, stderr) = (text(&output.stdout), text(&output.stderr));
    let codes = stdout.lines().filter_map(|line| line.strip_prefix("code=")?.trim().parse().ok()).collect();
    let errors = stderr.lines().filter(|line| line.starts_with("error: ")).map(str::to_owned).collect();
    Ended { codes, errors, stderr, stdout }
}

fn contents(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().expect("the start of the output");
    file.read_to_end(&mut bytes).expect("the output");
    bytes
}

/// The golden formula, in [-1, 1): bit for bit `value` of `tests/golden/formula.py`.
pub fn value(tag: u32, i: u32) -> f32 {
    let mut h = i.wrapping_mul(2_654_435_761).wrapping_add(tag.wrapping_mul(40_503)).wrapping_add(12_345);
    h ^= h >> 15;
    h = h.wrapping_mul(2_246_822_519);
    h ^= h >> 13;
    (h >> 8) as f32 / 16_777_216.0 * 2.0 - 1.0
}

/// All elements of a data set of an HDF5 file, converted to f64.
pub fn read_f64(path: impl AsRef<Path>, dataset: &str) -> Vec<f64> {
    let path = path.as_ref();
    let read = || hdf5::File::open(path)?.dataset(dataset)?.read_raw::<f64>();
    read().unwrap_or_else(|e| panic!("{} of {}: {e}", dataset, path.display()))
}
