//! `ddl prepare`: the same bytes at any number of ranks, and a training from the file gives the weights of one from the source.

mod support;

use sha2::{Digest, Sha256};
use std::fs;
use std::path::Path;
use support::training::shipped;
use support::{ddl, ddl_ok, value};

/// Prepares on 1 (without mpirun and with), 2, 3 and 4 ranks: the file, which is always the same.
fn prepared(folder: &Path, args: &[&str]) -> String {
    let out = |ranks: usize| folder.join(format!("p{ranks}.h5")).display().to_string();
    let mut first = Vec::new();
    for ranks in 0..=4 {
        ddl_ok(ranks, &[&["prepare"], args, &["--out", &out(ranks)]].concat());
        let bytes = fs::read(out(ranks)).unwrap();
        if ranks == 0 {
            first = bytes;
        } else {
            assert!(bytes == first, "{args:?} on {ranks} ranks: other bytes");
        }
    }
    out(0)
}

/// The SHA-256 of the weights that a short training gives, with `[data]` and seed as told.
fn weights(folder: &Path, data: &str, layers: &str, loss: &str, validation: f64) -> String {
    let (job, out) = (folder.join("job.toml"), folder.join("out"));
    let text = format!(
        "{data}\n[model]\nlayers = [{layers}]\n[loss]\ntype = \"{loss}\"\n[optimizer]\ntype = \"adam\"\n[train]\nepochs = 1\n\
         batch_size = 100\nmicro_batch = 10\nmax_steps = 12\nvalidation = {validation:?}\n[distributed]\nreduction = \"reproducible\"\n"
    );
    fs::write(&job, text).unwrap();
    ddl_ok(2, &["train", &job.display().to_string(), "--out", &out.display().to_string()]);
    let checkpoint = out.join("checkpoints/step-00000012.h5").display().to_string();
    let to = folder.join("w.safetensors");
    ddl_ok(0, &["export", &checkpoint, "--to", &to.display().to_string()]);
    fs::remove_dir_all(out).unwrap();
    format!("{:x}", Sha256::digest(fs::read(to).unwrap()))
}

/// What `ddl prepare` says to train with.
fn told(args: &[&str]) -> String {
    let (said, _) = ddl_ok(0, &[&["prepare"], args].concat());
    said[said.find("[data]").unwrap()..].to_owned()
}

#[test]
fn digits_train_to_the_same_weights_from_each_storage() {
    let folder = tempfile::tempdir().unwrap();
    let mnist = shipped("mnist");
    let layers = "{ type = \"flatten\" }, { type = \"linear\", out_features = 16 }, { type = \"relu\" }, \
                  { type = \"linear\", out_features = 10 }";
    let from_source =
        weights(folder.path(), &format!("[data]\nsource = \"mnist\"\npath = {mnist:?}"), layers, "cross_entropy", 0.1);
    let mut sizes = Vec::new();
    for storage in [&[][..], &["--compress=6"], &["--contiguous"]] {
        let args = [&["mnist", "--path", &mnist], storage].concat();
        let file = prepared(folder.path(), &args);
        sizes.push(fs::metadata(&file).unwrap().len());
        let data = told(&[&args[..], &["--out", &file]].concat());
        assert_eq!(weights(folder.path(), &data, layers, "cross_entropy", 0.1), from_source, "{storage:?}");
    }
    assert!(sizes[1] < sizes[0] / 3, "{sizes:?}");
    // What the file says of itself.
    let file = hdf5::File::open(folder.path().join("p0.h5")).unwrap();
    let text = |at: &hdf5::Location, name: &str| {
        at.attr(name).unwrap().read_scalar::<hdf5::types::VarLenUnicode>().unwrap().as_str().to_owned()
    };
    assert_eq!(text(&file, "source"), "mnist");
    assert!(text(&file, "origin").contains("source = \"mnist\""));
    assert_eq!(serde_json::from_str::<Vec<String>>(&text(&file, "classes")).unwrap().len(), 10);
    let survey: serde_json::Value = serde_json::from_str(&text(&file, "survey")).unwrap();
    let explored: serde_json::Value =
        serde_json::from_str(&ddl_ok(0, &["explore", "mnist", "--path", &mnist, "--json"]).0).unwrap();
    assert_eq!(survey, explored);
    let x = file.dataset("x_train").unwrap();
    assert_eq!(x.shape(), [6000, 1, 28, 28]);
    assert_eq!(text(&x, "sha256"), format!("{:x}", Sha256::digest(x.read_raw::<u8>().unwrap())));
}

#[test]
fn colour_images_lie_channel_by_channel() {
    let folder = tempfile::tempdir().unwrap();
    // A record: the class, then red, green and blue planes.
    let record = |i: usize| -> Vec<u8> {
        let byte =
            |at: usize| if at == 0 { (i % 10) as u8 } else { (value(i as u32, at as u32) * 120.0 + 125.0) as u8 };
        (0..3073).map(byte).collect()
    };
    let files = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];
    for (index, name) in files.iter().enumerate() {
        let records: Vec<u8> = (0..30).flat_map(|i| record(30 * index + i)).collect();
        fs::write(folder.path().join(format!("{name}.bin")), records).unwrap();
    }
    let path = folder.path().display().to_string();
    let out = prepared(folder.path(), &["cifar10", "--path", &path, "--compress"]);
    let file = hdf5::File::open(out).unwrap();
    let x = file.dataset("x_train").unwrap();
    assert_eq!(x.shape(), [150, 3, 32, 32]);
    let expected: Vec<u8> = (0..150).flat_map(|i| record(i)[1..].to_vec()).collect();
    assert!(x.read_raw::<u8>().unwrap() == expected);
    let classes: Vec<i32> = (150..180).map(|i| i % 10).collect();
    assert_eq!(file.dataset("y_test").unwrap().read_raw::<i32>().unwrap(), classes);
}

#[test]
fn tables_and_series_train_to_the_same_weights() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("t.csv");
    let row = |i: u32| format!("{},{},{}\n", value(1, i), 9.0 + 3.0 * value(2, i), 50.0 * value(3, i));
    fs::write(&table, "a,b,y\n".to_owned() + &(0..2000).map(row).collect::<String>()).unwrap();
    let table = table.display().to_string();
    let layers =
        "{ type = \"linear\", out_features = 8 }, { type = \"relu\" }, { type = \"linear\", out_features = 1 }";
    let source = format!("[data]\nsource = \"csv\"\npath = {table:?}\ntarget = \"y\"");
    let from_source = weights(folder.path(), &source, layers, "mse", 0.1);
    let args = ["csv", "--path", &table, "--set", "data.target=y"];
    let file = prepared(folder.path(), &args);
    let data = told(&[&args[..], &["--out", &file]].concat());
    assert!(data.contains("standard"), "{data}");
    assert_eq!(weights(folder.path(), &data, layers, "mse", 0.1), from_source);

    let prices = shipped("sp500/index_daily.csv.gz");
    let layers = format!("{{ type = \"flatten\" }}, {layers}");
    let args = ["stocks", "--path", &prices, "--set", "data.window=20"];
    let file = prepared(folder.path(), &args);
    let data = told(&[&args[..], &["--out", &file]].concat());
    // Nothing is kept back here: of series that would be the last rows, which their scalers do not see.
    let source = format!("[data]\nsource = \"stocks\"\npath = {prices:?}\nwindow = 20");
    let from_source = weights(folder.path(), &source, &layers, "mse", 0.0);
    assert_eq!(weights(folder.path(), &data, &layers, "mse", 0.0), from_source);
}

#[test]
fn the_names_of_classes_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let table = folder.path().join("t.csv");
    let names = ["ash", "elm", "oak"];
    let row = |i: u32| format!("{},{},{}\n", value(1, i), value(2, i), names[i as usize % 3]);
    fs::write(&table, "a,b,tree\n".to_owned() + &(0..100).map(row).collect::<String>()).unwrap();
    let table = table.display().to_string();
    let args = ["csv", "--path", &table, "--set", "data.target=tree", "--set", "data.task=classes"];
    let file = prepared(folder.path(), &args);
    let said = ddl_ok(2, &["explore", "hdf5", "--path", &file, "--json"]).0;
    let found: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(found["classes"], serde_json::json!(names));
}

#[test]
fn a_file_is_whole_or_as_it_was() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let mnist = shipped("mnist");
    for (out, code, said) in [
        (path("x.npz"), 2, "use the ending .h5"),
        ("/proc/none/x.h5".to_owned(), 74, "/proc/none"),
        (path("."), 2, "use the ending"),
    ] {
        let output = ddl(2, &["prepare", "mnist", "--path", &mnist, "--out", &out]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{out}: {stderr}");
        assert!(stderr.contains(said), "{out}: {stderr}");
    }
    // Nothing is written over what is read.
    let file = path("p.h5");
    ddl_ok(2, &["prepare", "mnist", "--path", &mnist, "--out", &file]);
    let before = fs::read(&file).unwrap();
    let output = ddl(2, &["prepare", "hdf5", "--path", &file, "--out", &file]);
    assert_eq!(output.status.code(), Some(2));
    assert!(fs::read(&file).unwrap() == before);
    // Prepared again it is itself, but for where it comes from.
    let again = path("again.h5");
    ddl_ok(3, &["prepare", "hdf5", "--path", &file, "--out", &again]);
    let raw = |file: &str| hdf5::File::open(file).unwrap().dataset("x_test").unwrap().read_raw::<u8>().unwrap();
    assert!(raw(&again) == raw(&file));
    let left: Vec<_> = fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 2, "{left:?}");
}
