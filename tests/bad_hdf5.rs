//! Broken and hostile HDF5 files through the real program on two ranks: one line that names the place and the mend, the same
//! exit code on every rank, within seconds.

mod support;

use ndarray::{Array1, Array2};
use std::fs;
use std::path::Path;
use std::process::Command;
use support::broken::{Folder, LIMIT, refused};
use support::{ddl, ended, run};

/// An HDF5 file with a text that lies in the file's global heap.
fn write_hdf5(path: &Path) {
    let file = hdf5::File::create(path).unwrap();
    let note: hdf5::types::VarLenUnicode = "hello".parse().unwrap();
    file.new_attr::<hdf5::types::VarLenUnicode>().create("note").unwrap().write_scalar(&note).unwrap();
    file.new_dataset_builder().with_data(&Array2::<f32>::zeros((8, 4))).create("x_train").unwrap();
    file.new_dataset_builder().with_data(&Array1::<i64>::zeros(8)).create("y_train").unwrap();
}

#[test]
fn hdf5_files() {
    let folder = Folder::new();
    write_hdf5(&folder.path("d.h5"));
    let bytes = fs::read(folder.path("d.h5")).unwrap();
    folder.write("cut.h5", &bytes[..bytes.len() / 2]);
    refused(&folder.on("hdf5", "cut.h5", ""), 65, &["cut.h5", "give a whole HDF5 file"]);
    refused(
        &folder.on("hdf5", "d.h5", ", arrays = { x_train = \"q\" }"),
        65,
        &["no array \"q\"", "there are: x_train"],
    );
    // A length in the global heap that sends HDF5 1.10 out of the file and into a signal, or round and round.
    let heap = bytes.windows(4).position(|four| four == b"GCOL").expect("a global heap");
    for (byte, value) in [(26, 0xff), (24, 0x40)] {
        let mut bytes = bytes.clone();
        bytes[heap + byte] = value;
        folder.write("heap.h5", bytes);
        refused(&folder.on("hdf5", "heap.h5", ""), 65, &["heap.h5", "damaged"]);
        refused(&ended(2, "", &["inspect", &folder.text("heap.h5")], LIMIT), 65, &["heap.h5", "damaged"]);
    }
}

/// What leads out of an HDF5 file is not followed, be it a pipe, and what leads nowhere is no matter unless the job names it.
#[test]
fn hdf5_files_that_lead_elsewhere() {
    let folder = Folder::new();
    write_hdf5(&folder.path("other.h5"));
    assert!(Command::new("mkfifo").arg(folder.path("pipe")).status().unwrap().success());
    folder.write("foreign.bin", [1; 64]);
    write_hdf5(&folder.path("d.h5"));
    let file = hdf5::File::open_rw(folder.path("d.h5")).unwrap();
    for (link, to) in [("good", "other.h5"), ("pipe", "pipe"), ("none", "none.h5")] {
        file.link_external(&folder.text(to), "/x_train", link).unwrap();
        file.link_soft(&format!("/{link}"), &format!("soft_{link}")).unwrap();
    }
    file.link_soft("/nowhere", "dangling").unwrap();
    let half = Array2::from_elem((8, 4), half::f16::from_f32(0.5));
    file.new_dataset_builder().with_data(&half).create("half").unwrap();
    for (name, to) in [("in_pipe", "pipe"), ("in_foreign", "foreign.bin")] {
        let outside = file.new_dataset::<f32>().shape((8, 4));
        outside.external(&folder.text(to), 0, 128).create(name).unwrap();
    }
    file.close().unwrap();
    let named = |name: &str| folder.on("hdf5", "d.h5", &format!(", arrays = {{ x_train = \"{name}\" }}, classes = 3"));
    for good in ["x_train", "half"] {
        let ended = named(good);
        assert_eq!(ended.codes, [0, 0], "{good}: {ended:?}");
        fs::remove_dir_all(folder.path("out")).unwrap();
    }
    for link in ["good", "pipe", "none"] {
        refused(&named(link), 65, &["d.h5", &format!("\"{link}\" is a link to another file, which is not followed")]);
        refused(&named(&format!("soft_{link}")), 65, &["d.h5", "no array", "there are: half"]);
    }
    refused(&named("dangling"), 65, &["d.h5", "no array \"dangling\""]);
    for (name, to) in [("in_pipe", "pipe"), ("in_foreign", "foreign.bin")] {
        refused(&named(name), 65, &["d.h5", name, "its elements are in another file", to, "copy them"]);
    }
    let output = ddl(0, &["inspect", &folder.text("d.h5")]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    for part in [
        "good  (a link to another",
        "dangling  (a link to nowhere",
        "in_pipe  (its elements are in",
        "half  float16 (8, 4)",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
}

/// Any byte of an HDF5 file changed: never a crash.
#[test]
fn damaged_hdf5_files_crash_nothing() {
    let folder = Folder::new();
    write_hdf5(&folder.path("d.h5"));
    let bytes = fs::read(folder.path("d.h5")).unwrap();
    let mut random = 1u64;
    for _ in 0..60 {
        let mut bytes = bytes.clone();
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let at = (random >> 33) as usize % bytes.len().min(4096);
        bytes[at] ^= (random >> 25) as u8 | 1;
        folder.write("d.h5", bytes);
        let inspect = run(Command::new(env!("CARGO_BIN_EXE_ddl")).args(["inspect", &folder.text("d.h5")]), LIMIT);
        assert!(matches!(inspect.status.code(), Some(0 | 65)), "byte {at}: {inspect:?}");
    }
}
