//! `max_pool2d`: the largest of each window, as torch.nn.MaxPool2d. Padding counts as minus infinity.

use super::conv2d::{Pair, window, zero};
use super::registry::{Entry, Example, Place};
use super::{Backward, Forward, Layer, Op, Plan, Step};
use crate::config::Component;
use crate::error::Result;
use crate::kernel::{Real, Window, isa::dispatch};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};

pub(super) const ENTRY: Entry = Entry {
    name: "max_pool2d",
    about: "the largest of each window of an image",
    keys: "kernel_size, stride = kernel_size, padding = 0",
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build_f32: build,
    build_f64: build,
    examples: &[
        Example { keys: "kernel_size = 2", input: Shape::Image { c: 3, h: 4, w: 5 } },
        Example { keys: "kernel_size = 3\nstride = 2\npadding = 1", input: Shape::Image { c: 2, h: 5, w: 6 } },
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
}

struct MaxPool2d {
    plan: Plan,
    window: Window,
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
    if kernel.0 * kernel.1 > 256 {
        let what = format!("a {}x{} window has more than 256 taps", kernel.0, kernel.1);
        return Err(component.error("kernel_size", what, "pool in two layers"));
    }
    let output = Shape::Image { c: window.c, h: window.out_h(), w: window.out_w() };
    let mut plan = Plan::new(Op::MaxPool2d(window), output);
    plan.step = (kernel == (2, 2) && window.stride == (2, 2) && padding == (0, 0)).then_some(Step::MaxPool);
    // A byte an output: which tap was the largest.
    plan.cache = (place.m * output.len()).div_ceil(size_of::<T>());
    Ok(Box::new(MaxPool2d { plan, window }))
}

/// Calls `visit(output pixel, input pixel, tap)` for the taps inside the image, in order, for one output row of windows.
#[inline(always)]
pub(super) fn for_each_tap(window: &Window, m: usize, mut visit: impl FnMut(usize, usize, usize)) {
    let (out_h, out_w) = (window.out_h(), window.out_w());
    for image in 0..m {
        for oh in 0..out_h {
            for ow in 0..out_w {
                let output = (image * out_h + oh) * out_w + ow;
                for kh in 0..window.kernel.0 {
                    let ih = (oh * window.stride.0 + kh).wrapping_sub(window.padding.0);
                    if ih >= window.h {
                        continue;
                    }
                    for kw in 0..window.kernel.1 {
                        let iw = (ow * window.stride.1 + kw).wrapping_sub(window.padding.1);
                        if iw < window.w {
                            visit(output, (image * window.h + ih) * window.w + iw, kh * window.kernel.1 + kw);
                        }
                    }
                }
            }
        }
    }
}

dispatch! {
    fn forward<T>(window: &Window, m: usize, x: &[T], y: &mut [T], largest: &mut [u8]) {
        let c = window.c;
        let mut last = usize::MAX;
        for_each_tap(window, m, |output, input, tap| {
            let (x, y) = (&x[input * c..][..c], &mut y[output * c..][..c]);
            let largest = &mut largest[output * c..][..c];
            if output != last {
                last = output;
                y.copy_from_slice(x);
                largest.fill(tap as u8);
                return;
            }
            for ((x, y), largest) in x.iter().zip(y).zip(largest) {
                // NaN (equal to nothing) wins, as in torch.
                let wins = x > y || x.partial_cmp(x).is_none();
                *y = if wins { *x } else { *y };
                *largest = if wins { tap as u8 } else { *largest };
            }
        });
    }
}

dispatch! {
    fn backward<T>(window: &Window, m: usize, dy: &[T], dx: &mut [T], largest: &[u8]) {
        let c = window.c;
        dx.fill(T::ZERO);
        for_each_tap(window, m, |output, input, tap| {
            let (dy, dx) = (&dy[output * c..][..c], &mut dx[input * c..][..c]);
            for ((dy, dx), largest) in dy.iter().zip(dx).zip(&largest[output * c..][..c]) {
                *dx += if *largest == tap as u8 { *dy } else { T::ZERO };
            }
        });
    }
}

impl<T: Real> Layer<T> for MaxPool2d {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn forward(&mut self, io: Forward<'_, T>) {
        forward(&self.window, io.m, io.x, io.y, bytemuck::cast_slice_mut(io.cache));
    }

    fn backward(&mut self, io: Backward<'_, T>) {
        if let Some(dx) = io.dx {
            backward(&self.window, io.m, io.dy, dx, bytemuck::cast_slice(io.cache));
        }
    }
}
