//! Segments that MPI libraries left in /dev/shm when their job was killed: nobody else ever removes them.

use crate::resource::host_name;
use rustix::process::geteuid;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A younger one may be of a job whose other ranks have not mapped it yet.
const OLD: Duration = Duration::from_secs(60);
/// Likewise where the name does not say which host's it is: /dev/shm may be shared with containers whose processes are not seen.
const OLD_ANYWHERE: Duration = Duration::from_secs(3600);

/// Removes those of this host and user that are old and that no process maps.
pub(super) fn remove() {
    for path in remove_in(Path::new("/dev/shm"), [OLD, OLD_ANYWHERE]) {
        log::info!("removed {}, which a dead job has left", path.display());
    }
}

/// Open MPI's `vader_segment.HOST.UID.JOB.RANK` and `sm_segment.HOST.UID.JOB.RANK` (some versions leave the user out), and
/// ours where a host's ranks do not see each other's processes.
fn names_host(name: &str, host: &str) -> bool {
    ["vader_segment.", "sm_segment.", "ddl."].iter().any(|kind| {
        name.strip_prefix(kind).and_then(|rest| rest.strip_prefix(host)).is_some_and(|rest| rest.starts_with('.'))
    })
}

/// MPICH's `mpich_shar_tmpXXXXXX`, six of mkstemp's characters. MPICH takes the name away when all ranks have opened the file, so
/// that only a job which is killed while it starts leaves one.
fn names_none(name: &str) -> bool {
    name.strip_prefix("mpich_shar_tmp")
        .is_some_and(|rest| rest.len() == 6 && rest.bytes().all(|b| b.is_ascii_alphanumeric()))
}

/// `ages`: the least ages of files that name this host, and of those that name none.
fn remove_in(folder: &Path, ages: [Duration; 2]) -> Vec<PathBuf> {
    let (host, user) = (host_name(), geteuid().as_raw());
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let dead = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let age = match (names_host(&name, &host), names_none(&name)) {
            (true, _) => ages[0],
            (_, true) => ages[1],
            _ => return false,
        };
        let old = |meta: &fs::Metadata| meta.modified().is_ok_and(|time| time.elapsed().is_ok_and(|old| old >= age));
        fs::symlink_metadata(path).is_ok_and(|meta| meta.is_file() && meta.uid() == user && old(&meta))
    };
    let mut found: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(dead).collect();
    if found.is_empty() {
        return found;
    }
    for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let maps = fs::read(process.path().join("maps")).unwrap_or_default();
        let maps = String::from_utf8_lossy(&maps);
        found.retain(|path| !maps.lines().any(|line| line.ends_with(&*path.to_string_lossy())));
    }
    found.retain(|path| fs::remove_file(path).is_ok());
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

    #[test]
    fn only_old_segments_that_nobody_maps_are_removed() {
        let folder = tempfile::tempdir().unwrap();
        let host = host_name();
        let names = [
            format!("vader_segment.{host}.0.15680001.1"),
            format!("sm_segment.{host}.0.15680001.0"),
            format!("vader_segment.{host}.0.15680002.0"),
            format!("vader_segment.{host}x.0.15680001.1"),
            "vader_segment.elsewhere.0.15680001.1".into(),
            format!("other.{host}.0"),
            "mpich_shar_tmpQ5iU5O".into(),
            "mpich_shar_tmpQ5iU5O-mine".into(),
        ];
        let paths = names.map(|name| folder.path().join(name));
        paths.iter().for_each(|path| fs::write(path, [0; 4096]).unwrap());
        let hour = Duration::from_secs(3600);
        assert_eq!(remove_in(folder.path(), [hour; 2]), [] as [PathBuf; 0]);
        let mapped = fs::File::open(&paths[2]).unwrap();
        // SAFETY: a new mapping that is not touched.
        let at = unsafe { mmap(std::ptr::null_mut(), 4096, ProtFlags::READ, MapFlags::SHARED, &mapped, 0).unwrap() };
        let mut removed = remove_in(folder.path(), [Duration::ZERO, hour]);
        removed.sort();
        assert_eq!(removed, [paths[1].clone(), paths[0].clone()]);
        assert_eq!(remove_in(folder.path(), [Duration::ZERO; 2]), [paths[6].clone()]);
        let left = [false, false, true, true, true, true, false, true];
        assert_eq!(paths.each_ref().map(|path| path.exists()), left);
        // SAFETY: mapped above.
        unsafe { munmap(at, 4096).unwrap() };
        assert_eq!(remove_in(folder.path(), [Duration::ZERO; 2]), [paths[2].clone()]);
    }
}
