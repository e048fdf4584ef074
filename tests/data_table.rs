//! CSV, NPZ, HDF5 and synthetic data.

#[path = "support/data_files.rs"]
mod data_files;

use data_files::{config, csv, failure, fill};
use ddl::config::{Component, DataConfig};
use ddl::data::{Dataset, Part, Task, Unit, open_inputs, registry};
use ddl::error::Result;
use ddl::shape::Shape;
use ndarray::{Array, Array1, Array2, Array3, Array4, ShapeBuilder};
use ndarray_npy::NpzWriter;
use proptest::prelude::*;
use std::fs::File;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn npz(fill: impl FnOnce(&mut NpzWriter<File>)) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("t.npz");
    let mut writer = NpzWriter::new(File::create(&path).unwrap());
    fill(&mut writer);
    writer.finish().unwrap();
    (folder, path)
}

/// The number of classes, or their names, where the file does not hold each.
#[test]
fn classes_can_be_named() -> Result<()> {
    let (_folder, path) = npz(|f| {
        f.add_array("x_train", &Array2::<f32>::ones((3, 2))).unwrap();
        f.add_array("y_train", &Array1::from(vec![0i64, 1, 1])).unwrap();
    });
    let names = |data: &Dataset| match data.task() {
        Task::Classes(names) => names.join(" "),
        Task::Values(_) => String::new(),
    };
    assert_eq!(names(&Dataset::open(&config("npz", &path, "classes = 3"), 1)?), "0 1 2");
    assert_eq!(names(&Dataset::open(&config("npz", &path, "classes = ['cat', 'dog', 'owl']"), 1)?), "cat dog owl");
    let refused = |kind: &str, path: &Path, keys: &str, code: i32, part: &str| {
        let (found, message) = failure(&config(kind, path, keys));
        assert!(found == code && message.contains(part), "{message}");
    };
    refused("npz", &path, "classes = 1", 65, "t.npz, array y_train: class 1 of sample 1 is none of the 1 classes");
    refused("npz", &path, "classes = 0", 2, "classes: no usable number");
    refused("npz", &path, "classes = ['a', 'a']", 2, "class \"a\" is there twice");
    refused("npz", &path, "classes = 0.5", 2, "neither a number of classes nor a list");
    let (_folder, path) = csv("x,y\n1,dog\n2,cat\n3,dog\n4,dog\n5,dog\n");
    let keys = "target = 'y'\ntask = 'classes'\nclasses = ['owl', 'dog', 'cat']";
    let data = Dataset::open(&config("csv", &path, keys), 1)?;
    assert_eq!((names(&data).as_str(), fill(&data, Part::Train, &[0, 1]).1.classes), ("owl dog cat", vec![1, 2]));
    refused(
        "csv",
        &path,
        "target = 'y'\ntask = 'classes'\nclasses = ['dog']",
        65,
        "t.csv:3, column y: \"cat\" is none",
    );
    refused("csv", &path, "target = 'x'\nclasses = 2", 2, "classes, where the task is values");
    Ok(())
}

#[test]
fn broken_tables_say_where() {
    let check = |text: &str, keys: &str, code: i32, part: &str| {
        let (_folder, path) = csv(text);
        let (found, message) = failure(&config("csv", &path, keys));
        assert!(found == code && message.contains(part), "{message}");
    };
    check("a,y\n1,x2\n", "target = 'y'", 65, "t.csv:2, column y");
    check("a,y\n1,2\n1;3\n", "target = 'y'", 65, "t.csv:3: 1 fields");
    check("a,y\n1,2\n", "target = 'z'", 65, "the columns are: a, y");
    check("a,y\n1,2\n", "target = 'y'\nfeatures = ['c']", 65, "no column \"c\"");
    check("y\n2\n", "target = 'y'", 65, "no column but the target");
    check("", "target = 'y'", 65, "empty");
    check("a,y\n", "target = 'y'", 65, "no training sample");
    check("a,y\n1,2\n", "", 2, "target");
    check("a,y\n1,2\n", "target = 'y'\ndelimiter = ',,'", 2, "delimiter");
    check("a,y\n1,2\n", "target = 'y'\ntest_fraction = 1.0", 2, "test_fraction");
    check("a,y\n1,2\n", "target = 'y'\nnormalize = 'window'", 2, "window");
    check("a,y\n1,2\n", "target = 'y'\naugment = [{ type = 'horizontal_flip' }]", 2, "no images");
}

#[test]
fn npz_images_become_channels_last_in_every_type_and_order() -> Result<()> {
    let x = Array4::from_shape_fn((3, 2, 4, 5), |(n, c, h, w)| (n * 40 + c * 20 + h * 5 + w) as f32);
    let fortran = Array4::from_shape_fn((1, 2, 4, 5).f(), |(_, c, h, w)| f64::from((c * 20 + h * 5 + w) as u32) + 0.5);
    let (_folder, path) = npz(|f| {
        f.add_array("x_train", &x).unwrap();
        f.add_array("y_train", &Array2::from_shape_vec((3, 1), vec![0i32, 6, 2]).unwrap()).unwrap();
        f.add_array("x_test", &fortran).unwrap();
        f.add_array("y_test", &Array1::from(vec![1u16])).unwrap();
    });
    let data = Dataset::open(&config("npz", &path, ""), 1)?;
    assert_eq!(data.input(), Shape::Image { c: 2, h: 4, w: 5 });
    assert!(matches!(data.task(), Task::Classes(names) if names.len() == 7));
    let (values, targets) = fill(&data, Part::Train, &[2]);
    assert_eq!(targets.classes, [2]);
    for (i, v) in values.iter().enumerate() {
        let (c, pixel) = (i % 2, i / 2);
        assert_eq!(*v, (80 + c * 20 + pixel) as f32);
    }
    assert_eq!(fill(&data, Part::Test, &[0]).0[..4], [0.5, 20.5, 1.5, 21.5]);
    let (_folder, path) = npz(|f| {
        f.add_array("images", &x.mapv(|v| v as u8)).unwrap();
        f.add_array("labels", &Array1::from(vec![0u8, 1, 1])).unwrap();
    });
    let keys = "arrays = { x_train = 'images', y_train = 'labels' }\naugment = [{ type = 'horizontal_flip', p = 1.0 }]";
    let data = Dataset::open(&config("npz", &path, keys), 1)?;
    assert_eq!(data.len(Part::Test), 0);
    assert!((fill(&data, Part::Train, &[1]).0[3] - 61.0 / 255.0).abs() < 1e-6);
    assert_eq!(data.bytes(), 120 + 12);
    Ok(())
}

#[test]
fn npz_series_and_rows_with_values() -> Result<()> {
    let x = Array3::from_shape_fn((2, 3, 2), |(n, t, f)| (n * 6 + t * 2 + f) as f64);
    let (_folder, path) = npz(|f| {
        f.add_array("x_train", &x).unwrap();
        f.add_array("y_train", &Array2::from_shape_vec((2, 2), vec![1.0f32, 2.0, 3.0, 6.0]).unwrap()).unwrap();
        f.add_array("x", &x.slice(ndarray::s![1.., .., ..])).unwrap();
        f.add_array("y", &Array2::<f32>::zeros((1, 2))).unwrap();
    });
    let job = config("npz", &path, "");
    let data = Dataset::open(&job, 1)?;
    assert_eq!((data.input(), data.task()), (Shape::Sequence { t: 3, f: 2 }, &Task::Values(2)));
    let (values, targets) = fill(&data, Part::Train, &[1]);
    assert_eq!((values, targets.values), (vec![6.0, 7.0, 8.0, 9.0, 10.0, 11.0], vec![3.0, 6.0]));
    assert_eq!([0, 1].map(|output| data.target_value(Part::Train, 1, output)), [Some(3.0), Some(6.0)]);
    let job = config("npz", &path, "normalize = 'minmax'");
    let data = Dataset::open(&job, 1)?;
    let (values, targets) = fill(&data, Part::Train, &[1]);
    assert_eq!((values, targets.values), (vec![0.6, 0.6, 0.8, 0.8, 1.0, 1.0], vec![1.0, 1.0]));
    let units = [0, 1].map(|output| data.unit(Part::Train, 0, output));
    assert_eq!(units, [Unit { scale: 2.0, offset: 1.0 }, Unit { scale: 4.0, offset: 2.0 }], "each has its own");
    let inputs = open_inputs(&data.description(), &job, &path)?;
    assert_eq!(fill(&inputs, Part::Test, &[0]).0, [0.6, 0.6, 0.8, 0.8, 1.0, 1.0]);
    Ok(())
}

#[test]
fn npz_compressed_reads_the_same() -> Result<()> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("t.npz");
    // Deflated, as numpy.savez_compressed does it: ndarray-npy's own writer is built without it.
    let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    let mut npy = Vec::new();
    ndarray_npy::WriteNpyExt::write_npy(&Array2::<f32>::from_elem((50, 7), 0.25), &mut npy).unwrap();
    zip.start_file("x_train.npy", options).unwrap();
    std::io::Write::write_all(&mut zip, &npy).unwrap();
    npy.clear();
    ndarray_npy::WriteNpyExt::write_npy(&Array1::<i64>::zeros(50), &mut npy).unwrap();
    zip.start_file("y_train.npy", options).unwrap();
    std::io::Write::write_all(&mut zip, &npy).unwrap();
    zip.finish().unwrap();
    let data = Dataset::open(&config("npz", &path, ""), 1)?;
    assert_eq!(fill(&data, Part::Train, &[49]).0, [0.25; 7]);
    Ok(())
}

#[test]
fn wrong_arrays_are_named() {
    let check = |part: &str, fill: &dyn Fn(&mut NpzWriter<File>)| {
        let (_folder, path) = npz(|f| fill(f));
        let (code, message) = failure(&config("npz", &path, ""));
        assert!(code == 65 && message.contains(part), "{message}");
    };
    let x = Array2::<f32>::ones((2, 3));
    let y = Array1::from(vec![0i64, 1]);
    check("no array \"y_train\"", &|f| f.add_array("x_train", &x).unwrap());
    check("class -4 of sample 1", &|f| {
        f.add_array("x_train", &x).unwrap();
        f.add_array("y_train", &Array1::from(vec![0i8, -4])).unwrap();
    });
    check("class 9223372036854775807", &|f| {
        f.add_array("x_train", &x).unwrap();
        f.add_array("y_train", &Array1::from(vec![0u64, u64::MAX])).unwrap();
    });
    check("class 65536, and 2 samples; correct it, or set data.classes", &|f| {
        f.add_array("x_train", &x).unwrap();
        f.add_array("y_train", &Array1::from(vec![0i64, 65_536])).unwrap();
    });
    check("3 targets for 2 samples", &|f| {
        f.add_array("x_train", &x).unwrap();
        f.add_array("y_train", &Array1::from(vec![0i64, 1, 2])).unwrap();
    });
    check("integers of 2 columns", &|f| {
        f.add_array("x_train", &x).unwrap();
        f.add_array("y_train", &Array2::<u8>::zeros((2, 2))).unwrap();
    });
    check("sample 1 of the training part", &|f| {
        f.add_array("x_train", &ndarray::array![[1.0f32], [f32::INFINITY]]).unwrap();
        f.add_array("y_train", &y).unwrap();
    });
    check("5 dimensions", &|f| {
        f.add_array("x_train", &Array::<f32, _>::ones((2, 1, 1, 1, 1))).unwrap();
        f.add_array("y_train", &y).unwrap();
    });
    check("no elements", &|f| {
        f.add_array("x_train", &Array2::<f32>::ones((2, 0))).unwrap();
        f.add_array("y_train", &y).unwrap();
    });
    check("beside the other", &|f| {
        f.add_array("x_train", &x).unwrap();
        f.add_array("y_train", &y).unwrap();
        f.add_array("x_test", &x).unwrap();
    });
    check("where the training part has classes", &|f| {
        f.add_array("x_train", &x).unwrap();
        f.add_array("y_train", &y).unwrap();
        f.add_array("x_test", &x).unwrap();
        f.add_array("y_test", &Array1::<f32>::zeros(2)).unwrap();
    });
    check("samples of 4 where x_train has 3", &|f| {
        f.add_array("x_train", &x).unwrap();
        f.add_array("y_train", &y).unwrap();
        f.add_array("x_test", &Array2::<f32>::zeros((2, 4))).unwrap();
        f.add_array("y_test", &y).unwrap();
    });
}

/// An NPZ file whose x_train is these bytes, stored.
fn npz_of_bytes(bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("t.npz");
    let mut zip = zip::ZipWriter::new(File::create(&path).unwrap());
    for name in ["x_train.npy", "y_train.npy"] {
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, bytes).unwrap();
    }
    zip.finish().unwrap();
    (folder, path)
}

fn npy(version: u8, header: &str, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY".to_vec();
    bytes.extend([version, 0]);
    match version {
        1 => bytes.extend((header.len() as u16).to_le_bytes()),
        _ => bytes.extend((header.len() as u32).to_le_bytes()),
    }
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    bytes
}

#[test]
fn headers_that_promise_too_much_are_bad_data() {
    let header = |shape: &str| format!("{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}\n");
    for header in [
        header("(18446744073709551615, 2)"),
        header("(4611686018427387904, 2)"),
        header("(1099511627776, 256)"),
        header("(2, 3)"),
        header("(-2, 3)"),
        header("(two,)"),
        header(&format!("{}1{}", "(".repeat(30_000), ")".repeat(30_000))),
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,), }\n".into(),
        "{'descr': '<f2', 'fortran_order': False, 'shape': (1,), }\n".into(),
        "{'descr': '<f4', 'shape': (1,)}".into(),
        String::new(),
    ] {
        for version in [1, 2] {
            let (_folder, path) = npz_of_bytes(&npy(version, &header, &[0; 4]));
            assert_eq!(failure(&config("npz", &path, "")).0, 65, "{:.80}", header);
        }
    }
}

fn hdf5(fill: impl FnOnce(&::hdf5::File)) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("t.h5");
    fill(&::hdf5::File::create(&path).unwrap());
    (folder, path)
}

#[test]
fn hdf5_holds_the_same_arrays() -> Result<()> {
    let x = Array4::from_shape_fn((3, 2, 4, 5), |(n, c, h, w)| (n * 40 + c * 20 + h * 5 + w) as u8);
    let (_folder, path) = hdf5(|f| {
        f.new_dataset_builder().with_data(&x).create("train/x").unwrap();
        f.new_dataset_builder().with_data(&[0.5f64, 1.5, 2.5]).create("train/y").unwrap();
        f.new_dataset_builder().with_data(&[true, false]).create("flag").unwrap();
    });
    let data = Dataset::open(&config("hdf5", &path, "arrays = { x_train = 'train/x', y_train = 'train/y' }"), 1)?;
    assert_eq!((data.input(), data.task()), (Shape::Image { c: 2, h: 4, w: 5 }, &Task::Values(1)));
    let (values, targets) = fill(&data, Part::Train, &[1]);
    assert_eq!(targets.values, [1.5]);
    assert!((values[3] - 61.0 / 255.0).abs() < 1e-6);
    let (code, message) = failure(&config("hdf5", &path, ""));
    assert!(code == 65 && message.contains("there are: flag, train/x, train/y"), "{message}");
    let whole = std::fs::read(&path).unwrap();
    for end in (0..whole.len()).step_by(61) {
        std::fs::write(&path, &whole[..end]).unwrap();
        assert_eq!(failure(&config("hdf5", &path, "")).0, 65, "{end}");
    }
    Ok(())
}

#[test]
fn hdf5_datasets_larger_than_memory_are_refused() {
    let (_folder, path) = hdf5(|f| {
        f.new_dataset::<f32>().shape((1usize << 16, 1usize << 26)).chunk((1, 1024)).create("x_train").unwrap();
        f.new_dataset_builder().with_data(&[1i32; 1 << 16]).create("y_train").unwrap();
    });
    let (code, message) = failure(&config("hdf5", &path, "resident = true"));
    assert!(code == 65 && message.contains("memory"), "{message}");
}

#[test]
fn synthetic_data_depends_on_the_seed_alone() -> Result<()> {
    let open = |keys: &str, seed| {
        Dataset::open(&DataConfig::from_component(Component::new("synthetic", keys).unwrap()).unwrap(), seed)
    };
    for (keys, shape) in [
        ("samples = 50", Shape::Image { c: 3, h: 32, w: 32 }),
        ("samples = 50\nshape = [60, 1]\nvalues = 2", Shape::Sequence { t: 60, f: 1 }),
        ("samples = 50\nshape = [20]\nclasses = 3", Shape::Vector { n: 20 }),
    ] {
        let (a, b, c) = (open(keys, 1)?, open(keys, 1)?, open(keys, 2)?);
        assert_eq!((a.input(), a.len(Part::Train), a.len(Part::Test)), (shape, 50, 256));
        let all: Vec<u32> = (0..50).collect();
        assert_eq!(fill(&a, Part::Train, &all), fill(&b, Part::Train, &all));
        assert_ne!(fill(&a, Part::Train, &all), fill(&c, Part::Train, &all));
        assert_ne!(fill(&a, Part::Train, &all), fill(&a, Part::Test, &all));
    }
    for keys in [
        "shape = []",
        "shape = [0]",
        "samples = 0",
        "classes = 0",
        "shape = [4294967296, 4294967296]",
        "values = 9223372036854775807",
    ] {
        assert_eq!(open(keys, 1).err().map(|e| e.exit_code()), Some(2), "{keys}");
    }
    Ok(())
}

/// The nearest class mean of the training part classifies the test part.
#[test]
fn synthetic_classes_can_be_learned() -> Result<()> {
    for keys in ["", "shape = [60, 1]", "shape = [20]"] {
        let data = Dataset::open(&DataConfig::from_component(Component::new("synthetic", keys)?)?, 3)?;
        let n = data.input().len();
        let all = |part| fill(&data, part, &(0..data.len(part) as u32).collect::<Vec<_>>());
        let (x, targets) = all(Part::Train);
        let mut means = vec![vec![0.0f32; n]; 10];
        for (row, &class) in x.chunks(n).zip(&targets.classes) {
            let count = targets.classes.iter().filter(|&&c| c == class).count() as f32;
            means[class as usize].iter_mut().zip(row).for_each(|(m, v)| *m += v / count);
        }
        let (x, targets) = all(Part::Test);
        let distance = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| (a - b) * (a - b)).sum::<f32>();
        let nearest =
            |row: &[f32]| (0..10).min_by(|&a, &b| distance(row, &means[a]).total_cmp(&distance(row, &means[b])));
        let right =
            x.chunks(n).zip(&targets.classes).filter(|(row, class)| nearest(row) == Some(**class as usize)).count();
        assert!(right > 220, "{keys}: {right} of 256");
    }
    Ok(())
}

#[test]
fn rare_classes_are_drawn_as_often_as_others() -> Result<()> {
    let rows: String = (0..200).map(|i| format!("{i},{}\n", if i % 10 == 3 { "rare" } else { "often" })).collect();
    let keys = "target = 'y'\ntask = 'classes'\nsampling = 'balanced'";
    let (_folder, path) = csv(&format!("a,y\n{rows}"));
    let data = Dataset::open(&config("csv", &path, keys), 1)?;
    let counts = data.class_counts();
    assert!(counts.iter().sum::<u64>() == 160 && counts.contains(&16), "{counts:?}");
    assert!(data.notes().iter().any(|note| note.contains("rare (16 samples) comes 5.00 times")), "{:?}", data.notes());
    let draw = |epoch| {
        let mut order = vec![0; 160];
        data.order(7, epoch, &mut order);
        order
    };
    for epoch in 0..5 {
        let order = draw(epoch);
        let rare = order.iter().filter(|&&s| counts[data.class(Part::Train, s).unwrap() as usize] == 16).count();
        assert_eq!((rare, &order), (80, &draw(epoch)));
    }
    assert_ne!(draw(0), draw(1));
    let (code, message) = failure(&config("csv", &path, "target = 'a'\nsampling = 'balanced'\nfeatures = ['a']"));
    assert!(code == 2, "{message}");
    let (_folder, path) = csv("a,y\n1,2\n3,4\n5,6\n7,8\n9,9\n");
    let (code, message) = failure(&config("csv", &path, "target = 'y'\nsampling = 'balanced'"));
    assert!(code == 2 && message.contains("are values, not classes"), "{message}");
    Ok(())
}

#[test]
fn every_source_resolves_to_documented_keys_that_parse_again() -> Result<()> {
    for source in registry() {
        let config = DataConfig::from_component(Component::new(source.name, "")?)?;
        let mut table = Dataset::resolve(&config)?;
        let shared = ["source", "path", "shuffle", "sampling", "augment", "normalize"];
        for key in table.keys().filter(|key| !shared.contains(&key.as_str())) {
            assert!(source.keys.iter().any(|(name, _)| name == key), "{}: {key} has no documentation", source.name);
        }
        assert_eq!(table.remove("source"), Some(source.name.into()));
        let text = toml::to_string(&table).unwrap();
        let again = DataConfig::from_component(Component::new(source.name, &text)?)?;
        table.insert("source".into(), source.name.into());
        assert_eq!(Dataset::resolve(&again)?, table);
    }
    let wrong = DataConfig::from_component(Component::new("mnits", "")?)?;
    let (code, message) = failure(&wrong);
    assert!(code == 2 && message.contains("did you mean \"mnist\""), "{message}");
    assert!(Dataset::resolve(&wrong).is_err());
    Ok(())
}

proptest! {
    #[test]
    fn broken_npz_files_never_panic(end in 0usize..700, flips in proptest::collection::vec((0usize..700, any::<u8>()), 0..4)) {
        let (_folder, path) = npz(|f| {
            f.add_array("x_train", &Array2::<f32>::ones((4, 3))).unwrap();
            f.add_array("y_train", &Array1::<i64>::ones(4)).unwrap();
        });
        let mut bytes = std::fs::read(&path).unwrap();
        let len = bytes.len();
        for (at, value) in flips {
            bytes[at % len] ^= value;
        }
        bytes.truncate(len - end.saturating_sub(350) % len);
        std::fs::write(&path, &bytes).unwrap();
        if let Err(error) = Dataset::open(&config("npz", &path, ""), 1) {
            prop_assert_eq!(error.exit_code(), 65);
        }
    }

    #[test]
    fn random_headers_never_panic(header in "[{}(),:'<f4 a-z0-9-]{0,120}", data in proptest::collection::vec(any::<u8>(), 0..40)) {
        for bytes in [npy(1, &header, &data), npy(2, &format!("{header}\n"), &data), data.clone()] {
            let (_folder, path) = npz_of_bytes(&bytes);
            if let Err(error) = Dataset::open(&config("npz", &path, ""), 1) {
                prop_assert_eq!(error.exit_code(), 65);
            }
        }
    }

    #[test]
    fn random_tables_never_panic(text in "(y|a|[0-9,.;\"\n-]|\\PC){0,80}", task in "(values|classes)") {
        let (_folder, path) = csv(&format!("a,y\n{text}"));
        for keys in [format!("target = 'y'\ntask = '{task}'"), "target = 'a'\nnormalize = 'minmax'".into()] {
            if let Err(error) = Dataset::open(&config("csv", &path, &keys), 1) {
                prop_assert_eq!(error.exit_code(), 65);
            }
        }
    }
}
