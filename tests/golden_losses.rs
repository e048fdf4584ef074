//! Every loss and its gradient against PyTorch, in f64 and in f32, at once and summed over micro-batches.
//!
//! `golden/make_losses.py` tells how the cases were made.

mod support;

use ddl::config::Component;
use ddl::data::Targets;
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
    serde_json::from_str(include_str!("golden/losses.json")).unwrap()
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
            Targets { classes: self.targets[first..].iter().map(|c| *c as u32).collect(), values: vec![] }
        } else {
            Targets { values: self.targets[first * self.n..].iter().map(|v| *v as f32).collect(), classes: vec![] }
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
        let (y, loss, share) = (case.y(), case.build(), 1.0 / case.m as f64);
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
        let (loss, share) = (case.build(), 1.0 / case.m as f64);
        let mut dy = vec![f32::NAN; y.len()];
        let found = loss.evaluate(case.m, case.n, &y, &case.targets(0), share, Some(&mut dy));
        case.check("in f32", found, &dy.iter().map(|v| f64::from(*v)).collect::<Vec<_>>(), 1e-6);
    }
}

/// Micro-batches of unequal size, each by its share of a sample, give the whole batch's mean.
#[test]
fn micro_batches_sum_to_the_mean() {
    for case in cases() {
        let (y, loss, n, share) = (case.y(), case.build(), case.n, 1.0 / case.m as f64);
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
    let targets = Targets { classes: vec![2, 0, 1], values: vec![] };
    let y = [0.0f32, 1.0, 2.0, 5.0, 5.0, 1.0, 3.0, -1.0, 2.0];
    // The first of equals counts, and the last sample is wrong.
    assert_eq!(loss::correct(3, 3, &y, &targets), 2);
}
