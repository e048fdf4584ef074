//! `dropout`: zeroes each element with probability p in training and scales the others by 1/(1 − p), as
//! torch.nn.Dropout (Srivastava et al., 2014). The choice depends on (seed, step, position in the global batch, layer).

use super::registry::{Entry, Example, Place};
use super::{Backward, Forward, Layer, Mode, Plan};
use crate::config::Component;
use crate::error::Result;
use crate::kernel::{Real, isa::dispatch};
use crate::rng::Stream;
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "dropout",
    about: "zeroes elements at random in training",
    keys: "p = 0.5",
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build_f32: build,
    build_f64: build,
    examples: &[Example { keys: "p = 0.4", input: Shape::Vector { n: 9 } }],
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    #[serde(default = "half")]
    p: f64,
}

fn half() -> f64 {
    0.5
}

struct Dropout {
    plan: Plan,
    number: u32,
    len: usize,
    p: f64,
    /// 1 where an element stays: (M, len).
    keep: Vec<u8>,
}

/// Checks a probability.
pub(super) fn probability(component: &Component, key: &str, p: f64) -> Result<f64> {
    if (0.0..=1.0).contains(&p) {
        return Ok(p);
    }
    Err(component.error(key, format!("{p} is not a probability"), "give a number from 0 to 1"))
}

fn build<T: Real>(component: &Component, place: Place) -> Result<Box<dyn Layer<T>>> {
    let keys: Keys = component.parse()?;
    let p = probability(component, "p", keys.p)?;
    let len = place.input.len();
    let plan = Plan { in_place: true, ..Plan::new(place.input) };
    Ok(Box::new(Dropout { plan, number: place.number, len, p, keep: vec![0; place.m * len] }))
}

/// Fills `keep` with 0 (dropped, with probability `p` to 1/65536) and 1 from 16-bit pieces of the stream.
pub(super) fn fill_keep(stream: &Stream, p: f64, keep: &mut [u8]) {
    let threshold = (p * 65536.0).round() as u32;
    fill_keep_above(stream, threshold, keep);
}

dispatch! {
    fn fill_keep_above(stream: &Stream, threshold: u32, keep: &mut [u8]) {
        // Eight decisions a block of 128 bits; 16 blocks side by side vectorise.
        const BLOCKS: usize = 16;
        for (group, keep) in keep.chunks_mut(8 * BLOCKS).enumerate() {
            let words = stream.at_many::<BLOCKS>((group * BLOCKS) as u32);
            let mut whole = [0u8; 8 * BLOCKS];
            for word in 0..4 {
                for block in 0..BLOCKS {
                    let bits = words[word][block];
                    whole[8 * block + 2 * word] = u8::from((bits & 0xFFFF) >= threshold);
                    whole[8 * block + 2 * word + 1] = u8::from((bits >> 16) >= threshold);
                }
            }
            keep.copy_from_slice(&whole[..keep.len()]);
        }
    }
}

dispatch! {
    /// x·keep·scale.
    pub(super) fn apply<T>(keep: &[u8], scale: T, x: &mut [T]) {
        for (x, keep) in x.iter_mut().zip(keep) {
            *x = if *keep != 0 { *x * scale } else { T::ZERO };
        }
    }
}

/// 1/(1 − p), or 0 when everything is dropped.
pub(super) fn keep_scale(p: f64) -> f64 {
    if p < 1.0 { 1.0 / (1.0 - p) } else { 0.0 }
}

impl<T: Real> Layer<T> for Dropout {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn forward(&mut self, io: Forward<'_, T>) {
        if self.p == 0.0 || io.mode == Mode::Eval {
            return;
        }
        for sample in 0..io.m {
            let Some(stream) = io.mode.stream(sample, self.number) else { return };
            fill_keep(&stream, self.p, &mut self.keep[sample * self.len..][..self.len]);
        }
        apply(&self.keep, T::of(keep_scale(self.p)), io.y);
    }

    fn backward(&mut self, io: Backward<'_, T>) {
        if self.p > 0.0 && io.mode != Mode::Eval {
            apply(&self.keep, T::of(keep_scale(self.p)), io.dy);
        }
    }
}
