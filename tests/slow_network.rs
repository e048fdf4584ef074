//! What hosts may do on a slow network: send bf16, or average weights now and then instead of summing gradients. With
//! `exchange = "mpi"` each rank is a host.

mod support;

use std::fs;
use support::training::{Run, images, train, train_in, wide};

const HOSTS: [&str; 2] = ["--set", "distributed.exchange=mpi"];
/// So that any difference between hosts would stop the run.
const CHECKED: [&str; 2] = ["--set", "distributed.check_steps=1"];
const WIRE: [&str; 2] = ["--set", "distributed.wire=bf16"];
const LOCAL: [&str; 2] = ["--set", "distributed.average_every=3"];

fn job(optimizer: &str) -> String {
    images(12, optimizer)
}

fn losses(run: &Run) -> &[f64] {
    run.run.step_column("loss").expect("a column")
}

/// The largest difference of parameters, in parts of the largest of their tensor.
fn distance(a: &Run, b: &Run) -> f32 {
    let pairs = a.last.model.iter().zip(&b.last.model).filter(|(a, _)| !a.key.contains("running"));
    let of_tensor = pairs.map(|(a, b)| {
        let largest = a.data.iter().fold(1e-6f32, |most, v| most.max(v.abs()));
        a.data.iter().zip(&b.data).fold(0f32, |most, (a, b)| most.max((a - b).abs())) / largest
    });
    of_tensor.fold(0.0, f32::max)
}

#[test]
fn bf16_between_hosts_trains_like_f32() {
    let folder = tempfile::tempdir().unwrap();
    let job = job("type = \"sgd\"\nlr = 0.02\nmomentum = 0.9");
    let exact = train(folder.path(), &job, 0, &[]);
    let long = wide(&job);
    let exact_long = train(folder.path(), &long, 0, &[]);
    for (job, exact, ranks) in [(&job, &exact, 2), (&job, &exact, 3), (&job, &exact, 4), (&long, &exact_long, 3)] {
        let found = train(folder.path(), job, ranks, &[HOSTS, CHECKED, WIRE].concat());
        let differs = distance(exact, &found);
        assert!(differs > 1e-5, "{ranks} ranks: {differs}: nothing was rounded");
        for (step, (exact, found)) in losses(exact).iter().zip(losses(&found)).enumerate() {
            assert!((exact - found).abs() < 0.02 * exact, "{ranks} ranks, step {step}: {found}, expected {exact}");
        }
    }
}

/// In memory that ranks share nothing is rounded.
#[test]
fn bf16_between_hosts_is_nothing_to_one_host() {
    let folder = tempfile::tempdir().unwrap();
    let job = job("type = \"sgd\"\nlr = 0.02");
    let [plain, wire] = [&[][..], &WIRE].map(|more| train(folder.path(), &job, 2, more));
    assert_eq!(distance(&plain, &wire), 0.0);
}

/// While weights move little, a mean of hosts' steps is the step of their mean gradient; when they move far, it is not.
#[test]
fn averages_of_small_steps_are_steps_of_the_average() {
    let folder = tempfile::tempdir().unwrap();
    // Batches that all hosts have the same share of.
    let job = |lr: &str| {
        let job = job(&format!("type = \"sgd\"\nlr = {lr}")).replace("batch_size = 52", "batch_size = 48");
        job.replace("samples = 230", "samples = 240")
    };
    let start = train(folder.path(), &job("1e-30"), 0, &[]);
    for (lr, alike) in [("1e-4", true), ("0.3", false)] {
        let exact = train(folder.path(), &job(lr), 0, &[]);
        let moved = distance(&exact, &start);
        for ranks in [2, 3] {
            let found = train(folder.path(), &job(lr), ranks, &[HOSTS, LOCAL].concat());
            let differs = distance(&exact, &found) / moved;
            assert!(
                if alike { differs < 0.05 } else { differs > 0.05 },
                "lr {lr}, {ranks} ranks: {differs} of {moved}"
            );
            assert!((losses(&exact)[0] - losses(&found)[0]).abs() < 1e-5, "the first loss is of the same weights");
        }
    }
}

#[test]
fn hosts_on_their_own_still_learn_and_resume() {
    let folder = tempfile::tempdir().unwrap();
    let job = job("type = \"adam\"\nlr = 0.003");
    let more = [&HOSTS[..], &CHECKED, &LOCAL, &["--set", "train.checkpoint_steps=4"]].concat();
    let whole = train(folder.path(), &job, 3, &more);
    let [first, .., last] = losses(&whole) else { panic!("several steps") };
    assert!(*last < 0.97 * first, "{first} to {last}");
    let norms = whole.run.step_column("grad_norm").unwrap();
    assert!(norms.iter().all(|norm| norm.is_finite() && *norm > 0.0), "{norms:?}");

    let begun = train(folder.path(), &job, 3, &[&more[..], &["--set", "train.max_steps=4"]].concat());
    let kept = begun.out.join("checkpoints/step-00000004.h5");
    assert!(fs::exists(kept).unwrap());
    let ended = train_in(begun.out, &job, 3, &[&more[..], &["--resume"]].concat());
    assert_eq!(distance(&whole, &ended), 0.0);
}

/// Measured from the same micro-batch wherever it is computed.
#[test]
fn the_noise_scale_is_in_the_run_file_at_any_rank_count() {
    let folder = tempfile::tempdir().unwrap();
    let job = job("type = \"sgd\"\nlr = 0.01");
    let scales = |ranks: usize, more: &[&str]| {
        let run = train(folder.path(), &job, ranks, more).run;
        run.epoch_column("noise_scale").map(<[f64]>::to_vec)
    };
    let alone = scales(0, &[]).expect("a column");
    assert!(alone.len() == 2 && alone.iter().all(|scale| *scale > 0.0), "{alone:?}");
    for ranks in [2, 4] {
        let found = scales(ranks, &[]).expect("a column");
        for (alone, found) in alone.iter().zip(&found) {
            assert!(alone == found || (alone - found).abs() <= 1e-3 * alone, "{ranks} ranks: {found}, alone {alone}");
        }
    }
    let single = ["--set", "train.micro_batch=52"];
    assert_eq!(scales(0, &single), None, "one micro-batch a step tells nothing");
}
