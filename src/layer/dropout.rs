//! `dropout`: zeroes each element with probability p in training and scales the others by 1/(1 − p), as
//! torch.nn.Dropout (Srivastava et al., 2014). The choice depends on (seed, step, position in the global batch, layer).

use super::registry::{Entry, Example, Place};
use super::{Backward, Forward, Layer, Mode, Op, Plan};
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
    len: usize,
    p: f64,
}

/// Checks a probability.
pub(super) fn probability(component: &Component, key: &str, p: f64) -> Result<f64> {
    if (0.0..=1.0).contains(&p) {
        return Ok(p);
    }
    Err(component.error(key, format!("{p} is not a probability"), "give a number from 0 to 1"))
}

fn build<T: Real>(component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
    let keys: Keys = component.parse()?;
    let p = probability(component, "p", keys.p)?;
    let len = place.input.len();
    // A byte an element, 1 where it stays: (M, len).
    let cache = (place.m * len).div_ceil(size_of::<T>());
    let plan = Plan { in_place: true, cache, streams: vec![place.number], ..Plan::new(Op::Dropout, place.input) };
    Ok(Box::new(Dropout { plan, len, p }))
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
        let keep: &mut [u8] = bytemuck::cast_slice_mut(io.cache);
        for (sample, keep) in keep.chunks_exact_mut(self.len).take(io.m).enumerate() {
            let Some(stream) = io.mode.stream(sample, self.plan.streams[0]) else { return };
            fill_keep(&stream, self.p, keep);
        }
        apply(keep, T::of(keep_scale(self.p)), io.y);
    }

    fn backward(&mut self, io: Backward<'_, T>) {
        if self.p > 0.0 && io.mode != Mode::Eval {
            apply(bytemuck::cast_slice(io.cache), T::of(keep_scale(self.p)), io.dy);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Stack;
    use crate::rng::Numbers;
    use proptest::prelude::*;

    /// A list of layers that keep the shape of a sequence of six features, as TOML; lists inside lists down to `depth`.
    fn layers(depth: u32) -> BoxedStrategy<String> {
        let lstm = (1usize..6, any::<bool>(), 0usize..2).prop_map(|(levels, both, p)| {
            let hidden = if both { 3 } else { 6 };
            format!(
                "{{ type = \"lstm\", hidden_size = {hidden}, num_layers = {levels}, bidirectional = {both}, \
                 dropout = 0.{p}, return_sequences = true }}"
            )
        });
        let dropout = (1u32..10).prop_map(|p| format!("{{ type = \"dropout\", p = 0.{p} }}"));
        let layer = prop_oneof![lstm, dropout, Just("{ type = \"tanh\" }".to_owned())].boxed();
        let layer = match depth {
            0 => layer,
            _ => {
                let inner = (layers(depth - 1), layers(depth - 1), any::<bool>());
                let residual = inner.prop_map(|(main, side, plain)| {
                    format!(
                        "{{ type = \"residual\", layers = {main}, shortcut = {} }}",
                        if plain { "[]" } else { &side }
                    )
                });
                prop_oneof![layer, residual].boxed()
            }
        };
        proptest::collection::vec(layer, 1..5).prop_map(|list| format!("[{}]", list.join(", "))).boxed()
    }

    /// The numbers of all streams of the network, and how many it must have.
    fn streams(layers: &str) -> (Vec<u32>, usize) {
        let residual = Component::new("residual", &format!("layers = {layers}")).unwrap();
        let input = Shape::Sequence { t: 1, f: 6 };
        let place = Place { input, m: 1, number: 0, numbers: &Numbers::default(), precision: Default::default() };
        let stack = Stack::<f32>::build(&[residual], place, "").unwrap();
        let numbers = stack.plans().flat_map(|(_, _, _, plan)| plan.streams.clone()).collect();
        let levels = layers.split("num_layers = ").skip(1).filter(|lstm| {
            let dropout = lstm.find("dropout = 0.").map(|at| &lstm[at + 12..at + 13]);
            dropout != Some("0")
        });
        let levels: usize = levels.map(|lstm| lstm[..1].parse::<usize>().unwrap() - 1).sum();
        (numbers, levels + layers.matches("\"dropout\"").count())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_two_streams_of_a_network_have_the_same_number(layers in layers(3)) {
            let (mut numbers, expected) = streams(&layers);
            prop_assert_eq!(numbers.len(), expected);
            numbers.sort_unstable();
            numbers.dedup();
            prop_assert_eq!(numbers.len(), expected, "{}", layers);
        }
    }

    #[test]
    fn masks_of_an_lstm_and_of_a_dropout_layer_behind_it_agree_by_chance_only() {
        let layers = "[{ type = \"lstm\", hidden_size = 6, num_layers = 3, dropout = 0.5, return_sequences = true }, \
                       { type = \"dropout\" }]";
        let (numbers, _) = streams(layers);
        assert_eq!(numbers.len(), 3);
        const LEN: usize = 16_384;
        let mode = Mode::Train { seed: 42, step: 7, first: 0, share: 1.0 };
        let masks = numbers.iter().map(|number| {
            let mut keep = vec![0; LEN];
            fill_keep(&mode.stream(3, *number).unwrap(), 0.5, &mut keep);
            keep
        });
        let masks: Vec<_> = masks.collect();
        for (a, b) in [(0, 1), (0, 2), (1, 2)] {
            let agree = masks[a].iter().zip(&masks[b]).filter(|(a, b)| a == b).count() as f64;
            // Five standard deviations of a fair coin.
            assert!(
                (agree - LEN as f64 / 2.0).abs() < 2.5 * (LEN as f64).sqrt(),
                "masks {a} and {b}: {agree} of {LEN}"
            );
        }
    }

    #[test]
    fn layers_side_by_side_have_their_places_as_numbers() {
        let layers = [("tanh", ""), ("dropout", ""), ("tanh", ""), ("dropout", "")];
        let layers = layers.map(|(kind, keys)| Component::new(kind, keys).unwrap());
        let (input, numbers) = (Shape::Vector { n: 3 }, Numbers::default());
        let place = Place { input, m: 2, number: 0, numbers: &numbers, precision: Default::default() };
        let stack = Stack::<f32>::build(&layers, place, "").unwrap();
        let numbers: Vec<_> = stack.plans().flat_map(|(_, _, _, plan)| plan.streams.clone()).collect();
        assert_eq!(numbers, [1, 3]);
    }
}
