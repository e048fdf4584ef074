//! The micro-batch that a job does not state, and batch norm over too few values, through the real program.

mod support;

use std::fs;
use support::{ddl, ddl_ok};
use tempfile::TempDir;

/// A job of `samples` samples of `shape` with these layers and this `[train]`.
fn job(shape: &str, samples: usize, layers: &str, train: &str) -> (TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("job.toml");
    let text = format!(
        "data = {{ source = \"synthetic\", shape = {shape}, classes = 3, samples = {samples}, test_samples = 9 }}\n\
         model.layers = {layers}\nloss.type = \"cross_entropy\"\noptimizer = {{ type = \"sgd\", lr = 0.1 }}\n\
         [train]\nepochs = 1\n{train}\n"
    );
    fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    (folder, path)
}

const NORMED: &str = "[{ type = \"batch_norm1d\" }, { type = \"linear\", out_features = 3 }]";
const SYNCED: &str = "[{ type = \"batch_norm1d\", sync = true }, { type = \"linear\", out_features = 3 }]";

#[test]
fn the_default_keeps_statistics_sound_and_the_plan_says_of_what() {
    for (batch, micro) in [(8, 8), (16, 16), (64, 16)] {
        let (_folder, path) = job("[4]", 64, NORMED, &format!("batch_size = {batch}"));
        let (text, _) = ddl_ok(0, &["train", &path, "--dry-run"]);
        assert!(text.contains(&format!("\nmicro-batch {micro} (chosen: ")), "{text}");
        assert!(text.contains(&format!("\nbatch norm  statistics of {micro} samples, a micro-batch")), "{text}");
    }
    let (_folder, path) = job("[4]", 64, SYNCED, "batch_size = 64\nmicro_batch = 1");
    let (text, _) = ddl_ok(0, &["train", &path, "--dry-run"]);
    assert!(text.contains("\nbatch norm  statistics of the global batch (sync)"), "{text}");
    assert!(!text.contains("chosen"), "{text}");
}

#[test]
fn one_value_a_channel_is_refused_with_the_way_out() {
    let image = "[{ type = \"conv2d\", out_channels = 2, kernel_size = 2 }, { type = \"residual\", layers = \
                 [{ type = \"batch_norm2d\" }] }, { type = \"flatten\" }, { type = \"linear\", out_features = 3 }]";
    for (shape, samples, layers, train, mend) in [
        ("[4]", 64, NORMED, "batch_size = 8\nmicro_batch = 1", "set train.micro_batch = 2"),
        ("[1, 2, 2]", 64, image, "batch_size = 8\nmicro_batch = 1", "set train.micro_batch = 2"),
        ("[4]", 63, NORMED, "batch_size = 9\nmicro_batch = 4", "set train.micro_batch = 5"),
        ("[4]", 65, NORMED, "batch_size = 16\nmicro_batch = 4", "set train.batch_size = 18 and train.micro_batch = 4"),
        ("[4]", 65, NORMED, "batch_size = 16", "set train.batch_size = "),
        ("[4]", 65, SYNCED, "batch_size = 16\nmicro_batch = 4", "set train.batch_size = 17"),
        ("[4]", 1, NORMED, "batch_size = 1", "give more training samples"),
    ] {
        let (_folder, path) = job(shape, samples, layers, train);
        for more in [&["--dry-run"][..], &[]] {
            let output = ddl(0, &[&["train", &path, "--out", &format!("{path}-out")], more].concat());
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{samples} {train}: {text}");
            assert!(text.contains("train.micro_batch") && text.contains(mend), "{samples} {train}: {text}");
        }
    }
    // Four pixels are values enough.
    let (_folder, path) = job("[1, 3, 3]", 64, image, "batch_size = 8\nmicro_batch = 1");
    ddl_ok(0, &["train", &path, "--dry-run"]);
}

#[test]
fn any_number_of_ranks_sees_one_value_and_the_checkpoint_has_it() {
    let layers = "[{ type = \"linear\", out_features = 3 }]";
    let (folder, path) = job("[400]", 64, layers, "batch_size = 32");
    let out = |ranks: usize| folder.path().join(format!("out-{ranks}")).display().to_string();
    for ranks in [0, 2] {
        let (text, _) = ddl_ok(ranks, &["train", &path, "--out", &out(ranks)]);
        assert!(text.contains("\nmicro-batch 16 (chosen: "), "{text}");
        let run = format!("{}/checkpoints", out(ranks));
        let checkpoint = fs::read_dir(&run).unwrap().next().unwrap().unwrap().path().display().to_string();
        let (config, _) = ddl_ok(0, &["inspect", &checkpoint]);
        assert!(config.contains("micro_batch = 16"), "{config}");
        ddl_ok(2, &["evaluate", &checkpoint]);
    }
    let output = ddl(4, &["train", &path, "--dry-run"]);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("set train.micro_batch to at most 8"), "{text}");
}
