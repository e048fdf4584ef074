//! Arrays in files of their own, as `numpy.save` writes them.

#[path = "support/data_files.rs"]
mod data_files;

use data_files::{config, failure, fill};
use ddl::data::{Dataset, Part, Task, open_inputs};
use ddl::error::Result;
use ddl::shape::Shape;
use ndarray::{Array1, Array2, Array4, ArrayD, ShapeBuilder};
use ndarray_npy::{WritableElement, write_npy};
use std::fs;
use std::path::Path;
use tempfile::TempDir;

fn save<T: WritableElement>(folder: &TempDir, name: &str, array: &ArrayD<T>) {
    fs::create_dir_all(folder.path().join(name).parent().unwrap()).unwrap();
    write_npy(folder.path().join(name), array).unwrap();
}

/// Rows (N, 2) counting up.
fn rows(n: usize) -> ArrayD<f32> {
    Array2::from_shape_fn((n, 2), |(i, f)| (10 * i + f) as f32).into_dyn()
}

fn all(data: &Dataset, part: Part) -> (Vec<f32>, Vec<u32>) {
    let (x, targets) = fill(data, part, &(0..data.len(part) as u32).collect::<Vec<_>>());
    (x, targets.classes)
}

#[test]
fn a_folder_of_arrays_is_what_one_archive_is() -> Result<()> {
    let folder = TempDir::new().unwrap();
    // Other files do not matter, nor what numpy's order in memory was.
    fs::write(folder.path().join("readme.txt"), "digits").unwrap();
    let images = Array4::from_shape_fn((3, 2, 2, 2).f(), |(n, c, y, x)| (100 * n + 10 * c + 2 * y + x) as u8);
    save(&folder, "x_train.npy", &images.into_dyn());
    save(&folder, "y_train.npy", &Array1::from(vec![2i16, 0, 1]).into_dyn());
    let data = Dataset::open(&config("npz", folder.path(), ""), 1)?;
    assert_eq!(
        (data.input(), data.task()),
        (Shape::Image { c: 2, h: 2, w: 2 }, &Task::Classes(["0", "1", "2"].map(String::from).to_vec()))
    );
    let (x, classes) = all(&data, Part::Train);
    let pixels: Vec<f32> = x[8..16].iter().map(|v| (v * 255.0).round()).collect();
    assert_eq!((pixels, classes), (vec![100., 110., 101., 111., 102., 112., 103., 113.], vec![2, 0, 1]));
    Ok(())
}

#[test]
fn files_are_named_in_the_job_from_the_folder_on() -> Result<()> {
    let folder = TempDir::new().unwrap();
    save(&folder, "train/inputs.npy", &rows(4));
    save(&folder, "train/labels.npy", &Array1::from(vec![0u8, 1, 0, 1]).into_dyn());
    save(&folder, "x_late.npy", &rows(2));
    save(&folder, "y_late.npy", &Array1::from(vec![1i64, 1]).into_dyn());
    let keys =
        "arrays = { x_train = 'train/inputs.npy', y_train = 'train/labels', x_test = 'x_late.npy', y_test = 'y_late' }";
    let data = Dataset::open(&config("npz", folder.path(), keys), 1)?;
    assert_eq!(all(&data, Part::Train), (vec![0., 1., 10., 11., 20., 21., 30., 31.], vec![0, 1, 0, 1]));
    assert_eq!(all(&data, Part::Test), (vec![0., 1., 10., 11.], vec![1, 1]));
    let (code, text) = failure(&config("npz", folder.path(), &keys.replace("labels", "lables")));
    assert!(code == 65 && text.contains("no array \"train/lables\"") && text.contains("x_late"), "{text}");
    Ok(())
}

#[test]
fn one_array_is_enough_to_predict_and_too_little_to_train() -> Result<()> {
    let folder = TempDir::new().unwrap();
    save(&folder, "x_train.npy", &rows(4));
    save(&folder, "y_train.npy", &Array1::from(vec![0i64, 1, 0, 1]).into_dyn());
    let job = config("npz", folder.path(), "normalize = 'minmax'");
    let trained = Dataset::open(&job, 1)?.description();
    // Whatever it is called, and even without the ending.
    for name in ["new.npy", "new"] {
        save(&folder, name, &rows(6));
        let inputs = open_inputs(&trained, &job, &folder.path().join(name))?;
        let (x, classes) = all(&inputs, Part::Test);
        assert!(classes.is_empty() && x.len() == 12, "{x:?}");
        assert_eq!(x[..4], [0.0, 0.0, (10.0f64 / 30.0) as f32, (10.0f64 / 30.0) as f32]);
    }
    let (code, text) = failure(&config("npz", &folder.path().join("x_train.npy"), ""));
    assert!(
        code == 65 && text.contains("a .npy file holds one array; set data.path to the folder of x_train.npy"),
        "{text}"
    );
    // The others are not taken from beside a file that is named.
    let wide = config("npz", &folder.path().join("new.npy"), "arrays = { x_train = 'new' }");
    assert!(failure(&wide).1.contains("no array \"y_train\""));
    let nothing = TempDir::new().unwrap();
    let (code, text) = failure(&config("npz", nothing.path(), ""));
    assert!(code == 65 && text.contains("no x_train.npy in the folder"), "{text}");
    assert_eq!(failure(&config("npz", &nothing.path().join("x.npy"), "")).0, 74);
    Ok(())
}

#[test]
fn broken_arrays_are_bad_data_with_their_file() {
    let folder = TempDir::new().unwrap();
    save(&folder, "y_train.npy", &Array1::from(vec![0i64, 1]).into_dyn());
    save(&folder, "x_train.npy", &rows(2));
    let path = folder.path().join("x_train.npy");
    let whole = fs::read(&path).unwrap();
    let refused = |bytes: &[u8], says: &str| {
        fs::write(&path, bytes).unwrap();
        let (code, text) = failure(&config("npz", folder.path(), ""));
        assert!(code == 65 && text.contains("x_train.npy") && text.contains(says) && !text.contains('\n'), "{text}");
    };
    for end in (0..whole.len()).step_by(5) {
        refused(&whole[..end], "");
    }
    refused(&[&whole[..], b"more"].concat(), "its elements are not the 16 bytes");
    refused(b"a,b\n1,2\n", "not a numpy array");
    let header = |dict: &str| [b"\x93NUMPY\x01\0", &(dict.len() as u16).to_le_bytes()[..], dict.as_bytes()].concat();
    refused(&header("{'descr': '|O', 'fortran_order': False, 'shape': (2, 2), }\n"), "\"|O\" are no numbers");
    refused(&header("{'descr': '<f4', 'fortran_order': False, 'shape': (1000000000, 1000000), }\n"), "memory");
    fs::remove_file(&path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    // A pipe would never end: it is no array, so there is none of that name.
    let (code, text) = failure(&config("npz", folder.path(), ""));
    assert!(code == 65 && text.contains("no array \"x_train\""), "{text}");
    assert_eq!(failure(&config("npz", Path::new(&path), "")).0, 74);
}
