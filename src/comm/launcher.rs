//! Who started this process, seen before MPI is; and which launchers there are to start others.

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

/// The launcher, or None for a process started by hand. A Slurm batch script's own shell (no PMI) counts as by hand.
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
    None
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
