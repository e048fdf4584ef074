//! Where a run happened, for the record.

use crate::comm::Comm;
use crate::kernel::isa;
use crate::resource::{cpu, host_name};

/// Name and text for `/environment`; rank 0 gets the host names of all ranks.
pub fn describe(comm: &dyn Comm) -> Vec<(String, String)> {
    let hosts = comm.gather_bytes(host_name().as_bytes());
    let bindings = comm.gather_bytes(cpu::binding().as_bytes());
    let texts = |all: Vec<Vec<u8>>| -> Vec<String> {
        all.iter().map(|text| String::from_utf8_lossy(text).into_owned()).collect()
    };
    let (hosts, bindings) = (texts(hosts), texts(bindings));
    let mut found = vec![
        ("hosts".to_owned(), hosts.join(",")),
        ("binding".to_owned(), bindings.join(",")),
        ("ranks_per_core".to_owned(), format!("{:.2}", cpu::ranks_per_core(&hosts, &bindings, cpu::usable_cores))),
        ("cpu".to_owned(), cpu::model()),
        ("instruction_set".to_owned(), isa().name().to_owned()),
        ("mpi".to_owned(), comm.library()),
        ("hdf5".to_owned(), crate::store::hdf5_version()),
        ("os".to_owned(), std::fs::read_to_string("/proc/version").unwrap_or_default().trim().to_owned()),
    ];
    found.extend(std::env::vars().filter(|(name, _)| name.starts_with("SLURM_")));
    found
}
