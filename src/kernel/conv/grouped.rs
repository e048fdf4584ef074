//! Convolutions of several groups of channels for f32: each group's channels of an image are copied together, and its
//! convolution is one of its own, by whatever method suits it.

use super::{Conv, ConvGradients, Window};
use crate::kernel::column_sum::column_sums;
use crate::kernel::view::{Images, ImagesMut, images, images_mut, rows};
use crate::kernel::{Isa, Needs, Weight, panel_index, panels_len};

pub(super) struct Grouped {
    isa: Isa,
    window: Window,
    /// That of a group.
    conv: Box<dyn Conv<f32>>,
}

/// The parts of the scratch.
struct Parts<'a> {
    x: &'a mut [f32],
    y: &'a mut [f32],
    dx: &'a mut [f32],
    /// A group's gradient of its weights.
    dpanels: &'a mut [f32],
    /// The group's own.
    rest: &'a mut [f32],
}

impl Grouped {
    pub(super) fn new(isa: Isa, window: Window, conv: Box<dyn Conv<f32>>) -> Self {
        Self { isa, window, conv }
    }

    /// Elements of a group's weights as panels, and as packed.
    fn lens(&self) -> (usize, usize) {
        (panels_len(self.window.depth(), self.window.o / self.window.groups), self.conv.needs().packed)
    }

    /// Elements of a group's input and output of an image.
    fn sizes(&self) -> (usize, usize) {
        let group = self.window.of_group();
        (group.h * group.w * group.c, group.out_h() * group.out_w() * group.o)
    }

    fn parts<'a>(&self, scratch: &'a mut [f32]) -> Parts<'a> {
        let (input, output) = self.sizes();
        let (x, rest) = scratch.split_at_mut(input);
        let (y, rest) = rest.split_at_mut(output);
        let (dx, rest) = rest.split_at_mut(input);
        let (dpanels, rest) = rest.split_at_mut(self.lens().0);
        Parts { x, y, dx, dpanels, rest }
    }

    /// A group's weights.
    fn weight<'a>(&self, group: usize, packed: &'a [f32]) -> Weight<'a, f32> {
        let (panels, own) = self.lens();
        let (panels, packed) = packed[group * (panels + own)..][..panels + own].split_at(panels);
        Weight { panels, packed }
    }
}

/// Copies the channels of a group out of pixels of all.
fn take(group: usize, all: usize, from: &[f32], to: &mut [f32]) {
    let n = to.len() / (from.len() / all);
    for (from, to) in from.chunks_exact(all).zip(to.chunks_exact_mut(n)) {
        to.copy_from_slice(&from[group * n..][..n]);
    }
}

/// Copies the channels of a group back.
fn give(group: usize, all: usize, from: &[f32], to: &mut [f32]) {
    let n = from.len() / (to.len() / all);
    for (from, to) in from.chunks_exact(n).zip(to.chunks_exact_mut(all)) {
        to[group * n..][..n].copy_from_slice(from);
    }
}

impl Conv<f32> for Grouped {
    fn method(&self) -> &'static str {
        "f32 by group"
    }

    fn needs(&self) -> Needs {
        let ((panels, own), (input, output)) = (self.lens(), self.sizes());
        Needs {
            packed: self.window.groups * (panels + own),
            scratch: 2 * input + output + panels + self.conv.needs().scratch,
            work: None,
        }
    }

    fn prepare(&self, panels: &[f32], packed: &mut [f32]) {
        let (len, own) = self.lens();
        let (depth, o) = (self.window.depth(), self.window.o / self.window.groups);
        for (group, packed) in packed.chunks_exact_mut((len + own).max(1)).take(self.window.groups).enumerate() {
            let (to, packed) = packed.split_at_mut(len);
            to.fill(0.0);
            for (k, column) in (0..depth).flat_map(|k| (0..o).map(move |column| (k, column))) {
                to[panel_index(depth, k, column)] = panels[panel_index(depth, k, group * o + column)];
            }
            self.conv.prepare(to, packed);
        }
    }

    fn forward(
        &self,
        x: Images<'_, f32>,
        weight: Weight<'_, f32>,
        bias: Option<&[f32]>,
        mut y: ImagesMut<'_, f32>,
        scratch: &mut [f32],
    ) {
        let (group, parts, o) = (self.window.of_group(), self.parts(scratch), self.window.o);
        for (x, mut y) in x.outer_iter().zip(y.outer_iter_mut()) {
            let (x, y) = (x.to_slice().expect("images lie dense"), y.as_slice_mut().expect("images lie dense"));
            for index in 0..self.window.groups {
                take(index, self.window.c, x, parts.x);
                let bias = bias.map(|bias| &bias[index * group.o..][..group.o]);
                let (weight, to) = (self.weight(index, weight.packed), images_mut(1, group.output(), parts.y));
                self.conv.forward(images(1, group.input(), parts.x), weight, bias, to, parts.rest);
                give(index, o, parts.y, y);
            }
        }
    }

    fn backward(
        &self,
        x: Images<'_, f32>,
        dy: Images<'_, f32>,
        weight: Weight<'_, f32>,
        gradients: ConvGradients<'_, f32>,
        scratch: &mut [f32],
    ) {
        let (group, parts, depth) = (self.window.of_group(), self.parts(scratch), self.window.depth());
        let ConvGradients { mut dx, dpanels, dbias } = gradients;
        let [x, dy] = [x, dy].map(|images| images.to_slice().expect("images lie dense"));
        let mut dx = dx.as_mut().map(|dx| dx.as_slice_mut().expect("images lie dense"));
        if let Some(dbias) = dbias {
            column_sums(self.isa, rows(dy.len() / self.window.o, self.window.o, dy), true, dbias);
        }
        let (input, output) = self.sizes();
        let (input, output) = (input * self.window.groups, output * self.window.groups);
        for index in 0..self.window.groups {
            parts.dpanels.fill(0.0);
            for (image, (x, dy)) in x.chunks_exact(input).zip(dy.chunks_exact(output)).enumerate() {
                take(index, self.window.c, x, parts.x);
                take(index, self.window.o, dy, parts.y);
                let to = dx.is_some().then(|| images_mut(1, group.input(), parts.dx));
                let gradients = ConvGradients { dx: to, dpanels: parts.dpanels, dbias: None };
                let (x, dy) = (images(1, group.input(), parts.x), images(1, group.output(), parts.y));
                self.conv.backward(x, dy, self.weight(index, weight.packed), gradients, parts.rest);
                if let Some(dx) = &mut dx {
                    give(index, self.window.c, parts.dx, &mut dx[image * input..][..input]);
                }
            }
            for (k, column) in (0..depth).flat_map(|k| (0..group.o).map(move |column| (k, column))) {
                let to = panel_index(depth, k, index * group.o + column);
                dpanels[to] += parts.dpanels[panel_index(depth, k, column)];
            }
        }
    }
}
