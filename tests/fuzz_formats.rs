//! Mutated files through every parser of data: whatever comes in, an answer comes out, a data set or one clear line of bad
//! data, and no allocation out of proportion. A short run is part of the suite; `PROPTEST_CASES=100000 cargo test --release
//! --test fuzz_formats parquet` is a long one of one parser. Job files have `job_fuzz.rs`.

use ddl::config::{Component, DataConfig};
use ddl::data::Dataset;
use ddl::store::weights;
use proptest::prelude::*;
use std::alloc::{GlobalAlloc, Layout, System};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use tempfile::TempDir;

/// Remembers the largest allocation.
struct Watched;

static LARGEST: AtomicUsize = AtomicUsize::new(0);

/// More than any of the small files here needs; the limit of one picture is the largest there is.
const MOST: usize = 1 << 29;

// SAFETY: everything is handed to the system's allocator as it came.
unsafe impl GlobalAlloc for Watched {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        LARGEST.fetch_max(layout.size(), Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        LARGEST.fetch_max(size, Ordering::Relaxed);
        // SAFETY: as the caller promised.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

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

fn good(name: &str) -> Vec<u8> {
    fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn answered<T>(result: ddl::error::Result<T>) -> Result<(), TestCaseError> {
    if let Err(error) = result {
        let text = error.to_string();
        prop_assert!([65, 74].contains(&error.exit_code()), "{} {text}", error.exit_code());
        prop_assert!(!text.contains('\n') && text.len() < 2000, "{text}");
    }
    let largest = LARGEST.load(Ordering::Relaxed);
    prop_assert!(largest < MOST, "an allocation of {largest} bytes");
    Ok(())
}

/// Opens a data set whose files are these.
fn survives(kind: &str, keys: &str, path: &str, files: &[(&str, &[u8])]) -> Result<(), TestCaseError> {
    let folder = TempDir::new().unwrap();
    for (name, bytes) in files {
        let file = folder.path().join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    }
    let text = format!("path = '{}'\nnormalize = 'none'\n{keys}", folder.path().join(path).display());
    let config = DataConfig::from_component(Component::new(kind, &text).unwrap()).unwrap();
    answered(Dataset::open(&config, 1))
}

/// A record of a TFRecord file with right checksums.
fn record(data: &[u8]) -> Vec<u8> {
    let masked = |bytes: &[u8]| crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), data, &masked(data)].concat()
}

/// A PNG file with right checksums of its chunks.
fn summed(mut png: Vec<u8>) -> Vec<u8> {
    let mut at = 8;
    while let Some(length) = png.get(at..at + 4) {
        let end = u32::from_be_bytes(length.try_into().unwrap()) as usize + at + 8;
        if end.checked_add(4).is_none_or(|end| end > png.len()) {
            break;
        }
        let sum = crc32fast::hash(&png[at + 4..end]).to_be_bytes();
        png[end..end + 4].copy_from_slice(&sum);
        at = end + 4;
    }
    png
}

/// An array in an NPZ file, stored, with the right checksum.
fn npz(x: &[u8]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let mut y = Vec::new();
    ndarray_npy::WriteNpyExt::write_npy(&ndarray::Array1::<i64>::zeros(3), &mut y).unwrap();
    for (name, bytes) in [("x_train.npy", x), ("y_train.npy", &y)] {
        let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
        zip.start_file(name, options).unwrap();
        std::io::Write::write_all(&mut zip, bytes).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

const BATCHES: [&str; 6] =
    ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];

const FEATURES: &str = "target = 'label'\nfeatures = { label = { type = 'int64' }, image_raw = { type = 'bytes', dtype = \
                        'uint8', shape = [28, 28, 1] } }";

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn parquet_columns(edits in edits(), part in 0..5usize) {
        let bytes = edited(&good(&format!("tests/formats/table/part-{part}.parquet")), &edits);
        let keys = "target = 'y'\nmissing = 'mean'\nfeatures = ['i8', 'u32', 'i64', 'f16', 'f64', 'flag', 'day', 'at', \
                    'price', 'color', 'size']";
        survives("parquet", keys, "a.parquet", &[("a.parquet", &bytes)])?;
        survives("parquet", "target = 'y'\nfeatures = ['list']", "a.parquet", &[("a.parquet", &bytes)])?;
    }

    #[test]
    fn parquet_pictures(edits in edits()) {
        let bytes = edited(&good("tests/formats/digits/test-png.parquet"), &edits);
        survives("parquet", "target = 'label'\nbytes = 'image'\nfeatures = ['image']", "a.parquet", &[("a.parquet", &bytes)])?;
        let bytes = edited(&good("tests/formats/digits/test.parquet"), &edits);
        survives("parquet", "target = 'label'", "a.parquet", &[("a.parquet", &bytes)])?;
    }

    #[test]
    fn tfrecord_framing(edits in edits(), packed in any::<bool>()) {
        let name = if packed { "test" } else { "train" };
        let bytes = edited(&good(&format!("tests/formats/digits/{name}.tfrecord")), &edits);
        survives("tfrecord", FEATURES, "a.tfrecord", &[("a.tfrecord", &bytes)])?;
    }

    #[test]
    fn tfrecord_examples(edits in edits()) {
        let file = good("tests/formats/digits/train.tfrecord");
        let length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let bytes = record(&edited(&file[12..12 + length], &edits));
        survives("tfrecord", FEATURES, "a.tfrecord", &[("a.tfrecord", &bytes)])?;
    }

    #[test]
    fn pictures(edits in edits(), name in prop::sample::select(vec!["warm/0.png", "warm/palette.png", "warm/4.jpg", "cold/grey.jpeg"])) {
        let bytes = summed(edited(&good(&format!("tests/formats/pictures/{name}")), &edits));
        let name = format!("a/1.{}", name.rsplit('.').next().unwrap());
        survives("images", "", "", &[(&name, &bytes)])?;
    }

    #[test]
    fn pickles(edits in edits(), protocol in 2..5usize) {
        let bytes = edited(&good(&format!("tests/formats/cifar/protocol-{protocol}.pickle")), &edits);
        survives("cifar10", "", "", &BATCHES.map(|name| (name, &bytes[..])))?;
        survives("cifar100", "", "", &["train", "test"].map(|name| (name, &bytes[..])))?;
    }

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
        let bytes = bytes.concat();
        survives("cifar10", "", "", &BATCHES.map(|name| (name, &bytes[..])))?;
    }

    #[test]
    fn cifar_records(edits in edits()) {
        let bytes = edited(&[7; 3 * 3074], &edits);
        survives("cifar100", "", "", &["train.bin", "test.bin"].map(|name| (name, &bytes[..])))?;
        let bytes = edited(&[7; 3 * 3073], &edits);
        let names = BATCHES.map(|name| format!("{name}.bin"));
        let files: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &bytes[..])).collect();
        survives("cifar10", "", "", &files)?;
    }

    #[test]
    fn idx(edits in edits(), packed in any::<bool>()) {
        let images = good("tests/formats/digits/idx/t10k-images-idx3-ubyte.gz");
        let labels = good("tests/formats/digits/idx/t10k-labels-idx1-ubyte.gz");
        let plain = |bytes: &[u8]| {
            let mut plain = Vec::new();
            std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(bytes), &mut plain).unwrap();
            plain
        };
        let (images, labels) = if packed { (images, labels) } else { (plain(&images), plain(&labels)) };
        let (images, labels) = (edited(&images, &edits), edited(&labels, &edits[1..]));
        let ending = if packed { ".gz" } else { "" };
        let names = ["train", "t10k"].map(|part| [format!("{part}-images-idx3-ubyte{ending}"), format!("{part}-labels-idx1-ubyte{ending}")]);
        let files: Vec<(&str, &[u8])> = names.iter().flat_map(|[x, y]| [(x.as_str(), &images[..]), (y.as_str(), &labels[..])]).collect();
        survives("mnist", "", "", &files)?;
    }

    #[test]
    fn npz_archives(edits in edits()) {
        survives("npz", "", "a.npz", &[("a.npz", &edited(&good("tests/formats/digits/digits.npz"), &edits))])?;
    }

    #[test]
    fn npz_arrays(edits in edits()) {
        let mut npy = Vec::new();
        ndarray_npy::WriteNpyExt::write_npy(&ndarray::Array2::<f32>::zeros((3, 4)), &mut npy).unwrap();
        survives("npz", "", "a.npz", &[("a.npz", &npz(&edited(&npy, &edits)))])?;
    }

    #[test]
    fn csv(edits in edits()) {
        let text = b"name,x,y\r\nred,1,2.5\r\n\"a, b\",-3e4,5\r\nblue,,1\r\n\"say \"\"x\"\"\",4,0\r\n";
        survives("csv", "target = 'y'\nfeatures = ['x']", "a.csv", &[("a.csv", &edited(text, &edits))])?;
    }

    #[test]
    fn safetensors(edits in edits()) {
        let header = br#"{"0.bias":{"dtype":"F32","shape":[2],"data_offsets":[16,24]},"0.weight":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]}}"#;
        let bytes = [&(header.len() as u64).to_le_bytes()[..], header, &[0; 24]].concat();
        let folder = TempDir::new().unwrap();
        let path = folder.path().join("w.safetensors");
        fs::write(&path, edited(&bytes, &edits)).unwrap();
        answered(weights::read(&path))?;
    }
}
