//! `adam` (Kingma and Ba, 2015) and `adamw` (Loshchilov and Hutter, 2019), as in torch.optim:
//! m = β₁·m + (1−β₁)·g, v = β₂·v + (1−β₂)·g², p −= lr/(1−β₁ᵗ)·m/(√v/√(1−β₂ᵗ) + ε).

use super::{Entry, Optimizer, Update, within};
use crate::config::Component;
use crate::error::Result;
use crate::kernel::isa::dispatch;
use serde::{Deserialize, Serialize};
use std::cell::Cell;

pub(super) const ENTRY: Entry = Entry {
    name: "adam",
    about: "adaptive moments; weight decay is added to the gradient",
    keys: "lr = 0.001, betas = [0.9, 0.999], eps = 1e-8, weight_decay = 0",
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build: |component| build(component, component.parse()?, false),
};

pub(super) const ENTRY_W: Entry = Entry {
    name: "adamw",
    about: "adam with decoupled weight decay",
    keys: "lr = 0.001, betas = [0.9, 0.999], eps = 1e-8, weight_decay = 0.01",
    resolve: |component| Ok(component.resolve::<KeysW>()?.1),
    build: |component| {
        let KeysW { lr, betas, eps, weight_decay } = component.parse()?;
        build(component, Keys { lr, betas, eps, weight_decay }, true)
    },
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

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeysW {
    #[serde(default = "default_lr")]
    lr: f64,
    #[serde(default = "default_betas")]
    betas: [f64; 2],
    #[serde(default = "default_eps")]
    eps: f64,
    #[serde(default = "default_decay")]
    weight_decay: f64,
}

pub(super) fn default_lr() -> f64 {
    0.001
}

pub(super) fn default_betas() -> [f64; 2] {
    [0.9, 0.999]
}

fn default_eps() -> f64 {
    1e-8
}

fn default_decay() -> f64 {
    0.01
}

fn build(component: &Component, keys: Keys, decoupled: bool) -> Result<Box<dyn Optimizer>> {
    within(component, "lr", keys.lr, 0.0, f64::INFINITY)?;
    for beta in keys.betas {
        within(component, "betas", beta, 0.0, 1.0)?;
    }
    within(component, "eps", keys.eps, 0.0, f64::INFINITY)?;
    within(component, "weight_decay", keys.weight_decay, 0.0, f64::INFINITY)?;
    Ok(Box::new(Adam { keys, decoupled, latest: Cell::default() }))
}

struct Adam {
    keys: Keys,
    decoupled: bool,
    /// The step last seen, and 1 − βᵗ in it: a step has many updates, of a block each.
    latest: Cell<(u64, [f64; 2])>,
}

/// What is the same for all elements in one step.
#[derive(Clone, Copy)]
struct Factors<T> {
    scale: T,
    /// Added to the gradient, times the parameter.
    decay: T,
    /// The parameter's factor before the update.
    shrink: T,
    beta1: T,
    beta2: T,
    /// 1 − β, which f32 would round away from 1 − β₂ by 1e-5.
    rest1: T,
    rest2: T,
    /// lr / (1 − β₁ᵗ).
    rate: T,
    /// 1 / √(1 − β₂ᵗ).
    root: T,
    eps: T,
}

dispatch! {
    fn update_all<T>(p: &mut [T], g: &[T], m: &mut [T], v: &mut [T], f: Factors<T>) {
        for (((p, g), m), v) in p.iter_mut().zip(g).zip(m).zip(v) {
            let gradient = *g * f.scale + f.decay * *p;
            *m = (f.beta1 * *m + f.rest1 * gradient).flushed();
            *v = (f.beta2 * *v + f.rest2 * gradient * gradient).flushed();
            *p = f.shrink * *p - f.rate * *m / (v.sqrt() * f.root + f.eps);
        }
    }
}

impl Adam {
    /// 1 − βᵗ of both.
    fn corrections(&self, step: u64, betas: [f64; 2]) -> [f64; 2] {
        let (seen, corrections) = self.latest.get();
        if seen == step {
            return corrections;
        }
        let corrections = betas.map(|beta| 1.0 - libm::pow(beta, step as f64));
        self.latest.set((step, corrections));
        corrections
    }
}

impl Optimizer for Adam {
    fn slots(&self) -> &'static [&'static str] {
        &["exp_avg", "exp_avg_sq"]
    }

    fn lr(&self) -> f64 {
        self.keys.lr
    }

    fn update(&self, update: Update<'_>) {
        let Update { params, grads, moments: [m, v], lr, momentum, step, grad_scale, .. } = update;
        let Keys { betas: [beta1, beta2], eps, weight_decay, .. } = self.keys;
        let beta1 = momentum.unwrap_or(beta1);
        let (decay, shrink) =
            if self.decoupled { (0.0, 1.0 - f64::from(lr) * weight_decay) } else { (weight_decay, 1.0) };
        let [first, second] = self.corrections(step, [beta1, beta2]);
        let factors = Factors {
            scale: grad_scale,
            decay: decay as f32,
            shrink: shrink as f32,
            beta1: beta1 as f32,
            beta2: beta2 as f32,
            rest1: (1.0 - beta1) as f32,
            rest2: (1.0 - beta2) as f32,
            rate: (f64::from(lr) / first) as f32,
            root: (1.0 / second.sqrt()) as f32,
            eps: eps as f32,
        };
        update_all(params, grads, m, v, factors);
    }
}
