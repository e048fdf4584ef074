//! Starting `ddl train` on a number of ranks, as a user would: through mpirun or srun.

use super::plan::Point;
use crate::comm::{Family, version};
use crate::config::SWITCHES;
use crate::error::{Error, Result};
use crate::store;
use crate::train::signal::StopFlag;
use rustix::process::{Pid, Signal, kill_process};
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

/// Which launcher to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Choice {
    /// srun inside a Slurm allocation, else mpirun.
    Auto,
    /// mpirun of Open MPI or MPICH.
    Mpirun,
    /// Slurm's srun.
    Srun,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Mpirun(Family),
    Srun,
}

/// A launcher that is there.
#[derive(Debug, Clone)]
pub struct Launcher {
    kind: Kind,
    /// What it says to `--version`.
    pub version: String,
    more: Vec<String>,
}

/// How a run ended.
#[derive(Debug)]
pub enum Ended {
    /// With exit code 0.
    Done,
    /// With another code, or a signal; the last lines of stderr.
    Failed(ExitStatus, String),
    /// This program was asked to stop.
    Interrupted,
}

/// How many lines of a failed run's stderr are shown.
const LAST_LINES: usize = 12;

/// Open MPI's options that say which hosts to use, or how to bind.
const HOSTS: [&str; 6] = ["-H", "-host", "--host", "-hostfile", "--hostfile", "-machinefile"];

impl Launcher {
    /// Looks for the launcher; `more` are arguments to give it.
    ///
    /// # Errors
    /// `Usage` if it is not installed.
    pub fn find(choice: Choice, more: Vec<String>) -> Result<Self> {
        let in_slurm = std::env::var_os("SLURM_JOB_ID").is_some();
        if choice == Choice::Srun || (choice == Choice::Auto && in_slurm) {
            match version("srun") {
                Some(version) => return Ok(Self { kind: Kind::Srun, version, more }),
                None if choice == Choice::Srun => {
                    let mend = "load Slurm, or use --launcher mpirun";
                    return Err(Error::usage("--launcher srun", "there is no srun in the PATH", mend));
                }
                None => {}
            }
        }
        let Some(version) = version("mpirun") else {
            let mend = "install it (Debian: openmpi-bin) or load the MPI that ddl was built with (module load openmpi); \
                        --slurm DIR writes scripts instead";
            return Err(Error::usage("ddl scale", "there is no mpirun in the PATH to start ranks with", mend));
        };
        Ok(Self { kind: Kind::Mpirun(Family::of_launcher(&version)), version, more })
    }

    /// The program and its arguments before `ddl`'s, for `ranks` ranks where this host has `cores` cores.
    pub fn arguments(&self, ranks: usize, cores: usize) -> Vec<String> {
        let n = ranks.to_string();
        let given = |names: &[&str]| self.more.iter().any(|arg| names.contains(&arg.as_str()));
        let mut command: Vec<String> = match self.kind {
            Kind::Srun => vec!["srun".into(), "-n".into(), n],
            Kind::Mpirun(_) => vec!["mpirun".into(), "-n".into(), n],
        };
        match self.kind {
            Kind::Srun if !self.more.iter().any(|arg| arg.starts_with("--mpi")) => command.push("--mpi=pmix".into()),
            // One core a rank, or the kernel may move ranks onto each other.
            Kind::Mpirun(Family::OpenMpi) if ranks <= cores && !given(&["--bind-to", "-bind-to"]) => {
                command.extend(["--bind-to".into(), "core".into()]);
            }
            Kind::Mpirun(Family::OpenMpi)
                if ranks > cores && !given(&HOSTS) && std::env::var_os("SLURM_JOB_ID").is_none() =>
            {
                command.push("--oversubscribe".into());
            }
            _ => {}
        }
        command.extend(self.more.iter().cloned());
        command
    }

    /// Runs a point to its end. Its output goes to `stdout.log` and `stderr.log` in its folder.
    ///
    /// # Errors
    /// `Io` if its folder cannot be written to or the launcher not be started.
    pub fn run(&self, point: &Point, cores: usize, stop: &StopFlag) -> Result<Ended> {
        store::write_file(&point.job_file(), point.job.as_bytes())?;
        let log = |name: &str| {
            let path = point.folder.join(name);
            File::create(&path).map_err(|e| Error::io(&path, format!("cannot be made: {e}"), "check the folder"))
        };
        let arguments = self.arguments(point.ranks, cores);
        let mut command = Command::new(&arguments[0]);
        command.args(&arguments[1..]).arg(program()?).args(train_arguments(point));
        command.stdin(Stdio::null()).stdout(log("stdout.log")?).stderr(log("stderr.log")?);
        for name in overriding(std::env::vars_os().map(|(name, _)| name)) {
            command.env_remove(name);
        }
        // Open MPI refuses to run as root unless told twice; whoever started this program as root has decided that.
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        let started = command.spawn().map_err(|e| {
            let what = format!("{} cannot be started: {e}", arguments[0]);
            Error::io(&point.folder, what, "check that it is in the PATH")
        });
        wait(started?, point, stop)
    }
}

/// What this program is asked for a point.
pub fn train_arguments(point: &Point) -> [OsString; 4] {
    ["train".into(), point.job_file().into(), "--out".into(), point.folder.clone().into()]
}

/// This program's path.
///
/// # Errors
/// `Io` where the system does not tell.
pub fn program() -> Result<PathBuf> {
    let mend = "start ddl by its full path";
    std::env::current_exe().map_err(|e| Error::io(Path::new("ddl"), format!("cannot find itself: {e}"), mend))
}

/// Variables that change keys of a job: the point's job has them in it already, or other limits in their place.
fn overriding(names: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let changes =
        |name: &OsString| name.to_str().is_some_and(|name| name.starts_with("DDL_") && !SWITCHES.contains(&name));
    names.filter(changes).collect()
}

fn wait(mut child: Child, point: &Point, stop: &StopFlag) -> Result<Ended> {
    let failed = |e: std::io::Error| Error::io(&point.folder, format!("the launcher is lost: {e}"), "run it again");
    let mut told = false;
    loop {
        if let Some(status) = child.try_wait().map_err(failed)? {
            return Ok(match status.success() {
                _ if told => Ended::Interrupted,
                true => Ended::Done,
                false => Ended::Failed(status, last_lines(&point.folder.join("stderr.log"))),
            });
        }
        if stop.is_set() && !told {
            told = true;
            // A launcher that is asked ends its ranks; one that is killed may leave them behind.
            let _ = kill_process(Pid::from_child(&child), Signal::TERM);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// The end of a log, without empty lines.
fn last_lines(path: &Path) -> String {
    let text = fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(kind: Kind, more: &[&str], ranks: usize) -> String {
        let more = more.iter().map(|arg| arg.to_string()).collect();
        Launcher { kind, version: String::new(), more }.arguments(ranks, 2).join(" ")
    }

    #[test]
    fn launchers_are_told_the_ranks() {
        assert_eq!(arguments(Kind::Mpirun(Family::OpenMpi), &[], 2), "mpirun -n 2 --bind-to core");
        assert_eq!(arguments(Kind::Mpirun(Family::OpenMpi), &["--bind-to", "none"], 2), "mpirun -n 2 --bind-to none");
        assert_eq!(arguments(Kind::Mpirun(Family::OpenMpi), &["--hostfile", "h"], 4), "mpirun -n 4 --hostfile h");
        assert_eq!(arguments(Kind::Mpirun(Family::Mpich), &["-f", "h"], 4), "mpirun -n 4 -f h");
        assert_eq!(arguments(Kind::Srun, &[], 4), "srun -n 4 --mpi=pmix");
        assert_eq!(arguments(Kind::Srun, &["--mpi=pmi2"], 4), "srun -n 4 --mpi=pmi2");
        if std::env::var_os("SLURM_JOB_ID").is_none() {
            assert_eq!(arguments(Kind::Mpirun(Family::OpenMpi), &[], 4), "mpirun -n 4 --oversubscribe");
        }
    }

    #[test]
    fn a_point_does_not_see_overrides_of_the_job() {
        let names = ["DDL_TRAIN_EPOCHS", "DDL_ISA", "PATH", "DDL_SEED"].map(OsString::from);
        assert_eq!(overriding(names.into_iter()), ["DDL_TRAIN_EPOCHS", "DDL_SEED"]);
    }

    #[test]
    fn the_end_of_a_log_is_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("stderr.log");
        let text: String = (0..50).map(|i| format!("line {i}\n\n")).collect();
        fs::write(&path, text).unwrap();
        let lines = last_lines(&path);
        assert!(lines.starts_with("line 38\n") && lines.ends_with("\nline 49"), "{lines}");
        assert_eq!(last_lines(Path::new("/nowhere")), "");
    }
}
