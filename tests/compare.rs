//! `ddl compare` names what differs, and `ddl verify` what is not whole.

mod support;

use ddl::arena::{Layout, Storage};
use ddl::input::Input;
use ddl::store::Best;
use ddl::store::{Progress, checkpoint};
use std::path::{Path, PathBuf};
use support::{ddl, ddl_ok};

const JOB: &str = r#"
name = "blobs"
seed = 1
data = { source = "synthetic", shape = [6], classes = 3, samples = 96, test_samples = 32 }
model = { layers = [{ type = "linear", out_features = 7 }, { type = "tanh" }, { type = "linear", out_features = 3 }] }
loss = { type = "cross_entropy" }
optimizer = { type = "sgd", lr = 0.1, momentum = 0.9 }
train = { epochs = 2, batch_size = 24, micro_batch = 6, checkpoint_steps = 2, keep_checkpoints = 9 }
distributed = { reduction = "reproducible" }
"#;

/// Trains the job with keys set, and returns the run's folder.
fn train(folder: &Path, name: &str, ranks: usize, set: &[&str]) -> String {
    let (job, out) = (folder.join("job.toml"), folder.join(name));
    std::fs::write(&job, JOB).unwrap();
    let out = out.to_str().unwrap().to_owned();
    let mut args = vec!["train", job.to_str().unwrap(), "--out", &out];
    set.iter().for_each(|set| args.extend(["--set", set]));
    ddl_ok(ranks, &args);
    out
}

/// Exit code, and what was printed.
fn compare(a: &str, b: &str) -> (i32, String) {
    let done = ddl(0, &["compare", a, b]);
    assert_eq!(String::from_utf8_lossy(&done.stderr), "");
    (done.status.code().unwrap(), String::from_utf8(done.stdout).unwrap())
}

fn tells(found: &(i32, String), code: i32, parts: &[&str]) {
    assert_eq!(found.0, code, "{}", found.1);
    for part in parts {
        assert!(found.1.contains(part), "no {part:?} in:\n{}", found.1);
    }
}

#[test]
fn runs_are_the_same_or_their_first_difference_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let of = |name: &str, ranks: usize, set: &[&str]| train(dir.path(), name, ranks, set);
    let plain = of("plain", 0, &[]);
    let same = ["settings the same", "the same bits in 10 rows", "moments too", "a and b are the same"];
    tells(&compare(&plain, &of("again", 0, &[])), 0, &same);
    tells(&compare(&plain, &of("ranks", 3, &[])), 0, &same);
    tells(&compare(&plain, &of("longer", 0, &["train.epochs=3"])), 1, &["train.epochs: 2 in a, 3 in b", "epoch 3"]);

    let seed = compare(&plain, &of("seed", 0, &["seed=2"]));
    tells(
        &seed,
        1,
        &["settings seed: 1 in a, 2 in b", "step 1 is the first that differs: loss", "of step 2 are the first"],
    );
    let order = compare(&plain, &of("order", 0, &["data.shuffle=false"]));
    tells(&order, 1, &["data.shuffle: true in a, false in b", "first in 0.bias[0]", "a and b differ"]);
    // The rate falls from the second epoch on: steps 1 to 4 are the same.
    let schedule = ["schedule.type=\"step\"", "schedule.step_size=1", "schedule.gamma=0.5"];
    let rate = compare(&plain, &of("rate", 0, &schedule));
    tells(
        &rate,
        1,
        &["step 5 is the first that differs", "of step 6 are the first that differ; those of step 4 are alike"],
    );

    let json = ddl(0, &["compare", &plain, &plain, "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&json.stdout).unwrap();
    assert_eq!((json.status.code(), &value["same"]), (Some(0), &true.into()));
    // A run and one of its checkpoints, by whatever name.
    let moved = dir.path().join("moved.h5");
    std::fs::copy(Path::new(&plain).join("checkpoints/step-00000004.h5"), &moved).unwrap();
    tells(&compare(&plain, moved.to_str().unwrap()), 0, &["a and b are the same"]);
}

/// A checkpoint of a layer and its momentum.
fn written(folder: &Path, weights: &[f32], momentum: &[f32]) -> PathBuf {
    std::fs::create_dir_all(folder).unwrap();
    let (mut layout, none) = (Layout::default(), Layout::default());
    layout.push("0", "weight", &[2, 3], Storage::Panels);
    let place = |values: &[f32]| {
        let mut arena = vec![0.0; layout.len()];
        layout.slots()[0].write(values, &mut arena);
        arena
    };
    let progress = Progress {
        step: 7,
        epoch: 1,
        sample: 0,
        sums: [0.0; 4].into(),
        best: Best::default(),
        input: &Input::default(),
        seed: 1,
        ranks: 1,
        config: "name = \"x\"",
        products: "f32",
    };
    let (weights, momentum) = (place(weights), place(momentum));
    checkpoint::write(folder, &progress, (&layout, &weights), (&none, &[]), &[("momentum", &momentum)]).unwrap()
}

#[test]
fn one_bit_of_a_weight_or_a_moment_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let values = [1.0f32, 2.0, 3.0, 4.0, 5.0, 6.0];
    let path = |name: &str, weights: &[f32], momentum: &[f32]| {
        written(&dir.path().join(name), weights, momentum).to_str().unwrap().to_owned()
    };
    let whole = path("whole", &values, &values);
    for at in 0..6 {
        let mut flipped = values;
        flipped[at] = f32::from_bits(flipped[at].to_bits() ^ 1);
        let place = format!("[{}, {}]", at / 3, at % 3);
        let weights = compare(&whole, &path("weight", &flipped, &values));
        tells(&weights, 1, &["of step 7", &format!("first in 0.weight{place}")]);
        let moments = compare(&whole, &path("momentum", &values, &flipped));
        tells(&moments, 1, &[&format!("first in momentum 0.weight{place}")]);
    }
}

#[test]
fn what_cannot_be_compared_or_is_not_whole_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let run = train(dir.path(), "run", 0, &["train.epochs=1"]);
    let fails = |args: &[&str], code: i32, part: &str| {
        let done = ddl(0, args);
        let told = String::from_utf8_lossy(&done.stderr).into_owned();
        assert_eq!(done.status.code(), Some(code), "{args:?}: {told}");
        assert!(told.contains(part) && told.lines().count() == 1, "{args:?}: {told}");
    };
    let empty = dir.path().to_str().unwrap();
    fails(&["compare", &run, empty], 2, "there is no run.h5");
    fails(&["compare", &run, "nowhere.h5"], 74, "nowhere.h5");
    let (whole, _) = ddl_ok(0, &["verify", &run]);
    assert_eq!(whole.lines().filter(|line| line.starts_with("whole ")).count(), 3, "{whole}");

    let checkpoint = Path::new(&run).join("checkpoints/step-00000002.h5");
    let bytes = std::fs::read(&checkpoint).unwrap();
    let mut flipped = bytes.clone();
    flipped[bytes.len() / 2] ^= 4;
    for broken in [&flipped, &bytes[..bytes.len() - 1].to_vec(), &Vec::new()] {
        std::fs::write(&checkpoint, broken).unwrap();
        fails(&["verify", &run], 65, "step-00000002.h5");
        let all = ddl(0, &["verify", "--json", &run]);
        let lines: Vec<serde_json::Value> =
            String::from_utf8(all.stdout).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let broken: Vec<_> = lines.iter().filter(|line| line["state"] != "whole").collect();
        assert_eq!((lines.len(), broken.len()), (3, 1), "{lines:?}");
        fails(&["compare", &run, checkpoint.to_str().unwrap()], 65, "step-00000002.h5");
    }
    fails(&["verify", "nowhere.h5"], 74, "nowhere.h5");
    // A folder of runs is looked through, too.
    fails(&["verify", dir.path().to_str().unwrap()], 65, "step-00000002.h5");
    let (said, _) = ddl_ok(0, &["verify", dir.path().join("job.toml").to_str().unwrap()]);
    assert!(said.starts_with("unknown") && said.contains("of no kind"), "{said}");
    assert_eq!(ddl(0, &["verify"]).status.code(), Some(2));
}
