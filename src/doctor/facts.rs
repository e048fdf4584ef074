//! What the checks judge: plain facts of each rank and of rank 0's surroundings, gathered here and nowhere else.

use crate::comm::{Comm, launched, version};
use crate::kernel::{Isa, bf16_is_native, bf16_pays, isa};
use crate::resource::{cpu, host_name};
use crate::train::COMMIT;
use rustix::fs::{Access, access, statvfs};
use serde::{Deserialize, Serialize};
use std::env;
use std::fs::read_to_string;
use std::path::{Path, PathBuf};

/// What a rank and its host are like.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct RankFacts {
    /// Its host's name.
    pub host: String,
    /// The CPUs it may run on, as Linux lists them.
    pub binding: String,
    /// The CPU's name.
    pub cpu: String,
    /// Physical cores of the host.
    pub cores: usize,
    /// CPUs' worth of time that its control group allows.
    pub quota: Option<f64>,
    /// The instruction set in use, and the best one of this CPU.
    pub isa: (String, String),
    /// Whether products of bf16 are taken for those of f32; None without an instruction for them.
    pub bf16: Option<bool>,
    /// `DDL_ISA`.
    pub isa_wish: Option<String>,
    /// The MPI libraries it has loaded.
    pub mpi_libraries: Vec<String>,
    /// The HDF5 libraries it has loaded.
    pub hdf5_libraries: Vec<String>,
    /// Version and commit of the program.
    pub version: String,
    /// Free bytes of /dev/shm.
    pub shared_memory: Option<u64>,
    /// Of transparent huge pages: `always`, `madvise` or `never`.
    pub huge_pages: Option<String>,
    /// How the clock is governed: `performance`, `powersave`, ...
    pub governor: Option<String>,
    /// `vm.overcommit_memory`.
    pub overcommit: Option<u8>,
}

/// A folder that is written to.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Disk {
    /// What for.
    pub what: &'static str,
    /// The folder, or the nearest one that exists.
    pub path: PathBuf,
    /// Bytes that may be used.
    pub free: u64,
    /// Of so many.
    pub size: u64,
    /// Whether it may be written to.
    pub writable: bool,
}

/// All that is known.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Facts {
    /// Rank by rank.
    pub ranks: Vec<RankFacts>,
    /// What started this process, if anything did.
    pub launcher: Option<&'static str>,
    /// Why the ranks are not one job, and the mend.
    pub trouble: Option<(String, String)>,
    /// The MPI in use, by its own word.
    pub mpi: String,
    /// The HDF5 in use.
    pub hdf5: String,
    /// What `mpirun --version` says, asked where nothing started this process.
    pub mpirun: Option<String>,
    /// Ranks a core on the fullest host.
    pub ranks_per_core: f64,
    /// Where results and temporary files go.
    pub disks: Vec<Disk>,
}

/// Whether this process is the one that speaks, also where the ranks are not one job.
pub fn speaks() -> bool {
    launched().is_none_or(|launcher| launcher.rank == 0)
}

/// Gathers the facts of all ranks; complete on rank 0. Every rank calls this.
pub fn gather(comm: &dyn Comm, trouble: Option<(String, String)>, results: &Path) -> Facts {
    let mine = serde_json::to_vec(&rank_facts()).unwrap_or_default();
    let all = comm.gather_bytes(&mine);
    let ranks: Vec<RankFacts> = all.iter().map(|bytes| serde_json::from_slice(bytes).unwrap_or_default()).collect();
    let launcher = launched();
    let (hosts, bindings): (Vec<String>, Vec<String>) =
        ranks.iter().map(|rank| (rank.host.clone(), rank.binding.clone())).unzip();
    Facts {
        ranks_per_core: cpu::ranks_per_core(&hosts, &bindings, cpu::usable_cores),
        ranks,
        mpi: comm.library(),
        hdf5: crate::store::hdf5_version(),
        // A rank under MPI had better not start processes without need.
        mpirun: if launcher.is_none() { version("mpirun") } else { None },
        launcher: launcher.map(|launcher| launcher.name),
        trouble,
        disks: vec![disk("results", results), disk("temporary files (TMPDIR)", &env::temp_dir())],
    }
}

fn rank_facts() -> RankFacts {
    let first_line = |path: &str| read_to_string(path).ok().map(|text| text.trim().to_owned());
    let maps = read_to_string("/proc/self/maps").unwrap_or_default();
    let all = cpu::cpu_list(&first_line("/sys/devices/system/cpu/online").unwrap_or_default());
    RankFacts {
        host: host_name(),
        binding: cpu::binding(),
        cpu: cpu::model(),
        cores: cpu::physical_cores(&all).max(1),
        quota: cpu::quota(),
        isa: (isa().name().to_owned(), Isa::detect().name().to_owned()),
        bf16: bf16_is_native().then(bf16_pays),
        isa_wish: env::var("DDL_ISA").ok(),
        mpi_libraries: libraries(&maps, &["libmpi.so", "libmpich.so", "libmpi_abi.so"]),
        hdf5_libraries: libraries(
            &maps,
            &["libhdf5.so", "libhdf5_serial.so", "libhdf5_openmpi.so", "libhdf5_mpich.so"],
        ),
        version: format!("{} {COMMIT}", env!("CARGO_PKG_VERSION")).trim().to_owned(),
        shared_memory: statvfs("/dev/shm").ok().map(|found| found.f_bavail * found.f_frsize),
        huge_pages: first_line("/sys/kernel/mm/transparent_hugepage/enabled").and_then(|text| chosen(&text)),
        governor: first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        overcommit: first_line("/proc/sys/vm/overcommit_memory").and_then(|text| text.parse().ok()),
    }
}

/// The files in a process's map of memory whose names begin with one of `names`, each once.
fn libraries(maps: &str, names: &[&str]) -> Vec<String> {
    let paths = maps.lines().filter_map(|line| line.find('/').map(|at| line[at..].trim()));
    let is_one = |path: &&str| names.iter().any(|name| path.rsplit('/').next().unwrap_or_default().starts_with(name));
    let mut found: Vec<String> = paths.filter(is_one).map(str::to_owned).collect();
    found.sort();
    found.dedup();
    found
}

/// `madvise` of `always [madvise] never`.
fn chosen(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    rest.split_once(']').map(|(word, _)| word.to_owned())
}

fn disk(what: &'static str, path: &Path) -> Disk {
    let here = env::current_dir().unwrap_or_default().join(path);
    let path = here.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/")).to_owned();
    let (free, size) =
        statvfs(&path).map_or((0, 0), |found| (found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize));
    Disk { what, free, size, writable: access(&path, Access::WRITE_OK).is_ok(), path }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::comm::Solo;

    #[test]
    fn libraries_are_found_in_a_map() {
        let maps = "7f00-7f01 r-xp 00000000 fe:00 12 /usr/lib/libmpi.so.40.30.4\n\
                    7f01-7f02 r--p 00000000 fe:00 12 /usr/lib/libmpi.so.40.30.4\n\
                    7f03-7f04 r--p 00000000 fe:00 13 /opt/my mpich/libmpich.so.12\n\
                    7f05-7f06 rw-p 00000000 00:00 0 [heap]\n";
        let found = libraries(maps, &["libmpi.so", "libmpich.so"]);
        assert_eq!(found, ["/opt/my mpich/libmpich.so.12", "/usr/lib/libmpi.so.40.30.4"]);
        assert_eq!(chosen("always [madvise] never").as_deref(), Some("madvise"));
        assert_eq!(chosen("nothing"), None);
    }

    #[test]
    fn this_machine_has_facts() {
        let facts = gather(&Solo, None, Path::new("results/not-there"));
        assert_eq!(facts.ranks.len(), 1);
        assert!(facts.ranks[0].cores >= 1 && !facts.ranks[0].isa.0.is_empty());
        assert!(facts.disks[0].path.exists() && facts.disks[0].size > 0);
    }
}
