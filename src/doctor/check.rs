//! What would go wrong, judged from facts alone; each finding with its mend.

use super::facts::{Disk, Facts, RankFacts};
use super::finding::{DISK, Finding};
use crate::comm::Family;
use crate::resource::cpu::cpu_list;
use crate::train::terminal::bytes;
use std::collections::BTreeMap;

const MIB: u64 = 1 << 20;
const GIB: u64 = 1 << 30;
/// Of /dev/shm for each rank: Open MPI keeps some MB there and does not start without.
const MPI_SHARES: u64 = 16 * MIB;

/// All checks, in the order of the report.
pub fn check(facts: &Facts) -> Vec<Finding> {
    let mut found = vec![job(facts), libraries(facts), cores(facts), binding(facts)];
    found.extend([instruction_set(facts), quota(facts), alike(facts), shared_memory(facts)]);
    found.extend([huge_pages(facts), governor(facts), overcommit(facts)]);
    found.extend(facts.disks.iter().map(disk));
    found
}

/// N processes that know nothing of each other train N times the same, and report N times the speed.
fn job(facts: &Facts) -> Finding {
    let (subject, ranks) = ("job", facts.ranks.len());
    let same = "build and start with the same MPI (compare `mpicc --version`, `mpirun --version`, `which mpirun`)";
    if let Some(trouble) = &facts.trouble {
        let (what, mend) = trouble.clone();
        return Finding::serious(subject, what, mend);
    }
    if let Some(launcher) = facts.launcher {
        return Finding::good(subject, format!("{ranks} rank(s) in one MPI job, started by {launcher}"));
    }
    let library = facts.ranks.iter().flat_map(|rank| &rank.mpi_libraries).next();
    match (&facts.mpirun, library) {
        (None, _) => {
            let mend = "install it (Debian: openmpi-bin) or load its module to use more than one rank";
            Finding::warning(subject, "one rank, started by hand; there is no mpirun in the PATH", mend)
        }
        (Some(mpirun), Some(library)) if Family::of_library(library).clashes(Family::of_launcher(mpirun)) => {
            let family = Family::of_library(library).name();
            let what = format!("this program uses {family}, but mpirun is of another MPI: `{mpirun}`");
            Finding::serious(subject, what, same)
        }
        (Some(mpirun), _) => Finding::good(subject, format!("one rank, started by hand; mpirun is there: {mpirun}")),
    }
}

fn libraries(facts: &Facts) -> Finding {
    let subject = "libraries";
    for (kind, of) in
        [("MPI", (|rank| &rank.mpi_libraries) as fn(&RankFacts) -> &Vec<String>), ("HDF5", |rank| &rank.hdf5_libraries)]
    {
        for (number, rank) in facts.ranks.iter().enumerate() {
            if of(rank).len() > 1 {
                let what = format!("rank {number} has loaded several {kind} libraries: {}", of(rank).join(", "));
                let mend = "load one module of each kind; for HDF5 set HDF5_DIR to the serial one, or one built with this \
                            MPI, and build again";
                return Finding::serious(subject, what, mend);
            }
        }
    }
    let loaded = facts.ranks.first().map_or(String::new(), |rank| rank.mpi_libraries.join(", "));
    let mpi = if facts.launcher.is_some() { &facts.mpi } else { &loaded };
    Finding::good(subject, format!("MPI {mpi}, HDF5 {}", facts.hdf5))
}

fn cores(facts: &Facts) -> Finding {
    let (subject, ranks) = ("cores", facts.ranks.len());
    let hosts = by_host(facts).len();
    let what = format!(
        "{ranks} rank(s) on {hosts} host(s) with {} core(s) each",
        facts.ranks.first().map_or(0, |rank| rank.cores)
    );
    if facts.ranks_per_core > 1.0 {
        let what = format!("{what}: {:.2} ranks share each core they may use", facts.ranks_per_core);
        return Finding::serious(
            subject,
            what,
            "start fewer ranks, no more than cores; where there are as many, bind each to its own (--bind-to core)",
        );
    }
    Finding::good(subject, what)
}

/// Rank numbers by host.
fn by_host(facts: &Facts) -> BTreeMap<&str, Vec<usize>> {
    let mut hosts: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (number, rank) in facts.ranks.iter().enumerate() {
        hosts.entry(&rank.host).or_default().push(number);
    }
    hosts
}

fn binding(facts: &Facts) -> Finding {
    let subject = "binding";
    let mend =
        "start with `mpirun --bind-to core --map-by core` or `srun --cpu-bind=cores`, one job on these cores at a time";
    let mut unbound = 0;
    for (host, numbers) in by_host(facts).into_iter().filter(|(_, numbers)| numbers.len() > 1) {
        let mut owner: BTreeMap<usize, usize> = BTreeMap::new();
        for &number in &numbers {
            let cpus = cpu_list(&facts.ranks[number].binding);
            let only = cpus.first().copied().filter(|_| cpus.len() == 1);
            if let Some(other) = only.and_then(|cpu| owner.insert(cpu, number)) {
                let cpu = &facts.ranks[number].binding;
                return Finding::serious(
                    subject,
                    format!("ranks {other} and {number} on {host} are both bound to CPU {cpu}"),
                    mend,
                );
            }
            unbound += usize::from(cpus.len() > 1);
        }
    }
    match (facts.ranks.len(), unbound) {
        (1, _) => {
            let binding = facts.ranks.first().map_or("", |rank| &rank.binding);
            Finding::good(subject, format!("one rank, which may run on CPU {binding}"))
        }
        (_, 0) => Finding::good(subject, "each rank is bound to a core of its own"),
        // No binding helps where there are too few cores.
        _ if facts.ranks_per_core > 1.0 => Finding::good(subject, "ranks are not bound"),
        (ranks, unbound) => {
            let what = format!("{unbound} of {ranks} ranks may run on several cores, and be moved onto each other's");
            Finding::warning(subject, what, mend)
        }
    }
}

fn instruction_set(facts: &Facts) -> Finding {
    let subject = "instructions";
    let Some(rank) = facts.ranks.first() else { return Finding::good(subject, "unknown") };
    let (used, best) = (&rank.isa.0, &rank.isa.1);
    if used != best {
        let what = format!("{used} is used by DDL_ISA={}, the CPU has {best}", rank.isa_wish.as_deref().unwrap_or(""));
        return Finding::warning(subject, what, "unset DDL_ISA for full speed");
    }
    if used == "portable" && cfg!(target_arch = "x86_64") {
        let what = "this CPU has no AVX2 and FMA, or they are hidden: many times slower";
        return Finding::warning(
            subject,
            what,
            "use a newer CPU; in a virtual machine pass the host's CPU through (-cpu host)",
        );
    }
    let bf16 = match rank.bf16 {
        None => "no instruction for bf16: train.precision = \"bf16\" is f32",
        Some(true) => "bf16 is faster than f32",
        Some(false) => "bf16 is no faster than f32: train.precision = \"bf16\" is f32",
    };
    Finding::good(subject, format!("{used} on {}; {bf16}", rank.cpu))
}

fn quota(facts: &Facts) -> Finding {
    let subject = "CPU quota";
    for (host, numbers) in by_host(facts) {
        let rank = &facts.ranks[numbers[0]];
        let Some(quota) = rank.quota else { continue };
        let mend = "raise the container's limit (docker --cpus, the pod's resources.limits.cpu), or start fewer ranks";
        if quota < numbers.len() as f64 {
            let what = format!(
                "{host}: the control group allows {quota:.2} CPUs for {} ranks, which will be stopped in turn",
                numbers.len()
            );
            return Finding::serious(subject, what, mend);
        }
        if quota < rank.cores as f64 {
            let what = format!("{host}: the control group allows {quota:.2} CPUs of {} cores", rank.cores);
            return Finding::warning(subject, what, mend);
        }
    }
    Finding::good(subject, "none below the number of cores")
}

/// Ranks that differ give other results, or fail.
fn alike(facts: &Facts) -> Finding {
    let subject = "ranks alike";
    let Some(first) = facts.ranks.first() else { return Finding::good(subject, "no ranks") };
    for (number, rank) in facts.ranks.iter().enumerate() {
        if rank.version != first.version {
            let what =
                format!("rank {number} on {} runs ddl {}, rank 0 ddl {}", rank.host, rank.version, first.version);
            return Finding::serious(subject, what, "put the same program on all hosts");
        }
        if rank.isa.0 != first.isa.0 {
            let what = format!(
                "rank {number} on {} uses {}, rank 0 {}: its sums round otherwise",
                rank.host, rank.isa.0, first.isa.0
            );
            return Finding::warning(
                subject,
                what,
                format!("set DDL_ISA to the lesser one on all (mpirun -x DDL_ISA={})", rank.isa.0),
            );
        }
    }
    Finding::good(subject, format!("ddl {} everywhere", first.version))
}

fn shared_memory(facts: &Facts) -> Finding {
    let subject = "/dev/shm";
    let mend =
        "make it larger: docker run --shm-size=1g, mount -o remount,size=1g /dev/shm, or remove what is left in it";
    let mut least = u64::MAX;
    for (host, numbers) in by_host(facts) {
        let Some(free) = facts.ranks[numbers[0]].shared_memory else { continue };
        let needed = MPI_SHARES * numbers.len() as u64;
        if free < needed {
            let what = format!(
                "{host}: {} free, MPI needs about {} for {} rank(s)",
                bytes(free as usize),
                bytes(needed as usize),
                numbers.len()
            );
            return Finding::serious(subject, what, mend);
        }
        least = least.min(free - needed);
    }
    match least {
        u64::MAX => Finding::warning(subject, "cannot be looked at", "mount a tmpfs at /dev/shm"),
        least => Finding::good(subject, format!("{} free beside what MPI needs", bytes(least as usize))),
    }
}

fn huge_pages(facts: &Facts) -> Finding {
    let subject = "huge pages";
    match facts.ranks.first().and_then(|rank| rank.huge_pages.as_deref()) {
        Some("never") => {
            let mend = "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled (as root)";
            Finding::warning(subject, "off: more time is spent on looking up pages", mend)
        }
        Some(mode) => Finding::good(subject, mode),
        None => Finding::good(subject, "the system does not tell"),
    }
}

fn governor(facts: &Facts) -> Finding {
    let subject = "clock";
    match facts.ranks.first().and_then(|rank| rank.governor.as_deref()) {
        Some(slow @ ("powersave" | "conservative" | "userspace")) => {
            let what = format!("governed by `{slow}`: times depend on what ran before");
            Finding::warning(
                subject,
                what,
                "cpupower frequency-set -g performance (as root), at least for measurements",
            )
        }
        Some(governor) => Finding::good(subject, format!("governed by `{governor}`")),
        None => Finding::good(subject, "not governed by this system"),
    }
}

fn overcommit(facts: &Facts) -> Finding {
    let subject = "memory";
    match facts.ranks.first().and_then(|rank| rank.overcommit) {
        Some(2) => {
            let what = "vm.overcommit_memory is 2: memory that is reserved but not used counts, and MPI reserves much";
            Finding::warning(subject, what, "sysctl vm.overcommit_memory=0 (as root), or start fewer ranks")
        }
        Some(mode) => Finding::good(subject, format!("vm.overcommit_memory is {mode}")),
        None => Finding::good(subject, "the system does not tell"),
    }
}

fn disk(disk: &Disk) -> Finding {
    let place = format!("{} in {}", disk.what, disk.path.display());
    let mend = "free some space, or write elsewhere (--out, TMPDIR)";
    if !disk.writable {
        return Finding::serious(DISK, format!("{place}: may not be written to"), mend);
    }
    let what = format!("{place}: {} of {} free", bytes(disk.free as usize), bytes(disk.size as usize));
    match disk.free {
        free if free < 100 * MIB => Finding::serious(DISK, what, mend),
        free if free < 2 * GIB => Finding::warning(DISK, what, mend),
        _ => Finding::good(DISK, what),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::finding::Severity;

    /// Two ranks on two cores of a healthy host.
    fn healthy() -> Facts {
        let rank = |binding: &str| RankFacts {
            host: "a".into(),
            binding: binding.into(),
            cpu: "a CPU".into(),
            cores: 2,
            isa: ("avx512".into(), "avx512".into()),
            bf16: Some(true),
            mpi_libraries: vec!["/usr/lib/libmpi.so.40.30.4".into()],
            hdf5_libraries: vec!["/usr/lib/libhdf5_serial.so.103.3.0".into()],
            version: "1 abc".into(),
            shared_memory: Some(GIB),
            huge_pages: Some("madvise".into()),
            governor: Some("performance".into()),
            overcommit: Some(0),
            ..RankFacts::default()
        };
        let path = "/results".into();
        Facts {
            ranks: vec![rank("0"), rank("1")],
            launcher: Some("mpirun"),
            mpi: "Open MPI v4.1.4".into(),
            hdf5: "1.10.8".into(),
            ranks_per_core: 1.0,
            disks: vec![Disk { what: "results", path, free: 50 * GIB, size: 100 * GIB, writable: true }],
            ..Facts::default()
        }
    }

    /// The one finding that is not good after a change to a healthy machine.
    fn after(change: impl Fn(&mut Facts)) -> Finding {
        let mut facts = healthy();
        change(&mut facts);
        let mut bad: Vec<Finding> =
            check(&facts).into_iter().filter(|finding| finding.severity > Severity::Good).collect();
        assert_eq!(bad.len(), 1, "{bad:#?}");
        let finding = bad.remove(0);
        assert!(!finding.mend.is_empty(), "{finding:?}");
        finding
    }

    fn expect(severity: Severity, subject: &str, word: &str, change: impl Fn(&mut Facts)) {
        let finding = after(change);
        assert_eq!((finding.severity, finding.subject), (severity, subject), "{finding:?}");
        assert!(finding.what.contains(word) || finding.mend.contains(word), "no {word} in {finding:?}");
    }

    use Severity::{Serious, Warning};

    #[test]
    fn a_healthy_machine_is_all_right() {
        assert!(check(&healthy()).iter().all(|finding| finding.severity == Severity::Good), "{:#?}", check(&healthy()));
    }

    /// One process, started by hand.
    fn alone(facts: &mut Facts) {
        facts.ranks.truncate(1);
        facts.launcher = None;
        facts.mpirun = Some("mpirun (Open MPI) 4.1.4".into());
    }

    #[test]
    fn processes_that_are_no_job_are_found() {
        expect(Serious, "job", "mpicc", |facts| facts.trouble = Some(("MPI sees 1".into(), "see mpicc".into())));
        expect(Serious, "job", "HYDRA", |facts| {
            alone(facts);
            facts.mpirun = Some("HYDRA build details: Version 4.0.2".into());
        });
        expect(Serious, "job", "uses MPICH", |facts| {
            alone(facts);
            facts.ranks[0].mpi_libraries = vec!["/usr/lib/libmpich.so.12".into()];
        });
        expect(Warning, "job", "openmpi-bin", |facts| {
            alone(facts);
            facts.mpirun = None;
        });
        let mut facts = healthy();
        alone(&mut facts);
        assert_eq!(job(&facts).severity, Severity::Good);
    }

    #[test]
    fn mixed_libraries_are_found() {
        expect(Serious, "libraries", "libmpich", |facts| facts.ranks[1].mpi_libraries.push("/x/libmpich.so.12".into()));
        expect(Serious, "libraries", "HDF5_DIR", |facts| {
            facts.ranks[0].hdf5_libraries.push("/x/libhdf5_openmpi.so".into())
        });
    }

    #[test]
    fn shared_cores_and_unbound_ranks_are_found() {
        expect(Serious, "cores", "fewer ranks", |facts| facts.ranks_per_core = 2.0);
        expect(Serious, "binding", "ranks 0 and 1", |facts| facts.ranks[1].binding = "0".into());
        expect(Warning, "binding", "--bind-to core", |facts| {
            facts.ranks.iter_mut().for_each(|rank| rank.binding = "0-1".into());
        });
        // On two hosts they do not meet.
        let mut facts = healthy();
        (facts.ranks[1].host, facts.ranks[1].binding) = ("b".into(), "0".into());
        assert_eq!(binding(&facts).severity, Severity::Good);
    }

    #[test]
    fn slow_machines_are_found() {
        expect(Warning, "instructions", "unset DDL_ISA", |facts| {
            facts.ranks.iter_mut().for_each(|rank| rank.isa.0 = "avx2".into());
        });
        if cfg!(target_arch = "x86_64") {
            expect(Warning, "instructions", "AVX2", |facts| {
                facts.ranks.iter_mut().for_each(|rank| rank.isa = ("portable".into(), "portable".into()));
            });
        }
        expect(Serious, "CPU quota", "1.50 CPUs", |facts| facts.ranks[0].quota = Some(1.5));
        expect(Warning, "CPU quota", "of 4 cores", |facts| {
            (facts.ranks[0].quota, facts.ranks[0].cores) = (Some(2.0), 4);
        });
        expect(Warning, "huge pages", "madvise", |facts| facts.ranks[0].huge_pages = Some("never".into()));
        expect(Warning, "clock", "cpupower", |facts| facts.ranks[0].governor = Some("powersave".into()));
        expect(Warning, "memory", "vm.overcommit_memory=0", |facts| facts.ranks[0].overcommit = Some(2));
    }

    #[test]
    fn ranks_that_differ_are_found() {
        expect(Serious, "ranks alike", "same program", |facts| facts.ranks[1].version = "1 def".into());
        expect(Warning, "ranks alike", "DDL_ISA=avx2", |facts| facts.ranks[1].isa = ("avx2".into(), "avx2".into()));
    }

    /// A healthy machine with so much of /dev/shm.
    fn after_shm(free: u64) -> Facts {
        let mut facts = healthy();
        facts.ranks.iter_mut().for_each(|rank| rank.shared_memory = Some(free));
        facts
    }

    #[test]
    fn little_room_is_found() {
        expect(Serious, "/dev/shm", "--shm-size", |facts| facts.ranks[0].shared_memory = Some(20 * MIB));
        // MPI's need grows with the ranks. Docker's default is enough for two.
        assert_eq!(shared_memory(&after_shm(64 * MIB)).severity, Severity::Good);
        assert_eq!(shared_memory(&after_shm(31 * MIB)).severity, Severity::Serious);
        expect(Warning, "/dev/shm", "tmpfs", |facts| {
            facts.ranks.iter_mut().for_each(|rank| rank.shared_memory = None);
        });
        expect(Serious, "disk", "free some space", |facts| facts.disks[0].free = 50 * MIB);
        expect(Warning, "disk", "1.00 GiB of", |facts| facts.disks[0].free = GIB);
        expect(Serious, "disk", "may not be written", |facts| facts.disks[0].writable = false);
    }

    #[test]
    fn exit_codes_are_the_contracts() {
        assert_eq!(after(|facts| facts.disks[0].free = 0).error().exit_code(), 74);
        assert_eq!(after(|facts| facts.ranks_per_core = 2.0).error().exit_code(), 2);
    }
}
