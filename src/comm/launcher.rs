//! Who started this process, seen before MPI is; and which launchers there are to start others.

use crate::error::Error;
use std::env;
use std::process::{Command, Stdio};

/// What the launcher says of this process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Launcher {
    /// `mpirun` (Open MPI), `mpiexec` (MPICH and others by PMI) or `srun` (Slurm by PMIx).
    pub name: &'static str,
    /// This process's number.
    pub rank: usize,
    /// How many processes it started, where it says so.
    pub size: Option<usize>,
}

impl Launcher {
    /// Slurm, where it tells the processes it starts nothing of each other.
    const SINGLETONS: &str = "srun --mpi=none";

    /// Why the processes it started are no job, where that shows already: each is a job of one rank, which trains what the
    /// others train and writes where they write.
    pub fn trouble(&self) -> Option<Error> {
        let tasks = self.size.filter(|_| self.name == Self::SINGLETONS)?;
        let what = format!("srun started {tasks} processes, which are {tasks} jobs of one rank and not one job");
        let mend = "start with `srun --mpi=pmix` (`srun --mpi=list` shows what there is), or with mpirun";
        Some(Error::usage("Slurm", what, mend))
    }
}

/// The launcher, or None for a process started by hand. A Slurm batch script's own shell (no PMI, and one task in its step or
/// none) counts as by hand.
pub fn launched() -> Option<Launcher> {
    launched_from(|name| env::var(name).ok())
}

fn launched_from(variable: impl Fn(&str) -> Option<String>) -> Option<Launcher> {
    let number = |name: &str| variable(name).and_then(|value| value.parse::<usize>().ok());
    if let Some(rank) = number("OMPI_COMM_WORLD_RANK") {
        return Some(Launcher { name: "mpirun", rank, size: number("OMPI_COMM_WORLD_SIZE") });
    }
    if let Some(rank) = number("PMI_RANK") {
        return Some(Launcher { name: "mpiexec", rank, size: number("PMI_SIZE") });
    }
    if let Some(rank) = number("PMIX_RANK") {
        return Some(Launcher { name: "srun", rank, size: number("SLURM_STEP_NUM_TASKS").or(number("SLURM_NTASKS")) });
    }
    // A batch script's shell is number 0 whatever the tasks of its allocation; a step says how many tasks it has.
    let rank = number("SLURM_PROCID")?;
    let tasks = number("SLURM_STEP_NUM_TASKS").or_else(|| number("SLURM_NTASKS").filter(|_| rank > 0))?;
    (tasks > 1).then_some(Launcher { name: Launcher::SINGLETONS, rank, size: Some(tasks) })
}

/// What a launcher such as `mpirun` says to `--version`, its first two lines as one; None where there is none in the PATH.
pub fn version(program: &str) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text);
    Some(text.lines().take(2).flat_map(str::split_whitespace).collect::<Vec<_>>().join(" "))
}

/// Whose MPI it is: their launchers differ in options, and start as one job only programs that use a library of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// Open MPI.
    OpenMpi,
    /// MPICH, and what is made of it: Intel MPI, MVAPICH.
    Mpich,
    /// Any other.
    Other,
}

impl Family {
    /// By what `mpirun --version` says.
    pub fn of_launcher(version: &str) -> Self {
        let says = |names: &[&str]| names.iter().any(|name| version.contains(name));
        if says(&["Open MPI", "OpenRTE", "open-mpi", "prte"]) {
            Self::OpenMpi
        } else if says(&["HYDRA", "MPICH", "Intel(R) MPI"]) {
            Self::Mpich
        } else {
            Self::Other
        }
    }

    /// By the file of an MPI library: soname 12 is the MPICH family's ABI.
    pub fn of_library(path: &str) -> Self {
        let name = path.rsplit('/').next().unwrap_or_default();
        match name.strip_prefix("libmpi.so") {
            Some(version) if version.starts_with(".12") => Self::Mpich,
            Some(_) => Self::OpenMpi,
            None if name.starts_with("libmpich") => Self::Mpich,
            None => Self::Other,
        }
    }

    /// Whether programs of one are surely not started as one job by the other's launcher.
    pub fn clashes(self, other: Self) -> bool {
        self != other && self != Self::Other && other != Self::Other
    }

    /// As its makers write it.
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenMpi => "Open MPI",
            Self::Mpich => "MPICH",
            Self::Other => "another MPI",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pairs: &[(&str, &str)]) -> Option<Launcher> {
        launched_from(|name| pairs.iter().find(|(n, _)| *n == name).map(|(_, v)| v.to_string()))
    }

    #[test]
    fn launchers_are_told_apart() {
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[("SLURM_NTASKS", "4")]), None);
        let open_mpi = with(&[("OMPI_COMM_WORLD_RANK", "1"), ("OMPI_COMM_WORLD_SIZE", "4"), ("PMIX_RANK", "1")]);
        assert_eq!(open_mpi, Some(Launcher { name: "mpirun", rank: 1, size: Some(4) }));
        let mpich = with(&[("PMI_RANK", "2"), ("PMI_SIZE", "3")]);
        assert_eq!(mpich, Some(Launcher { name: "mpiexec", rank: 2, size: Some(3) }));
        let slurm = with(&[("PMIX_RANK", "0"), ("SLURM_STEP_NUM_TASKS", "2"), ("SLURM_NTASKS", "4")]);
        assert_eq!(slurm, Some(Launcher { name: "srun", rank: 0, size: Some(2) }));
        assert!([open_mpi, mpich, slurm].iter().flatten().all(|launcher| launcher.trouble().is_none()));
    }

    #[test]
    fn slurm_tasks_that_know_nothing_of_each_other_are_no_job() {
        let alone = |rank: usize, pairs: &[(&str, &str)]| {
            let launcher = with(pairs).unwrap();
            assert_eq!((launcher.rank, launcher.size), (rank, Some(4)));
            let error = launcher.trouble().unwrap();
            assert!(error.exit_code() == 2 && error.to_string().contains("srun --mpi=pmix"), "{error}");
        };
        let step = ("SLURM_STEP_NUM_TASKS", "4");
        alone(0, &[("SLURM_PROCID", "0"), step, ("SLURM_NTASKS", "4")]);
        alone(3, &[("SLURM_PROCID", "3"), step]);
        alone(1, &[("SLURM_PROCID", "1"), ("SLURM_NTASKS", "4")]);
        // A batch script, one task in a large allocation, and mpirun in a script or a step.
        assert_eq!(with(&[("SLURM_PROCID", "0"), ("SLURM_NTASKS", "4")]), None);
        assert_eq!(with(&[("SLURM_PROCID", "0"), ("SLURM_STEP_NUM_TASKS", "1"), ("SLURM_NTASKS", "4")]), None);
        let inside = with(&[("SLURM_PROCID", "0"), step, ("OMPI_COMM_WORLD_RANK", "2"), ("OMPI_COMM_WORLD_SIZE", "4")]);
        assert!(inside.unwrap().trouble().is_none());
    }

    #[test]
    fn families_go_by_version_and_library() {
        for (version, library, family) in [
            ("mpirun (Open MPI) 4.1.4", "/usr/lib/libmpi.so.40.30.4", Family::OpenMpi),
            ("mpirun (OpenRTE) 2.0.2", "libmpi.so", Family::OpenMpi),
            ("HYDRA build details: Version: 4.0.2", "/opt/my mpich/libmpich.so.12", Family::Mpich),
            ("Intel(R) MPI Library for Linux* OS, Version 2021.9", "/opt/libmpi.so.12.0.0", Family::Mpich),
            ("a site's own mpirun", "/usr/lib/libmpi_abi.so.0", Family::Other),
        ] {
            assert_eq!((Family::of_launcher(version), Family::of_library(library)), (family, family), "{version}");
        }
        assert!(Family::OpenMpi.clashes(Family::Mpich) && !Family::Mpich.clashes(Family::Mpich));
        assert!(!Family::Other.clashes(Family::Mpich) && !Family::OpenMpi.clashes(Family::Other));
    }

    #[test]
    fn a_launcher_that_is_not_there_has_no_version() {
        assert_eq!(version("no-such-launcher"), None);
        assert!(version("sh").is_some());
    }
}
