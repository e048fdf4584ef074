//! Inputs to predict from come piece by piece: the pieces of any length are the whole, and damage is found wherever it is.

#[path = "support/data_files.rs"]
mod data_files;

use data_files::{config, fill};
use ddl::data::{Dataset, Input, Inputs, Part, Unit};
use ddl::error::Result;
use ddl::shape::Shape;
use flate2::Compression;
use flate2::write::GzEncoder;
use ndarray::{Array1, Array2, Array4, ShapeBuilder};
use ndarray_npy::{NpzWriter, write_npy};
use std::fs::{self, File};
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use zip::CompressionMethod;
use zip::write::SimpleFileOptions;

const ROWS: usize = 11;

/// Samples, and targets in the data's unit or as classes.
type Contents = (Vec<f32>, Vec<f64>);

/// What a piece holds.
fn contents(piece: &Dataset) -> Contents {
    let samples: Vec<u32> = (0..piece.len(Part::Test) as u32).collect();
    let value = |&sample: &u32| {
        let class = piece.class(Part::Test, sample).filter(|_| piece.is_labelled()).map(f64::from);
        class.or(piece.target_value(Part::Test, sample, 0)).unwrap_or(f64::NAN)
    };
    let targets = samples.iter().map(value).collect();
    (fill(piece, Part::Test, &samples).0, targets)
}

/// The pieces of a file, and an error where it ends with one.
fn pieces(input: &Input, source: &str, file: &Path, rows: usize) -> (Vec<Contents>, Option<i32>) {
    let mut found = Vec::new();
    let mut read = || -> Result<()> {
        let mut inputs = Inputs::open(input, &config(source, file, ""), file)?;
        while let Some(piece) = inputs.next(rows)? {
            assert!(piece.rows() <= rows, "{} rows where {rows} were asked for", piece.rows());
            found.push(contents(&piece));
        }
        assert!(inputs.next(rows)?.is_none());
        Ok(())
    };
    let ended = read().err().map(|error| error.exit_code());
    (found, ended)
}

/// Checks that the pieces of any length are the whole, which is returned.
fn all_alike(input: &Input, source: &str, file: &Path) -> (Vec<f32>, Vec<u64>) {
    let joined = |rows| {
        let (found, ended) = pieces(input, source, file, rows);
        assert_eq!(ended, None, "{} by {rows}", file.display());
        assert_eq!(found.len(), ROWS.div_ceil(rows.min(ROWS)), "{} by {rows}", file.display());
        let (x, y): (Vec<_>, Vec<_>) = found.into_iter().unzip();
        (x.concat(), y.concat().into_iter().map(f64::to_bits).collect())
    };
    let whole = joined(usize::MAX);
    assert_eq!(whole.0.len(), ROWS * input.shape.len());
    for rows in [1, 3, ROWS - 1, ROWS, ROWS + 1] {
        assert!(joined(rows) == whole, "{} by {rows}", file.display());
    }
    whole
}

fn of(shape: Shape, classes: usize) -> Input {
    let channels = match shape {
        Shape::Vector { n } => n,
        Shape::Sequence { f, .. } => f,
        Shape::Image { c, .. } => c,
    };
    let units = if classes == 0 { vec![Unit::IDENTITY] } else { Vec::new() };
    let classes = (0..classes).map(|class| class.to_string()).collect();
    Input { shape, classes, units, mean: vec![0.0; channels], std: vec![1.0; channels], ..Input::default() }
}

fn floats() -> Array2<f32> {
    Array2::from_shape_fn((ROWS, 3), |(i, j)| i as f32 * 1.25 - j as f32)
}

/// A folder, and a file of that name in it with those bytes.
fn file(name: &str, bytes: &[u8]) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

#[test]
fn arrays_of_numpy_and_hdf5() {
    let folder = TempDir::new().unwrap();
    let at = |name: &str| folder.path().join(name);
    let (x, y) = (floats(), Array1::from_shape_fn(ROWS, |i| i as f64 * 0.5));
    for (name, packed) in [("stored.npz", false), ("packed.npz", true)] {
        let out = File::create(at(name)).unwrap();
        let method = if packed { CompressionMethod::Deflated } else { CompressionMethod::Stored };
        let mut npz = NpzWriter::new_with_options(out, SimpleFileOptions::default().compression_method(method));
        npz.add_array("x", &x).unwrap();
        npz.add_array("y", &y).unwrap();
        npz.finish().unwrap();
    }
    let h5 = hdf5::File::create(at("a.h5")).unwrap();
    h5.new_dataset_builder().with_data(&x).create("x").unwrap();
    h5.new_dataset_builder().with_data(&y).create("y").unwrap();
    h5.close().unwrap();
    let h5 = hdf5::File::create(at("packed.h5")).unwrap();
    h5.new_dataset_builder().with_data(&x).chunk((4, 2)).deflate(3).create("x").unwrap();
    h5.new_dataset_builder().with_data(&y).create("y").unwrap();
    h5.close().unwrap();
    let input = of(Shape::Vector { n: 3 }, 0);
    let expected = (x.iter().copied().collect(), y.iter().map(|v| v.to_bits()).collect());
    for (source, name) in [("npz", "stored.npz"), ("npz", "packed.npz"), ("hdf5", "a.h5"), ("hdf5", "packed.h5")] {
        assert!(all_alike(&input, source, &at(name)) == expected, "{name}");
    }
    // Numpy's two orders, and types of its own.
    write_npy(at("c.npy"), &x).unwrap();
    let mut turned = Array2::zeros((ROWS, 3).f());
    turned.assign(&x);
    write_npy(at("f.npy"), &turned).unwrap();
    assert!(fs::read(at("c.npy")).unwrap() != fs::read(at("f.npy")).unwrap());
    for name in ["c.npy", "f.npy"] {
        assert!(all_alike(&input, "npz", &at(name)).0 == expected.0, "{name}");
    }
    let shorts = Array2::from_shape_fn((ROWS, 3), |(i, j)| (i * 3 + j) as i16 - 9);
    write_npy(at("short.npy"), &shorts).unwrap();
    assert_eq!(all_alike(&input, "npz", &at("short.npy")).0, shorts.iter().map(|&v| f32::from(v)).collect::<Vec<_>>());
    let images = Array4::from_shape_fn((ROWS, 2, 2, 2), |(n, c, y, x)| (20 * n + 4 * c + 2 * y + x) as u8);
    write_npy(at("images.npy"), &images).unwrap();
    all_alike(&of(Shape::Image { c: 2, h: 2, w: 2 }, 0), "npz", &at("images.npy"));
}

#[test]
fn images_of_every_format() {
    let pixels: Vec<u8> = (0..ROWS * 6).map(|i| i as u8).collect();
    let header = [&[0, 0, 8, 3][..], &[0, 0, 0, ROWS as u8], &[0, 0, 0, 2], &[0, 0, 0, 3]].concat();
    let idx = [header, pixels].concat();
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&idx).unwrap();
    let input = of(Shape::Image { c: 1, h: 2, w: 3 }, 10);
    let (_folder, plain) = file("a-idx3-ubyte", &idx);
    let (_other, packed) = file("a-idx3-ubyte.gz", &packed.finish().unwrap());
    assert!(all_alike(&input, "mnist", &plain) == all_alike(&input, "mnist", &packed));
    let record = |labels: usize, i: usize| {
        let byte = |at: usize| if at < labels { i as u8 % 10 } else { (at * 7 + i) as u8 };
        (0..labels + 3072).map(byte).collect::<Vec<u8>>()
    };
    for (source, labels, classes) in [("cifar10", 1, 10), ("cifar100", 2, 100)] {
        let records: Vec<u8> = (0..ROWS).flat_map(|i| record(labels, i)).collect();
        let (_folder, path) = file("a.bin", &records);
        let input = of(Shape::Image { c: 3, h: 32, w: 32 }, classes);
        let (_, found) = all_alike(&input, source, &path);
        assert_eq!(found, (0..ROWS).map(|i| ((i % 10) as f64).to_bits()).collect::<Vec<_>>(), "{source}");
    }
    let folder = TempDir::new().unwrap();
    for i in 0..ROWS {
        let class = folder.path().join((i % 2).to_string());
        fs::create_dir_all(&class).unwrap();
        image::GrayImage::from_pixel(3, 2, image::Luma([i as u8])).save(class.join(format!("{i:02}.png"))).unwrap();
    }
    all_alike(&of(Shape::Image { c: 1, h: 2, w: 3 }, 2), "images", folder.path());
}

#[test]
fn damage_is_found_by_pieces_too() {
    let input = of(Shape::Vector { n: 3 }, 0);
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("x.npy");
    write_npy(&path, &floats()).unwrap();
    let npy = fs::read(&path).unwrap();
    let mut npz = NpzWriter::new(Cursor::new(Vec::new()));
    npz.add_array("x", &floats()).unwrap();
    let npz = npz.finish().unwrap().into_inner();
    // One bit of the last element, which is stored as it is.
    let last = (*floats().last().unwrap()).to_le_bytes();
    let at = npz.windows(4).position(|bytes| bytes == last).unwrap();
    let mut flipped = npz.clone();
    flipped[at] ^= 1;
    let idx = [&[0, 0, 8, 3, 0, 0, 0, 4, 0, 0, 0, 1, 0, 0, 0, 3][..], &[7; 12]].concat();
    let cifar = vec![3; 4 * 3073];
    let small = of(Shape::Image { c: 1, h: 1, w: 3 }, 10);
    let large = of(Shape::Image { c: 3, h: 32, w: 32 }, 10);
    let longer = |bytes: &[u8]| [bytes, &[0]].concat();
    let shorter = |bytes: &[u8]| bytes[..bytes.len() - 1].to_vec();
    for (what, input, source, name, bytes) in [
        ("cut off", &input, "npz", "x.npy", shorter(&npy)),
        ("too long", &input, "npz", "x.npy", longer(&npy)),
        ("flipped", &input, "npz", "x.npz", flipped),
        ("cut off", &small, "mnist", "x", shorter(&idx)),
        ("too long", &small, "mnist", "x", longer(&idx)),
        ("cut off", &large, "cifar10", "x.bin", shorter(&cifar)),
        ("too long", &large, "cifar10", "x.bin", longer(&cifar)),
    ] {
        let (_folder, path) = file(name, &bytes);
        for rows in [1, 2, 3, usize::MAX] {
            let (_, ended) = pieces(input, source, &path, rows);
            assert_eq!(ended, Some(65), "{source} {what} by {rows}");
        }
    }
    let (_folder, path) = file("x.npz", &npz);
    assert_eq!(pieces(&input, "npz", &path, 2).1, None);
    // The row is told from the file's start.
    let mut holed = floats();
    holed[[ROWS - 1, 0]] = f32::NAN;
    write_npy(&path, &holed).unwrap();
    let mut inputs = Inputs::open(&input, &config("npz", &path, ""), &path).unwrap();
    let error = (0..ROWS).find_map(|_| inputs.next(4).err()).expect("an error").to_string();
    assert!(error.contains("rows from 8 on") && error.contains("sample 2 "), "{error}");
}
