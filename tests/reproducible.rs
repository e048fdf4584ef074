//! `reduction = "reproducible"`: the same bits at any number of ranks, in shared memory or by messages, whatever the
//! batches leave over, and after a resume on another number of ranks.

mod support;

use ddl::store::{Checkpoint, checkpoint};
use std::fs;
use support::training::{self, Run, settings, train, train_in, untimed};

const REPRODUCIBLE: &str = "[distributed]\nreduction = \"reproducible\"\n";

/// With as many channels as Winograd wants.
fn images() -> String {
    format!("{}clip_norm = 1.0\n{REPRODUCIBLE}", training::images(24, "type = \"adam\"\nlr = 0.002"))
}

fn series(optimizer: &str) -> String {
    training::series(optimizer) + REPRODUCIBLE
}

fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|value| value.to_bits()).collect()
}

impl Run {
    /// The same bits: every step's figures, every epoch's, weights, statistics and moments.
    fn is(&self, other: &Run, what: &str) {
        for (name, values) in &self.run.steps {
            let found = other.run.step_column(name).expect("the same columns");
            assert_eq!(bits(values), bits(found), "{what}: {name} of steps");
        }
        for (name, values) in untimed(&self.run) {
            let found = other.run.epoch_column(name).expect("the same columns");
            assert_eq!(bits(values), bits(found), "{what}: {name} of epochs: {values:?} and {found:?}");
        }
        let moments = |checkpoint: &Checkpoint| checkpoint.optimizer.clone();
        let tensors = |run: &Run| {
            let of_slots = moments(&run.last).into_iter().flat_map(|(_, tensors)| tensors);
            run.last.model.iter().cloned().chain(of_slots).collect::<Vec<_>>()
        };
        let (mine, others) = (tensors(self), tensors(other));
        assert_eq!(mine.len(), others.len(), "{what}");
        for (a, b) in mine.iter().zip(&others) {
            let differs = a.data.iter().zip(&b.data).position(|(a, b)| a.to_bits() != b.to_bits());
            assert!(
                a.key == b.key && a.data.len() == b.data.len() && differs.is_none(),
                "{what}: {} {differs:?}",
                a.key
            );
        }
    }
}

/// By messages every rank is like a host of its own: what hosts exchange is exchanged.
const MESSAGES: [&str; 2] = ["--set", "distributed.exchange=mpi"];

fn same_bits(job: &str, ranks: &[usize]) {
    let folder = tempfile::tempdir().unwrap();
    let alone = train(folder.path(), job, 0, &[]);
    for &ranks in ranks {
        alone.is(&train(folder.path(), job, ranks, &[]), &format!("{ranks} ranks in shared memory"));
        if ranks > 1 {
            alone.is(&train(folder.path(), job, ranks, &MESSAGES), &format!("{ranks} ranks by messages"));
        }
    }
}

#[test]
fn a_convolutional_network_has_the_same_bits_at_any_rank_count() {
    same_bits(&images(), &[1, 2, 3, 4, 7, 8]);
}

#[test]
fn a_long_gradient_has_the_same_bits_at_any_rank_count() {
    same_bits(&training::wide(&images()).replace("clip_norm = 1.0\n", ""), &[3, 4]);
}

/// The network with statistics over the global batch, on both paths of a residual block too.
fn synchronised() -> String {
    let skip =
        ", shortcut = [ { type = \"conv2d\", out_channels = 24, kernel_size = 1 }, { type = \"batch_norm2d\" } ] },\n";
    let job = images().replacen("  ] },\n", &format!("  ]{skip}"), 1);
    job.replace("\"batch_norm2d\" }", "\"batch_norm2d\", sync = true }")
}

#[test]
fn batch_norm_over_the_global_batch_has_the_same_bits_at_any_rank_count() {
    same_bits(&synchronised(), &[1, 2, 3, 7]);
}

/// Then the size of micro-batches reaches no value but by rounding; without it, it does.
#[test]
fn synchronised_statistics_are_those_of_one_large_micro_batch() {
    let folder = tempfile::tempdir().unwrap();
    let plain = ["--set", "distributed.reduction=allreduce", "--set", "train.max_steps=4"];
    let whole: Vec<&str> = plain.iter().copied().chain(["--set", "train.micro_batch=52"]).collect();
    let steps = |job: &str, ranks: usize, more: &[&str]| {
        let run = train(folder.path(), job, ranks, more).run;
        run.step_column("loss").expect("losses").to_vec()
    };
    let expected = steps(&synchronised().replace("sync = true", "sync = false"), 0, &whole);
    let close = |found: &[f64]| expected.iter().zip(found).all(|(a, b)| (a - b).abs() <= 2e-4 * a.abs());
    for ranks in [0, 2, 4] {
        let found = steps(&synchronised(), ranks, &plain);
        assert!(found.len() == 4 && close(&found), "{ranks} ranks: {found:?}, expected {expected:?}");
    }
    assert!(!close(&steps(&images(), 0, &plain)), "then this test could not fail");
}

#[test]
fn an_lstm_has_the_same_bits_at_any_rank_count() {
    same_bits(&series("adamw"), &[2, 3, 8]);
}

/// The users' jobs on what ships of their data; CIFAR-10 has none.
#[test]
fn the_jobs_have_the_same_bits_at_any_rank_count() {
    let folder = tempfile::tempdir().unwrap();
    let short = settings(&["distributed.reduction=reproducible", "train.micro_batch=5", "train.max_steps=6"]);
    for (name, job) in training::jobs() {
        let alone = train(folder.path(), &job, 0, &short);
        for ranks in [2, 3, 4, 7, 8] {
            alone.is(&train(folder.path(), &job, ranks, &short), &format!("{name} on {ranks} ranks"));
        }
    }
}

#[test]
fn rates_by_layer_have_the_same_bits_at_any_rank_count() {
    same_bits(&series("lamb"), &[3, 4]);
    same_bits(&series("lars"), &[7]);
}

#[test]
fn a_resume_on_other_ranks_ends_with_the_bits_of_an_uninterrupted_run() {
    resumed_ends_with_the_same_bits(&images(), &[(3, 2), (4, 7), (1, 8)]);
}

/// After a stop inside an epoch on the first number of ranks, and an end on the second.
fn resumed_ends_with_the_same_bits(job: &str, ranks: &[(usize, usize)]) {
    let folder = tempfile::tempdir().unwrap();
    let alone = train(folder.path(), job, 0, &[]);
    for &(first, then) in ranks {
        let begun = train(folder.path(), job, first, &["--set", "train.checkpoint_steps=3"]);
        // As if it had been killed right after the checkpoint in the midst of the second epoch.
        let paths = checkpoint::list(&begun.out.join("checkpoints")).unwrap();
        let kept = paths.iter().find(|path| checkpoint::read(path).is_ok_and(|found| found.sample > 0)).unwrap();
        paths.iter().filter(|path| *path > kept).for_each(|path| fs::remove_file(path).unwrap());
        let ended = train_in(begun.out, job, then, &["--resume"]);
        alone.is(&ended, &format!("{first} ranks, then {then}"));
    }
}

fn changed() -> String {
    training::changed(&images())
}

#[test]
fn changed_and_mixed_images_of_weighed_classes_have_the_same_bits_at_any_rank_count() {
    same_bits(&changed(), &[1, 2, 3, 7]);
    same_bits(&changed().replace("\"batch_norm2d\" }", "\"batch_norm2d\", sync = true }"), &[3]);
}

#[test]
fn so_they_have_after_a_resume_inside_an_epoch() {
    resumed_ends_with_the_same_bits(&changed(), &[(2, 3), (1, 1)]);
}

/// It is the tree that makes it so: plain sums differ in the last bits.
#[test]
fn plain_sums_differ_in_the_last_bits() {
    let folder = tempfile::tempdir().unwrap();
    let plain = ["--set", "distributed.reduction=allreduce"];
    let [alone, three] = [0, 3].map(|ranks| train(folder.path(), &images(), ranks, &plain));
    let differ = alone.last.model.iter().zip(&three.last.model).any(|(a, b)| a.data != b.data);
    assert!(differ, "then these tests could not fail");
}
