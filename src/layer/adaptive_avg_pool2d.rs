//! `adaptive_avg_pool2d`: means over an even cut of the image into output_size parts, as torch.nn.AdaptiveAvgPool2d;
//! `global_avg_pool2d` is the same with one part.

use super::avg_pool2d::weighted_sum;
use super::conv2d::Pair;
use super::registry::{Entry, Example, Place, wrong_input};
use super::{Backward, Forward, Layer, Op, Plan};
use crate::config::Component;
use crate::error::Result;
use crate::kernel::{Real, isa::dispatch};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use std::ops::Range;

pub(super) const ENTRY: Entry = Entry {
    name: "adaptive_avg_pool2d",
    about: "means of an image cut evenly into output_size parts",
    keys: "output_size (one number or [height, width])",
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build_f32: build,
    build_f64: build,
    examples: &[
        Example { keys: "output_size = 2", input: Shape::Image { c: 3, h: 4, w: 5 } },
        Example { keys: "output_size = [3, 1]", input: Shape::Image { c: 2, h: 5, w: 6 } },
    ],
};

pub(super) const ENTRY_GLOBAL: Entry = Entry {
    name: "global_avg_pool2d",
    about: "the mean of each channel of an image: C×1×1",
    keys: "",
    resolve: |component| Ok(component.resolve::<NoKeys>()?.1),
    build_f32: build_global,
    build_f64: build_global,
    examples: &[Example { keys: "", input: Shape::Image { c: 3, h: 4, w: 5 } }],
};

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    output_size: Pair,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoKeys {}

/// A larger output is taken for a mistake, unless the image is as large.
const MOST_SIZE: usize = 4096;

/// Bins of pixels and the image they cut.
#[derive(Clone, Copy)]
struct Bins {
    c: usize,
    h: usize,
    w: usize,
    out_h: usize,
    out_w: usize,
}

struct AdaptiveAvgPool2d {
    plan: Plan,
    bins: Bins,
}

fn build<T: Real>(component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
    let keys: Keys = component.parse()?;
    with_size(component, place, keys.output_size)
}

fn build_global<T: Real>(component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
    component.parse::<NoKeys>()?;
    with_size(component, place, Pair::Both(1))
}

fn with_size<T: Real>(component: &Component, place: Place<'_>, size: Pair) -> Result<Box<dyn Layer<T>>> {
    let Shape::Image { c, h, w } = place.input else {
        return Err(wrong_input(component, place.input, "an image", "use it before flatten, on data with images"));
    };
    let (out_h, out_w) = size.get();
    // Larger than the image is right: torch's bins then overlap.
    let most = MOST_SIZE.max(h).max(w);
    if out_h == 0 || out_w == 0 || out_h > most || out_w > most {
        let what = format!("{out_h}x{out_w} of a {h}x{w} image");
        return Err(component.error("output_size", what, format!("give 1 to {most}")));
    }
    let plan = Plan::new(Op::AdaptiveAvgPool2d((out_h, out_w)), Shape::Image { c, h: out_h, w: out_w });
    Ok(Box::new(AdaptiveAvgPool2d { plan, bins: Bins { c, h, w, out_h, out_w } }))
}

/// The `index`-th of `parts` parts of 0..size, as torch cuts: from ⌊i·size/parts⌋ to ⌈(i+1)·size/parts⌉.
fn part(index: usize, parts: usize, size: usize) -> Range<usize> {
    index * size / parts..((index + 1) * size).div_ceil(parts)
}

/// Calls `visit(output pixel, input pixel, 1 / pixels of the bin)`.
#[inline(always)]
fn for_each_pixel(bins: &Bins, m: usize, mut visit: impl FnMut(usize, usize, f64)) {
    for image in 0..m {
        for oh in 0..bins.out_h {
            for ow in 0..bins.out_w {
                let (rows, columns) = (part(oh, bins.out_h, bins.h), part(ow, bins.out_w, bins.w));
                let weight = 1.0 / (rows.len() * columns.len()) as f64;
                for ih in rows {
                    for iw in columns.clone() {
                        let output = (image * bins.out_h + oh) * bins.out_w + ow;
                        visit(output, (image * bins.h + ih) * bins.w + iw, weight);
                    }
                }
            }
        }
    }
}

dispatch! {
    fn forward<T>(bins: &Bins, x: &[T], y: &mut [T]) {
        let Bins { c, h, w, out_h, out_w } = *bins;
        for (x, y) in x.chunks_exact(h * w * c).zip(y.chunks_exact_mut(out_h * out_w * c)) {
            for (output, y) in y.chunks_exact_mut(c).enumerate() {
                let (rows, columns) = (part(output / out_w, out_h, h), part(output % out_w, out_w, w));
                let weight = T::of(1.0 / (rows.len() * columns.len()) as f64);
                weighted_sum(x, rows, columns, w, weight, y);
            }
        }
    }
}

dispatch! {
    fn backward<T>(bins: &Bins, m: usize, dy: &[T], dx: &mut [T]) {
        let c = bins.c;
        dx.fill(T::ZERO);
        for_each_pixel(bins, m, |output, input, weight| {
            let weight = T::of(weight);
            for (dy, dx) in dy[output * c..][..c].iter().zip(&mut dx[input * c..][..c]) {
                *dx += weight * *dy;
            }
        });
    }
}

impl<T: Real> Layer<T> for AdaptiveAvgPool2d {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn forward(&mut self, io: Forward<'_, T>) {
        forward(&self.bins, io.x, io.y);
    }

    fn backward(&mut self, io: Backward<'_, T>) {
        if let Some(dx) = io.dx {
            backward(&self.bins, io.m, io.dy, dx);
        }
    }
}
