//! Pictures and arrays, as data to train on, to look at and to predict from.

use super::{Room, answered, answered_by};
use ddl::comm::Solo;
use ddl::config::{Component, DataConfig};
use ddl::data::{Dataset, Input, Part, Targets, open_inputs};
use ddl::error::Error;
use ddl::explore;
use std::path::Path;

/// Samples of a part that are looked at one by one.
const LOOKED_AT: u32 = 32;

/// All that commands do with data at `path`: opened to train, looked at as `explore` does, and read as inputs of a network that
/// was trained on `good`.
pub fn data(room: &Room, kind: &str, keys: &str, path: &Path, good: Option<&Input>) {
    let config = config(kind, keys, path);
    if let Some(data) = answered(Dataset::open(&config, 1)) {
        walk(&data);
    }
    let look = || {
        let mut data = Dataset::open_raw(&config, 1)?;
        data.read()?;
        let Some(survey) = explore::survey(&data, kind, None, &Solo)? else { return Ok(()) };
        explore::text(&survey);
        serde_json::to_string(&survey).map(drop).map_err(|e| Error::internal("the survey as JSON", e))
    };
    answered(look());
    let Some(good) = good else { return };
    // What is there may be of another shape or have other columns than the network was trained on.
    let inputs = open_inputs(good, &config, path).and_then(|mut inputs| inputs.read().map(|()| inputs));
    if let Some(inputs) = answered_by(&[2, 65, 74], inputs) {
        walk(&inputs);
    }
    let _ = room;
}

/// What a network that was trained on a good file knows.
pub fn trained(kind: &str, keys: &str, path: &Path) -> Input {
    Dataset::open(&config(kind, keys, path), 1).unwrap_or_else(|e| panic!("{e}")).description()
}

fn config(kind: &str, keys: &str, path: &Path) -> DataConfig {
    let text = format!("path = '{}'\n{keys}", path.display());
    DataConfig::from_component(Component::new(kind, &text).unwrap()).unwrap()
}

fn walk(data: &Dataset) {
    data.description();
    data.class_counts();
    let (mut x, mut targets) = (vec![0.0; data.input().len()], Targets::default());
    for part in [Part::Train, Part::Validation, Part::Test] {
        for sample in 0..LOOKED_AT.min(data.len(part) as u32) {
            let unlabelled = part == Part::Test && !data.is_labelled();
            if !unlabelled {
                data.fill(part, &[sample], None, &mut x, &mut targets);
            }
            data.describe(part, sample);
            data.class(part, sample);
            if data.is_series() {
                data.unit(part, sample, 0);
                data.last_value(part, sample, 0);
                data.target_value(part, sample, 0);
            }
        }
    }
}

const IMAGES: &[u8] = include_bytes!("../corpus/idx/images");
const LABELS: &[u8] = include_bytes!("../corpus/idx/labels");

fn packed(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\x1f\x8b")
}

/// The bytes as images and as labels, both parts alike.
pub fn idx(room: &Room, bytes: &[u8]) {
    let put = |images: &[u8], labels: &[u8]| {
        for part in ["train", "t10k"] {
            for (of, bytes) in [("images-idx3-ubyte", images), ("labels-idx1-ubyte", labels)] {
                room.put(&format!("{part}-{of}{}", if packed(bytes) { ".gz" } else { "" }), bytes);
            }
        }
    };
    put(IMAGES, LABELS);
    let good = trained("mnist", "", &room.path(""));
    room.clear();
    put(bytes, LABELS);
    data(room, "mnist", "", &room.path(""), None);
    let file = room.put(if packed(bytes) { "x-idx3-ubyte.gz" } else { "x-idx3-ubyte" }, bytes);
    answered_by(&[2, 65, 74], open_inputs(&good, &config("mnist", "", &file), &file));
    room.clear();
    put(IMAGES, bytes);
    data(room, "mnist", "", &room.path(""), None);
}

const BATCHES: [&str; 6] =
    ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];

/// Records of CIFAR-10 and of CIFAR-100.
pub fn cifar(room: &Room, bytes: &[u8]) {
    BATCHES.iter().for_each(|name| drop(room.put(&format!("ten/{name}.bin"), bytes)));
    data(room, "cifar10", "normalize = 'standard'", &room.path("ten"), None);
    ["train", "test"].iter().for_each(|name| drop(room.put(&format!("hundred/{name}.bin"), bytes)));
    data(room, "cifar100", "normalize = 'standard'", &room.path("hundred"), None);
}

/// Python's pickles of both.
pub fn pickle(room: &Room, bytes: &[u8]) {
    BATCHES.iter().for_each(|name| drop(room.put(&format!("ten/{name}"), bytes)));
    data(room, "cifar10", "", &room.path("ten"), None);
    ["train", "test"].iter().for_each(|name| drop(room.put(&format!("hundred/{name}"), bytes)));
    data(room, "cifar100", "", &room.path("hundred"), None);
}

/// A PNG file, with right checksums of its chunks, or a JPEG file.
pub fn image(room: &Room, bytes: &[u8]) {
    let (name, bytes) =
        if bytes.starts_with(b"\xff\xd8") { ("a/1.jpg", bytes.to_vec()) } else { ("a/1.png", summed(bytes.to_vec())) };
    room.put(name, &bytes);
    data(room, "images", "", &room.path(""), None);
    data(room, "images", "size = [5, 7]\nchannels = 3\nnormalize = 'standard'", &room.path(""), None);
}

pub fn summed(mut png: Vec<u8>) -> Vec<u8> {
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

/// An archive of arrays.
pub fn npz(room: &Room, bytes: &[u8]) {
    let good = trained("npz", "", &room.put("good.npz", include_bytes!("../corpus/npz/rows.npz")));
    let path = room.put("a.npz", bytes);
    data(room, "npz", "normalize = 'standard'", &path, Some(&good));
    data(room, "npz", SERIES, &path, None);
}

/// Windows over an archive's arrays.
const SERIES: &str = "window = 2\ntargets = ['x_train']\ntest_fraction = 0.5\nnormalize = 'window'";

/// One array, as inputs and as targets in an archive with right checksums.
pub fn npy(room: &Room, bytes: &[u8]) {
    const ROWS: &[u8] = include_bytes!("../corpus/npy/rows.npy");
    const LABELS: &[u8] = include_bytes!("../corpus/npy/labels.npy");
    for (x, y) in [(bytes, LABELS), (ROWS, bytes)] {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
        for (name, bytes) in [("x_train.npy", x), ("y_train.npy", y)] {
            let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
            zip.start_file(name, options).unwrap();
            std::io::Write::write_all(&mut zip, bytes).unwrap();
        }
        let path = room.put("a.npz", &zip.finish().unwrap().into_inner());
        data(room, "npz", "", &path, None);
    }
    // A series of it by itself, its groups and its times.
    room.put("series/x.npy", ROWS);
    room.put("series/other.npy", bytes);
    for keys in ["features = ['x', 'other']", "group = 'other'", "time = 'other'", "targets = ['other']"] {
        let targets = if keys.starts_with("targets") { "" } else { "targets = ['x']\n" };
        let keys = format!("window = 1\ntest_fraction = 0.0\nnormalize = 'minmax'\n{targets}{keys}");
        data(room, "npz", &keys, &room.path("series"), None);
    }
}

/// A prepared file, or one of others.
pub fn hdf5(room: &Room, bytes: &[u8]) {
    let path = room.put("a.h5", bytes);
    room.survives(|| {
        data(room, "hdf5", "", &path, None);
        data(room, "hdf5", SERIES, &path, None);
        answered(ddl::store::inspect::describe(&path));
        ddl::store::probe::run(&path);
    });
}
