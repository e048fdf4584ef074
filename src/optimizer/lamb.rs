//! `lamb`: Adam's direction with a rate for each tensor, ‖w‖/‖r‖ (You et al., 2020).
//! Tensors of one dimension (biases and norms) take the plain rate and no weight decay.

use super::adam::{default_betas, default_lr};
use super::{Entry, Optimizer, Update, slots_within, squares, within};
use crate::config::Component;
use crate::error::Result;
use crate::kernel::isa::dispatch;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "lamb",
    about: "adam with layer-wise rates for large batches; tensors of one dimension take the plain rate and no decay",
    keys: "lr = 0.001, betas = [0.9, 0.999], eps = 1e-6, weight_decay = 0",
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build,
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default = "default_lr")]
    lr: f64,
    #[serde(default = "default_betas")]
    betas: [f64; 2],
    #[serde(default = "default_eps")]
    eps: f64,
    #[serde(default)]
    weight_decay: f64,
}

fn default_eps() -> f64 {
    1e-6
}

fn build(component: &Component) -> Result<Box<dyn Optimizer>> {
    let keys: Keys = component.parse()?;
    within(component, "lr", keys.lr, 0.0, f64::INFINITY)?;
    for beta in keys.betas {
        within(component, "betas", beta, 0.0, 1.0)?;
    }
    within(component, "eps", keys.eps, 0.0, f64::INFINITY)?;
    within(component, "weight_decay", keys.weight_decay, 0.0, f64::INFINITY)?;
    Ok(Box::new(Lamb(keys)))
}

struct Lamb(Keys);

/// What is the same for all elements of a tensor in one step.
#[derive(Clone, Copy)]
struct Factors<T> {
    scale: T,
    decay: T,
    beta1: T,
    beta2: T,
    /// 1 − β, which f32 would round away from 1 − β₂ by 1e-5.
    rest1: T,
    rest2: T,
    /// 1 / (1 − β₁ᵗ) and 1 / √(1 − β₂ᵗ).
    first: T,
    root: T,
    eps: T,
}

dispatch! {
    /// Updates the moments and leaves the direction r in `g`.
    fn direction<T>(p: &[T], g: &mut [T], m: &mut [T], v: &mut [T], f: Factors<T>) {
        for (((p, g), m), v) in p.iter().zip(g).zip(m).zip(v) {
            let gradient = *g * f.scale;
            *m = (f.beta1 * *m + f.rest1 * gradient).flushed();
            *v = (f.beta2 * *v + f.rest2 * gradient * gradient).flushed();
            *g = *m * f.first / (v.sqrt() * f.root + f.eps) + f.decay * *p;
        }
    }
}

dispatch! {
    fn descend<T>(p: &mut [T], g: &[T], rate: T) {
        for (p, g) in p.iter_mut().zip(g) {
            *p -= rate * *g;
        }
    }
}

impl Optimizer for Lamb {
    fn whole_tensors(&self) -> bool {
        true
    }

    fn slots(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }

    fn lr(&self) -> f64 {
        self.0.lr
    }

    fn update(&self, update: Update<'_>) {
        let Update { layout, first, params, grads, moments: [m, v], lr, momentum, step, grad_scale } = update;
        let Keys { betas: [beta1, beta2], eps, weight_decay, .. } = self.0;
        let beta1 = momentum.unwrap_or(beta1);
        for (slot, range) in slots_within(layout, first, params.len()) {
            let (p, g) = (&mut params[range.clone()], &mut grads[range.clone()]);
            let adapts = slot.shape.len() > 1;
            let factors = Factors {
                scale: grad_scale,
                decay: if adapts { weight_decay as f32 } else { 0.0 },
                beta1: beta1 as f32,
                beta2: beta2 as f32,
                rest1: (1.0 - beta1) as f32,
                rest2: (1.0 - beta2) as f32,
                first: (1.0 / (1.0 - libm::pow(beta1, step as f64))) as f32,
                root: (1.0 / (1.0 - libm::pow(beta2, step as f64)).sqrt()) as f32,
                eps: eps as f32,
            };
            direction(p, g, &mut m[range.clone()], &mut v[range], factors);
            let mut rate = f64::from(lr);
            if adapts {
                let (weight, step) = (squares(p).sqrt(), squares(g).sqrt());
                if weight > 0.0 && step > 0.0 {
                    rate *= weight / step;
                }
            }
            descend(p, g, rate as f32);
        }
    }
}
