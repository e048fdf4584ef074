//! What is fuzzed: each target takes any bytes through the calls that a command makes. Whatever comes in, an answer must come
//! out, a result or one clear line, in memory that stands in proportion to the input. `scripts/fuzz` runs them under libFuzzer
//! and `tests/fuzz_formats.rs` in the test suite, both from the seeds in `fuzz/corpus/<target>/`.

mod far;
mod job;
mod kept;
pub mod memory;
mod source;
mod table;
mod trial;

use ddl::error::Result;
use std::fs;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// One parser.
pub struct Target {
    /// Its folder of seeds has the same name.
    pub name: &'static str,
    case: fn(&Room, &[u8]),
    /// Bytes that may be held whatever the input, and so many more for each of its bytes.
    most: (usize, usize),
    /// Whether broken input may crash the HDF5 library, which is C: then it is tried in another process first.
    #[allow(dead_code)]
    pub crashes: bool,
}

/// Room for tables, buffers of readers, and what explore counts.
const ROOM: usize = 24 << 20;
/// Deflate makes a byte into 1032, and what is read is held twice and as wider numbers.
const FACTOR: usize = 1032 * 12;

const fn target(name: &'static str, case: fn(&Room, &[u8])) -> Target {
    Target { name, case, most: (ROOM, FACTOR), crashes: false }
}

/// All of them.
pub const TARGETS: &[Target] = &[
    target("idx", source::idx),
    target("cifar", source::cifar),
    target("pickle", source::pickle),
    target("image", source::image),
    target("npz", source::npz),
    target("npy", source::npy),
    target("csv", table::csv),
    target("stocks", table::stocks),
    target("parquet", table::parquet),
    target("tfrecord", table::tfrecord),
    target("example", table::example),
    Target { crashes: true, ..target("hdf5", source::hdf5) },
    target("safetensors", kept::safetensors),
    Target { crashes: true, ..target("checkpoint", kept::checkpoint) },
    Target { crashes: true, ..target("run", kept::run) },
    target("journal", kept::journal),
    target("job", |_, bytes| job::survives(&String::from_utf8_lossy(bytes))),
    target("tar", far::tar),
    target("index", far::index),
    target("webhdfs", far::webhdfs),
];

impl Target {
    /// Panics where the input is not answered as it should be.
    pub fn run(&self, room: &Room, bytes: &[u8]) {
        let held = memory::most_of(|| (self.case)(room, bytes));
        let (base, each) = self.most;
        let most = base + each * bytes.len();
        assert!(held <= most, "{held} bytes of memory for {} of input, more than {most}", bytes.len());
        room.clear();
    }
}

/// A folder for a case's files.
pub struct Room {
    folder: TempDir,
    trials: bool,
}

impl Room {
    /// HDF5 reads at once.
    #[allow(dead_code)]
    pub fn new() -> Self {
        Self { folder: TempDir::new().unwrap(), trials: false }
    }

    /// HDF5 reads in another process first, as in the program.
    #[allow(dead_code)]
    pub fn with_trials() -> Self {
        Self { trials: true, ..Self::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    fn clear(&self) {
        for entry in fs::read_dir(self.folder.path()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }

    /// Lets HDF5 at a file, unless that crashes it.
    fn survives(&self, work: impl Fn()) {
        if !self.trials || trial::survives(&work) {
            work();
        }
    }
}

/// Bad data (65) or a file that cannot be read (74), in one line.
fn answered<T>(result: Result<T>) -> Option<T> {
    answered_by(&[65, 74], result)
}

/// Of a message: what is wrong and the mend have 2000 at most each.
const MOST_TEXT: usize = 5000;

fn answered_by<T>(codes: &[i32], result: Result<T>) -> Option<T> {
    result
        .map_err(|error| {
            let text = error.to_string();
            assert!(codes.contains(&error.exit_code()), "{} {text}", error.exit_code());
            assert!(!text.contains('\n') && text.len() < MOST_TEXT, "{text}");
        })
        .ok()
}

/// The seeds of a target: name and bytes.
#[allow(dead_code)]
pub fn seeds(target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target.name);
    let mut seeds: Vec<(String, Vec<u8>)> = fs::read_dir(&folder)
        .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
        .map(|entry| entry.unwrap())
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), fs::read(entry.path()).unwrap()))
        .collect();
    seeds.sort();
    assert!(!seeds.is_empty(), "no seeds in {}", folder.display());
    seeds
}
