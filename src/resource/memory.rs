//! Memory that can still be had: what the machine, its control groups and a limit on addresses leave. It is asked for
//! before it is taken, since what is taken beyond it ends the process, or one beside it, without a word.

use rustix::process::{Resource, getrlimit};
use std::fs::read_to_string;
use std::io::{self, ErrorKind, Read};
use std::path::{Component, Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// So few bytes are not worth the reading of what the system says of its memory.
const NOT_ASKED: f64 = 65536.0;

/// Whether this rank's share of the free memory covers `bytes` more, if they are more than a few.
///
/// # Errors
/// `OutOfMemory`, with both sizes.
pub fn ask(bytes: f64) -> io::Result<()> {
    if bytes <= NOT_ASKED {
        return Ok(());
    }
    let ranks = local_ranks();
    let share = available().unwrap_or(1 << 42) as f64 / ranks as f64;
    if bytes <= share {
        return Ok(());
    }
    let each = if ranks > 1 { format!(" for each of the {ranks} ranks here") } else { String::new() };
    let what = format!("needs {} of memory, but {} are free{each}", gib(bytes), gib(share));
    Err(io::Error::new(ErrorKind::OutOfMemory, what))
}

fn gib(bytes: f64) -> String {
    let gib = bytes / f64::from(1 << 30);
    if gib < 1e6 { format!("{gib:.1} GiB") } else { format!("{gib:.1e} GiB") }
}

/// Ranks on this host, as the launcher says.
fn local_ranks() -> u64 {
    ["OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"]
        .iter()
        .find_map(|name| std::env::var(name).ok()?.parse().ok())
        .filter(|&ranks| ranks > 0)
        .unwrap_or(1)
}

/// Memory that can be had without swapping others out; None where the system does not tell.
pub fn available() -> Option<u64> {
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    let limits = [machine(), of_groups(Path::new("/sys/fs/cgroup"), &groups), addresses()];
    limits.into_iter().flatten().min()
}

/// The kernel's estimate.
fn machine() -> Option<u64> {
    bytes_of(&read_to_string("/proc/meminfo").ok()?, "MemAvailable:")
}

/// What `ulimit -v` leaves.
fn addresses() -> Option<u64> {
    let limit = getrlimit(Resource::As).current?;
    Some(limit.saturating_sub(bytes_of(&read_to_string("/proc/self/status").ok()?, "VmSize:")?))
}

/// A size in bytes of a file where sizes are in kB.
fn bytes_of(text: &str, name: &str) -> Option<u64> {
    let size = text.lines().find_map(|line| line.strip_prefix(name))?;
    Some(size.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
}

/// What the control groups of a process leave, the least of them; None without a limit. `own` is its /proc/self/cgroup,
/// `root` where the hierarchies are mounted.
fn of_groups(root: &Path, own: &str) -> Option<u64> {
    let of_line = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        // The second version names no controllers, and has one hierarchy.
        let (top, files) = match controllers {
            "" => (root.to_owned(), ["memory.max", "memory.current", ""]),
            _ if controllers.split(',').any(|name| name == "memory") => {
                (root.join("memory"), ["memory.limit_in_bytes", "memory.usage_in_bytes", "total_"])
            }
            _ => return None,
        };
        // A group outside the own namespace has a path of `..`: nothing of it is seen.
        let names = Path::new(path).components().filter_map(|part| match part {
            Component::Normal(name) => Some(name),
            _ => None,
        });
        let group: PathBuf = std::iter::once(top.as_os_str()).chain(names).collect();
        // A container sees its own group as the root, whatever its name outside.
        let groups = group.ancestors().take_while(|group| group.starts_with(&top));
        groups.filter_map(|group| left(group, files)).min()
    };
    own.lines().filter_map(of_line).min()
}

/// Version 1 calls no limit the largest number of whole pages.
const UNLIMITED: u64 = 1 << 60;

/// What one group leaves: its limit without what is in use, but for the files the kernel keeps and would give up.
fn left(group: &Path, [limit, used, prefix]: [&str; 3]) -> Option<u64> {
    let read = |name: &str| read_to_string(group.join(name)).ok();
    let limit: u64 = read(limit)?.trim().parse().ok()?;
    if limit >= UNLIMITED {
        // What is in use is not asked for: the kernel takes up to a millisecond to add that up.
        return None;
    }
    let used: u64 = read(used).and_then(|text| text.trim().parse().ok()).unwrap_or(0);
    let statistics = read("memory.stat").unwrap_or_default();
    let of = |name: &str| {
        let line = statistics.lines().find_map(|line| line.strip_prefix(prefix)?.strip_prefix(name)?.strip_prefix(' '));
        line.and_then(|number| number.trim().parse::<u64>().ok()).unwrap_or(0)
    };
    Some(limit.saturating_sub(used.saturating_sub(of("active_file") + of("inactive_file"))))
}

/// Room for `more` elements, which is asked for before it is taken.
///
/// # Errors
/// `OutOfMemory`, with both sizes.
#[inline]
pub fn reserve<T>(values: &mut Vec<T>, more: usize) -> io::Result<()> {
    if values.capacity() - values.len() >= more { Ok(()) } else { grow(values, more) }
}

/// So many bytes in all are taken between two questions: the kernel's answer takes up to a millisecond, and a thousand short
/// series that grow step by step would ask thousands of times.
const UNASKED: u64 = 1 << 23;
static TAKEN: AtomicU64 = AtomicU64::new(0);

/// What to ask for when `bytes` more are taken, beside those `taken` since the last question; None if that can wait.
fn due(taken: &AtomicU64, bytes: u64) -> Option<u64> {
    let all = taken.load(Relaxed).saturating_add(bytes);
    taken.store(if all < UNASKED { all } else { 0 }, Relaxed);
    (all >= UNASKED).then_some(all)
}

#[cold]
fn grow<T>(values: &mut Vec<T>, more: usize) -> io::Result<()> {
    let (len, capacity) = (values.len(), values.capacity());
    // By half, or near the limit by a sixteenth: never by so little that asking takes the time.
    let needed = len.saturating_add(more).max(64);
    let bytes = |elements: usize| ((elements - capacity) as u64).saturating_mul(size_of::<T>() as u64);
    let room = |elements: usize| due(&TAKEN, bytes(elements)).map_or(Ok(()), |all| ask(all as f64)).map(|()| elements);
    let elements = room(needed.max(capacity.saturating_add(capacity / 2))).or_else(|_| {
        // Near the limit each step is asked for.
        let elements = needed.max(capacity.saturating_add(capacity / 16));
        ask(bytes(elements) as f64).map(|()| elements)
    })?;
    values.try_reserve_exact(elements - len).map_err(|e| io::Error::new(ErrorKind::OutOfMemory, e))
}

/// Appends what `reader` gives, at most `most` bytes, asking for memory step by step: neither a length in a header nor what
/// a packed file grows to is known to be true. Returns how many bytes came.
///
/// # Errors
/// Those of the reader, and those of [`reserve`].
pub fn read_to_end(reader: &mut dyn Read, most: u64, bytes: &mut Vec<u8>) -> io::Result<usize> {
    const STEP: u64 = 1 << 20;
    let before = bytes.len();
    loop {
        let left = most - (bytes.len() - before) as u64;
        reserve(bytes, left.min(STEP) as usize)?;
        if left == 0 || reader.take(left.min(STEP)).read_to_end(bytes)? == 0 {
            return Ok(bytes.len() - before);
        }
    }
}

/// As many values as `from` has, each made of one there.
///
/// # Errors
/// Those of [`reserve`].
pub fn converted<T, U>(from: Vec<T>, each: impl FnMut(T) -> U) -> io::Result<Vec<U>> {
    let mut values = Vec::new();
    reserve(&mut values, from.len())?;
    values.extend(from.into_iter().map(each));
    Ok(values)
}

/// A reader that asks whether what is built of its bytes since the last [`Steps::restart`], such as one line, still finds room.
pub struct Steps<R> {
    inner: R,
    read: u64,
    asked: u64,
}

impl<R> Steps<R> {
    /// So many bytes need no asking.
    const FREE: u64 = 1 << 26;

    /// Reads from `inner`.
    pub fn new(inner: R) -> Self {
        Self { inner, read: 0, asked: Self::FREE }
    }

    /// What was read is no longer needed.
    pub fn restart(&mut self) {
        (self.read, self.asked) = (0, Self::FREE);
    }
}

impl<R: Read> Read for Steps<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.read >= self.asked {
            // A buffer that doubles, and its copy.
            ask(4.0 * self.read as f64)?;
            self.asked = 2 * self.read;
        }
        let count = self.inner.read(to)?;
        self.read += count as u64;
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    fn group(root: &Path, path: &str, files: &[(&str, &str)]) {
        fs::create_dir_all(root.join(path)).unwrap();
        for (name, text) in files {
            fs::write(root.join(path).join(name), text).unwrap();
        }
    }

    #[test]
    fn the_second_version_is_read_along_the_path() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        group(root, "", &[]);
        group(root, "job", &[("memory.max", "1000\n"), ("memory.current", "900\n")]);
        group(root, "job/step", &[("memory.max", "max\n"), ("memory.current", "800\n")]);
        group(root, "job/step/task", &[("memory.max", "5000\n"), ("memory.current", "700\n")]);
        assert_eq!(of_groups(root, "0::/job/step/task\n"), Some(100), "the least of all groups above");
        assert_eq!(of_groups(root, "0::/other\n"), None);
        let stat = "anon 500\nactive_file 250\ninactive_file 150\nshmem 90\n";
        group(root, "job", &[("memory.stat", stat)]);
        assert_eq!(of_groups(root, "0::/job/step/task\n"), Some(500), "the kernel gives up files it keeps");
        // In a container: its own group is the root, its path is that outside, or leads out.
        group(root, "", &[("memory.max", "300\n"), ("memory.current", "400\n")]);
        for own in ["0::/docker/abc\n", "0::/\n", "0::/../elsewhere\n"] {
            assert_eq!(of_groups(root, own), Some(0), "{own}");
        }
    }

    #[test]
    fn the_first_version_is_read_beside_the_second() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let no_limit = "9223372036854771712\n";
        group(root, "memory", &[("memory.limit_in_bytes", no_limit), ("memory.usage_in_bytes", "5000\n")]);
        let stat = "active_file 1\ntotal_active_file 30\ntotal_inactive_file 20\n";
        let files = [("memory.limit_in_bytes", "2000\n"), ("memory.usage_in_bytes", "1500\n"), ("memory.stat", stat)];
        group(root, "memory/slurm/job", &files);
        let own = "12:cpu,cpuacct:/slurm/job\n5:memory:/slurm/job/step\n0::/init\n";
        assert_eq!(of_groups(root, own), Some(550));
        for broken in ["", "memory", "5:memory", "::", "0::"] {
            assert_eq!(of_groups(root, broken), None, "{broken}");
        }
    }

    #[test]
    fn memory_is_asked_for_in_steps() -> io::Result<()> {
        let mut bytes = vec![7];
        assert_eq!(read_to_end(&mut io::repeat(1), 3 << 20, &mut bytes)?, 3 << 20);
        assert_eq!(bytes.len(), (3 << 20) + 1);
        assert_eq!(read_to_end(&mut &b"abc"[..], u64::MAX, &mut bytes)?, 3);
        let error = reserve(&mut bytes, 1 << 50).unwrap_err();
        assert!(error.kind() == ErrorKind::OutOfMemory && error.to_string().contains("GiB"), "{error}");
        assert!(reserve::<u64>(&mut Vec::new(), usize::MAX).is_err());
        // Many that are small for themselves are asked for together.
        let taken = AtomicU64::new(0);
        assert_eq!(
            [1, UNASKED - 2, 1, 5, UNASKED].map(|bytes| due(&taken, bytes)),
            [None, None, Some(UNASKED), None, Some(UNASKED + 5)]
        );
        assert_eq!(due(&taken, u64::MAX), Some(u64::MAX));
        assert_eq!(converted(vec![1u8, 2], u64::from)?, [1, 2]);
        let mut steps = Steps::new(io::repeat(1));
        (steps.read, steps.asked) = (1 << 60, 1 << 60);
        assert_eq!(steps.read(&mut [0]).unwrap_err().kind(), ErrorKind::OutOfMemory);
        steps.restart();
        assert_eq!(steps.read(&mut [0])?, 1);
        Ok(())
    }
}
