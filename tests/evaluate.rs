//! What `ddl evaluate` and `ddl predict` say against the data in the file.

mod support;

use ndarray::{Array1, Array2};
use ndarray_npy::NpzWriter;
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use support::{ddl, ddl_ok, value};
use tempfile::TempDir;

/// Trains a linear layer on `data`, the inside of a `[data]` table, and gives the checkpoint.
fn trained(folder: &Path, data: &str, outputs: usize, loss: &str) -> PathBuf {
    let job = format!(
        "name = \"t\"\nseed = 1\n[data]\n{data}\n[model]\nlayers = [{{ type = \"linear\", out_features = {outputs} }}]\n\
         [loss]\ntype = \"{loss}\"\n[optimizer]\ntype = \"adam\"\nlr = 0.05\n\
         [train]\nepochs = 2\nbatch_size = 8\nmicro_batch = 4\n"
    );
    let (file, out) = (folder.join("job.toml"), folder.join("out"));
    fs::write(&file, job).unwrap();
    ddl_ok(2, &["train", &file.display().to_string(), "--out", &out.display().to_string()]);
    let mut checkpoints: Vec<PathBuf> =
        fs::read_dir(out.join("checkpoints")).unwrap().map(|entry| entry.unwrap().path()).collect();
    checkpoints.sort();
    checkpoints.pop().unwrap()
}

/// The rows of a CSV file as texts, by column.
fn columns(path: &Path) -> Vec<(String, Vec<String>)> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let mut columns: Vec<(String, Vec<String>)> =
        reader.headers().unwrap().iter().map(|name| (name.to_owned(), Vec::new())).collect();
    for row in reader.records() {
        row.unwrap().iter().zip(&mut columns).for_each(|(text, (_, texts))| texts.push(text.to_owned()));
    }
    columns
}

fn column<'a>(columns: &'a [(String, Vec<String>)], name: &str) -> &'a [String] {
    &columns.iter().find(|(own, _)| own == name).unwrap_or_else(|| panic!("no column {name}")).1
}

/// Two targets, one a thousand times the other and in part near 0: each is learned in a scale of its own, and its figures follow
/// from the predictions and the values in the file, at any number of ranks.
#[test]
fn each_of_several_targets_has_its_figures() {
    let folder = TempDir::new().unwrap();
    let (path, out) = (folder.path().join("d.npz"), folder.path().join("p.csv"));
    let x = Array2::from_shape_fn((64, 3), |(n, f)| value(f as u32, n as u32));
    let y = Array2::from_shape_fn((64, 2), |(n, target)| match (target, n % 4) {
        (1, 0) => 1e-4 + 1e-5 * n as f64,
        (1, _) => 1000.0 * f64::from(x[[n, 0]] - x[[n, 1]]) + 1.0,
        _ => f64::from(x[[n, 2]]) + 3.0,
    });
    let mut zip = NpzWriter::new(File::create(&path).unwrap());
    for part in ["train", "test"] {
        zip.add_array(format!("x_{part}"), &x).unwrap();
        zip.add_array(format!("y_{part}"), &y).unwrap();
    }
    zip.finish().unwrap();
    let data = format!("source = \"npz\"\npath = '{}'\nnormalize = \"standard\"", path.display());
    let checkpoint = trained(folder.path(), &data, 2, "mse").display().to_string();
    let (text, _) = ddl_ok(0, &["evaluate", &checkpoint, "--json"]);
    assert_eq!(text, ddl_ok(3, &["evaluate", &checkpoint, "--json"]).0);
    let json: Value = serde_json::from_str(&text).unwrap();
    let table = ddl_ok(0, &["evaluate", &checkpoint]).0;
    assert!(table.contains("target") && table.lines().any(|line| line.trim_start().starts_with("1 ")), "{table}");
    ddl_ok(2, &["predict", &checkpoint, "--input", &path.display().to_string(), "--out", &out.display().to_string()]);
    let columns = columns(&out);
    let numbers =
        |name: &str| -> Vec<f64> { column(&columns, name).iter().map(|text| text.parse().unwrap()).collect() };
    let mut all = [0.0; 3];
    for target in 0..2 {
        let (forecast, truth) = (numbers(&format!("prediction_{target}")), numbers(&format!("actual_{target}")));
        assert_eq!(truth, y.column(target).to_vec(), "as they are in the file");
        let pairs = || forecast.iter().zip(&truth);
        let squares: f64 = pairs().map(|(f, t)| (f - t) * (f - t)).sum();
        let relative: f64 = pairs().map(|(f, t)| ((f - t) / t).abs()).sum();
        let mean = truth.iter().sum::<f64>() / 64.0;
        let r2 = 1.0 - squares / truth.iter().map(|t| (t - mean) * (t - mean)).sum::<f64>();
        let own = &json["targets"][target];
        let expected = [("test_mse", squares / 64.0), ("test_mape", 100.0 * relative / 64.0), ("test_r2", r2)];
        for (name, figure) in expected {
            let found = own[name].as_f64().unwrap();
            assert!((found - figure).abs() <= 1e-9 * figure.abs(), "{name} of target {target}: {found}, not {figure}");
        }
        all.iter_mut().zip(expected).for_each(|(all, (_, figure))| *all += figure / 2.0);
    }
    for (name, figure) in ["test_mse", "test_mape", "test_r2"].into_iter().zip(all) {
        let found = json[name].as_f64().unwrap();
        assert!((found - figure).abs() <= 1e-9 * figure.abs(), "{name}: {found}, not {figure}");
    }
}

/// Each row of the input has its line, by its number: without a prediction where a feature is missing.
#[test]
fn rows_with_holes_stay_in_their_place() {
    let folder = TempDir::new().unwrap();
    let train: String = (0..40).map(|row| format!("{row},{},{}\n", row % 7, ["no", "yes"][row % 2])).collect();
    fs::write(folder.path().join("t.csv"), format!("a,b,y\n{train}")).unwrap();
    let input = folder.path().join("new.csv");
    fs::write(&input, "a,b\n,1\n2,3\n4,\n5,6\n").unwrap();
    let data = |task: &str, target: &str, feature: &str| {
        let path = folder.path().join("t.csv").display().to_string();
        let columns = format!("target = \"{target}\"\nfeatures = [\"{feature}\"]");
        format!("source = \"csv\"\npath = '{path}'\ntask = \"{task}\"\n{columns}")
    };
    let predict = |checkpoint: &Path, out: &str, ranks: usize| {
        let out = folder.path().join(out);
        let (checkpoint, input) = (checkpoint.display().to_string(), input.display().to_string());
        let said = ddl_ok(ranks, &["predict", &checkpoint, "--input", &input, "--out", &out.display().to_string()]).0;
        (out, said)
    };
    let checkpoint = trained(folder.path(), &data("classes", "y", "a"), 2, "cross_entropy");
    let (out, said) = predict(&checkpoint, "p.csv", 2);
    assert!(said.contains("1 of 4 rows have missing values, and no prediction\nwrote 3 predictions"), "{said}");
    let columns = columns(&out);
    assert_eq!(column(&columns, "sample"), ["0", "1", "2", "3"]);
    for name in ["class", "probability", "p_no", "p_yes"] {
        let empty: Vec<bool> = column(&columns, name).iter().map(String::is_empty).collect();
        assert_eq!(empty, [true, false, false, false], "{name}");
    }
    let (none, checkpoint) = (folder.path().join("none.csv").display().to_string(), checkpoint.display().to_string());
    fs::write(&none, "a,b\n").unwrap();
    let output = ddl(0, &["predict", &checkpoint, "--input", &none]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(65) && text.contains("none.csv: there is no sample in it"), "{text}");
    fs::remove_dir_all(folder.path().join("out")).unwrap();
    let checkpoint = trained(folder.path(), &data("values", "a", "b"), 1, "mse");
    let (out, said) = predict(&checkpoint, "p.h5", 0);
    assert!(said.contains("1 of 4 rows"), "{said}");
    let [predictions, actual] = ["prediction", "actual"].map(|name| Array1::from(support::read_f64(&out, name)));
    assert_eq!(predictions.mapv(f64::is_nan).to_vec(), [false, false, true, false]);
    assert_eq!((actual[0].is_nan(), actual[1], actual[2].is_nan(), actual[3]), (true, 2.0, true, 5.0));
}
