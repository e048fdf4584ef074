//! Who started this process, seen before MPI is.

use std::env;

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
}
