//! `avg_pool2d`: the mean of each window, as torch.nn.AvgPool2d.

use super::conv2d::{Pair, window, zero};
use super::max_pool2d::for_each_tap;
use super::registry::{Entry, Example, Place};
use super::{Backward, Forward, Layer, Plan};
use crate::config::Component;
use crate::error::Result;
use crate::kernel::{Real, Window, isa::dispatch};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

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
    let window = window(component, place, None, keys.kernel_size, stride, keys.padding)?;
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
    Ok(Box::new(AvgPool2d { plan: Plan::new(output), window, weights }))
}

dispatch! {
    fn forward<T>(window: &Window, m: usize, x: &[T], y: &mut [T], weights: &[T]) {
        let c = window.c;
        y.fill(T::ZERO);
        for_each_tap(window, m, |output, input, _| {
            let weight = weights[output % weights.len()];
            for (x, y) in x[input * c..][..c].iter().zip(&mut y[output * c..][..c]) {
                *y += weight * *x;
            }
        });
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
        forward(&self.window, io.m, io.x, io.y, &self.weights);
    }

    fn backward(&mut self, io: Backward<'_, T>) {
        if let Some(dx) = io.dx {
            backward(&self.window, io.m, io.dy, dx, &self.weights);
        }
    }
}
