//! Files written by TensorFlow, pyarrow, Pillow, numpy and h5py (`tests/formats/make.py`): the same samples whatever the
//! format, every type of column, and what broken ones are answered.

mod support;

use ddl::config::{Component, DataConfig};
use ddl::data::{Dataset, Part, Targets, Task, open_inputs};
use ddl::error::{Error, Result};
use ddl::shape::Shape;
use std::fs;
use std::path::Path;
use support::training::train;

fn path(name: &str) -> String {
    format!("{}/tests/formats/{name}", env!("CARGO_MANIFEST_DIR"))
}

fn config(kind: &str, keys: &str) -> Result<DataConfig> {
    DataConfig::from_component(Component::new(kind, keys)?)
}

fn open(kind: &str, keys: &str) -> Result<Dataset> {
    Dataset::open(&config(kind, keys)?, 1)
}

/// All samples of a part.
fn all(dataset: &Dataset, part: Part) -> (Vec<f32>, Targets) {
    let samples: Vec<u32> = (0..dataset.len(part) as u32).collect();
    let mut x = vec![f32::NAN; samples.len() * dataset.input().len()];
    let mut targets = Targets::default();
    dataset.fill(part, &samples, None, &mut x, &mut targets);
    (x, targets)
}

/// The digits in `tests/formats/digits`, one source and its keys a line.
fn digits() -> Vec<(&'static str, String)> {
    let digits = path("digits");
    let record = |name: &str, feature: &str| {
        let paths = format!("path = '{digits}/train{name}.tfrecord'\ntest_path = '{digits}/test{name}.tfrecord'");
        ("tfrecord", format!("{paths}\ntarget = 'label'\n[features]\nlabel = {{ type = 'int64' }}\n{feature}"))
    };
    let parquet = |name: &str, keys: &str| {
        let paths = format!("path = '{digits}/train{name}.parquet'\ntest_path = '{digits}/test{name}.parquet'");
        ("parquet", format!("{paths}\ntarget = 'label'\n{keys}"))
    };
    vec![
        ("mnist", format!("path = '{digits}/idx'")),
        ("npz", format!("path = '{digits}/digits.npz'")),
        ("npz", format!("path = '{digits}/npy'")),
        ("hdf5", format!("path = '{digits}/digits.h5'")),
        record("", "image_raw = { type = 'bytes', dtype = 'uint8', shape = [28, 28, 1] }"),
        record("-png", "'image/encoded' = { type = 'image' }"),
        parquet("", "shape = [1, 28, 28]"),
        parquet("-png", "features = ['image']\nbytes = 'image'"),
        ("images", format!("path = '{digits}/images'")),
    ]
}

#[test]
fn the_same_digits_are_the_same_samples_in_every_format() -> Result<()> {
    let mut first = None;
    for (kind, keys) in digits() {
        let data = open(kind, &format!("normalize = 'standard'\n{keys}"))?;
        assert_eq!(data.input(), Shape::Image { c: 1, h: 28, w: 28 }, "{kind}: {keys}");
        let Task::Classes(names) = data.task() else { panic!("{kind} has no classes") };
        assert_eq!(names.join(""), "0123456789", "{kind}");
        let samples = [all(&data, Part::Train), all(&data, Part::Test)];
        assert_eq!((samples[0].1.classes.len(), samples[1].1.classes.len()), (30, 10), "{kind}");
        let first = first.get_or_insert_with(|| samples.clone());
        assert!(*first == samples, "{kind} differs: {keys}");
    }
    Ok(())
}

#[test]
fn every_format_trains_to_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let mut first: Option<Vec<u32>> = None;
    for (kind, keys) in digits() {
        let job = format!(
            "[model]\nlayers = [{{ type = \"conv2d\", out_channels = 4, kernel_size = 3 }}, {{ type = \"relu\" }}, \
             {{ type = \"flatten\" }}, {{ type = \"linear\", out_features = 10 }}]\n[loss]\ntype = \"cross_entropy\"\n\
             [optimizer]\ntype = \"adam\"\n[train]\nepochs = 2\nbatch_size = 8\n[data]\nsource = \"{kind}\"\n\
             normalize = {{ mean = [0.1307], std = [0.3081] }}\n{}",
            keys.replace("[features]", "[data.features]")
        );
        let run = train(folder.path(), &job, 0, &[]);
        let weights: Vec<u32> =
            run.last.model.iter().flat_map(|tensor| tensor.data.iter().map(|v| v.to_bits())).collect();
        assert!(weights.len() > 1000);
        let first = first.get_or_insert_with(|| weights.clone());
        assert!(*first == weights, "{kind} trains otherwise: {keys}");
    }
}

#[test]
fn inputs_for_predictions_are_read_from_the_new_formats() -> Result<()> {
    for (kind, keys) in digits().into_iter().skip(2) {
        let config = config(kind, &keys)?;
        let data = Dataset::open(&config, 1)?;
        let file = match &config.source.table.get("test_path") {
            Some(path) => path.as_str().unwrap().to_owned(),
            None if kind == "npz" => path("digits/npy"),
            None if kind == "hdf5" => path("digits/digits.h5"),
            None => path("digits/images/test"),
        };
        let inputs = open_inputs(&data.description(), &config, Path::new(&file))?;
        assert_eq!(all(&inputs, Part::Test), all(&data, Part::Test), "{kind}");
    }
    Ok(())
}

#[test]
fn parquet_columns_of_every_type_codec_and_pattern_are_read() -> Result<()> {
    let data = |keys: &str| {
        let keys = format!(
            "path = '{}'\ntarget = 'y'\nnormalize = 'none'\ntest_fraction = 0.0\n{keys}",
            path("table/part-*.parquet")
        );
        open("parquet", &keys)
    };
    let numbers = data("features = ['i8', 'u16', 'u32', 'f16', 'f32', 'flag', 'day', 'at', 'at_ns', 'price']")?;
    assert_eq!(numbers.input(), Shape::Vector { n: 10 });
    let (x, targets) = all(&numbers, Part::Train);
    assert_eq!(targets.values.len(), 40);
    for (row, x) in x.chunks_exact(10).enumerate() {
        let i = row as f32;
        let flag = f32::from(u8::from(row % 3 == 0));
        let u32 = (4_294_967_295u32 - row as u32) as f32;
        let price = (f64::from(i) / 100.0 - 1.0) as f32;
        assert_eq!(x, [i - 20.0, i * 1000.0, u32, i / 4.0, i / 8.0, flag, i, i * 1.5, i * 2.0, price], "row {row}");
        assert!((targets.values[row] - (2.0 * i - 0.5 * (i - 20.0))).abs() < 1e-5 * i.max(1.0));
    }
    // Rows that lack a value: i64 at 7, 17, 27, 37, f64 at 5, color at 2 mod 4.
    let holes = |missing: &str| data(&format!("features = ['i64', 'f64', 'color', 'size']\n{missing}"));
    let dropped = holes("")?;
    assert_eq!((dropped.len(Part::Train), dropped.input()), (40 - 4 - 1 - 10, Shape::Vector { n: 2 + 3 + 3 }));
    assert!(dropped.notes().iter().any(|note| note == "15 rows with missing values dropped"), "{:?}", dropped.notes());
    let (x, _) = all(&holes("missing = 'mean'")?, Part::Train);
    assert_eq!(x[..8], [-3.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0], "i64, f64, blue, green, red, L, M, S");
    assert_eq!(x[2 * 8..][..8], [-1.0, 3.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0], "no colour");
    let (x, _) = all(&holes("missing = -9")?, Part::Train);
    assert_eq!((x[7 * 8], x[5 * 8 + 1]), (-9.0, -9.0));
    let lists = data("features = ['list']\ntask = 'values'")?;
    assert_eq!((lists.input(), &all(&lists, Part::Train).0[117..]), (Shape::Vector { n: 3 }, &[39.0, 78.0, -39.0][..]));
    // Several targets, and classes by text.
    let several = data("targets = ['y', 'f32']\nfeatures = ['i8', 'f32']")?;
    assert_eq!((several.task(), all(&several, Part::Train).1.values[3]), (&Task::Values(2), 0.125));
    let keys = format!("path = '{}'\ntarget = 'size'\nfeatures = ['i8']", path("table"));
    let classes = open("parquet", &keys)?;
    assert_eq!(classes.task(), &Task::Classes(["L", "M", "S"].map(String::from).to_vec()));
    assert_eq!((all(&classes, Part::Train).1.classes[..3].to_vec(), classes.len(Part::Test)), (vec![2, 1, 0], 8));
    Ok(())
}

#[test]
fn pictures_are_resized_and_turned_grey_or_coloured_on_request() -> Result<()> {
    let pictures = path("pictures");
    let data = open("images", &format!("path = '{pictures}'\nsize = [6, 8]\nchannels = 3\ntest_fraction = 0.34"))?;
    assert_eq!(data.input(), Shape::Image { c: 3, h: 6, w: 8 });
    assert_eq!(data.task(), &Task::Classes(vec!["cold".into(), "warm".into()]));
    assert_eq!((data.len(Part::Train), data.len(Part::Test)), (5 + 4, 2 + 2));
    let (x, targets) = all(&data, Part::Train);
    assert_eq!(targets.classes, [0, 0, 0, 0, 0, 1, 1, 1, 1]);
    // cold/0.png is 255 - (30 x, 40 y, 15 (x + y)).
    let pixel = |x: f32, y: f32| [255.0 - 30.0 * x, 255.0 - 40.0 * y, 255.0 - 15.0 * (x + y)].map(|v| v / 255.0);
    for (i, found) in x[..6 * 8 * 3].chunks_exact(3).enumerate() {
        let expected = pixel((i % 8) as f32, (i / 8) as f32);
        assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-6), "pixel {i}: {found:?}, {expected:?}");
    }
    let grey = open("images", &format!("path = '{pictures}'\nsize = [3, 3]\nchannels = 1"))?;
    assert_eq!(grey.input(), Shape::Image { c: 1, h: 3, w: 3 });
    let error = open("images", &format!("path = '{pictures}'")).map(drop).unwrap_err();
    assert!(
        error.exit_code() == 65 && error.to_string().contains("large.png") && error.to_string().contains("data.size")
    );
    Ok(())
}

/// A folder of CIFAR's python version, each file the same two images.
fn cifar(names: &[&str], bytes: &[u8]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    names.iter().for_each(|name| fs::write(folder.path().join(name), bytes).unwrap());
    folder
}

const BATCHES: [&str; 6] =
    ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];

#[test]
fn python_batches_are_read_as_data() -> Result<()> {
    for protocol in [2, 3, 4] {
        let bytes = fs::read(path(&format!("cifar/protocol-{protocol}.pickle"))).unwrap();
        let ten = cifar(&BATCHES, &bytes);
        let (batch, keys) =
            (ten.path().join("test_batch"), format!("path = '{}'\nnormalize = 'none'", ten.path().display()));
        let (ten, config) = (open("cifar10", &keys)?, config("cifar10", &keys)?);
        assert_eq!(all(&open_inputs(&ten.description(), &config, &batch)?, Part::Test), all(&ten, Part::Test));
        let (x, targets) = all(&ten, Part::Train);
        assert_eq!((targets.classes, ten.len(Part::Test)), ([3, 9].repeat(5), 2));
        // Planes of bytes i / 16 mod 251.
        let value = |i: usize| (i / 16 % 251) as f32 / 255.0;
        assert!(x[..3072].iter().enumerate().all(|(i, v)| (v - value(i % 3 * 1024 + i / 3)).abs() < 1e-6));
        let hundred = cifar(&["train", "test"], &bytes);
        let open = |keys: &str| open("cifar100", &format!("path = '{}'\n{keys}", hundred.path().display()));
        assert_eq!(all(&open("")?, Part::Train).1.classes, [7, 99]);
        assert_eq!(all(&open("labels = 'coarse'")?, Part::Test).1.classes, [1, 19]);
        let Task::Classes(names) = open("labels = 'coarse'")?.task().clone() else { panic!() };
        assert_eq!(names.len(), 20);
    }
    Ok(())
}

#[test]
fn a_batch_as_python_2_wrote_it_is_read() -> Result<()> {
    // What cPickle writes at protocol 2: short and long byte strings, memo entries, the dictionary set at once.
    let text = |text: &str| [&[b'U', text.len() as u8], text.as_bytes(), b"q\x01"].concat();
    let data: Vec<u8> = (0..3072).map(|i| (i % 256) as u8).collect();
    let mut bytes = b"\x80\x02}q\x01(".to_vec();
    bytes.extend(
        [text("batch_label"), text("training batch 1 of 5"), text("labels"), b"]q\x03K\x06a".to_vec()].concat(),
    );
    bytes.extend(
        [text("data"), b"cnumpy.core.multiarray\n_reconstruct\nq\x05cnumpy\nndarray\nq\x06K\x00\x85".to_vec()].concat(),
    );
    bytes.extend(b"U\x01b\x87Rq\x07(K\x01K\x01M\x00\x0c\x86cnumpy\ndtype\nq\x08U\x02u1K\x00K\x01\x87Rq\x09(K\x03U\x01|NNNJ\xff\xff\xff\xff");
    bytes.extend(b"J\xff\xff\xff\xffK\x00tb\x89T\x00\x0c\x00\x00");
    bytes.extend([&data[..], b"tb", &text("filenames"), b"]q\x0aU\x05a.pngau."].concat());
    let folder = cifar(&BATCHES, &bytes);
    let data = open("cifar10", &format!("path = '{}'", folder.path().display()))?;
    assert_eq!((data.len(Part::Train), all(&data, Part::Test).1.classes), (5, vec![6]));
    Ok(())
}

#[test]
fn cifar100_records_hold_both_labels() -> Result<()> {
    let folder = tempfile::tempdir().unwrap();
    let record = |coarse: u8, fine: u8| [vec![coarse, fine], vec![fine; 3072]].concat();
    fs::write(folder.path().join("train.bin"), [record(1, 42), record(19, 99)].concat()).unwrap();
    fs::write(folder.path().join("test.bin"), record(0, 0)).unwrap();
    let open =
        |keys: &str| open("cifar100", &format!("path = '{}'\nnormalize = 'none'\n{keys}", folder.path().display()));
    let (x, targets) = all(&open("")?, Part::Train);
    assert_eq!((targets.classes, (x[3072] * 255.0).round()), (vec![42, 99], 99.0));
    assert_eq!(all(&open("labels = 'coarse'")?, Part::Train).1.classes, [1, 19]);
    fs::write(folder.path().join("coarse_label_names.txt"), "apple\n").unwrap();
    refused(open("labels = 'coarse'"), 65, &["coarse_label_names.txt", "1 names for 20 classes"]);
    fs::write(folder.path().join("test.bin"), record(0, 100)).unwrap();
    refused(open(""), 65, &["test.bin, image 0", "label 100"]);
    Ok(())
}

/// Whether an error of the code says all of it, on one line of bounded length.
fn refused<T>(result: Result<T>, code: i32, says: &[&str]) {
    let error: Error = result.map(drop).expect_err("it is read");
    let text = error.to_string();
    assert!(error.exit_code() == code && says.iter().all(|part| text.contains(part)), "{} {text}", error.exit_code());
    assert!(!text.contains('\n') && text.len() < 600, "{text}");
}

#[test]
fn pickles_with_code_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |bytes: &[u8]| {
        BATCHES.iter().for_each(|name| fs::write(folder.path().join(name), bytes).unwrap());
        open("cifar10", &format!("path = '{}'", folder.path().display()))
    };
    let never = "a pickle with code is never run";
    refused(
        open(b"cos\nsystem\n(S'touch /tmp/x'\ntR."),
        65,
        &["data_batch_1, byte 0", "GLOBAL names os.system", never],
    );
    refused(open(b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93."), 65, &["byte 18", "builtins.eval", never]);
    refused(open(b"(S'x'\nios\nsystem\n."), 65, &["byte 1", "opcode 0x53", never]);
    refused(open(b"\x80\x02)\x81."), 65, &["byte 3", "NEWOBJ (0x81)", never]);
    refused(open(b"cnumpy\ndtype\n(K\x01tR."), 65, &["REDUCE", never]);
    refused(open(b"\x80\x05."), 65, &["protocol 5"]);
    refused(open(b"\x80\x02}}b."), 65, &["byte 4", "BUILD"]);
    refused(open(b"\x80\x02T\xff\xff\xff\x7f."), 65, &["byte 2", "ends within 2147483647 bytes"]);
    refused(open(b"\x80\x02}."), 65, &["no \"data\""]);
    refused(open(b"\x80\x02]."), 65, &["no dictionary"]);
    refused(open(b""), 65, &["byte 0"]);
    // A list that holds itself.
    refused(open(b"\x80\x02}U\x04data]q\x01h\x01as."), 65, &["no numpy array"]);
}

#[test]
fn wrong_keys_are_usage_and_wrong_paths_failed_input() {
    let table = path("table/part-*.parquet");
    for (kind, keys, says) in [
        ("parquet", format!("path = '{table}'"), "no column to predict"),
        ("parquet", format!("path = '{table}'\ntarget = 'y'\ntest_fraction = 1.0"), "no share"),
        ("parquet", format!("path = '{table}'\ntarget = 'y'\nmissing = 'median'"), "\"drop\", \"mean\""),
        ("parquet", format!("path = '{table}'\ntarget = 'y'\nbytes = 'jpeg2000'"), "dtype"),
        ("parquet", format!("path = '{table}'\ntarget = 'y'\nchannels = 2"), "1 (grey) or 3"),
        ("tfrecord", "path = 'x'\ntarget = 'y'".into(), "declare it in data.features"),
        ("tfrecord", "path = 'x'\ntarget = 'y'\nfeatures = { y = { type = 'int32' } }".into(), "int32"),
        ("images", "path = 'x'\nsize = [0, 9]".into(), "height, width"),
        ("cifar100", "path = 'x'\nlabels = 'medium'".into(), "medium"),
    ] {
        refused(open(kind, &keys), 2, &[says]);
    }
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(std::process::Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let feature = "target = 'y'\nfeatures = { x = { type = 'float' }, y = { type = 'int64' } }";
    for place in
        [folder.path().join("none"), folder.path().join("none-*"), folder.path().to_owned(), pipe, "/dev/zero".into()]
    {
        for (kind, keys) in [("parquet", "target = 'y'"), ("tfrecord", feature), ("cifar100", ""), ("images", "")] {
            if kind == "images" && place.is_dir() {
                continue;
            }
            refused(open(kind, &format!("path = '{}'\n{keys}", place.display())), 74, &[]);
        }
    }
    refused(open("images", &format!("path = '{}'", folder.path().display())), 65, &["no pictures"]);
    // Something else behind the names of a set.
    fs::create_dir(folder.path().join("train.bin")).unwrap();
    refused(open("cifar100", &format!("path = '{}'", folder.path().display())), 74, &["train.bin", "folder"]);
}

#[test]
fn what_columns_cannot_be_is_told() {
    let table = path("table/part-*.parquet");
    let columns = |keys: &str| open("parquet", &format!("path = '{table}'\n{keys}"));
    refused(columns("target = 'z'\nfeatures = ['i8']"), 65, &["no column \"z\"", "i8, u16"]);
    refused(columns("target = 'y'\nfeatures = ['list', 'i8']"), 65, &["column list", "alone"]);
    refused(
        columns("target = 'y'\nfeatures = ['list']\nshape = [4]"),
        65,
        &["row group 0, column list, row 0", "3 values"],
    );
    refused(columns("target = 'y'\nfeatures = ['list']\nshape = [4, 0]"), 65, &["cannot be"]);
    refused(columns("target = 'color'\ntask = 'values'\nfeatures = ['i8']"), 65, &["column color", "task"]);
    refused(columns("target = 'f32'\ntask = 'classes'\nfeatures = ['i8']"), 65, &["column f32, row 1", "class 0.125"]);
    refused(columns("target = 'i8'\ntask = 'classes'\nfeatures = ['f32']"), 65, &["class -20"]);
    refused(columns("targets = ['color', 'size']\nfeatures = ['i8']"), 2, &["several targets"]);
    let digits = path("digits");
    let parquet =
        |keys: &str| open("parquet", &format!("path = '{digits}/train-png.parquet'\ntarget = 'label'\n{keys}"));
    refused(parquet("features = ['image']"), 65, &["column image", "data.bytes"]);
    refused(parquet("features = ['image']\nbytes = 'uint8'\nshape = [28, 28]"), 65, &["row 0", "784"]);
    let records = |features: &str| {
        open("tfrecord", &format!("path = '{digits}/train.tfrecord'\ntarget = 'label'\n[features]\n{features}"))
    };
    let label = "label = { type = 'int64' }\n";
    refused(records(&format!("{label}x = {{ type = 'image' }}")), 65, &["record 1 at byte 0, feature x", "image_raw"]);
    refused(records(&format!("{label}image_raw = {{ type = 'text' }}")), 65, &["not UTF-8"]);
    refused(records(&format!("{label}image_raw = {{ type = 'float' }}")), 65, &["bytes where floats"]);
    let raw = "image_raw = { type = 'bytes', dtype = 'uint8', shape = [28, 29] }";
    refused(records(&format!("{label}{raw}")), 65, &["784 bytes", "812"]);
    refused(
        records(&format!("label = {{ type = 'float' }}\n{}", raw.replace("29", "28"))),
        65,
        &["integers where floats"],
    );
}

/// A copy of files in `tests/formats` to break one of them.
fn broken(files: &[&str]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    files.iter().for_each(|file| {
        assert!(fs::copy(path(file), folder.path().join(file.rsplit('/').next().unwrap())).unwrap() > 0)
    });
    folder
}

#[test]
fn files_cut_at_any_byte_are_bad_data() {
    let record = "target = 'label'\nfeatures = { label = { type = 'int64' }, image_raw = { type = 'bytes', dtype = 'uint8', \
                  shape = [28, 28, 1] } }";
    let png = "target = 'label'\nfeatures = { label = { type = 'int64' }, 'image/encoded' = { type = 'image' } }";
    for (file, kind, keys, step) in [
        ("table/part-0.parquet", "parquet", "target = 'y'\nfeatures = ['i8']", 7),
        ("digits/test-png.parquet", "parquet", "target = 'label'\nbytes = 'image'\nfeatures = ['image']", 7),
        ("digits/test.tfrecord", "tfrecord", record, 3),
        ("digits/test-png.tfrecord", "tfrecord", png, 3),
    ] {
        let whole = fs::read(path(file)).unwrap();
        let folder = broken(&[file]);
        let copy = folder.path().join(file.rsplit('/').next().unwrap());
        let opened = || open(kind, &format!("path = '{}'\n{keys}", copy.display()));
        assert!(opened().is_ok(), "{file}");
        for end in (0..whole.len()).step_by(step) {
            fs::write(&copy, &whole[..end]).unwrap();
            refused(opened(), 65, &[]);
        }
    }
    // A plain one may end between two records, and nowhere else.
    let whole = fs::read(path("digits/train.tfrecord")).unwrap();
    let length = 16 + u64::from_le_bytes(whole[..8].try_into().unwrap()) as usize;
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("a.tfrecord");
    for end in 0..2 * length {
        fs::write(&copy, &whole[..end]).unwrap();
        let opened = open("tfrecord", &format!("path = '{}'\ntest_fraction = 0.0\n{record}", copy.display()));
        match end {
            0 => refused(opened, 65, &["no training sample"]),
            end if end == length => assert_eq!(opened.unwrap().len(Part::Train), 1),
            end if end < length => refused(opened, 65, &["a.tfrecord, record 1 at byte 0"]),
            _ => refused(opened, 65, &[&format!("record 2 at byte {length}")]),
        }
    }
    let mut flipped = whole.clone();
    flipped[length + 20] ^= 1;
    fs::write(&copy, &flipped).unwrap();
    refused(
        open("tfrecord", &format!("path = '{}'\n{record}", copy.display())),
        65,
        &["record 2", "checksum of the record"],
    );
    flipped[length] ^= 1;
    fs::write(&copy, &flipped).unwrap();
    refused(open("tfrecord", &format!("path = '{}'\n{record}", copy.display())), 65, &["record 2", "record's length"]);
}

/// The checksum that TensorFlow writes.
fn masked(bytes: &[u8]) -> [u8; 4] {
    crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes()
}

#[test]
fn lengths_that_promise_too_much_take_no_memory() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("a.tfrecord");
    let record = |path: &Path| {
        open(
            "tfrecord",
            &format!(
                "path = '{}'\ntarget = 'y'\nfeatures = {{ x = {{ type = 'float' }}, y = {{ type = 'int64' }} }}",
                path.display()
            ),
        )
    };
    for length in [1u64 << 31, 1 << 40, u64::MAX - 3, u64::MAX] {
        fs::write(&file, [&length.to_le_bytes()[..], &masked(&length.to_le_bytes())].concat()).unwrap();
        refused(record(&file), 65, &["record 1 at byte 0", "more than any message has"]);
    }
    let length = (1u64 << 31) - 1;
    fs::write(&file, [&length.to_le_bytes()[..], &masked(&length.to_le_bytes()), b"x"].concat()).unwrap();
    refused(record(&file), 65, &["ends within a record of 2147483647 bytes"]);
    // A message whose field is longer than the message.
    let lie = b"\x0a\xff\xff\xff\xff\x07";
    let length = (lie.len() as u64).to_le_bytes();
    fs::write(&file, [&length[..], &masked(&length), lie, &masked(lie)].concat()).unwrap();
    refused(record(&file), 65, &["record 1", "no tf.train.Example"]);
    // A picture of 65,000 x 65,000 pixels in 100 bytes: the header of a PNG file with its right checksum.
    let header = [&b"IHDR"[..], &65_000u32.to_be_bytes(), &65_000u32.to_be_bytes(), &[8, 2, 0, 0, 0]].concat();
    let sum = crc32fast::hash(&header).to_be_bytes();
    let png = [&b"\x89PNG\r\n\x1a\n\0\0\0\x0d"[..], &header, &sum, &[0; 60]].concat();
    fs::create_dir(folder.path().join("class")).unwrap();
    fs::write(folder.path().join("class/bomb.png"), png).unwrap();
    refused(open("images", &format!("path = '{}'", folder.path().display())), 65, &["bomb.png", "cannot be read"]);
    // Ten to the ninth rows declared in the footer, of which there are eight: its varint is a field of the row group.
    let whole = fs::read(path("table/part-4.parquet")).unwrap();
    let rows = b"\x16\x0a";
    let footer =
        whole.len() - 8 - u32::from_le_bytes(whole[whole.len() - 8..whole.len() - 4].try_into().unwrap()) as usize;
    let mut met = 0;
    for at in (footer..whole.len() - 10).filter(|&at| whole[at..].starts_with(rows)) {
        let mut lying = [&whole[..at + 1], b"\x80\xa8\xd6\xb9\x07", &whole[at + 2..]].concat();
        let length = (lying.len() - 8 - footer) as u32;
        let end = lying.len();
        lying[end - 8..end - 4].copy_from_slice(&length.to_le_bytes());
        let file = folder.path().join("rows.parquet");
        fs::write(&file, lying).unwrap();
        let opened = open("parquet", &format!("path = '{}'\ntarget = 'y'\nfeatures = ['i8']", file.display()));
        match opened {
            Err(error) if error.to_string().contains("of 1000000000 rows") => met += 1,
            other => assert!(other.map_or_else(|e| e.exit_code() == 65, |_| true)),
        }
    }
    assert!(met > 0, "no row group declares its rows so");
}
