//! `describe` tells the kinds of files apart.

use ddl::arena::{Layout, Storage};
use ddl::input::Input;
use ddl::store::Best;
use ddl::store::inspect::describe;
use ddl::store::predictions::{Column, Writer};
use ddl::store::{Progress, checkpoint};
use ddl::store::{RunFile, RunInfo, Tensor, weights};

fn has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no {part:?} in:\n{text}");
    }
}

#[test]
fn runs_are_described() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run.h5");
    let environment = [("cpu".to_string(), "x".repeat(200))];
    let info = RunInfo { name: "blobs", config: "seed = 5", ranks: 2, commit: "", environment: &environment };
    let mut run = RunFile::create(&path, &info).unwrap();
    has(&describe(&path).unwrap(), &["running", "seed = 5"]);
    run.epoch(&[("epoch", 1.0), ("train_loss", 0.25)]).unwrap();
    run.timing(&[("forward", &[1.0, 3.0])]);
    run.baseline("last_value", &[("test_mape", 1.5)]);
    run.finish("done").unwrap();
    let text = describe(&path).unwrap();
    has(&text, &["blobs", "done", "train_loss", "0.2500", "forward", "last_value", "test_mape", "xxx...", "seed = 5"]);
}

#[test]
fn checkpoints_and_safetensors_are_described() {
    let dir = tempfile::tempdir().unwrap();
    let mut layout = Layout::default();
    layout.push("0", "weight", &[3, 2], Storage::Panels);
    let (params, none) = (vec![0.0; layout.len()], Layout::default());
    let progress = Progress {
        step: 12,
        epoch: 3,
        sample: 0,
        sums: [0.5, 3.0, 0.25, 8.0].into(),
        best: Best::default(),
        input: &Input::default(),
        seed: 77,
        ranks: 4,
        config: "name = \"x\"",
        products: "f32",
    };
    let path = checkpoint::write(dir.path(), &progress, (&layout, &params), (&none, &[]), &[("m", &params)]).unwrap();
    has(&describe(&path).unwrap(), &["whole", "12", "77", "0.weight", "(3, 2)", "1 tensors, 6 elements", "name = "]);
    let mut bytes = std::fs::read(&path).unwrap();
    bytes.pop();
    std::fs::write(&path, bytes).unwrap();
    assert_eq!(describe(&path).unwrap_err().exit_code(), 65);

    let path = dir.path().join("w.safetensors");
    let tensor = Tensor { key: "4.bias".into(), shape: vec![2], data: vec![f32::NAN, 7.0] };
    weights::export_safetensors(&path, &[tensor], 0).unwrap();
    has(&describe(&path).unwrap(), &["4.bias", "(2)", "7"]);
}

#[test]
fn other_files_are_a_tree_or_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("p.h5");
    let columns = vec![("a/score".to_string(), Column::F64(vec![0.5; 3])), ("class".to_string(), Column::I64(vec![1]))];
    let mut writer = Writer::create(&path, false).unwrap();
    writer.append(columns, true).unwrap();
    writer.commit().unwrap();
    has(&describe(&path).unwrap(), &["a/\n", "  score  float64 (3)", "class  int64 (1)"]);
    let text = dir.path().join("x.txt");
    std::fs::write(&text, "hello").unwrap();
    assert_eq!(describe(&text).unwrap_err().exit_code(), 2);
    std::fs::write(&path, "hello").unwrap();
    assert_eq!(describe(&path).unwrap_err().exit_code(), 65);
    assert_eq!(describe(&dir.path().join("missing.h5")).unwrap_err().exit_code(), 74);
    assert_eq!(describe(dir.path()).unwrap_err().exit_code(), 74);
}
