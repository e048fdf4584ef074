//! `avg_pool2d`: the mean of each window, as torch.nn.AvgPool2d.

use super::conv2d::{Pair, window, zero};
use super::max_pool2d::for_each_tap;
use super::registry::{Entry, Example, Place};
use super::{Backward, Forward, Layer, Op, Plan};
use crate::config::Component;
use crate::error::Result;
use crate::kernel::{Real, Window, isa::dispatch};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use std::ops::Range;

pub(super) const ENTRY: Entry = Entry {
    name: "avg_pool2d",
    about: "the mean of each window of an image",
    keys: "kernel_size, stride = kernel_size, padding = 0, count_include_pad = true",
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build_f32: build,
    build_f64: build,
    examples: &[
        Example { keys: "kernel_size = 2", input: Shape::Image { c: 3, h: 4, w: 5 } },
        Example {
            keys: "kernel_size = 3\nstride = 2\npadding = 1\ncount_include_pad = false",
            input: Shape::Image { c: 2, h: 5, w: 6 },
        },
    ],
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    kernel_size: Pair,
    #[serde(skip_serializing_if = "Option::is_none")]
    stride: Option<Pair>,
    #[serde(default = "zero")]
    padding: Pair,
    #[serde(default = "yes")]
    count_include_pad: bool,
}

fn yes() -> bool {
    true
}

struct AvgPool2d<T> {
    plan: Plan,
    window: Window,
    /// One over the number of elements averaged, for each output pixel of an image.
    weights: Vec<T>,
}

fn build<T: Real>(component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
    let keys: Keys = component.parse()?;
    let stride = keys.stride.unwrap_or(keys.kernel_size);
    let (kernel, stride, padding) = (keys.kernel_size.get(), stride.get(), keys.padding.get());
    let window = window(component, place, None, Window { kernel, stride, padding, ..Window::default() })?;
    let (kernel, padding) = (window.kernel, window.padding);
    if padding.0 * 2 > kernel.0 || padding.1 * 2 > kernel.1 {
        let what = format!("{padding:?} is more than half of the kernel {kernel:?}");
        return Err(component.error("padding", what, "use at most half of kernel_size, as in torch"));
    }
    let mut counts = vec![0usize; window.out_h() * window.out_w()];
    for_each_tap(&window, 1, |output, _, _| counts[output] += 1);
    if keys.count_include_pad {
        counts.fill(kernel.0 * kernel.1);
    }
    let weights = counts.into_iter().map(|count| T::of(1.0 / count as f64)).collect();
    let output = Shape::Image { c: window.c, h: window.out_h(), w: window.out_w() };
    let op = Op::AvgPool2d { window, count_include_pad: keys.count_include_pad };
    Ok(Box::new(AvgPool2d { plan: Plan::new(op, output), window, weights }))
}

/// Channels whose sums stay in registers.
const LANES: usize = 32;

/// Sums the pixels of an image in `rows` and `columns`, `w` wide and of `c` channels, row by row, so that long sums stay
/// exact, and writes `weight` times that.
#[inline(always)]
pub(super) fn weighted_sum<T: Real>(
    x: &[T],
    rows: Range<usize>,
    columns: Range<usize>,
    w: usize,
    weight: T,
    y: &mut [T],
) {
    let c = y.len();
    for (first, y) in (0..c).step_by(LANES).zip(y.chunks_mut(LANES)) {
        let mut totals = [T::ZERO; LANES];
        for row in rows.clone() {
            let mut sums = [T::ZERO; LANES];
            for column in columns.clone() {
                let values = &x[(row * w + column) * c + first..][..y.len()];
                if let Ok(values) = <&[T; LANES]>::try_from(values) {
                    for lane in 0..LANES {
                        sums[lane] += values[lane];
                    }
                } else {
                    for (sum, value) in sums.iter_mut().zip(values) {
                        *sum += *value;
                    }
                }
            }
            for lane in 0..LANES {
                totals[lane] += sums[lane];
            }
        }
        for (y, total) in y.iter_mut().zip(totals) {
            *y = weight * total;
        }
    }
}

/// The part of a window inside the image, along one axis.
fn inside(output: usize, stride: usize, padding: usize, kernel: usize, size: usize) -> Range<usize> {
    let first = output * stride;
    first.saturating_sub(padding)..(first + kernel).saturating_sub(padding).min(size)
}

dispatch! {
    fn forward<T>(window: &Window, x: &[T], y: &mut [T], weights: &[T]) {
        let Window { c, h, w, kernel, stride, padding, .. } = *window;
        let (out_w, image) = (window.out_w(), h * w * c);
        for (x, y) in x.chunks_exact(image).zip(y.chunks_exact_mut(weights.len() * c)) {
            for (output, y) in y.chunks_exact_mut(c).enumerate() {
                let rows = inside(output / out_w, stride.0, padding.0, kernel.0, h);
                let columns = inside(output % out_w, stride.1, padding.1, kernel.1, w);
                weighted_sum(x, rows, columns, w, weights[output], y);
            }
        }
    }
}

dispatch! {
    fn backward<T>(window: &Window, m: usize, dy: &[T], dx: &mut [T], weights: &[T]) {
        let c = window.c;
        dx.fill(T::ZERO);
        for_each_tap(window, m, |output, input, _| {
            let weight = weights[output % weights.len()];
            for (dy, dx) in dy[output * c..][..c].iter().zip(&mut dx[input * c..][..c]) {
                *dx += weight * *dy;
            }
        });
    }
}

impl<T: Real> Layer<T> for AvgPool2d<T> {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn forward(&mut self, io: Forward<'_, T>) {
        forward(&self.window, io.x, io.y, &self.weights);
    }

    fn backward(&mut self, io: Backward<'_, T>) {
        if let Some(dx) = io.dx {
            backward(&self.window, io.m, io.dy, dx, &self.weights);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::{Mode, Onto, Pass, Stack};
    use crate::rng::{Numbers, Purpose, Stream};
    use rand::RngCore;

    /// The outputs and the gradients of all parameters of one layer in f32 and the same in f64, of 3 channels of 224 × 224.
    fn off(kind: &str, keys: &str) -> f64 {
        let input = Shape::Image { c: 3, h: 224, w: 224 };
        let component = Component::new(kind, keys).unwrap();
        let numbers = Numbers::default();
        let place = Place { input, m: 1, number: 0, numbers: &numbers, precision: Default::default() };
        let layers = [component];
        let mut single = Stack::<f32>::build(&layers, place, "").unwrap();
        let mut double = Stack::<f64>::build(&layers, place, "").unwrap();
        let mut stream = Stream::new(3, Purpose::Synthetic, 0, 0);
        let mut filled = |n: usize| (0..n).map(|_| (stream.next_u32() >> 8) as f32 / 1e7).collect::<Vec<f32>>();
        let wide = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
        let (params, x, dy) = (filled(single.layout().len()), filled(input.len()), filled(single.output().len()));
        let (mut grads, mut wide_grads) = (vec![0.0; params.len()], vec![0.0; params.len()]);
        let mode = Mode::Train { seed: 1, step: 1, first: 0, share: 1.0 };
        let states = single.state_layout().len();
        single.x(1).copy_from_slice(&x);
        double.x(1).copy_from_slice(&wide(&x));
        single.prepare(&params);
        double.prepare(&wide(&params));
        let wide_params = wide(&params);
        let (narrow, broad) = (Pass { m: 1, mode, params: &params }, Pass { m: 1, mode, params: &wide_params });
        single.forward(narrow, &vec![1.0; states], &mut vec![0.0; states]);
        double.forward(broad, &vec![1.0; states], &mut vec![0.0; states]);
        let mut all = vec![(single.y(1).to_vec(), double.y(1).to_vec())];
        single.y_and_dy(1).1.copy_from_slice(&dy);
        double.y_and_dy(1).1.copy_from_slice(&wide(&dy));
        single.backward(narrow, &mut grads, Onto::Add, true, 1, &mut |_| ());
        double.backward(broad, &mut wide_grads, Onto::Add, true, 1, &mut |_| ());
        all.push((single.dx(1).to_vec(), double.dx(1).to_vec()));
        all.extend(single.layout().slots().iter().map(|slot| (slot.read(&grads), slot.read(&wide_grads))));
        let errors = all.iter().map(|(single, double)| {
            let scale = double.iter().fold(f64::MIN_POSITIVE, |most, v| most.max(v.abs()));
            single.iter().zip(double).fold(0.0, |most: f64, (a, b)| most.max((f64::from(*a) - b).abs() / scale))
        });
        errors.fold(0.0, f64::max)
    }

    #[test]
    fn sums_over_large_images_are_those_of_f64() {
        // A norm's dγ is what is left of products of both signs.
        for (kind, keys, most) in [
            ("avg_pool2d", "kernel_size = 224", 2e-6),
            ("avg_pool2d", "kernel_size = 50\nstride = 30\npadding = 20", 2e-6),
            ("adaptive_avg_pool2d", "output_size = [2, 1]", 2e-6),
            ("global_avg_pool2d", "", 2e-6),
            ("conv2d", "out_channels = 5\nkernel_size = 1", 2e-6),
            ("conv2d", "out_channels = 32\nkernel_size = 1", 2e-6),
            ("conv2d", "out_channels = 5\nkernel_size = 3", 2e-6),
            ("batch_norm2d", "", 5e-5),
            ("layer_norm", "", 5e-5),
        ] {
            let off = off(kind, keys);
            assert!(off < most, "{kind} {keys}: off by {off:e}");
        }
    }
}
