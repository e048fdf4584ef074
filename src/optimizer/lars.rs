//! `lars`: SGD with a rate for each tensor, η·‖w‖/(‖g‖ + λ·‖w‖) (You, Gitman and Ginsburg, 2017).
//! Tensors of one dimension (biases and norms) take the plain rate and no weight decay.

use super::{Entry, Optimizer, Update, norm, slots_within, within};
use crate::config::Component;
use crate::error::Result;
use crate::kernel::isa::dispatch;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "lars",
    about: "layer-wise adaptive rates for large batches; tensors of one dimension take the plain rate and no decay",
    keys: "lr, momentum = 0.9, weight_decay = 0, trust_coefficient = 0.001, eps = 1e-8",
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build,
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    lr: f64,
    #[serde(default = "default_momentum")]
    momentum: f64,
    #[serde(default)]
    weight_decay: f64,
    #[serde(default = "default_trust")]
    trust_coefficient: f64,
    #[serde(default = "default_eps")]
    eps: f64,
}

fn default_momentum() -> f64 {
    0.9
}

fn default_trust() -> f64 {
    0.001
}

fn default_eps() -> f64 {
    1e-8
}

fn build(component: &Component) -> Result<Box<dyn Optimizer>> {
    let keys: Keys = component.parse()?;
    within(component, "lr", keys.lr, 0.0, f64::INFINITY)?;
    within(component, "momentum", keys.momentum, 0.0, 1.0)?;
    within(component, "weight_decay", keys.weight_decay, 0.0, f64::INFINITY)?;
    within(component, "trust_coefficient", keys.trust_coefficient, 0.0, f64::INFINITY)?;
    within(component, "eps", keys.eps, 0.0, f64::INFINITY)?;
    Ok(Box::new(Lars(keys)))
}

struct Lars(Keys);

dispatch! {
    fn update_tensor<T>(p: &mut [T], g: &[T], v: &mut [T], rate: T, scale: T, decay: T, momentum: T) {
        for ((p, g), v) in p.iter_mut().zip(g).zip(v) {
            *v = (momentum * *v + rate * (*g * scale + decay * *p)).flushed();
            *p -= *v;
        }
    }
}

impl Optimizer for Lars {
    fn whole_tensors(&self) -> bool {
        true
    }

    fn slots(&self) -> &'static [&'static str] {
        &["momentum"]
    }

    fn lr(&self) -> f64 {
        self.0.lr
    }

    fn update(&self, update: Update<'_>) {
        let Update { layout, first, params, grads, moments: [v, _], lr, momentum, grad_scale, .. } = update;
        let momentum = momentum.unwrap_or(self.0.momentum) as f32;
        for (slot, range) in slots_within(layout, first, params.len()) {
            let (p, g) = (&mut params[range.clone()], &grads[range.clone()]);
            let (mut rate, mut decay) = (f64::from(lr), 0.0);
            if slot.shape.len() > 1 {
                decay = self.0.weight_decay;
                let (weight, gradient) = (norm(p), norm(g) * f64::from(grad_scale));
                if weight > 0.0 && gradient > 0.0 {
                    rate *= self.0.trust_coefficient * weight / (gradient + decay * weight + self.0.eps);
                }
            }
            update_tensor(p, g, &mut v[range], rate as f32, grad_scale, decay as f32, momentum);
        }
    }
}
