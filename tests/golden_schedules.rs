//! The learning rate of every step against PyTorch's schedulers, and scaling by the batch.
//!
//! `golden/make_schedules.py` tells how the cases were made.

mod support;

use ddl::arena::{Buffer, Layout, Storage};
use ddl::config::Component;
use ddl::error::Result;
use ddl::optimizer::{self, Schedule, Update, schedule};
use serde::Deserialize;
use support::value;
use toml::Table;

#[derive(Deserialize)]
struct Case {
    name: String,
    schedule: Table,
    lr: f64,
    steps_per_epoch: u64,
    epochs: u64,
    lrs: Vec<f64>,
    walks: Vec<Walk>,
}

/// What a schedule makes of an optimizer: the momentum of each step, and the weights in the end.
#[derive(Deserialize)]
struct Walk {
    optimizer: String,
    momenta: Vec<f64>,
    weights: Vec<f64>,
}

fn cases() -> Vec<Case> {
    serde_json::from_str(include_str!("golden/schedules.json")).unwrap()
}

impl Case {
    fn kind(&self) -> &str {
        self.schedule["type"].as_str().unwrap()
    }

    /// With `more` keys, on batches of 64.
    fn build(&self, more: &str) -> Schedule {
        let mut keys = self.schedule.clone();
        keys.remove("type");
        let text = format!("{}{more}", toml::to_string(&keys).unwrap());
        let component = Component::new(self.kind(), &text).unwrap();
        Schedule::build(&component, self.lr, 64, self.steps_per_epoch, self.epochs * self.steps_per_epoch).unwrap()
    }
}

fn close(what: &str, found: f64, expected: f64, largest: f64) {
    assert!((found - expected).abs() <= 1e-9 * largest, "{what}: {found}, expected {expected}");
}

#[test]
fn every_step_of_every_schedule_agrees() {
    for case in cases() {
        assert_eq!(case.lrs.len() as u64, case.epochs * case.steps_per_epoch, "{}", case.name);
        let schedule = case.build("");
        for (step, expected) in case.lrs.iter().enumerate() {
            close(&format!("{}, step {step}", case.name), schedule.rate(step as u64), *expected, case.lr);
        }
    }
}

/// The whole curve grows by 64 / 16, or its root. Only min_lr is a rate of its own.
#[test]
fn scaling_multiplies_the_curve() {
    for case in cases().iter().filter(|case| !case.schedule.contains_key("min_lr")) {
        for (scaling, factor) in [("none", 1.0), ("linear", 4.0), ("sqrt", 2.0)] {
            let schedule = case.build(&format!("scaling = \"{scaling}\"\nbase_batch_size = 16"));
            for (step, lr) in case.lrs.iter().enumerate() {
                let what = format!("{} scaled {scaling}, step {step}", case.name);
                close(&what, schedule.rate(step as u64), factor * lr, factor * case.lr);
            }
        }
    }
}

fn rates(kind: &str, keys: &str, batch: usize, count: u64) -> Result<Vec<f64>> {
    let schedule = Schedule::build(&Component::new(kind, keys)?, 0.1, batch, 4, 8)?;
    Ok((0..count).map(|step| schedule.rate(step)).collect())
}

#[test]
fn scaling_by_hand() {
    for (keys, batch, expected) in [
        ("scaling = \"linear\"", 256, 0.1),
        ("scaling = \"linear\"", 1024, 0.4),
        ("scaling = \"linear\"", 64, 0.025),
        ("scaling = \"sqrt\"", 1024, 0.2),
        ("scaling = \"sqrt\"\nbase_batch_size = 100", 225, 0.15),
        ("", 1024, 0.1),
    ] {
        close(&format!("{keys} at {batch}"), rates("constant", keys, batch, 1).unwrap()[0], expected, 1.0);
    }
    // Up in two steps to 0.1 · 512 / 256.
    let found = rates("constant", "warmup_steps = 2\nscaling = \"linear\"", 512, 4).unwrap();
    for (found, expected) in found.iter().zip([0.1, 0.2, 0.2, 0.2]) {
        close("warm-up", *found, expected, 1.0);
    }
}

#[test]
fn warm_up_counts_steps_and_epochs() {
    assert_eq!(rates("cosine", "warmup_steps = 4", 1, 8).unwrap(), rates("cosine", "warmup_epochs = 1", 1, 8).unwrap());
    let both = rates("constant", "warmup_steps = 1\nwarmup_epochs = 0.25", 1, 3).unwrap();
    assert_eq!(both, [0.05, 0.1, 0.1]);
}

/// A run that goes on past its planned end keeps the last rate.
#[test]
fn past_the_end_the_rate_stays() {
    assert_eq!(rates("cosine", "min_lr = 0.01", 1, 20).unwrap()[8..], [0.01; 12]);
    let one_cycle = rates("one_cycle", "", 1, 20).unwrap();
    assert!(one_cycle[8..].iter().all(|lr| *lr == one_cycle[7]), "{one_cycle:?}");
}

/// However short or odd the run, no rate is negative or not a number.
#[test]
fn short_runs_have_finite_rates() {
    for (kind, keys) in [
        ("constant", ""),
        ("constant", "warmup_epochs = 9"),
        ("step", "step_size = 0.001"),
        ("cosine", "warmup_epochs = 9"),
        ("cosine", ""),
        ("one_cycle", ""),
        ("one_cycle", "pct_start = 0.0"),
        ("one_cycle", "pct_start = 0.5"),
        ("one_cycle", "pct_start = 0.9999"),
    ] {
        let component = Component::new(kind, keys).unwrap();
        for total in 1..12 {
            let schedule = Schedule::build(&component, 0.1, 1, 1, total).unwrap();
            for step in 0..total {
                let rate = schedule.rate(step);
                assert!((0.0..=0.1 + 1e-12).contains(&rate), "{kind} {keys}: step {step} of {total}: {rate}");
            }
        }
    }
}

#[test]
fn wrong_keys_are_named() {
    for (kind, keys, named) in [
        ("cosin", "", "cosine"),
        ("cosine", "min_lr = -0.1", "min_lr"),
        ("cosine", "min_lr = nan", "min_lr"),
        ("step", "", "step_size"),
        ("step", "step_size = 0", "step_size"),
        ("step", "step_size = 1\ngamma = -1", "gamma"),
        ("one_cycle", "pct_start = 1.0", "pct_start"),
        ("one_cycle", "warmup_epochs = 1", "pct_start"),
        ("one_cycle", "div_factor = inf", "div_factor"),
        ("constant", "warmup_epochs = -1", "warmup_epochs"),
        ("constant", "warmup_steps = -1", "warmup_steps"),
        ("constant", "base_batch_size = 0", "base_batch_size"),
        ("constant", "scaling = \"linaer\"", "did you mean `linear`?"),
        ("constant", "warmup_epoch = 1", "did you mean `warmup_epochs`?"),
        ("cosine", "mn_lr = 1", "did you mean `min_lr`?"),
    ] {
        let error = rates(kind, keys, 1, 1).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        assert!(error.to_string().contains(named), "{kind} {keys}: {error}");
    }
}

#[test]
fn every_schedule_of_the_registry_has_a_case() {
    let cases = cases();
    for (name, ..) in schedule::REGISTRY {
        let has = cases.iter().any(|case| case.kind() == *name);
        assert!(has, "{name}: add a case to tests/golden/make_schedules.py and run it");
    }
}

/// Momentum and beta1 go against the rate as torch's scheduler sets them, and weights end where torch's optimizers lead them.
#[test]
fn one_cycle_moves_momentum_as_torch_does() {
    let (mut moved, mut still) = (0, 0);
    for case in cases() {
        for walk in &case.walks {
            let schedule = case.build("");
            let keys = if walk.optimizer == "sgd" { "lr = 0.1\nmomentum = 0.9" } else { "" };
            let optimizer = optimizer::build(&Component::new(&walk.optimizer, keys).unwrap()).unwrap();
            let mut layout = Layout::default();
            layout.push("0", "weight", &[3], Storage::Plain);
            let [weight] = layout.slots() else { panic!("one slot") };
            let numbers = |tag: u32| (0..3).map(|i| value(tag, i)).collect::<Vec<f32>>();
            let (mut params, mut grads) = (vec![0.0; layout.len()], vec![0.0; layout.len()]);
            weight.write(&numbers(10), &mut params);
            let mut moments: Vec<Buffer<f32>> = optimizer.slots().iter().map(|_| Buffer::zeros(layout.len())).collect();
            assert_eq!(walk.momenta.len(), case.lrs.len(), "{}", case.name);
            for (step, expected) in walk.momenta.iter().enumerate() {
                let momentum = schedule.momentum(step as u64);
                match momentum {
                    Some(momentum) => close(&format!("{}, step {step}", case.name), momentum, *expected, 1.0),
                    None => close("the optimizer's own", 0.9, *expected, 1.0),
                }
                *(if momentum.is_some() { &mut moved } else { &mut still }) += 1;
                weight.write(&numbers(100 + step as u32), &mut grads);
                let mut of_slots = moments.iter_mut();
                optimizer.update(Update {
                    layout: &layout,
                    params: &mut params,
                    grads: &mut grads,
                    first: 0,
                    moments: std::array::from_fn(|_| of_slots.next().map_or(&mut [][..], |moment| &mut moment[..])),
                    lr: schedule.rate(step as u64) as f32,
                    momentum,
                    step: step as u64 + 1,
                    grad_scale: 1.0,
                });
            }
            for (found, expected) in weight.read(&params).iter().zip(&walk.weights) {
                let error = (f64::from(*found) - expected).abs();
                assert!(error < 3e-6, "{} by {}: {found}, expected {expected}", case.name, walk.optimizer);
            }
        }
    }
    assert!(moved > 0 && still > 0, "cases with and without: {moved}, {still}");
}

#[test]
fn momentum_moves_only_where_it_should() {
    let build = |kind: &str, keys: &str| Schedule::build(&Component::new(kind, keys).unwrap(), 0.1, 64, 5, 10);
    assert_eq!(build("one_cycle", "cycle_momentum = false").unwrap().momentum(3), None);
    assert_eq!(build("cosine", "").unwrap().momentum(3), None);
    for key in ["base_momentum", "max_momentum"] {
        let error = build("one_cycle", &format!("{key} = 1.0")).unwrap_err();
        assert!(error.exit_code() == 2 && error.to_string().contains(key), "{error}");
    }
}
