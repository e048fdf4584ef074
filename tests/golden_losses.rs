//! Every loss and its gradient against PyTorch, in f64 and in f32, at once and summed over micro-batches.
//!
//! `golden/make_losses.py` tells how the cases were made; those with class weights are by torch's documented formula
//! (`golden/make_weighted_losses.py`).

mod support;

use ddl::config::Component;
use ddl::data::{Targets, Task};
use ddl::loss::{self, Loss};
use serde::Deserialize;
use support::value;
use toml::Table;

#[derive(Deserialize)]
struct Case {
    name: String,
    loss: Table,
    m: usize,
    n: usize,
    y_scale: f64,
    targets: Vec<f64>,
    value: f64,
    dy: Vec<f64>,
}

fn cases() -> Vec<Case> {
    let files = [include_str!("golden/losses.json"), include_str!("golden/weighted_losses.json")];
    files.iter().flat_map(|text| serde_json::from_str::<Vec<Case>>(text).unwrap()).collect()
}

/// 1 over the samples, or over the sum of their classes' weights.
fn share(case: &Case, loss: &dyn Loss) -> f64 {
    1.0 / match loss.class_weights() {
        Some(weights) => case.targets.iter().map(|class| weights[*class as usize]).sum(),
        None => case.m as f64,
    }
}

impl Case {
    fn kind(&self) -> &str {
        self.loss["type"].as_str().unwrap()
    }

    fn build(&self) -> Box<dyn Loss> {
        let mut keys = self.loss.clone();
        keys.remove("type");
        let component = Component::new(self.kind(), &toml::to_string(&keys).unwrap()).unwrap();
        (loss::find(&component).unwrap().build)(&component).unwrap()
    }

    /// Of the samples from `first` on.
    fn targets(&self, first: usize) -> Targets {
        if self.kind() == "cross_entropy" {
            Targets { classes: self.targets[first..].iter().map(|c| *c as u32).collect(), ..Targets::default() }
        } else {
            Targets { values: self.targets[first * self.n..].iter().map(|v| *v as f32).collect(), ..Targets::default() }
        }
    }

    fn y(&self) -> Vec<f64> {
        (0..self.m * self.n).map(|i| self.y_scale * f64::from(value(1, i as u32))).collect()
    }

    fn check(&self, what: &str, found: f64, dy: &[f64], tolerance: f64) {
        let what = format!("{} {what}", self.name);
        assert!((found - self.value).abs() <= tolerance * self.value, "{what}: {found}, PyTorch's {}", self.value);
        let largest = self.dy.iter().fold(0.0, |high: f64, v| high.max(v.abs()));
        assert_eq!(dy.len(), self.dy.len());
        for (i, (found, expected)) in dy.iter().zip(&self.dy).enumerate() {
            let error = (found - expected).abs();
            assert!(error <= tolerance * largest, "{what} dy[{i}]: {found}, PyTorch's {expected}");
        }
    }
}

#[test]
fn every_loss_agrees_in_f64() {
    for case in cases() {
        let (y, loss) = (case.y(), case.build());
        let share = share(&case, &*loss);
        let mut dy = vec![f64::NAN; y.len()];
        let found = loss.evaluate_f64(case.m, case.n, &y, &case.targets(0), share, Some(&mut dy));
        case.check("in f64", found, &dy, 1e-9);
        let without = loss.evaluate_f64(case.m, case.n, &y, &case.targets(0), share, None);
        assert_eq!(without, found, "{} without a gradient", case.name);
    }
}

#[test]
fn every_loss_agrees_in_f32() {
    for case in cases() {
        let y: Vec<f32> = case.y().iter().map(|v| *v as f32).collect();
        let loss = case.build();
        let share = share(&case, &*loss);
        let mut dy = vec![f32::NAN; y.len()];
        let found = loss.evaluate(case.m, case.n, &y, &case.targets(0), share, Some(&mut dy));
        case.check("in f32", found, &dy.iter().map(|v| f64::from(*v)).collect::<Vec<_>>(), 1e-6);
    }
}

/// Micro-batches of unequal size, each by its share of a sample, give the whole batch's mean.
#[test]
fn micro_batches_sum_to_the_mean() {
    for case in cases() {
        let (y, loss, n) = (case.y(), case.build(), case.n);
        let share = share(&case, &*loss);
        let (mut total, mut dy) = (0.0, vec![f64::NAN; y.len()]);
        let micro = 3;
        for first in (0..case.m).step_by(micro) {
            let m = micro.min(case.m - first);
            let part = first * n..(first + m) * n;
            let dy = Some(&mut dy[part.clone()]);
            total += loss.evaluate_f64(m, n, &y[part], &case.targets(first), share, dy);
        }
        case.check("in micro-batches", total, &dy, 1e-9);
    }
}

/// A mixed sample's loss is that of both targets, in their shares.
#[test]
fn a_mixed_target_is_both_in_their_shares() {
    let cases = cases();
    for case in cases.iter().filter(|case| case.kind() == "cross_entropy") {
        let (y, loss) = (case.y(), case.build());
        let of = |targets: &Targets| {
            let mut dy = vec![f64::NAN; y.len()];
            (loss.evaluate_f64(case.m, case.n, &y, targets, 0.5, Some(&mut dy)), dy)
        };
        let own = case.targets(0);
        // The first sample's other has its own class.
        let others: Vec<u32> = own.classes.iter().map(|class| class * 3 % case.n as u32).collect();
        let other = Targets { classes: others.clone(), ..Targets::default() };
        let (found, dy) = of(&Targets { mixed: Some(0.75), others, ..own.clone() });
        let (own, other) = (of(&own), of(&other));
        assert!((found - (0.75 * own.0 + 0.25 * other.0)).abs() < 1e-12 * found, "{}", case.name);
        for (i, dy) in dy.iter().enumerate() {
            assert!((dy - (0.75 * own.1[i] + 0.25 * other.1[i])).abs() < 1e-12, "{} dy[{i}]", case.name);
        }
    }
}

#[test]
fn weights_that_fit_no_data_are_told() {
    let task = Task::Classes(["a", "b", "c"].map(String::from).to_vec());
    for (keys, words) in [
        ("weight = [1, 2]", "has 2 weights, but the data has 3 classes"),
        ("weight = [1, 2, -1]", "holds -1"),
        ("weight = [1, 2, nan]", "holds NaN"),
        ("weight = \"balancd\"", "is neither \"balanced\" nor a list of numbers"),
        ("weight = \"balanced\"", "only a training part can tell"),
    ] {
        let component = Component::new("cross_entropy", keys).unwrap();
        let error = loss::build(&component, &task, 3).err().expect(keys);
        assert!(error.exit_code() == 2 && error.to_string().contains(words), "{keys}: {error}");
    }
    let balanced = Component::new("cross_entropy", "weight = \"balanced\"").unwrap();
    let settled = loss::settled(&balanced, &[10, 20, 30]).unwrap();
    // scikit-learn's "balanced": 60 / (3 * count).
    let weights = loss::build(&settled, &task, 3).unwrap().class_weights().map(<[f64]>::to_vec);
    assert_eq!(weights, Some(vec![2.0, 1.0, 20.0 / 30.0]));
    assert!(loss::settled(&balanced, &[10, 0, 30]).err().unwrap().to_string().contains("class 1"));
}

#[test]
fn every_loss_of_the_registry_has_a_case() {
    let cases = cases();
    for entry in loss::REGISTRY {
        let has = cases.iter().any(|case| case.kind() == entry.name);
        assert!(has, "{}: add a case to tests/golden/make_losses.py and run it", entry.name);
    }
}

#[test]
fn the_largest_output_is_the_answer() {
    let targets = Targets { classes: vec![2, 0, 1], ..Targets::default() };
    let y = [0.0f32, 1.0, 2.0, 5.0, 5.0, 1.0, 3.0, -1.0, 2.0];
    // The first of equals counts, and the last sample is wrong.
    assert_eq!(loss::correct(3, 3, &y, &targets), 2.0);
    let mixed = Targets { mixed: Some(0.75), others: vec![0, 0, 0], ..targets };
    assert_eq!(loss::correct(3, 3, &y, &mixed), 0.75 * 2.0 + 0.25 * 2.0);
}
