//! In f32 a job has the same weights to the bit under every instruction set, so that a run can be repeated on another CPU: sums
//! have one order and width, a multiplication and addition is rounded once, and `exp` and the like are the program's own.

mod support;

use support::training::{self, Run, settings, train_under};

/// Where the CPU lacks one, the best that it has takes its place.
const SETS: [&str; 3] = ["avx512", "avx2", "portable"];

/// A name, and what stands there.
type Bits = (String, Vec<u32>);

/// Of weights, statistics and moments; and of each step's loss.
fn bits(run: &Run) -> Vec<Bits> {
    let moments = run.last.optimizer.iter().flat_map(|(_, tensors)| tensors);
    let tensors = run.last.model.iter().chain(moments);
    let tensors = tensors.map(|t| (t.key.clone(), t.data.iter().map(|value| value.to_bits()).collect()));
    let losses = run.run.step_column("loss").expect("losses").iter().map(|loss| (*loss as f32).to_bits()).collect();
    tensors.chain([("loss".into(), losses)]).collect()
}

/// Trains on as many ranks under each set; all must have the bits of the first.
fn same_bits(name: &str, job: &str, ranks: [usize; 3], more: &[&str]) {
    let folder = tempfile::tempdir().unwrap();
    let run = |set: usize| {
        let out = tempfile::tempdir_in(folder.path()).unwrap().keep();
        bits(&train_under(Some(SETS[set]), out, job, ranks[set], more))
    };
    let first = run(0);
    for set in 1..SETS.len() {
        let found = run(set);
        assert_eq!(first.len(), found.len(), "{name}");
        let differ = |((key, a), (_, b)): (&Bits, &Bits)| {
            let at = a.iter().zip(b).position(|(a, b)| a != b)?;
            let count = a.iter().zip(b).filter(|(a, b)| a != b).count();
            Some(format!("{key}: {count} of {}, the first at {at}", a.len()))
        };
        let all: Vec<String> = first.iter().zip(&found).filter_map(differ).collect();
        assert!(all.is_empty(), "{name}, {} on {} ranks: {all:#?}", SETS[set], ranks[set]);
    }
}

const REPRODUCIBLE: [&str; 2] = ["distributed.reduction=reproducible", "train.max_steps=6"];

#[test]
fn the_jobs_have_the_same_bits_under_every_instruction_set() {
    let ranks = [[1, 2, 3], [4, 1, 7], [2, 3, 1], [3, 7, 2], [7, 4, 1]];
    for ((name, job), ranks) in training::jobs().into_iter().zip(ranks) {
        same_bits(name, &job, ranks, &settings(&[&REPRODUCIBLE[..], &["train.micro_batch=8"]].concat()));
    }
}

#[test]
fn networks_of_every_layer_have_the_same_bits_under_every_instruction_set() {
    let short = settings(&REPRODUCIBLE);
    let sgd = "type = \"sgd\"\nlr = 0.02\nmomentum = 0.9";
    // Channels that fill vectors and that do not, with Winograd's method and without.
    for (channels, optimizer) in [(24, "type = \"adam\"\nlr = 0.002"), (7, sgd)] {
        let job = training::changed(&training::images(channels, optimizer));
        same_bits(&format!("{channels} channels"), &job, [1, 2, 3], &short);
    }
    for optimizer in ["lamb", "lars", "adamw"] {
        same_bits(&format!("lstm, {optimizer}"), &training::series(optimizer), [0, 2, 0], &short);
    }
    same_bits("elementwise layers and norms", &mixed(), [0, 2, 1], &short);
    same_bits("groups and dilation", &mixed().replace("stride = 2, padding = 2 }", GROUPS), [2, 1, 0], &short);
    let gru = training::series("adamw").replace("\"lstm\"", "\"gru\"");
    same_bits("gru", &gru, [1, 0, 2], &short);
}

/// Depthwise, by group, gathered.
const GROUPS: &str = r#"padding = "same" },
  { type = "conv2d", out_channels = 9, kernel_size = 3, stride = 2, padding = 1, groups = 9 },
  { type = "conv2d", out_channels = 36, kernel_size = 3, padding = "same", groups = 3 },
  { type = "conv2d", out_channels = 20, kernel_size = [3, 2], dilation = 2, padding = 2 }"#;

/// What the jobs do not have: strides, averages, norms, the other activations and losses of several kinds of width.
fn mixed() -> String {
    r#"
[data]
source = "synthetic"
shape = [2, 13, 11]
samples = 120
test_samples = 20
[model]
layers = [
  { type = "conv2d", out_channels = 9, kernel_size = 5, stride = 2, padding = 2 }, { type = "gelu" },
  { type = "avg_pool2d", kernel_size = 2 }, { type = "conv2d", out_channels = 17, kernel_size = 1 },
  { type = "leaky_relu", negative_slope = 0.1 }, { type = "adaptive_avg_pool2d", output_size = 1 }, { type = "flatten" },
  { type = "linear", out_features = 33 }, { type = "layer_norm" }, { type = "tanh" },
  { type = "linear", out_features = 47 }, { type = "batch_norm1d" }, { type = "sigmoid" },
  { type = "linear", out_features = 10 },
]
[loss]
type = "cross_entropy"
[optimizer]
type = "adamw"
lr = 0.01
[schedule]
type = "cosine"
[train]
epochs = 2
batch_size = 40
micro_batch = 10
clip_norm = 1.0
"#
    .into()
}
