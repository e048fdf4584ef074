//! `conv2d`: cross-correlation with W (out, in, kh, kw) plus b (out), as torch.nn.Conv2d.

use super::chain::Chain;
use super::registry::{Entry, Example, Place, check_size, wrong_input};
use super::{Backward, Forward, Initial, Layer, Op, Plan, Step};
use crate::arena::Storage;
use crate::config::Component;
use crate::error::Result;
use crate::kernel::view::{images, images_mut};
use crate::kernel::{Conv, ConvGradients, Real, Weight, Window};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use std::ops::Range;

pub(super) const ENTRY: Entry = Entry {
    name: "conv2d",
    about: "2-D cross-correlation of an image",
    keys: "out_channels, kernel_size, stride = 1, padding = 0 (or \"same\", \"valid\"), dilation = 1, groups = 1, bias = true \
           (sizes: one number or [height, width])",
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
        Example {
            keys: "out_channels = 4\nkernel_size = [2, 3]\npadding = \"same\"\ndilation = [3, 2]\ngroups = 2",
            input: Shape::Image { c: 4, h: 5, w: 6 },
        },
        Example {
            keys: "out_channels = 3\nkernel_size = 3\nstride = 2\npadding = 1\ngroups = 3",
            input: Shape::Image { c: 3, h: 6, w: 5 },
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

/// The window of a convolution or pooling over `place.input`, checked: as `asked`, with the input's sizes, and as many output
/// channels as input channels where none are given.
pub(super) fn window(component: &Component, place: Place<'_>, outputs: Option<usize>, asked: Window) -> Result<Window> {
    let Shape::Image { c, h, w } = place.input else {
        return Err(wrong_input(component, place.input, "an image", "use it before flatten, on data with images"));
    };
    let window = Window { c, h, w, o: outputs.unwrap_or(c), ..asked };
    let Window { kernel, stride, padding, extra, dilation, .. } = window;
    let sizes = [("kernel_size", kernel), ("stride", stride), ("dilation", dilation), ("out_channels", (window.o, 1))];
    if let Some((key, _)) = sizes.into_iter().find(|(_, size)| size.0 == 0 || size.1 == 0) {
        return Err(component.error(key, "is 0", "give at least 1"));
    }
    let fits = |size: usize, kernel: usize, padding: usize, extra: usize, dilation: usize| {
        let reach = (kernel - 1).checked_mul(dilation).and_then(|reach| reach.checked_add(1));
        let padded = padding.checked_mul(2).and_then(|p| p.checked_add(size + extra));
        reach.zip(padded).is_some_and(|(reach, padded)| reach <= padded && padding <= 4096)
    };
    if !fits(h, kernel.0, padding.0, extra.0, dilation.0) || !fits(w, kernel.1, padding.1, extra.1, dilation.1) {
        let spread = if dilation == (1, 1) { String::new() } else { format!(" of dilation {dilation:?}") };
        let (kh, kw) = kernel;
        let what = format!("a {kh}x{kw} kernel{spread} does not fit its {h}x{w} input with padding {padding:?}");
        return Err(component.error(
            "kernel_size",
            what,
            "use a smaller kernel, more padding or fewer poolings before it",
        ));
    }
    Ok(window)
}

/// A size, or a rule for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged, expecting = "is no padding: give one number of at least 0, [height, width], \"same\" or \"valid\"")]
enum Padding {
    Size(Pair),
    Rule(Rule),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Rule {
    /// As many zeros as keep the size; the odd one at the bottom and at the right, as in torch.
    Same,
    /// None.
    Valid,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Keys {
    out_channels: usize,
    kernel_size: Pair,
    #[serde(default = "one")]
    stride: Pair,
    #[serde(default = "none")]
    padding: Padding,
    #[serde(default = "one")]
    dilation: Pair,
    #[serde(default = "one_group")]
    groups: usize,
    #[serde(default = "yes")]
    bias: bool,
}

fn none() -> Padding {
    Padding::Size(zero())
}

fn one_group() -> usize {
    1
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

impl Keys {
    /// The window that the keys ask for, but for its channels.
    fn asked(&self, component: &Component) -> Result<Window> {
        let (kernel, stride, dilation) = (self.kernel_size.get(), self.stride.get(), self.dilation.get());
        let asked = Window { kernel, stride, dilation, groups: self.groups, ..Window::default() };
        match self.padding {
            Padding::Size(padding) => Ok(Window { padding: padding.get(), ..asked }),
            Padding::Rule(Rule::Valid) => Ok(asked),
            Padding::Rule(Rule::Same) if stride != (1, 1) => {
                let mend = "give the padding as a number, or use stride 1";
                Err(component.error("padding", "\"same\" has no meaning with a stride", mend))
            }
            Padding::Rule(Rule::Same) => {
                let total = |taps: usize, distance: usize| taps.saturating_sub(1).saturating_mul(distance);
                let (down, across) = (total(kernel.0, dilation.0), total(kernel.1, dilation.1));
                Ok(Window { padding: (down / 2, across / 2), extra: (down % 2, across % 2), ..asked })
            }
        }
    }
}

struct Conv2d<T> {
    plan: Plan,
    window: Window,
    weight: Range<usize>,
    bias: Option<Range<usize>>,
    /// Most samples of a micro-batch.
    m: usize,
    conv: Box<dyn Conv<T>>,
    /// What follows and is done on the way.
    chain: Option<Chain>,
}

fn build<T: Real>(component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
    let keys: Keys = component.parse()?;
    let window = window(component, place, Some(keys.out_channels), keys.asked(component)?)?;
    let groups = window.groups;
    for (key, channels) in [("groups", window.c), ("out_channels", window.o)] {
        if groups == 0 || !channels.is_multiple_of(groups) {
            let side = if key == "groups" { "in" } else { "out" };
            let what = format!("{channels} {side}put channels are not divisible by {groups} groups");
            return Err(component.error(key, what, "use a number of groups that divides both"));
        }
    }
    let (o, pixels) = (window.o, [place.m, window.out_h(), window.out_w()]);
    check_size::<T>(component, "kernel_size", &[window.c, window.kernel.0, window.kernel.1])?;
    check_size::<T>(component, "padding", &pixels)?;
    check_size::<T>(component, "out_channels", &[o, window.depth().max(pixels.iter().product())])?;
    let mut plan = Plan::new(Op::Conv2d(window), Shape::Image { c: window.o, h: window.out_h(), w: window.out_w() });
    let bound = 1.0 / (window.depth() as f64).sqrt();
    let shape = [window.o, window.c / groups, window.kernel.0, window.kernel.1];
    let weight = plan.parameter("weight", &shape, Storage::Panels, Initial::Uniform(bound));
    let bias = keys.bias.then(|| plan.parameter("bias", &[window.o], Storage::Plain, Initial::Uniform(bound)));
    let conv = T::conv2d(window);
    plan.flops = 2 * (window.out_h() * window.out_w() * window.depth() * window.o) as u64;
    plan.take_needs(conv.needs());
    plan.method = Some(conv.method());
    Ok(Box::new(Conv2d::<T> { plan, window, weight, bias, m: place.m, conv, chain: None }))
}

impl<T: Real> Layer<T> for Conv2d<T> {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn absorb(&mut self, following: &[(Step, usize)]) -> usize {
        let Some(fused) = self.conv.fused() else { return 0 };
        let Some((chain, steps)) = Chain::of(fused, &self.window, self.m, following, &mut self.plan) else { return 0 };
        self.chain = Some(chain);
        steps
    }

    fn prepare(&mut self, params: &[T], packed: &mut [T]) {
        self.conv.prepare(&params[self.weight.clone()], packed);
    }

    fn forward(&mut self, io: Forward<'_, T>) {
        let (input, output) = (self.window.input(), self.window.output());
        let weight = Weight { panels: &io.params[self.weight.clone()], packed: io.packed };
        let bias = self.bias.clone().map(|bias| &io.params[bias]);
        if let (Some(chain), Some(fused)) = (&self.chain, self.conv.fused()) {
            return chain.forward(fused, weight, bias, io);
        }
        self.conv.forward(images(io.m, input, io.x), weight, bias, images_mut(io.m, output, io.y), io.scratch);
    }

    fn backward(&mut self, io: Backward<'_, T>) {
        let (input, output) = (self.window.input(), self.window.output());
        if let (Some(chain), Some(fused)) = (&self.chain, self.conv.fused()) {
            return chain.backward(fused, self.weight.clone(), self.bias.clone(), io);
        }
        let weight = Weight { panels: &io.params[self.weight.clone()], packed: io.packed };
        let (dpanels, dbias) = gradients(self.weight.clone(), self.bias.clone(), io.dparams);
        let gradients = ConvGradients { dx: io.dx.map(|dx| images_mut(io.m, input, dx)), dpanels, dbias };
        let (x, dy) = (images(io.m, input, io.x), images(io.m, output, io.dy));
        self.conv.backward(x, dy, weight, gradients, io.scratch);
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
