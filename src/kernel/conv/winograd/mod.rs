//! 3×3 convolutions of stride 1 for f32 by Winograd's F(4×4, 3×3): a quarter of the multiplications.
//!
//! Tiles of 4 × 4 outputs are taken in blocks over the whole batch. Forward: transform the block's input patches into 36
//! planes, multiply each plane by the transformed weights, transform back. Backward in the adjoint form: Z = A·dy·Aᵀ
//! serves both the weights' gradient, dU = Vᵀ·Z plane by plane, and the data's, V' = Z·Uᵀ. Gradients are thus those of
//! the very function that the forward pass computes.

mod transform;
mod weight;

use super::epilogue::Epilogue;
use super::patch::{IN, Side, tiles};
use super::upstream::Source;
use super::{ConvGradients, Window};
use crate::kernel::column_sum::column_sums;
use crate::kernel::product::tile::{OuterTile, ProductTile, TileInit, Tiles};
use crate::kernel::transpose::transpose_panels;
use crate::kernel::view::{Images, Rows, RowsMut, rows_apart, rows_apart_mut, stride};
use crate::kernel::{Isa, Needs, panel_index, panels_len};
use transform::{PLANES, Planes, input_adjoint, input_transform, output_adjoint, output_transform};
use weight::{weight_adjoint, weight_transform};

/// Rows of a register tile: a block is a multiple.
const STEP: usize = 14;
/// Tiles of a block, at most.
const SMALL_BLOCK: usize = 70;
/// Tiles of a block with so many channels that a small block would be too small: then the weights, read and their
/// gradients added to once a block, cost more.
const LARGE_BLOCK: usize = 112;
/// Elements of the planes of a block: two or three times what L2 holds, since each plane is asked for ahead.
const BLOCK_ELEMENTS: usize = 800_000;
/// Plane of the products that sums over all of a tile's dy: row 1 of A is all ones.
const SUM_PLANE: usize = IN + 1;

/// Whether Winograd is worth it: enough channels to pay for the transforms, and not too many outputs outside the image.
pub(super) fn suits(window: &Window) -> bool {
    let Window { c, o, kernel, stride, .. } = *window;
    let (down, across) = tiles(window);
    kernel == (3, 3)
        && stride == (1, 1)
        && window.extra == (0, 0)
        && c >= 16
        && o >= 16
        && 9 * window.out_h() * window.out_w() * 2 >= 3 * PLANES * down * across
}

/// Elements of a tile's row in a plane: whole vectors, and no power of two that would make rows share a set of L1.
fn row(channels: usize) -> usize {
    let row = channels.next_multiple_of(16);
    if row.is_multiple_of(256) { row + 16 } else { row }
}

fn block(window: &Window) -> usize {
    let each = PLANES * (row(window.c) + row(window.o));
    let fitting = BLOCK_ELEMENTS / each / STEP * STEP;
    if fitting >= SMALL_BLOCK / 2 { fitting.min(SMALL_BLOCK) } else { LARGE_BLOCK }
}

/// First tile and number of tiles of each block, of nearly equal size, of `total` tiles.
fn blocks(window: &Window, total: usize) -> impl Iterator<Item = (usize, usize)> {
    let blocks = total.div_ceil(block(window));
    (0..blocks).map(move |index| (index * total / blocks, (index + 1) * total / blocks - index * total / blocks))
}

/// Elements from a plane of `channels` to the next: not a multiple of 4 KiB.
fn plane(window: &Window, channels: usize) -> usize {
    block(window) * row(channels) + 16
}

/// Sizes of the buffers; nothing is kept from forward to backward.
pub(super) fn needs(window: &Window) -> Needs {
    let Window { c, o, .. } = *window;
    Needs {
        packed: PLANES * (panels_len(c, o) + panels_len(o, c)),
        scratch: PLANES * (plane(window, c) + plane(window, o) + panels_len(c, o)),
        work: None,
    }
}

/// The multiply-adds of one image's products, counted as 2, and the elements of the transformed weights.
pub(super) fn work(window: &Window) -> (u64, u64) {
    let ((down, across), weights) = (tiles(window), PLANES * window.c * window.o);
    ((2 * weights * down * across) as u64, weights as u64)
}

/// The transformed weights: 36 planes of C×O panels, then 36 of their transposes.
pub(super) fn prepare(isa: Isa, window: &Window, panels: &[f32], packed: &mut [f32]) {
    let Window { c, o, .. } = *window;
    let (straight, transposed) = (panels_len(c, o), panels_len(o, c));
    assert!(panels.len() >= panels_len(9 * c, o), "the panels are too short");
    let (planes, rest) = packed[..needs(window).packed].split_at_mut(PLANES * straight);
    // SAFETY: the length of `panels` was asserted, that of `planes` is as taken.
    unsafe { weight_transform(isa, c, o, panels.as_ptr(), planes.as_mut_ptr(), straight) };
    for (from, to) in planes.chunks_exact(straight).zip(rest.chunks_exact_mut(transposed)) {
        transpose_panels(isa, c, o, from, to);
    }
}

/// What the next plane's products need, to be asked for while this one's go on.
struct Ahead {
    /// First element and number of elements of each part.
    parts: [(*const f32, usize); 3],
    part: usize,
    at: usize,
}

impl Ahead {
    fn of(parts: [&[f32]; 3]) -> Self {
        Self { parts: parts.map(|part| (part.as_ptr(), part.len())), part: 0, at: 0 }
    }

    /// Where to ask for the next `lines` cache lines.
    fn take(&mut self, lines: usize) -> *const f32 {
        while self.part < 2 && self.at >= self.parts[self.part].1 {
            (self.part, self.at) = (self.part + 1, 0);
        }
        let (first, len) = self.parts[self.part];
        let from = first.wrapping_add(self.at);
        self.at = (self.at + 16 * lines).min(len);
        from
    }
}

/// C(rows × n) = A(rows × k) · panels(k × n), of one plane.
fn multiply(tiles: &Tiles, a: Rows<'_, f32>, panels: &[f32], mut c: RowsMut<'_, f32>, mut ahead: Ahead) {
    let ((rows, k), n) = (a.dim(), c.ncols());
    let (a_row, c_row) = (stride(&a), stride(&c));
    assert!(c.nrows() == rows && panels.len() >= panels_len(k, n));
    for col in (0..n).step_by(tiles.width()) {
        let b = panels[panel_index(k, 0, col)..].as_ptr();
        tiles.split(rows, |first, height| {
            let tile = ProductTile {
                segments: 1,
                length: k,
                a: a.as_ptr().wrapping_add(first * a_row),
                a_row,
                a_segment: 0,
                b,
                init: TileInit::Zero,
                c: c.as_mut_ptr().wrapping_add(first * c_row + col),
                c_row,
                columns: tiles.width().min(n - col),
                ahead: ahead.take(k),
                ahead_segment: 0,
            };
            // SAFETY: the views hold these rows and columns; the panels' length was asserted above.
            unsafe { tiles.product(height, &tile) };
        });
    }
}

/// panels(k × n) = A(rows × k)ᵀ · B(rows × n), or += where `add`, of one plane; rows of B are `n` made whole vectors.
fn outer(tiles: &Tiles, add: bool, a: Rows<'_, f32>, b: Rows<'_, f32>, n: usize, panels: &mut [f32], mut ahead: Ahead) {
    let ((rows, k), a_row, b_row) = (a.dim(), stride(&a), stride(&b));
    assert!(b.nrows() == rows && b.ncols() >= n.next_multiple_of(16) && panels.len() >= panels_len(k, n));
    for col in (0..n).step_by(tiles.width()) {
        tiles.split(k, |first, height| {
            let tile = OuterTile {
                rows: 1,
                cols: rows,
                a: a.as_ptr().wrapping_add(first),
                offsets: None,
                a_row: 0,
                a_col: a_row,
                b: b.as_ptr().wrapping_add(col),
                b_row: 0,
                b_col: b_row,
                ahead: ahead.take(rows),
                more: 0,
                c: panels[panel_index(k, first, col)..].as_mut_ptr(),
                columns: tiles.width().min(n - col),
                add,
            };
            // SAFETY: the lengths were asserted above; rows of B reach to a whole vector.
            unsafe { tiles.outer(height, &tile) };
        });
    }
}

/// Convolves, and hands the output on to `epilogue`, which was made for as many images.
pub(super) fn forward(
    isa: Isa,
    window: &Window,
    x: Images<'_, f32>,
    packed: &[f32],
    bias: Option<&[f32]>,
    epilogue: &Epilogue,
    scratch: &mut [f32],
) {
    let Window { c, o, .. } = *window;
    let (input, output, m) = (Side::input(window), Side::output(window), x.dim().0);
    assert!(x.len() == m * input.image() && x.is_standard_layout() && bias.is_none_or(|bias| bias.len() >= o));
    let (v_plane, m_plane, weights) = (plane(window, c), plane(window, o), panels_len(c, o));
    let (v, rest) = scratch.split_at_mut(PLANES * v_plane);
    let products = &mut rest[..PLANES * m_plane];
    let register_tiles = Tiles::of(isa);
    let total = m * input.tiles.0 * input.tiles.1;
    for (first, count) in blocks(window, total) {
        let planes = Planes { data: v.as_mut_ptr(), plane: v_plane, row: row(c) };
        // SAFETY: `x` holds m images, `v` the planes.
        unsafe { input_transform(isa, &input, first, count, planes, x.as_ptr()) };
        for plane in 0..PLANES {
            let next = (plane + 1).min(PLANES - 1);
            let u = &packed[plane * weights..][..weights];
            let products = &mut products[plane * m_plane..][..m_plane];
            let ahead = Ahead::of([&packed[next * weights..][..weights], &v[next * v_plane..][..count * row(c)], &[]]);
            let v = rows_apart(count, c, row(c), &v[plane * v_plane..][..v_plane]);
            multiply(register_tiles, v, u, rows_apart_mut(count, o, row(o), products), ahead);
        }
        let planes = Planes { data: products.as_mut_ptr(), plane: m_plane, row: row(o) };
        let bias = bias.map(<[f32]>::as_ptr);
        // SAFETY: the epilogue is for m images; `products` holds the planes, `bias` o elements.
        unsafe { output_transform(isa, &output, first, count, planes, bias, epilogue) };
    }
}

/// The gradients; that of the output is what `source`, made for as many images, gives.
pub(super) fn backward(
    isa: Isa,
    window: &Window,
    x: Images<'_, f32>,
    source: &Source,
    packed: &[f32],
    gradients: ConvGradients<'_, f32>,
    scratch: &mut [f32],
) {
    let Window { c, o, .. } = *window;
    let (input, output, m) = (Side::input(window), Side::output(window), x.dim().0);
    let ConvGradients { mut dx, dpanels, mut dbias } = gradients;
    assert!(x.len() == m * input.image() && x.is_standard_layout());
    assert!(dx.as_ref().is_none_or(|dx| dx.len() == x.len() && dx.is_standard_layout()));
    assert!(dpanels.len() >= panels_len(9 * c, o));
    let (v_plane, z_plane, weights) = (plane(window, c), plane(window, o), panels_len(c, o));
    let (v, rest) = scratch.split_at_mut(PLANES * v_plane);
    let (z, rest) = rest.split_at_mut(PLANES * z_plane);
    let du = &mut rest[..PLANES * weights];
    let transposed = &packed[PLANES * weights..];
    let register_tiles = Tiles::of(isa);
    let total = m * input.tiles.0 * input.tiles.1;
    for (first, count) in blocks(window, total) {
        let v_planes = Planes { data: v.as_mut_ptr(), plane: v_plane, row: row(c) };
        let z_planes = Planes { data: z.as_mut_ptr(), plane: z_plane, row: row(o) };
        // SAFETY: `x` holds m images, `v` and `z` the planes; the source is for m images.
        unsafe {
            input_transform(isa, &input, first, count, v_planes, x.as_ptr());
            output_adjoint(isa, &output, first, count, z_planes, source);
        }
        if let Some(dbias) = dbias.as_deref_mut() {
            column_sums(isa, rows_apart(count, o, row(o), &z[SUM_PLANE * z_plane..][..z_plane]), true, dbias);
        }
        for plane in 0..PLANES {
            let next = (plane + 1).min(PLANES - 1);
            let next_inputs = [
                &z[next * z_plane..][..count * row(o)],
                &v[next * v_plane..][..count * row(c)],
                &du[next * weights..][..weights],
            ];
            let (after, u) = match dx {
                Some(_) => {
                    let u = &transposed[plane * panels_len(o, c)..][..panels_len(o, c)];
                    (Some(Ahead::of(next_inputs)), Ahead::of([u, &[], &[]]))
                }
                None => (None, Ahead::of(next_inputs)),
            };
            let z = &z[plane * z_plane..][..z_plane];
            let v = &mut v[plane * v_plane..][..v_plane];
            let du = &mut du[plane * weights..][..weights];
            let whole = rows_apart(count, row(o), row(o), z);
            outer(register_tiles, first > 0, rows_apart(count, c, row(c), v), whole, o, du, u);
            if let Some(after) = after {
                let u = &transposed[plane * panels_len(o, c)..][..panels_len(o, c)];
                let (z, v) = (rows_apart(count, o, row(o), z), rows_apart_mut(count, c, row(c), v));
                multiply(register_tiles, z, u, v, after);
            }
        }
        if let Some(dx) = &mut dx {
            // SAFETY: `dx` holds m images, `v` the planes.
            unsafe { input_adjoint(isa, &input, first, count, v_planes, dx.as_mut_ptr()) };
        }
    }
    if total == 0 {
        return;
    }
    // SAFETY: the lengths were asserted or taken above.
    unsafe { weight_adjoint(isa, c, o, dpanels.as_mut_ptr(), du.as_ptr(), weights) };
}
