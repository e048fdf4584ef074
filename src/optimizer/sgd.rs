//! `sgd`: v = μ·v + g, p −= lr·v; Nesterov: p −= lr·(g + μ·v); weight decay adds λ·p to g. As torch.optim.SGD.

use super::{Entry, Optimizer, Update, within};
use crate::config::Component;
use crate::error::Result;
use crate::kernel::isa::dispatch;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "sgd",
    about: "stochastic gradient descent with momentum",
    keys: "lr, momentum = 0, weight_decay = 0, nesterov = false",
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build,
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    lr: f64,
    #[serde(default)]
    momentum: f64,
    #[serde(default)]
    weight_decay: f64,
    #[serde(default)]
    nesterov: bool,
}

fn build(component: &Component) -> Result<Box<dyn Optimizer>> {
    let keys: Keys = component.parse()?;
    within(component, "lr", keys.lr, 0.0, f64::INFINITY)?;
    within(component, "momentum", keys.momentum, 0.0, 1.0)?;
    within(component, "weight_decay", keys.weight_decay, 0.0, f64::INFINITY)?;
    if keys.nesterov && keys.momentum == 0.0 {
        return Err(component.error("nesterov", "needs momentum", "set momentum, for example to 0.9"));
    }
    Ok(Box::new(Sgd(keys)))
}

struct Sgd(Keys);

dispatch! {
    fn plain<T>(p: &mut [T], g: &[T], lr: T, scale: T, decay: T) {
        for (p, g) in p.iter_mut().zip(g) {
            *p -= lr * (*g * scale + decay * *p);
        }
    }
}

dispatch! {
    fn with_momentum<T>(p: &mut [T], g: &[T], v: &mut [T], lr: T, scale: T, decay: T, momentum: T) {
        for ((p, g), v) in p.iter_mut().zip(g).zip(v) {
            *v = (momentum * *v + (*g * scale + decay * *p)).flushed();
            *p -= lr * *v;
        }
    }
}

dispatch! {
    fn with_nesterov<T>(p: &mut [T], g: &[T], v: &mut [T], lr: T, scale: T, decay: T, momentum: T) {
        for ((p, g), v) in p.iter_mut().zip(g).zip(v) {
            let gradient = *g * scale + decay * *p;
            *v = (momentum * *v + gradient).flushed();
            *p -= lr * (gradient + momentum * *v);
        }
    }
}

impl Optimizer for Sgd {
    fn slots(&self) -> &'static [&'static str] {
        if self.0.momentum > 0.0 { &["momentum"] } else { &[] }
    }

    fn lr(&self) -> f64 {
        self.0.lr
    }

    fn update(&self, update: Update<'_>) {
        let Update { params, grads, moments: [v, _], lr, momentum, grad_scale, .. } = update;
        let (decay, momentum) = (self.0.weight_decay as f32, momentum.unwrap_or(self.0.momentum) as f32);
        if self.0.momentum == 0.0 {
            plain(params, grads, lr, grad_scale, decay);
        } else if self.0.nesterov {
            with_nesterov(params, grads, v, lr, grad_scale, decay, momentum);
        } else {
            with_momentum(params, grads, v, lr, grad_scale, decay, momentum);
        }
    }
}
