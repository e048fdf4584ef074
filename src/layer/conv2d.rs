//! `conv2d`: cross-correlation with W (out, in, kh, kw) plus b (out), as torch.nn.Conv2d.

use super::chain::Chain;
use super::registry::{Entry, Example, Place, check_size, wrong_input};
use super::{Backward, Forward, Initial, Layer, Plan, Step};
use crate::arena::Storage;
use crate::config::Component;
use crate::error::Result;
use crate::kernel::{Real, Window};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use std::ops::Range;

pub(super) const ENTRY: Entry = Entry {
    name: "conv2d",
    about: "2-D cross-correlation of an image",
    keys: "out_channels, kernel_size, stride = 1, padding = 0, bias = true (sizes: one number or [height, width])",
    resolve: |component| Ok(component.resolve::<Keys>()?.1),
    build_f32: build,
    build_f64: build,
    examples: &[
        Example { keys: "out_channels = 3\nkernel_size = 3\npadding = 1", input: Shape::Image { c: 2, h: 5, w: 4 } },
        Example {
            keys: "out_channels = 2\nkernel_size = 5\nstride = 2\npadding = 2",
            input: Shape::Image { c: 3, h: 7, w: 6 },
        },
        Example {
            keys: "out_channels = 4\nkernel_size = [3, 2]\nstride = [2, 1]\npadding = [0, 1]\nbias = false",
            input: Shape::Image { c: 1, h: 6, w: 5 },
        },
    ],
};

/// One number for both directions, or [height, width].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "is no size: give one number of at least 0, or [height, width]")]
pub(super) enum Pair {
    Both(usize),
    Each([usize; 2]),
}

impl Pair {
    pub(super) fn get(self) -> (usize, usize) {
        match self {
            Pair::Both(size) => (size, size),
            Pair::Each([height, width]) => (height, width),
        }
    }
}

/// The window of a convolution or pooling over `place.input`, checked.
pub(super) fn window(
    component: &Component,
    place: Place<'_>,
    outputs: Option<usize>,
    kernel: Pair,
    stride: Pair,
    padding: Pair,
) -> Result<Window> {
    let Shape::Image { c, h, w } = place.input else {
        return Err(wrong_input(component, place.input, "an image", "use it before flatten, on data with images"));
    };
    let window =
        Window { c, h, w, o: outputs.unwrap_or(c), kernel: kernel.get(), stride: stride.get(), padding: padding.get() };
    if window.o == 0 {
        return Err(component.error("out_channels", "is 0", "give at least 1"));
    }
    if window.kernel.0 == 0 || window.kernel.1 == 0 {
        return Err(component.error("kernel_size", "is 0", "give at least 1"));
    }
    if window.stride.0 == 0 || window.stride.1 == 0 {
        return Err(component.error("stride", "is 0", "give at least 1"));
    }
    let fits = |size: usize, kernel: usize, padding: usize| {
        padding
            .checked_mul(2)
            .and_then(|p| p.checked_add(size))
            .is_some_and(|padded| kernel <= padded && padding <= 4096)
    };
    if !fits(h, window.kernel.0, window.padding.0) || !fits(w, window.kernel.1, window.padding.1) {
        let (kh, kw) = window.kernel;
        let what = format!("a {kh}x{kw} kernel does not fit its {h}x{w} input with padding {:?}", window.padding);
        return Err(component.error(
            "kernel_size",
            what,
            "use a smaller kernel, more padding or fewer poolings before it",
        ));
    }
    Ok(window)
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    out_channels: usize,
    kernel_size: Pair,
    #[serde(default = "one")]
    stride: Pair,
    #[serde(default = "zero")]
    padding: Pair,
    #[serde(default = "yes")]
    bias: bool,
}

fn one() -> Pair {
    Pair::Both(1)
}

pub(super) fn zero() -> Pair {
    Pair::Both(0)
}

fn yes() -> bool {
    true
}

struct Conv2d<T: 'static> {
    plan: Plan,
    window: Window,
    weight: Range<usize>,
    bias: Option<Range<usize>>,
    /// Most samples of a micro-batch.
    m: usize,
    /// What follows and is done on the way.
    chain: Option<Chain<T>>,
}

fn build<T: Real>(component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
    let keys: Keys = component.parse()?;
    let window = window(component, place, Some(keys.out_channels), keys.kernel_size, keys.stride, keys.padding)?;
    let (o, pixels) = (window.o, [place.m, window.out_h(), window.out_w()]);
    check_size::<T>(component, "kernel_size", &[window.c, window.kernel.0, window.kernel.1])?;
    check_size::<T>(component, "padding", &pixels)?;
    check_size::<T>(component, "out_channels", &[o, window.depth().max(pixels.iter().product())])?;
    let mut plan = Plan::new(Shape::Image { c: window.o, h: window.out_h(), w: window.out_w() });
    let bound = 1.0 / (window.depth() as f64).sqrt();
    let shape = [window.o, window.c, window.kernel.0, window.kernel.1];
    let weight = plan.parameter("weight", &shape, Storage::Panels, Initial::Uniform(bound));
    let bias = keys.bias.then(|| plan.parameter("bias", &[window.o], Storage::Plain, Initial::Uniform(bound)));
    let needs = T::conv2d_needs(&window);
    (plan.packed, plan.scratch) = (needs.packed, needs.scratch);
    plan.flops = 2 * (window.out_h() * window.out_w() * window.depth() * window.o) as u64;
    plan.work = needs.work;
    Ok(Box::new(Conv2d::<T> { plan, window, weight, bias, m: place.m, chain: None }))
}

impl<T: Real> Layer<T> for Conv2d<T> {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn absorb(&mut self, following: &[(Step, usize)]) -> usize {
        let Some((chain, steps)) = Chain::of(&self.window, self.m, following, &mut self.plan) else { return 0 };
        self.chain = Some(chain);
        steps
    }

    fn prepare(&mut self, params: &[T], packed: &mut [T]) {
        T::conv2d_prepare(&self.window, &params[self.weight.clone()], packed);
    }

    fn forward(&mut self, io: Forward<'_, T>) {
        let bias = self.bias.clone().map(|bias| &io.params[bias]);
        let panels = &io.params[self.weight.clone()];
        match &self.chain {
            Some(chain) => chain.forward(&self.window, panels, bias, io),
            None => T::conv2d_forward(&self.window, io.m, io.x, panels, io.packed, bias, io.y, io.scratch),
        }
    }

    fn backward(&mut self, io: Backward<'_, T>) {
        if let Some(chain) = &self.chain {
            return chain.backward(&self.window, self.weight.clone(), self.bias.clone(), io);
        }
        let panels = &io.params[self.weight.clone()];
        let (dpanels, dbias) = gradients(self.weight.clone(), self.bias.clone(), io.dparams);
        T::conv2d_backward(&self.window, io.m, io.x, io.dy, panels, io.packed, io.dx, dpanels, dbias, io.scratch);
    }
}

/// The weight's and the bias's part of a convolution's gradient.
pub(super) fn gradients<T>(
    weight: Range<usize>,
    bias: Option<Range<usize>>,
    dparams: &mut [T],
) -> (&mut [T], Option<&mut [T]>) {
    match bias {
        Some(bias) => {
            let (weight_part, bias_part) = dparams.split_at_mut(bias.start);
            (&mut weight_part[weight], Some(&mut bias_part[..bias.len()]))
        }
        None => (&mut dparams[weight], None),
    }
}
