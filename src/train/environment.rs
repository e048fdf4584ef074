//! Where a run happened, for the record.

use crate::comm::Comm;
use crate::kernel::isa;

/// Name and text for `/environment`; rank 0 gets the host names of all ranks.
pub fn describe(comm: &dyn Comm) -> Vec<(String, String)> {
    let hosts = comm.gather_bytes(host_name().as_bytes());
    let bindings = comm.gather_bytes(binding().as_bytes());
    let join = |texts: Vec<Vec<u8>>| {
        let texts: Vec<_> = texts.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect();
        texts.join(",")
    };
    let mut found = vec![
        ("hosts".to_owned(), join(hosts)),
        ("binding".to_owned(), join(bindings)),
        ("cpu".to_owned(), cpu()),
        ("instruction_set".to_owned(), isa().name().to_owned()),
        ("mpi".to_owned(), comm.library()),
        ("hdf5".to_owned(), crate::store::hdf5_version()),
        ("os".to_owned(), std::fs::read_to_string("/proc/version").unwrap_or_default().trim().to_owned()),
    ];
    found.extend(std::env::vars().filter(|(name, _)| name.starts_with("SLURM_")));
    found
}

fn host_name() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().trim().to_owned()
}

/// The CPUs this process may run on, as Linux lists them (`0-1`).
fn binding() -> String {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap_or_default().trim().to_owned()
}

fn cpu() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("model name"));
    line.and_then(|line| line.split_once(':')).map_or(String::new(), |(_, name)| name.trim().to_owned())
}
