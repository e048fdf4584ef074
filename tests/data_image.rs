//! MNIST and CIFAR-10: round trips, broken files, normalisation and augmentation.

use ddl::config::{Component, DataConfig};
use ddl::data::{AugmentKey, Dataset, Part, Targets, Task, open_inputs};
use ddl::error::{Error, Result};
use ddl::shape::Shape;
use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;
use std::io::Write;
use std::path::Path;
use tempfile::TempDir;

fn config(kind: &str, path: &Path, keys: &str) -> DataConfig {
    let text = format!("path = '{}'\n{keys}", path.display());
    DataConfig::from_component(Component::new(kind, &text).unwrap()).unwrap()
}

fn idx(dims: &[u32], elements: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, dims.len() as u8];
    bytes.extend(dims.iter().flat_map(|dim| dim.to_be_bytes()));
    bytes.extend(elements);
    bytes
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const H: u32 = 4;
const W: u32 = 5;

/// Four training and two test images of 4x5; pixel i of the file is i * 7 mod 256.
fn mnist_folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    let images = |n: u32| idx(&[n, H, W], &(0..n * H * W).map(|i| (i * 7) as u8).collect::<Vec<_>>());
    let write = |name: &str, bytes: Vec<u8>| std::fs::write(folder.path().join(name), bytes).unwrap();
    write("train-images-idx3-ubyte", images(4));
    write("train-labels.idx1-ubyte", idx(&[4], &[3, 0, 9, 1]));
    write("t10k-images.idx3-ubyte.gz", gzip(&images(2)));
    write("t10k-labels-idx1-ubyte.gz", gzip(&idx(&[2], &[5, 6])));
    folder
}

fn open_mnist(folder: &TempDir, keys: &str) -> Result<Dataset> {
    Dataset::open(&config("mnist", folder.path(), keys), 1)
}

fn fill(dataset: &Dataset, part: Part, samples: &[u32], key: Option<AugmentKey>) -> (Vec<f32>, Targets) {
    let mut x = vec![f32::NAN; samples.len() * dataset.input().len()];
    let mut targets = Targets { classes: vec![77], values: vec![7.0], ..Targets::default() };
    dataset.fill(part, samples, key, &mut x, &mut targets);
    (x, targets)
}

#[test]
fn mnist_reads_what_was_written() -> Result<()> {
    let folder = mnist_folder();
    let data = open_mnist(&folder, "normalize = 'none'")?;
    assert_eq!(data.input(), Shape::Image { c: 1, h: 4, w: 5 });
    assert_eq!((data.len(Part::Train), data.len(Part::Test)), (4, 2));
    assert!(matches!(data.task(), Task::Classes(names) if names.len() == 10 && names[9] == "9"));
    let (x, targets) = fill(&data, Part::Train, &[2, 0], None);
    assert_eq!(targets, Targets { classes: vec![9, 3], ..Targets::default() });
    for (i, &v) in x.iter().enumerate() {
        let pixel = ((if i < 20 { 40 + i } else { i - 20 }) * 7 % 256) as f32;
        assert!((v - pixel / 255.0).abs() < 1e-6);
    }
    assert_eq!(fill(&data, Part::Test, &[1], None).1.classes, [6]);
    let data = open_mnist(&folder, "")?;
    let (x, _) = fill(&data, Part::Train, &[0], None);
    assert!((x[1] - (7.0 / 255.0 - 0.1307) / 0.3081).abs() < 1e-6);
    Ok(())
}

#[test]
fn normalisation_is_fitted_on_the_training_part() -> Result<()> {
    let folder = mnist_folder();
    let data = open_mnist(&folder, "normalize = 'standard'")?;
    let (x, _) = fill(&data, Part::Train, &[0, 1, 2, 3], None);
    let mean = x.iter().sum::<f32>() / 80.0;
    let square = x.iter().map(|v| v * v).sum::<f32>() / 80.0;
    assert!(mean.abs() < 1e-5 && (square - 1.0).abs() < 1e-5, "{mean} {square}");
    let data = open_mnist(&folder, "normalize = 'minmax'")?;
    let (x, _) = fill(&data, Part::Train, &[0, 1, 2, 3], None);
    let (min, max) = x.iter().fold((9.0f32, -9.0f32), |(a, b), &v| (a.min(v), b.max(v)));
    assert!(min.abs() < 1e-6 && (max - 1.0).abs() < 1e-6);
    for keys in [
        "normalize = 'window'",
        "normalize = { mean = [0.1, 0.2], std = [1.0] }",
        "augment = [{ type = 'random_crop', padding = 4 }]",
    ] {
        assert_eq!(open_mnist(&folder, keys).err().map(|e| e.exit_code()), Some(2), "{keys}");
    }
    Ok(())
}

#[test]
fn every_truncation_of_an_idx_file_is_bad_data() {
    for name in ["train-images-idx3-ubyte", "train-labels.idx1-ubyte", "t10k-images.idx3-ubyte.gz"] {
        let folder = mnist_folder();
        let path = folder.path().join(name);
        let whole = std::fs::read(&path).unwrap();
        for end in 0..whole.len() {
            std::fs::write(&path, &whole[..end]).unwrap();
            let error = open_mnist(&folder, "").err().expect("cut off");
            assert_eq!(error.exit_code(), 65, "{end}: {error}");
            assert!(error.to_string().contains(name), "{error}");
        }
        let mut longer = whole.clone();
        longer.push(1);
        std::fs::write(&path, longer).unwrap();
        assert_eq!(open_mnist(&folder, "").err().map(|e| e.exit_code()), Some(65), "{name} with a byte more");
    }
}

#[test]
fn broken_idx_files_say_what_is_wrong() {
    let check = |name: &str, bytes: Vec<u8>, part: &str| {
        let folder = mnist_folder();
        std::fs::write(folder.path().join(name), bytes).unwrap();
        let error = open_mnist(&folder, "").err().expect("broken");
        assert_eq!(error.exit_code(), 65);
        assert!(error.to_string().contains(part), "{error}");
    };
    let labels = "train-labels.idx1-ubyte";
    let images = "train-images-idx3-ubyte";
    check(labels, idx(&[4], &[0, 1, 10, 2]), "byte 10: label 10 of sample 2");
    check(labels, idx(&[3], &[0, 1, 2]), "3 labels for the 4 images");
    check(labels, idx(&[4, 1, 1], &[0, 1, 2, 3]), "starts with");
    check(images, idx(&[4, 0, 5], &[]), "0x5");
    check(images, idx(&[u32::MAX, u32::MAX, u32::MAX], &[]), "too large");
    check(images, idx(&[u32::MAX, 4, 5], &[]), "ends after 0");
    check(images, idx(&[4, 5, 4], &[0; 80]), "images of 4x5 where those of the training part are 5x4");
    check(images, vec![0, 0, 0x0d, 3, 0, 0, 0, 0], "starts with");
    check("t10k-images.idx3-ubyte.gz", b"no gzip at all".to_vec(), "unpacked");
    let folder = mnist_folder();
    std::fs::remove_file(folder.path().join(labels)).unwrap();
    assert!(matches!(open_mnist(&folder, ""), Err(Error::Io { .. })));
    let none = DataConfig::from_component(Component::new("mnist", "").unwrap()).unwrap();
    assert_eq!(Dataset::open(&none, 1).err().map(|e| e.exit_code()), Some(2));
}

#[test]
fn an_idx_file_of_inputs_is_scaled_as_the_job() -> Result<()> {
    let folder = mnist_folder();
    let job = config("mnist", folder.path(), "normalize = 'standard'");
    let data = Dataset::open(&job, 1)?;
    let inputs = open_inputs(&data.description(), &job, &folder.path().join("train-images-idx3-ubyte"))?;
    assert_eq!((inputs.len(Part::Train), inputs.len(Part::Test)), (0, 4));
    let (x, targets) = fill(&inputs, Part::Test, &[3], None);
    assert_eq!(x, fill(&data, Part::Train, &[3], None).0);
    assert_eq!(targets, Targets::default());
    Ok(())
}

/// Two records a file; the label is the file's number, pixels run on.
fn cifar_files() -> Vec<(String, Vec<u8>)> {
    let names = (1..=5).map(|i| format!("data_batch_{i}.bin")).chain(["test_batch.bin".into()]);
    let record = |file: usize, i: usize| {
        let mut record = vec![file as u8];
        record.extend((0..3072).map(|p| (p * 3 + i + file * 11) as u8));
        record
    };
    names.enumerate().map(|(file, name)| (name, [record(file, 0), record(file, 1)].concat())).collect()
}

fn cifar_folder() -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, bytes) in cifar_files() {
        std::fs::write(folder.path().join(name), bytes).unwrap();
    }
    folder
}

fn cifar_archive(path: &Path, files: &[(String, Vec<u8>)]) {
    let mut archive = tar::Builder::new(GzEncoder::new(std::fs::File::create(path).unwrap(), Compression::fast()));
    for (name, bytes) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        header.set_cksum();
        archive.append_data(&mut header, format!("cifar-10-batches-bin/{name}"), &bytes[..]).unwrap();
    }
    archive.into_inner().unwrap().finish().unwrap();
}

#[test]
fn cifar_reads_folders_and_archives_alike() -> Result<()> {
    let folder = cifar_folder();
    let archive = folder.path().join("cifar-10-binary.tar.gz");
    let mut files = cifar_files();
    files.reverse();
    cifar_archive(&archive, &files);
    let outer = TempDir::new().unwrap();
    let inner = outer.path().join("cifar-10-batches-bin");
    std::fs::create_dir(&inner).unwrap();
    for (name, bytes) in cifar_files() {
        std::fs::write(inner.join(name), bytes).unwrap();
    }
    for path in [folder.path(), &archive, outer.path()] {
        let data = Dataset::open(&config("cifar10", path, "normalize = 'none'"), 1)?;
        assert_eq!(data.input(), Shape::Image { c: 3, h: 32, w: 32 });
        assert_eq!((data.len(Part::Train), data.len(Part::Test)), (10, 2));
        let (x, targets) = fill(&data, Part::Train, &[5], None);
        assert_eq!(targets.classes, [2]);
        for (y, row) in x.chunks(96).enumerate() {
            for (column, pixel) in row.chunks(3).enumerate() {
                for (c, v) in pixel.iter().enumerate() {
                    let byte = ((c * 1024 + y * 32 + column) * 3 + 1 + 22) as u8;
                    assert!((v - f32::from(byte) / 255.0).abs() < 1e-6);
                }
            }
        }
    }
    Ok(())
}

#[test]
fn broken_cifar_files_are_named() {
    let code =
        |path: &Path| Dataset::open(&config("cifar10", path, ""), 1).err().map(|e| (e.exit_code(), e.to_string()));
    let folder = cifar_folder();
    let file = folder.path().join("data_batch_3.bin");
    let whole = std::fs::read(&file).unwrap();
    for end in [0, 1, 3072, 3074, 6145] {
        std::fs::write(&file, &whole[..end]).unwrap();
        let (code, text) = code(folder.path()).expect("cut off");
        assert!(code == 65 && text.contains("data_batch_3.bin"), "{text}");
    }
    let mut wrong = whole.clone();
    wrong[3073] = 10;
    std::fs::write(&file, wrong).unwrap();
    assert!(code(folder.path()).expect("label").1.contains("byte 3073"));
    std::fs::remove_file(&file).unwrap();
    assert_eq!(code(folder.path()).expect("missing").0, 74);
    let archive = folder.path().join("some.tar.gz");
    cifar_archive(&archive, &cifar_files()[..5]);
    assert!(code(&archive).expect("incomplete").1.contains("test_batch.bin"));
    let whole = std::fs::read(&archive).unwrap();
    for end in (0..whole.len()).step_by(97) {
        std::fs::write(&archive, &whole[..end]).unwrap();
        assert_eq!(code(&archive).expect("cut off").0, 65);
    }
}

#[test]
fn augmentation_is_keyed_by_epoch_and_sample_alone() -> Result<()> {
    let folder = cifar_folder();
    let keys = "normalize = 'none'\naugment = [{ type = 'random_crop', padding = 4 }, { type = 'horizontal_flip' }]";
    let data = Dataset::open(&config("cifar10", folder.path(), keys), 1)?;
    let key = AugmentKey { seed: 9, epoch: 3 };
    let samples: Vec<u32> = (0..10).collect();
    let (together, _) = fill(&data, Part::Train, &samples, Some(key));
    let plain = fill(&data, Part::Train, &samples, None).0;
    assert_ne!(together, plain);
    for &sample in samples.iter().rev() {
        let alone = fill(&data, Part::Train, &[sample], Some(key)).0;
        assert_eq!(alone, together[sample as usize * 3072..][..3072]);
    }
    assert_ne!(together, fill(&data, Part::Train, &samples, Some(AugmentKey { epoch: 4, ..key })).0);
    assert_ne!(together, fill(&data, Part::Train, &samples, Some(AugmentKey { seed: 8, ..key })).0);
    Ok(())
}

/// Every augmented image is one of the possible shifts of the original, with black where nothing is shown.
#[test]
fn a_crop_shows_a_shift_of_the_image_padded_with_black() -> Result<()> {
    let folder = mnist_folder();
    let keys =
        "normalize = 'none'\naugment = [{ type = 'random_crop', padding = 2 }, { type = 'horizontal_flip', p = 0.5 }]";
    let data = Dataset::open(&config("mnist", folder.path(), keys), 1)?;
    let image = fill(&data, Part::Train, &[1], None).0;
    let (h, w) = (H as i32, W as i32);
    let mut possible = Vec::new();
    for (down, right) in (-2..=2).flat_map(|down| (-2..=2).map(move |right| (down, right))) {
        for mirrored in [false, true] {
            let shown = |i: i32| {
                let (y, x) = (i / w + down, if mirrored { w - 1 - i % w } else { i % w } + right);
                if (0..h).contains(&y) && (0..w).contains(&x) { image[(y * w + x) as usize] } else { 0.0 }
            };
            possible.push((0..h * w).map(shown).collect::<Vec<f32>>());
        }
    }
    let mut seen = vec![0; possible.len()];
    for epoch in 0..2000 {
        let changed = fill(&data, Part::Train, &[1], Some(AugmentKey { seed: 1, epoch })).0;
        seen[possible.iter().position(|p| *p == changed).expect("a shift")] += 1;
    }
    assert!(seen.iter().all(|&n| n > 10), "every shift comes about as often: {seen:?}");
    let folder = mnist_folder();
    let keys = "augment = [{ type = 'random_crop', padding = 2 }]";
    let data = Dataset::open(&config("mnist", folder.path(), keys), 1)?;
    let least = |x: &[f32]| x.iter().fold(9.0f32, |a, &b| a.min(b));
    let (x, _) = fill(&data, Part::Train, &[3; 1], Some(AugmentKey { seed: 1, epoch: 1 }));
    assert!((least(&x) + 0.1307 / 0.3081).abs() < 1e-6, "padding is black before normalising");
    Ok(())
}

#[test]
fn flips_have_the_probability_asked_for() -> Result<()> {
    let folder = mnist_folder();
    for (p, range) in [(0.0, 0..=0), (1.0, 1000..=1000), (0.3, 240..=360)] {
        let keys = format!("augment = [{{ type = 'horizontal_flip', p = {p:?} }}]");
        let data = Dataset::open(&config("mnist", folder.path(), &keys), 1)?;
        let plain = fill(&data, Part::Train, &[2], None).0;
        let flipped = |epoch| fill(&data, Part::Train, &[2], Some(AugmentKey { seed: 5, epoch })).0 != plain;
        assert!(range.contains(&(0..1000).filter(|&epoch| flipped(epoch)).count()), "{p}");
    }
    let config = config("mnist", folder.path(), "augment = [{ type = 'horizontal_flip', p = 1.5 }]");
    assert_eq!(Dataset::open(&config, 1).err().map(|e| e.exit_code()), Some(2));
    Ok(())
}

#[test]
fn mixing_adds_shares_of_two_samples_and_tells_both_classes() -> Result<()> {
    let folder = cifar_folder();
    let keys = "augment = [{ type = 'random_crop', padding = 4 }, { type = 'random_rotation', degrees = 9 }, { type = 'mixup', alpha = 0.2 }]";
    let data = Dataset::open(&config("cifar10", folder.path(), keys), 1)?;
    assert_eq!(data.mixup(), Some(0.2));
    let (key, samples, others) = (Some(AugmentKey { seed: 9, epoch: 3 }), [0, 1, 2], [2, 2, 7]);
    let (ours, theirs) = (fill(&data, Part::Train, &samples, key), fill(&data, Part::Train, &others, key));
    assert_eq!((ours.1.mixed, ours.1.others.len()), (None, 0));
    let (mut x, mut targets) = ours.clone();
    data.mix(Part::Train, &others, 0.25, key, &mut x, &mut targets);
    for ((mixed, ours), theirs) in x.iter().zip(&ours.0).zip(&theirs.0) {
        assert!((mixed - (0.25 * ours + 0.75 * theirs)).abs() < 1e-6);
    }
    assert_eq!(targets.classes, ours.1.classes);
    assert_eq!((targets.mixed, &targets.others), (Some(0.25), &theirs.1.classes));
    data.fill(Part::Train, &samples, key, &mut x, &mut targets);
    assert_eq!((x, targets), ours);
    Ok(())
}

#[test]
fn what_does_not_go_with_the_images_is_told() {
    let folder = mnist_folder();
    for (keys, words) in [
        ("augment = [{ type = 'mixup', alpha = 0.2 }, { type = 'vertical_flip' }]", "mixup mixes"),
        ("augment = [{ type = 'mixup', alpha = 1 }, { type = 'mixup', alpha = 1 }]", "mixup mixes"),
        ("augment = [{ type = 'mixup', alpha = 0 }]", "alpha = 0"),
        ("augment = [{ type = 'color_jitter', saturation = 0.1 }]", "three channels"),
        ("augment = [{ type = 'random_rotation', degrees = 400 }]", "degrees = 400"),
        ("sampling = 'balanced'\nshuffle = false", "shuffle is false"),
    ] {
        let error = Dataset::open(&config("mnist", folder.path(), keys), 1).err().expect(keys);
        assert!(error.exit_code() == 2 && error.to_string().contains(words), "{keys}: {error}");
    }
}

#[test]
fn the_shipped_digits_are_balanced() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/mnist");
    let data = Dataset::open(&config("mnist", &path, ""), 1)?;
    for (part, each) in [(Part::Train, 600), (Part::Test, 100)] {
        let samples: Vec<u32> = (0..data.len(part) as u32).collect();
        let classes = fill(&data, part, &samples, None).1.classes;
        assert!((0..10).all(|class| classes.iter().filter(|&&c| c == class).count() == each));
    }
    Ok(())
}

proptest! {
    #[test]
    fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), gz in any::<bool>()) {
        let folder = mnist_folder();
        let mut file = idx(&[4, H, W], &[]);
        file.truncate(bytes.len() % 17);
        file.extend(&bytes);
        std::fs::write(folder.path().join("train-images-idx3-ubyte"), if gz { gzip(&file) } else { file }).unwrap();
        if let Err(error) = open_mnist(&folder, "") {
            prop_assert_eq!(error.exit_code(), 65);
        }
        let archive = folder.path().join("x.tar.gz");
        std::fs::write(&archive, gzip(&bytes)).unwrap();
        prop_assert_eq!(Dataset::open(&config("cifar10", &archive, ""), 1).err().map(|e| e.exit_code()), Some(65));
    }
}
