//! The learning rate as a pure function of the step.

use crate::config::Component;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::f64::consts::PI;

/// How the rate grows with the batch, for jobs tuned at another batch size.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scaling {
    /// Not at all.
    #[default]
    None,
    /// lr · batch / base_batch_size (Goyal et al., 2017).
    Linear,
    /// lr · √(batch / base_batch_size) (Hoffer et al., 2017).
    Sqrt,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    Constant,
    Step { step_size: f64, gamma: f64 },
    Cosine { min_lr: f64 },
    OneCycle { pct_start: f64, div_factor: f64, final_div_factor: f64, momentum: Option<[f64; 2]> },
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ConstantKeys {}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StepKeys {
    /// In epochs.
    step_size: f64,
    #[serde(default = "tenth")]
    gamma: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct CosineKeys {
    #[serde(default)]
    min_lr: f64,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct OneCycleKeys {
    #[serde(default = "default_pct_start")]
    pct_start: f64,
    #[serde(default = "default_div_factor")]
    div_factor: f64,
    #[serde(default = "default_final_div_factor")]
    final_div_factor: f64,
    #[serde(default = "yes")]
    cycle_momentum: bool,
    #[serde(default = "default_base_momentum")]
    base_momentum: f64,
    #[serde(default = "default_max_momentum")]
    max_momentum: f64,
}

fn yes() -> bool {
    true
}

fn default_base_momentum() -> f64 {
    0.85
}

fn default_max_momentum() -> f64 {
    0.95
}

fn tenth() -> f64 {
    0.1
}

fn default_pct_start() -> f64 {
    0.3
}

fn default_div_factor() -> f64 {
    25.0
}

fn default_final_div_factor() -> f64 {
    1e4
}

/// Name, what it does and its keys, for the documentation; all take the keys of [`SHARED_KEYS`].
pub const REGISTRY: &[(&str, &str, &str)] = &[
    ("constant", "the rate of the optimizer", ""),
    ("step", "times gamma every step_size epochs", "step_size, gamma = 0.1"),
    ("cosine", "a half cosine from the rate to min_lr over all steps after warm-up", "min_lr = 0"),
    (
        "one_cycle",
        "up from lr/div_factor and down to that over final_div_factor, on cosines; momentum (beta1) the other way",
        "pct_start = 0.3, div_factor = 25, final_div_factor = 1e4, cycle_momentum = true, base_momentum = 0.85, \
         max_momentum = 0.95",
    ),
];

/// Keys of every schedule.
pub const SHARED_KEYS: &str = "warmup_epochs = 0 or warmup_steps = 0 (linear from 0), \
                               scaling = \"none\" (or \"linear\", \"sqrt\"), base_batch_size = 256";

/// A learning-rate schedule for one run.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    kind: Kind,
    lr: f64,
    warmup: u64,
    steps_per_epoch: u64,
    total: u64,
}

/// The keys all schedules share.
struct Shared {
    warmup_epochs: f64,
    warmup_steps: u64,
    scaling: Scaling,
    base_batch_size: f64,
}

fn take_shared(component: &Component) -> Result<(Shared, Component)> {
    let mut own = component.clone();
    let shared = Shared {
        warmup_epochs: own.take("warmup_epochs")?.unwrap_or(0.0),
        warmup_steps: own.take("warmup_steps")?.unwrap_or(0),
        scaling: own.take("scaling")?.unwrap_or_default(),
        base_batch_size: own.take("base_batch_size")?.unwrap_or(256.0),
    };
    if !(shared.warmup_epochs >= 0.0 && shared.warmup_epochs.is_finite()) {
        return Err(component.error("warmup_epochs", "is negative or not finite", "give 0 or more"));
    }
    if !(shared.base_batch_size > 0.0 && shared.base_batch_size.is_finite()) {
        return Err(component.error("base_batch_size", "is not positive", "give the batch the rate was tuned for"));
    }
    Ok((shared, own))
}

fn parse_kind(component: &Component) -> Result<(Kind, Component)> {
    let positive = |key: &str, value: f64| {
        if value > 0.0 && value.is_finite() {
            return Ok(());
        }
        Err(component.error(key, format!("is {value}"), "give a positive number"))
    };
    match component.kind.as_str() {
        "constant" => Ok((Kind::Constant, component.resolve::<ConstantKeys>()?.1)),
        "step" => {
            let (StepKeys { step_size, gamma }, resolved) = component.resolve()?;
            positive("step_size", step_size)?;
            positive("gamma", gamma)?;
            Ok((Kind::Step { step_size, gamma }, resolved))
        }
        "cosine" => {
            let (CosineKeys { min_lr }, resolved) = component.resolve()?;
            if !(0.0..f64::INFINITY).contains(&min_lr) {
                return Err(component.error("min_lr", format!("is {min_lr}"), "give a rate of 0 or more"));
            }
            Ok((Kind::Cosine { min_lr }, resolved))
        }
        "one_cycle" => {
            let (keys, resolved) = component.resolve::<OneCycleKeys>()?;
            let OneCycleKeys { pct_start, div_factor, final_div_factor, cycle_momentum, .. } = keys;
            if !(0.0..1.0).contains(&pct_start) {
                return Err(component.error("pct_start", format!("is {pct_start}"), "give a share from 0 up to 1"));
            }
            positive("div_factor", div_factor)?;
            positive("final_div_factor", final_div_factor)?;
            for (key, value) in [("base_momentum", keys.base_momentum), ("max_momentum", keys.max_momentum)] {
                if !(0.0..1.0).contains(&value) {
                    return Err(component.error(key, format!("is {value}"), "give a number from 0 up to 1"));
                }
            }
            let momentum = cycle_momentum.then_some([keys.base_momentum, keys.max_momentum]);
            Ok((Kind::OneCycle { pct_start, div_factor, final_div_factor, momentum }, resolved))
        }
        _ => Err(component.unknown_kind("type", REGISTRY.iter().map(|(name, _, _)| *name))),
    }
}

/// The table with its defaults.
pub fn resolve(component: &Component) -> Result<Component> {
    let (shared, own) = take_shared(component)?;
    let (_, mut resolved) = parse_kind(&own)?;
    let scaling = toml::Value::try_from(shared.scaling).map_err(|e| Error::internal(&component.place, e))?;
    resolved.table.insert("warmup_epochs".into(), shared.warmup_epochs.into());
    resolved.table.insert("warmup_steps".into(), (shared.warmup_steps as i64).into());
    resolved.table.insert("scaling".into(), scaling);
    resolved.table.insert("base_batch_size".into(), shared.base_batch_size.into());
    Ok(resolved)
}

impl Schedule {
    /// For a run of `total` steps, `steps_per_epoch` each epoch, on global batches of `batch` samples, where `lr` is
    /// the optimizer's rate.
    pub fn build(component: &Component, lr: f64, batch: usize, steps_per_epoch: u64, total: u64) -> Result<Self> {
        let (shared, own) = take_shared(component)?;
        let (kind, _) = parse_kind(&own)?;
        let growth = batch as f64 / shared.base_batch_size;
        let lr = match shared.scaling {
            Scaling::None => lr,
            Scaling::Linear => lr * growth,
            Scaling::Sqrt => lr * growth.sqrt(),
        };
        let warmup = shared.warmup_steps + (shared.warmup_epochs * steps_per_epoch as f64).round() as u64;
        if warmup > 0 && matches!(kind, Kind::OneCycle { .. }) {
            return Err(component.error("warmup_epochs", "one_cycle has its own warm-up", "remove it; set pct_start"));
        }
        Ok(Self { kind, lr, warmup, steps_per_epoch, total })
    }

    /// The rate of the optimizer step `step`, counted from 0.
    pub fn rate(&self, step: u64) -> f64 {
        if step < self.warmup {
            return self.lr * (step + 1) as f64 / self.warmup as f64;
        }
        match self.kind {
            Kind::Constant => self.lr,
            Kind::Step { step_size, gamma } => {
                let epoch = step as f64 / self.steps_per_epoch as f64;
                self.lr * libm::pow(gamma, (epoch / step_size).floor())
            }
            Kind::Cosine { min_lr } => {
                let length = (self.total.saturating_sub(self.warmup)).max(1) as f64;
                let share = ((step - self.warmup) as f64 / length).min(1.0);
                min_lr + (self.lr - min_lr) * (1.0 + libm::cos(PI * share)) / 2.0
            }
            Kind::OneCycle { pct_start, div_factor, final_div_factor, .. } => {
                let lowest = self.lr / div_factor;
                self.cycle(pct_start, step, lowest, self.lr, lowest / final_div_factor)
            }
        }
    }

    /// The momentum, or beta1, of the optimizer step `step`, where the schedule has a say in it.
    pub fn momentum(&self, step: u64) -> Option<f64> {
        match self.kind {
            Kind::OneCycle { pct_start, momentum: Some([base, max]), .. } => {
                Some(self.cycle(pct_start, step, max, base, max))
            }
            _ => None,
        }
    }

    /// From `first` to `peak` in the first part of the steps, and to `last` in the rest.
    fn cycle(&self, pct_start: f64, step: u64, first: f64, peak: f64, last: f64) -> f64 {
        let at_peak = pct_start * self.total as f64 - 1.0;
        let end = self.total.saturating_sub(1) as f64;
        let step = (step as f64).min(end);
        if step <= at_peak {
            anneal(first, peak, step / at_peak)
        } else {
            anneal(peak, last, (step - at_peak) / (end - at_peak))
        }
    }
}

/// A half cosine from `from` to `to`.
fn anneal(from: f64, to: f64, share: f64) -> f64 {
    let share = if share.is_finite() { share } else { 1.0 };
    to + (from - to) / 2.0 * (1.0 + libm::cos(PI * share))
}
