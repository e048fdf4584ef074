//! The processors that this process, and the ranks beside it, may use. Read from /proc and /sys; where the system does
//! not tell, as many as the standard library counts.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::read_to_string;
use std::path::Path;

/// The CPUs this process may run on, as Linux lists them (`0-1,4`).
pub fn binding() -> String {
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
    line.unwrap_or_default().trim().to_owned()
}

/// The CPU's name.
pub fn model() -> String {
    let info = read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info.lines().find_map(|line| line.strip_prefix("model name"));
    line.and_then(|line| line.split_once(':')).map_or(String::new(), |(_, name)| name.trim().to_owned())
}

/// The CPUs of a list as Linux writes it: `0-1,4`. What is no number is left out.
pub fn cpu_list(text: &str) -> BTreeSet<usize> {
    let bounds = |part: &str| -> Option<(usize, usize)> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some((first.trim().parse().ok()?, last.trim().parse().ok()?))
    };
    let most = 1 << 16; // a damaged list may claim any range
    text.split(',').filter_map(bounds).filter(|&(_, last)| last < most).flat_map(|(first, last)| first..=last).collect()
}

/// Physical cores among `cpus`: hardware threads of one core count once.
pub fn physical_cores(cpus: &BTreeSet<usize>) -> usize {
    let topology = |cpu: usize, name: &str| {
        let text = read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/{name}")).ok()?;
        text.trim().parse::<i64>().ok()
    };
    let place = |&cpu: &usize| match (topology(cpu, "physical_package_id"), topology(cpu, "core_id")) {
        (Some(package), Some(core)) => (package, core),
        // Unknown: a core of its own.
        _ => (-1 - cpu as i64, 0),
    };
    cpus.iter().map(place).collect::<BTreeSet<_>>().len()
}

/// CPUs' worth of time that the control groups of this process allow, the least of them; None without a limit.
pub fn quota() -> Option<f64> {
    let own = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let second = Path::new("/sys/fs/cgroup").join(own);
    // A container sees its own group as the root, whatever its name outside.
    let groups = second.ancestors().take_while(|group| group.starts_with("/sys/fs/cgroup"));
    let limits = groups.filter_map(|group| limit(&read_to_string(group.join("cpu.max")).ok()?));
    let first = || {
        let read = |name: &str| read_to_string(format!("/sys/fs/cgroup/cpu/cpu.cfs_{name}_us")).ok();
        limit(&format!("{} {}", read("quota")?.trim(), read("period")?.trim()))
    };
    limits.reduce(f64::min).or_else(first)
}

/// The CPUs of `quota period` in microseconds; `max` and -1 are no limit.
fn limit(text: &str) -> Option<f64> {
    let (quota, period) = text.trim().split_once(' ')?;
    let (quota, period) = (quota.parse::<f64>().ok()?, period.parse::<f64>().ok()?);
    (quota > 0.0 && period > 0.0).then_some(quota / period)
}

/// Cores' worth of work that can be done at once on `cpus`: physical cores, within the control group's quota.
pub fn usable_cores(cpus: &BTreeSet<usize>) -> usize {
    let cores = physical_cores(cpus).max(1);
    quota().map_or(cores, |quota| cores.min((quota.round() as usize).max(1)))
}

/// Cores that ranks started from this process can use on this host.
pub fn cores() -> usize {
    let cpus = cpu_list(&binding());
    if cpus.is_empty() {
        return std::thread::available_parallelism().map_or(1, usize::from);
    }
    usable_cores(&cpus)
}

/// Ranks a core on the fullest host; above 1 they share cores and speed says nothing about scaling. `hosts[rank]` and
/// `bindings[rank]` as gathered; `usable` counts the cores of a set of CPUs (all hosts are taken to be alike).
pub fn ranks_per_core(hosts: &[String], bindings: &[String], usable: impl Fn(&BTreeSet<usize>) -> usize) -> f64 {
    let mut of_host: BTreeMap<&str, (usize, BTreeSet<usize>)> = BTreeMap::new();
    for (host, binding) in hosts.iter().zip(bindings) {
        let (ranks, cpus) = of_host.entry(host).or_default();
        *ranks += 1;
        cpus.extend(cpu_list(binding));
    }
    let load = |(ranks, cpus): &(usize, BTreeSet<usize>)| *ranks as f64 / usable(cpus).max(1) as f64;
    of_host.values().map(load).fold(0.0, f64::max)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_cpus_are_read() {
        assert_eq!(cpu_list("0-2,5, 7-7"), BTreeSet::from([0, 1, 2, 5, 7]));
        assert_eq!(cpu_list(""), BTreeSet::new());
        assert_eq!(cpu_list("x,3,0-99999999999"), BTreeSet::from([3]));
    }

    #[test]
    fn limits_of_control_groups_are_read() {
        assert_eq!(limit("150000 100000\n"), Some(1.5));
        for none in ["max 100000", "-1 100000", "", "5", "1 0"] {
            assert_eq!(limit(none), None, "{none}");
        }
    }

    #[test]
    fn ranks_are_counted_against_the_cores_of_their_host() {
        let texts = |list: &[&str]| list.iter().map(|text| text.to_string()).collect::<Vec<_>>();
        let load = |hosts: &[&str], bindings: &[&str]| {
            ranks_per_core(&texts(hosts), &texts(bindings), |cpus: &BTreeSet<usize>| cpus.len())
        };
        assert_eq!(load(&["a", "a"], &["0", "1"]), 1.0);
        assert_eq!(load(&["a", "a"], &["0-1", "0-1"]), 1.0);
        assert_eq!(load(&["a", "a"], &["0", "0"]), 2.0);
        assert_eq!(load(&["a", "b", "b", "b"], &["0-3", "0-1", "0-1", "0-1"]), 1.5);
    }

    #[test]
    fn this_machine_has_a_core() {
        assert!(cores() >= 1 && physical_cores(&cpu_list(&binding())) >= 1);
    }
}
