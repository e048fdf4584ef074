//! `cross_entropy`: −Σ q·log softmax(y), q the one-hot target smoothed by label_smoothing, as torch.nn.CrossEntropyLoss.

use super::{Entry, Loss, Takes};
use crate::config::Component;
use crate::data::Targets;
use crate::error::Result;
use crate::kernel::Real;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "cross_entropy",
    about: "softmax and negative log-likelihood, for classes",
    keys: "label_smoothing = 0",
    takes: Takes::Classes,
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build,
    examples: &["", "label_smoothing = 0.1"],
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default)]
    label_smoothing: f64,
}

struct CrossEntropy {
    smoothing: f64,
}

fn build(component: &Component) -> Result<Box<dyn Loss>> {
    let keys: Keys = component.parse()?;
    if !(0.0..1.0).contains(&keys.label_smoothing) {
        let what = format!("is {}", keys.label_smoothing);
        return Err(component.error("label_smoothing", what, "give a number from 0 up to, not including, 1"));
    }
    Ok(Box::new(CrossEntropy { smoothing: keys.label_smoothing }))
}

impl CrossEntropy {
    /// Gradient: softmax(y) − q. In f64 inside, since a batch has few logits.
    fn compute<T: Real>(
        &self,
        m: usize,
        n: usize,
        y: &[T],
        targets: &Targets,
        share: f64,
        mut dy: Option<&mut [T]>,
    ) -> f64 {
        let background = self.smoothing / n as f64;
        let mut total = 0.0;
        for sample in 0..m {
            let logits = &y[sample * n..][..n];
            let target = targets.classes[sample] as usize;
            let highest = logits.iter().fold(f64::NEG_INFINITY, |high, v| high.max(v.to_f64()));
            let sum: f64 = logits.iter().map(|v| (v.to_f64() - highest).exp()).sum();
            let log_sum = highest + sum.ln();
            let mean_log: f64 = if background > 0.0 {
                logits.iter().map(|v| log_sum - v.to_f64()).sum::<f64>() * background
            } else {
                0.0
            };
            total += (1.0 - self.smoothing) * (log_sum - logits[target].to_f64()) + mean_log;
            if let Some(dy) = &mut dy {
                for (i, dy) in dy[sample * n..][..n].iter_mut().enumerate() {
                    let hot = if i == target { 1.0 - self.smoothing } else { 0.0 };
                    *dy = T::of(share * ((logits[i].to_f64() - log_sum).exp() - background - hot));
                }
            }
        }
        total * share
    }
}

impl Loss for CrossEntropy {
    fn evaluate(&self, m: usize, n: usize, y: &[f32], targets: &Targets, share: f64, dy: Option<&mut [f32]>) -> f64 {
        self.compute(m, n, y, targets, share, dy)
    }

    fn evaluate_f64(
        &self,
        m: usize,
        n: usize,
        y: &[f64],
        targets: &Targets,
        share: f64,
        dy: Option<&mut [f64]>,
    ) -> f64 {
        self.compute(m, n, y, targets, share, dy)
    }
}
