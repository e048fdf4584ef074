//! Mutated seeds through every parser, and the seeds as they are: a short run of the targets that `scripts/fuzz` runs for long
//! (`fuzz/targets/`). `PROPTEST_CASES=100000 cargo test --release --test fuzz_formats parquet` is a longer one without libFuzzer.

#[path = "../fuzz/targets/mod.rs"]
mod targets;

use ddl::config::{Component, DataConfig};
use ddl::data::Dataset;
use proptest::prelude::*;
use std::fs;
use std::path::Path;
use targets::memory::Watched;
use targets::{Room, TARGETS, Target, seeds};

#[global_allocator]
static WATCHED: Watched = Watched;

/// One change of a file; places are shares of its length.
#[derive(Debug, Clone)]
enum Edit {
    Flip(prop::sample::Index, u8),
    Number(prop::sample::Index, u64, usize, bool),
    Cut(prop::sample::Index),
    Remove(prop::sample::Index, usize),
    Repeat(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
}

fn edits() -> impl Strategy<Value = Vec<Edit>> {
    let at = any::<prop::sample::Index>;
    let number = prop::sample::select(vec![
        0,
        1,
        0x7f,
        0x80,
        0xff,
        0x7fff,
        0xffff,
        1_000_000_000,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        1 << 40,
        i64::MAX as u64,
        u64::MAX,
    ]);
    let edit = prop_oneof![
        4 => (at(), 1..=255u8).prop_map(|(at, bits)| Edit::Flip(at, bits)),
        3 => (at(), number, prop::sample::select(vec![1usize, 2, 4, 8]), any::<bool>())
            .prop_map(|(at, value, size, big)| Edit::Number(at, value, size, big)),
        1 => at().prop_map(Edit::Cut),
        1 => (at(), 1..40usize).prop_map(|(at, count)| Edit::Remove(at, count)),
        1 => (at(), 1..40usize).prop_map(|(at, count)| Edit::Repeat(at, count)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..9)).prop_map(|(at, bytes)| Edit::Insert(at, bytes)),
    ];
    prop::collection::vec(edit, 1..6)
}

fn edited(bytes: &[u8], edits: &[Edit]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for edit in edits {
        if bytes.is_empty() {
            return bytes;
        }
        let length = bytes.len();
        match edit {
            Edit::Flip(at, bits) => bytes[at.index(length)] ^= bits,
            Edit::Number(at, value, size, big) => {
                let at = at.index(length);
                let number =
                    if *big { value.to_be_bytes()[8 - size..].to_vec() } else { value.to_le_bytes()[..*size].to_vec() };
                let end = (at + size).min(length);
                bytes[at..end].copy_from_slice(&number[..end - at]);
            }
            Edit::Cut(at) => bytes.truncate(at.index(length)),
            Edit::Remove(at, count) => drop(bytes.drain(at.index(length)..(at.index(length) + count).min(length))),
            Edit::Repeat(at, count) => {
                let range = at.index(length)..(at.index(length) + count).min(length);
                bytes.splice(range.start..range.start, bytes[range].to_vec());
            }
            Edit::Insert(at, more) => drop(bytes.splice(at.index(length)..at.index(length), more.iter().copied())),
        }
    }
    bytes
}

fn target(name: &str) -> &'static Target {
    TARGETS.iter().find(|target| target.name == name).unwrap()
}

thread_local! {
    static ROOM: Room = Room::new();
}

/// One of a target's seeds, changed.
fn mutated(name: &str, seed: prop::sample::Index, edits: &[Edit]) {
    let (target, seeds) = (target(name), seeds(target(name)));
    let (_, bytes) = &seeds[seed.index(seeds.len())];
    ROOM.with(|room| target.run(room, &edited(bytes, edits)));
}

/// A quarter of what is usual, or as `PROPTEST_CASES` says: each case is several looks at a file.
fn config() -> ProptestConfig {
    let usual = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { usual.cases } else { usual.cases / 4 };
    ProptestConfig { cases, failure_persistence: None, max_shrink_iters: 200, ..usual }
}

/// A test for each of the targets, all but those that HDF5 may crash.
macro_rules! every_target {
    ($($name:ident)*) => {
        const MUTATED: &[&str] = &[$(stringify!($name)),*];

        proptest! {
            #![proptest_config(config())]

            $(#[test]
            fn $name(seed in any::<prop::sample::Index>(), edits in edits()) {
                mutated(stringify!($name), seed, &edits);
            })*
        }
    };
}

every_target! {
    idx cifar pickle image npz npy csv stocks parquet tfrecord example safetensors journal job tar index webhdfs
}

/// Those found by libFuzzer among them.
#[test]
fn all_seeds() {
    for target in TARGETS {
        for (name, bytes) in seeds(target) {
            println!("{} {name}", target.name);
            ROOM.with(|room| target.run(room, &bytes));
        }
    }
}

#[test]
fn nothing_is_left_out() {
    let of_targets: Vec<&str> = TARGETS.iter().filter(|target| !target.crashes).map(|target| target.name).collect();
    assert_eq!(MUTATED, of_targets);
    let folders = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")).unwrap();
    let mut folders: Vec<String> = folders.map(|it| it.unwrap().file_name().to_string_lossy().into_owned()).collect();
    let mut targets: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    folders.sort();
    targets.sort();
    assert_eq!(folders, targets);
}

proptest! {
    #![proptest_config(config())]

    /// Any opcodes at all, most of them in the part that holds no pixels.
    #[test]
    fn opcodes(bytes in prop::collection::vec(prop_oneof![
        any::<u8>().prop_map(|byte| vec![byte]),
        prop::sample::select(vec![
            &b"}"[..], b"]", b"(", b")", b"t", b"u", b"e", b"a", b"s", b"l", b"0", b"q\x01", b"h\x01", b"K\x01", b"U\x04data", b"R", b"b",
            b"\x85", b"\x86", b"\x87", b"\x94", b".", b"N", b"cnumpy\ndtype\n", b"cnumpy\nndarray\n",
            b"cnumpy.core.multiarray\n_reconstruct\n", b"\x8a\x01\xff", b"J\xff\xff\xff\xff", b"c_codecs\nencode\n", b"X\x02\x00\x00\x00u1",
        ]).prop_map(<[u8]>::to_vec),
    ], 0..60)) {
        ROOM.with(|room| target("pickle").run(room, &bytes.concat()));
    }
}

/// The error of opening these bytes.
fn refused(kind: &str, keys: &str, name: &str, bytes: &[u8]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let text = format!("path = '{}'\n{keys}", path.display());
    let config = DataConfig::from_component(Component::new(kind, &text).unwrap()).unwrap();
    let error = Dataset::open(&config, 1).map(drop).expect_err("an error");
    assert_eq!(error.exit_code(), 65, "{error}");
    error.to_string()
}

/// The crate `parquet` counts to 2^31 for each, which takes seconds, and there is room for a thousand in a small file.
#[test]
fn lists_of_nothing_in_parquet_are_refused() {
    let (_, good) = seeds(target("parquet")).into_iter().find(|(name, _)| name == "test.parquet").unwrap();
    // A field that no version of the format has: 2^31 - 1 truth values.
    const LIST: &[u8] = &[0xf9, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07];
    let end = good.len() - 8;
    let length = u32::from_le_bytes(good[end..end + 4].try_into().unwrap()) as usize;
    let longer = (length as u32 + LIST.len() as u32).to_le_bytes();
    // Before the byte that ends the metadata.
    let in_metadata = [&good[..end - 1], LIST, &[0], &longer, b"PAR1"].concat();
    let error = refused("parquet", "target = 'label'", "a.parquet", &in_metadata);
    assert!(error.contains("a.parquet, its metadata: a list of truth values where none can be"), "{error}");
    // In place of the first page's header.
    let mut in_page = good.clone();
    in_page[4..4 + LIST.len()].copy_from_slice(LIST);
    in_page[4 + LIST.len()] = 0;
    let error = refused("parquet", "target = 'label'", "a.parquet", &in_page);
    assert!(error.contains("a.parquet, row group 0, column") && error.contains("a list of truth values"), "{error}");
}
