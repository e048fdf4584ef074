//! Direct convolution for f32: products whose A is read straight from the image, kernel row by kernel row.
//!
//! Where there is padding, an image is first copied into a frame of zeros in scratch, so that a tile never meets a
//! border. Images are taken one after the other: frame, output and gradients of one stay in L2.

use super::epilogue::{Epilogue, finish_images};
use super::patch::{OUT, Side};
use super::upstream::{Source, gradient_images};
use super::{ConvGradients, Window};
use crate::kernel::column_sum::column_sums;
use crate::kernel::product::tile::{LINE, OuterTile, ProductTile, TileInit, Tiles};
use crate::kernel::product::tiled::{copy_rows, product};
use crate::kernel::transpose::transpose_panels;
use crate::kernel::view::{Images, rows, rows_mut};
use crate::kernel::{Isa, Needs, PANEL, panel_index, panels_len};

/// Output pixels that a weight gradient sums before it adds to memory.
const BLOCK: usize = 256;
/// Runs of a kernel row shorter than this are taken together by tiles with offsets: with fewer rows a tile has too few
/// chains of additions to hide their latency, and goes over dy more often.
const SHORT_RUN: usize = 12;
/// Rows of the largest tile.
const MAX_ROWS: usize = 14;

/// A stride-1-in-memory view of a framed image and the tiles over it.
#[derive(Clone, Copy)]
struct Geometry {
    /// Channels of the framed image.
    c: usize,
    /// Width of the framed image, in pixels.
    w: usize,
    kernel: (usize, usize),
    stride: (usize, usize),
    out_h: usize,
    out_w: usize,
    /// Output channels.
    o: usize,
}

impl Geometry {
    /// The input side: x in its frame, to y.
    fn forward(window: &Window) -> Self {
        let Window { c, o, kernel, stride, .. } = *window;
        Self { c, w: window.padded().1, kernel, stride, out_h: window.out_h(), out_w: window.out_w(), o }
    }

    /// The gradient of the input at stride 1: dy in a frame of kernel - 1 - padding, convolved with the flipped kernel.
    fn data_gradient(window: &Window) -> Self {
        let Window { c, h, w, o, kernel, .. } = *window;
        Self { c: o, w: w + kernel.1 - 1, kernel, stride: (1, 1), out_h: h, out_w: w, o: c }
    }

    /// Contiguous elements under one kernel row.
    fn run(&self) -> usize {
        self.kernel.1 * self.c
    }

    fn depth(&self) -> usize {
        self.kernel.0 * self.run()
    }

    /// First element under output pixel (row, col).
    fn at(&self, row: usize, col: usize) -> usize {
        (row * self.stride.0 * self.w + col * self.stride.1) * self.c
    }

    /// Elements of the framed image that the tiles reach.
    fn reach(&self) -> usize {
        self.at(self.out_h - 1, self.out_w - 1) + (self.kernel.0 - 1) * self.w * self.c + self.run()
    }
}

/// Whether the data gradient is a convolution of framed dy.
fn data_gradient_is_convolution(window: &Window) -> bool {
    let Window { kernel, padding, extra, .. } = *window;
    window.stride == (1, 1) && padding.0 + extra.0 < kernel.0 && padding.1 + extra.1 < kernel.1
}

/// Rows of output pixels in a block: whole tiles of an epilogue.
fn block_rows(window: &Window) -> usize {
    (BLOCK / window.out_w() / OUT * OUT).max(OUT).min(window.out_h())
}

/// The parts of the scratch, in elements.
struct Parts {
    /// x in its frame, if it needs one.
    x: usize,
    /// dy in its frame, or the rows of a block's product, for the data gradient.
    dx: usize,
    /// A block of dy with its channels padded to whole panels, where they are not.
    dy: usize,
    /// A block of the output, when an epilogue follows, or an image of its gradient, when that is made.
    output: usize,
}

impl Parts {
    fn of(window: &Window) -> Self {
        let Window { c, h, w, o, kernel, .. } = *window;
        let block = block_rows(window) * window.out_w();
        let frame = window.padded().0 * window.padded().1 * c;
        Self {
            x: if window.is_padded() { frame } else { 0 },
            dx: if data_gradient_is_convolution(window) {
                (h + kernel.0 - 1) * (w + kernel.1 - 1) * o
            } else {
                block * window.depth()
            },
            dy: if o.is_multiple_of(PANEL) { 0 } else { block * o.next_multiple_of(PANEL) },
            output: window.out_h() * window.out_w() * o,
        }
    }

    fn total(&self) -> usize {
        self.x + self.dx + self.dy + self.output
    }
}

/// Sizes of the buffers; nothing is kept from forward to backward.
pub(super) fn needs(window: &Window) -> Needs {
    let packed = if data_gradient_is_convolution(window) {
        panels_len(window.kernel.0 * window.kernel.1 * window.o, window.c)
    } else {
        panels_len(window.o, window.depth())
    };
    Needs { packed, scratch: Parts::of(window).total(), work: None }
}

/// Weights for the data gradient: flipped, with inputs and outputs exchanged; or just transposed.
pub(super) fn prepare(isa: Isa, window: &Window, panels: &[f32], packed: &mut [f32]) {
    let Window { c, o, kernel, .. } = *window;
    if !data_gradient_is_convolution(window) {
        return transpose_panels(isa, window.depth(), o, panels, packed);
    }
    let taps = kernel.0 * kernel.1;
    let depth = taps * o;
    let packed = &mut packed[..panels_len(depth, c)];
    if !c.is_multiple_of(PANEL) {
        packed.fill(0.0);
    }
    for tap in 0..taps {
        for first in (0..o).step_by(PANEL) {
            for channel in 0..c {
                let from = &panels[panel_index(window.depth(), tap * c + channel, first)..][..PANEL.min(o - first)];
                let to = &mut packed[panel_index(depth, (taps - 1 - tap) * o + first, channel)..];
                for (to, from) in to.iter_mut().step_by(PANEL).zip(from) {
                    *to = *from;
                }
            }
        }
    }
}

/// Copies an image of `h` rows of `row` elements into the middle of a frame of rows of `frame_row` elements.
fn frame(image: &[f32], row: usize, top: usize, left: usize, frame_row: usize, frame: &mut [f32]) {
    for (from, to) in image.chunks_exact(row).zip(frame.chunks_exact_mut(frame_row).skip(top)) {
        to[left..left + row].copy_from_slice(from);
    }
}

/// y = conv(framed x) + bias for one image.
fn convolve(tiles: &Tiles, g: &Geometry, x: &[f32], panels: &[f32], bias: Option<&[f32]>, y: &mut [f32]) {
    assert!(x.len() >= g.reach() && y.len() >= g.out_h * g.out_w * g.o && panels.len() >= panels_len(g.depth(), g.o));
    assert!(bias.is_none_or(|bias| bias.len() >= g.o));
    for col in (0..g.o).step_by(tiles.width()) {
        let b = panels[panel_index(g.depth(), 0, col)..].as_ptr();
        let init = bias.map_or(TileInit::Zero, |bias| TileInit::Bias(bias[col..].as_ptr()));
        for row in 0..g.out_h {
            tiles.split(g.out_w, |first, pixels| {
                let tile = ProductTile {
                    segments: g.kernel.0,
                    length: g.run(),
                    a: x[g.at(row, first)..].as_ptr(),
                    a_row: g.stride.1 * g.c,
                    a_segment: g.w * g.c,
                    b,
                    init,
                    c: y[(row * g.out_w + first) * g.o + col..].as_mut_ptr(),
                    c_row: g.o,
                    columns: tiles.width().min(g.o - col),
                    ahead: b,
                    ahead_segment: g.run() * LINE,
                };
                // SAFETY: the lengths were asserted above.
                unsafe { tiles.product(pixels, &tile) };
            });
        }
    }
}

/// Where the output goes.
pub(super) enum Output<'a> {
    /// To an array.
    Plain(&'a mut [f32]),
    /// To an epilogue that was made for all images.
    Epilogue(&'a Epilogue),
}

/// Where the gradient of the output comes from.
#[derive(Clone, Copy)]
pub(super) enum Gradient<'a> {
    /// It is there.
    Plain(&'a [f32]),
    /// It is made for each image, by a source for all of them.
    Source(&'a Source),
}

/// Convolves image by image.
pub(super) fn forward(
    isa: Isa,
    window: &Window,
    x: Images<'_, f32>,
    panels: &[f32],
    bias: Option<&[f32]>,
    mut output: Output<'_>,
    scratch: &mut [f32],
) {
    let Window { c, h, w, padding, .. } = *window;
    let geometry = Geometry::forward(window);
    let parts = Parts::of(window);
    let (framed, band) = scratch.split_at_mut(parts.x);
    let (tiles, side) = (Tiles::of(isa), Side::output(window));
    let (block, row_len) = (block_rows(window), geometry.out_w * geometry.o);
    framed.fill(0.0);
    let x = x.to_slice().expect("images lie dense");
    for (image, x) in x.chunks_exact(h * w * c).enumerate() {
        let x = if framed.is_empty() {
            x
        } else {
            frame(x, w * c, padding.0, padding.1 * c, geometry.w * c, framed);
            &*framed
        };
        let epilogue = match &mut output {
            Output::Plain(y) => {
                convolve(tiles, &geometry, x, panels, bias, &mut y[image * parts.output..][..parts.output]);
                continue;
            }
            Output::Epilogue(epilogue) => *epilogue,
        };
        for row in (0..geometry.out_h).step_by(block) {
            let rows = block.min(geometry.out_h - row);
            let part = Geometry { out_h: rows, ..geometry };
            convolve(tiles, &part, &x[geometry.at(row, 0)..], panels, bias, &mut band[..rows * row_len]);
            let images = band.as_ptr().wrapping_sub(image * parts.output + row * row_len);
            let (first, count) = band_tiles(&side, image, row, rows);
            // SAFETY: of these rows' tiles only, which lie in `band`; the epilogue is for m images.
            unsafe { finish_images(isa, &side, first, count, images, epilogue) };
        }
    }
}

/// First tile and number of tiles of some rows of an image, from a whole tile on.
fn band_tiles(side: &Side, image: usize, row: usize, rows: usize) -> (usize, usize) {
    let (down, across) = side.tiles;
    ((image * down + row / OUT) * across, rows.div_ceil(OUT) * across)
}

/// dpanels += the weight gradient of a block of `rows` output rows; `x` starts at the block's first pixel, `dy` is the
/// block's, with `o` ≥ g.o elements a pixel, up to whole vectors.
fn weight_gradient(tiles: &Tiles, g: &Geometry, rows: usize, x: &[f32], dy: &[f32], o: usize, dpanels: &mut [f32]) {
    let g_block = Geometry { out_h: rows, ..*g };
    assert!(x.len() >= g_block.reach() && dy.len() >= rows * g.out_w * o && o.is_multiple_of(PANEL));
    assert!(dpanels.len() >= panels_len(g.depth(), g.o) && o >= g.o);
    for col in (0..g.o).step_by(tiles.width()) {
        // Either the runs of the kernel rows one by one, or all of them together.
        let (passes, length) = if g.run() < SHORT_RUN { (1, g.depth()) } else { (g.kernel.0, g.run()) };
        for pass in 0..passes {
            tiles.split(length, |first, height| {
                let mut offsets = [0; MAX_ROWS];
                for (row, offset) in offsets[..height].iter_mut().enumerate() {
                    *offset = (first + row) / g.run() * g.w * g.c + (first + row) % g.run();
                }
                let scattered = passes == 1 && g.kernel.0 > 1;
                let tile = OuterTile {
                    rows,
                    cols: g.out_w,
                    a: if scattered { x.as_ptr() } else { x[pass * g.w * g.c + first..].as_ptr() },
                    offsets: scattered.then_some(&offsets[..height]),
                    a_row: g.stride.0 * g.w * g.c,
                    a_col: g.stride.1 * g.c,
                    b: dy[col..].as_ptr(),
                    b_row: g.out_w * o,
                    b_col: o,
                    // The next block's pixels: a line each for the first vectors, while the first tiles go over this one.
                    ahead: dy.as_ptr().wrapping_add(rows * g.out_w * (o + first)),
                    more: 0,
                    c: dpanels[panel_index(g.depth(), pass * g.run() + first, col)..].as_mut_ptr(),
                    columns: tiles.width().min(g.o - col),
                    add: true,
                };
                // SAFETY: the lengths were asserted above.
                unsafe { tiles.outer(height, &tile) };
            });
        }
    }
}

/// The gradients, image by image.
pub(super) fn backward(
    isa: Isa,
    window: &Window,
    x: Images<'_, f32>,
    gradient: Gradient<'_>,
    packed: &[f32],
    gradients: ConvGradients<'_, f32>,
    scratch: &mut [f32],
) {
    let Window { c, h, w, padding, .. } = *window;
    let ConvGradients { mut dx, dpanels, mut dbias } = gradients;
    let mut dx = dx.as_mut().map(|dx| dx.as_slice_mut().expect("images lie dense"));
    let (x, m) = (x.to_slice().expect("images lie dense"), x.dim().0);
    let tiles = Tiles::of(isa);
    let g = Geometry::forward(window);
    let parts = Parts::of(window);
    let (framed, rest) = scratch[..parts.total()].split_at_mut(parts.x);
    let (dx_scratch, rest) = rest.split_at_mut(parts.dx);
    let (dy_scratch, dy_image) = rest.split_at_mut(parts.dy);
    let side = Side::output(window);
    framed.fill(0.0);
    if dx.is_some() {
        dx_scratch.fill(0.0);
    }
    let (in_len, out_len) = (h * w * c, g.out_h * g.out_w * g.o);
    let block = block_rows(window);
    for image in 0..m {
        let x = &x[image * in_len..][..in_len];
        let x = if framed.is_empty() {
            x
        } else {
            frame(x, w * c, padding.0, padding.1 * c, g.w * c, framed);
            &*framed
        };
        for row in (0..g.out_h).step_by(block) {
            let height = block.min(g.out_h - row);
            let pixels = height * g.out_w;
            let at = row * g.out_w * g.o;
            let dy = match gradient {
                Gradient::Plain(dy) => &dy[image * out_len + at..],
                Gradient::Source(source) => {
                    // A whole image if its data gradient follows, else always the same place, in L1.
                    let to = if dx.is_some() { at } else { 0 };
                    let images = dy_image.as_mut_ptr().wrapping_add(to).wrapping_sub(image * out_len + at);
                    let (first, count) = band_tiles(&side, image, row, height);
                    // SAFETY: of these rows' tiles only, which lie in `dy_image`; the source is for m images.
                    unsafe { gradient_images(isa, &side, first, count, images, source) };
                    &dy_image[to..]
                }
            };
            let dy = &dy[..pixels * g.o];
            if let Some(dbias) = dbias.as_deref_mut() {
                column_sums(isa, rows(pixels, g.o, dy), true, dbias);
            }
            let (dy, o) = if dy_scratch.is_empty() {
                (dy, g.o)
            } else {
                let o = g.o.next_multiple_of(PANEL);
                let to = &mut dy_scratch[..pixels * o];
                // SAFETY: `pixels` rows of g.o elements, into as many of `o`, a multiple of every vector: no spill.
                unsafe { copy_rows(isa, pixels, g.o, o, dy.as_ptr(), g.o, to.as_mut_ptr(), o) };
                (&*to, o)
            };
            let x = &x[g.at(row, 0)..];
            weight_gradient(tiles, &g, height, x, dy, o, dpanels);
        }
        if let Some(dx) = dx.as_deref_mut() {
            let dx = &mut dx[image * in_len..][..in_len];
            let dy = match gradient {
                Gradient::Plain(dy) => &dy[image * out_len..][..out_len],
                Gradient::Source(_) => &*dy_image,
            };
            if data_gradient_is_convolution(window) {
                let g_dx = Geometry::data_gradient(window);
                let (top, left) = (window.kernel.0 - 1 - padding.0, window.kernel.1 - 1 - padding.1);
                frame(dy, g.out_w * g.o, top, left * g.o, g_dx.w * g.o, dx_scratch);
                convolve(tiles, &g_dx, dx_scratch, packed, None, dx);
            } else {
                scatter_data_gradient(isa, window, dy, packed, dx, dx_scratch);
            }
        }
    }
}

/// dx for any stride and padding: dy · Wᵀ gives each output pixel's share under its kernel, which is then added up.
fn scatter_data_gradient(isa: Isa, window: &Window, dy: &[f32], packed: &[f32], dx: &mut [f32], shares: &mut [f32]) {
    let Window { c, h, w, o, kernel, stride, padding, .. } = *window;
    let (out_h, out_w, depth) = (window.out_h(), window.out_w(), window.depth());
    dx.fill(0.0);
    let block = block_rows(window);
    for first in (0..out_h).step_by(block) {
        let height = block.min(out_h - first);
        let (pixels, dy) = (height * out_w, &dy[first * out_w * o..]);
        product(isa, rows(pixels, o, dy), packed, None, rows_mut(pixels, depth, shares));
        for row in 0..height {
            for kernel_row in 0..kernel.0 {
                let ih = ((first + row) * stride.0 + kernel_row).wrapping_sub(padding.0);
                if ih >= h {
                    continue;
                }
                for col in 0..out_w {
                    // The columns of the kernel that lie inside the image.
                    let left = padding.1.saturating_sub(col * stride.1).min(kernel.1);
                    let right = (w + padding.1).saturating_sub(col * stride.1).min(kernel.1);
                    if left >= right {
                        continue;
                    }
                    let iw = col * stride.1 + left - padding.1;
                    let share = (row * out_w + col) * depth + kernel_row * kernel.1 * c;
                    let from = &shares[share + left * c..share + right * c];
                    let to = &mut dx[(ih * w + iw) * c..][..from.len()];
                    for (to, from) in to.iter_mut().zip(from) {
                        *to += from;
                    }
                }
            }
        }
    }
}
