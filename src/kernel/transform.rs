//! The transforms of Winograd's F(4×4, 3×3) and their adjoints, for f32, a vector of channels at a time.
//!
//! Matrices Aᵀ, G and Bᵀ as in Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.3:
//! y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A, with interpolation points 0, ±1, ±2 and infinity.

use super::simd::{Simd, simd_entry};
use super::{PANEL, Window};

/// Outputs of a tile, along each axis.
pub(super) const OUT: usize = 4;
/// Inputs of a tile, along each axis.
pub(super) const IN: usize = 6;
/// Elements of a transformed tile.
pub(super) const PLANES: usize = IN * IN;

/// One side of the tiles of a batch: the input (patches of 6 × 6 that overlap) or the output (of 4 × 4).
#[derive(Debug, Clone, Copy)]
pub(super) struct Side {
    /// Image height.
    h: usize,
    /// Image width.
    w: usize,
    /// Channels.
    pub c: usize,
    /// How far the first patch lies outside the image, at the top and at the left.
    before: (usize, usize),
    /// Patch size.
    size: usize,
    /// Tiles in an image, down and across.
    pub tiles: (usize, usize),
}

impl Side {
    pub(super) fn input(window: &Window) -> Self {
        let Window { c, h, w, padding, .. } = *window;
        Self { h, w, c, before: padding, size: IN, tiles: tiles(window) }
    }

    pub(super) fn output(window: &Window) -> Self {
        let (h, w) = (window.out_h(), window.out_w());
        Self { h, w, c: window.o, before: (0, 0), size: OUT, tiles: tiles(window) }
    }

    /// Elements of an image.
    pub(super) fn image(&self) -> usize {
        self.h * self.w * self.c
    }

    /// The patch of tile `index` of the batch.
    #[inline(always)]
    fn patch(&self, index: usize) -> Patch {
        let (down, across) = (index / self.tiles.1 % self.tiles.0, index % self.tiles.1);
        let image = index / (self.tiles.0 * self.tiles.1);
        let (top, left) = (down * OUT, across * OUT);
        Patch {
            // May wrap where the patch begins outside the image; only elements inside are reached.
            first: (image * self.image() + (top * self.w + left) * self.c)
                .wrapping_sub((self.before.0 * self.w + self.before.1) * self.c),
            row: self.w * self.c,
            pixel: self.c,
            rows: inside(top, self.before.0, self.h, self.size),
            cols: inside(left, self.before.1, self.w, self.size),
            full: self.size,
        }
    }
}

/// Tiles in an image, down and across.
pub(super) fn tiles(window: &Window) -> (usize, usize) {
    (window.out_h().div_ceil(OUT), window.out_w().div_ceil(OUT))
}

/// Which of a patch's `size` rows from `start - before` on lie in 0..len.
#[inline(always)]
fn inside(start: usize, before: usize, len: usize, size: usize) -> (usize, usize) {
    (before.saturating_sub(start), (len + before).saturating_sub(start).min(size))
}

/// Where a tile lies in the array of its images.
#[derive(Clone, Copy)]
struct Patch {
    first: usize,
    row: usize,
    pixel: usize,
    /// Rows inside the image: from, to.
    rows: (usize, usize),
    cols: (usize, usize),
    full: usize,
}

impl Patch {
    /// Whether no part lies outside.
    #[inline(always)]
    fn is_whole(&self) -> bool {
        self.rows == (0, self.full) && self.cols == (0, self.full)
    }

    #[inline(always)]
    fn contains(&self, row: usize, col: usize) -> bool {
        row >= self.rows.0 && row < self.rows.1 && col >= self.cols.0 && col < self.cols.1
    }

    #[inline(always)]
    fn at(&self, row: usize, col: usize, channel: usize) -> usize {
        self.first.wrapping_add(row * self.row + col * self.pixel + channel)
    }

    /// Asks for a line of each pixel: memory answers while the tile before is worked on.
    #[inline(always)]
    fn prefetch<S: Simd>(&self, images: *const f32, channel: usize) {
        for row in 0..self.full {
            for col in self.full - OUT..self.full {
                S::prefetch(images.wrapping_add(self.at(row, col, channel)));
            }
        }
    }

    /// `n` channels from `channel` on; zeros outside the image. WHOLE vouches for all of it being inside and n ≥ LANES.
    ///
    /// # Safety
    /// `from` is the images' array; the CPU has the instruction set of `S`.
    #[inline(always)]
    unsafe fn read<S: Simd, const WHOLE: bool>(
        &self,
        from: *const f32,
        row: usize,
        col: usize,
        channel: usize,
        n: usize,
    ) -> S {
        let from = from.wrapping_add(self.at(row, col, channel));
        // SAFETY: elements inside the image.
        unsafe {
            if WHOLE {
                S::load(from)
            } else if !self.contains(row, col) {
                S::splat(0.0)
            } else if n >= S::LANES {
                S::load(from)
            } else {
                S::load_first(from, n)
            }
        }
    }

    /// Writes `n` channels; nothing outside the image.
    ///
    /// # Safety
    /// As for `read`.
    #[inline(always)]
    unsafe fn write<S: Simd, const WHOLE: bool>(
        &self,
        value: S,
        to: *mut f32,
        row: usize,
        col: usize,
        channel: usize,
        n: usize,
    ) {
        let to = to.wrapping_add(self.at(row, col, channel));
        // SAFETY: elements inside the image.
        unsafe {
            if WHOLE {
                value.store(to);
            } else if self.contains(row, col) {
                if n >= S::LANES { value.store(to) } else { value.store_first(to, n) }
            }
        }
    }
}

/// Constants in registers.
#[derive(Clone, Copy)]
struct Constants<S> {
    zero: S,
    two: S,
    four: S,
    five: S,
    eight: S,
}

impl<S: Simd> Constants<S> {
    /// # Safety
    /// The CPU has the instruction set of `S`.
    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: the caller's contract.
        unsafe {
            Self {
                zero: S::splat(0.0),
                two: S::splat(2.0),
                four: S::splat(4.0),
                five: S::splat(5.0),
                eight: S::splat(8.0),
            }
        }
    }

    /// Bᵀ d.
    #[inline(always)]
    fn input(&self, [d0, d1, d2, d3, d4, d5]: [S; 6]) -> [S; 6] {
        let even = d4 - self.four * d2;
        let odd = d3 - self.four * d1;
        let (even2, odd2) = (d4 - d2, self.two * (d3 - d1));
        [
            self.four.mul_add(d0, d4 - self.five * d2),
            even + odd,
            even - odd,
            even2 + odd2,
            even2 - odd2,
            self.four.mul_add(d1, d5 - self.five * d3),
        ]
    }

    /// B v.
    #[inline(always)]
    fn input_adjoint(&self, [v0, v1, v2, v3, v4, v5]: [S; 6]) -> [S; 6] {
        let (s12, d12, s34, d34) = (v1 + v2, v1 - v2, v3 + v4, v3 - v4);
        [
            self.four * v0,
            self.four.mul_add(v5 - d12, self.zero - self.two * d34),
            self.zero - self.five.mul_add(v0, self.four.mul_add(s12, s34)),
            self.two.mul_add(d34, d12) - self.five * v5,
            v0 + s12 + s34,
            v5,
        ]
    }

    /// Aᵀ m.
    #[inline(always)]
    fn output(&self, [m0, m1, m2, m3, m4, m5]: [S; 6]) -> [S; 4] {
        let (s12, d12, s34, d34) = (m1 + m2, m1 - m2, m3 + m4, m3 - m4);
        [m0 + s12 + s34, self.two.mul_add(d34, d12), self.four.mul_add(s34, s12), self.eight.mul_add(d34, d12) + m5]
    }

    /// A y.
    #[inline(always)]
    fn output_adjoint(&self, [y0, y1, y2, y3]: [S; 4]) -> [S; 6] {
        let (even, odd) = (y0 + y2, y1 + y3);
        let (even2, odd2) = (self.four.mul_add(y2, y0), self.two * self.four.mul_add(y3, y1));
        [y0, even + odd, even - odd, even2 + odd2, even2 - odd2, y3]
    }
}

/// Transformed tiles: `PLANES` planes, `plane` elements apart, of rows of `row` elements a tile.
#[derive(Debug, Clone, Copy)]
pub(super) struct Planes {
    pub data: *mut f32,
    pub plane: usize,
    pub row: usize,
}

macro_rules! over_patches {
    ($(#[$meta:meta])* $entry:ident, $body:ident, $tile:ident, $images:ident : $pointer:ty $(, $arg:ident : $ty:ty)*) => {
        simd_entry! {
            $(#[$meta])*
            ///
            /// # Safety
            /// `images` holds the images of the `count` tiles from `first` on of a batch, and `planes` rows for `count` tiles,
            /// of at least the channels rounded up to a whole vector of 16; other pointers hold a channel each.
            pub(super) unsafe fn $entry(side: &Side, first: usize, count: usize, planes: Planes, $images: $pointer $(, $arg: $ty)*) = $body
        }

        /// # Safety
        /// As for the entry; the CPU has the instruction set of `S`.
        #[inline(always)]
        unsafe fn $body<S: Simd>(side: &Side, first: usize, count: usize, planes: Planes, $images: $pointer $(, $arg: $ty)*) {
            for tile in 0..count {
                let patch = side.patch(first + tile);
                let next = side.patch(first + tile + 1);
                let whole = patch.is_whole();
                for channel in (0..side.c).step_by(S::LANES) {
                    let n = side.c - channel;
                    next.prefetch::<S>($images as *const f32, channel);
                    // SAFETY: the caller's contract.
                    unsafe {
                        let planes = Planes { data: planes.data.add(tile * planes.row + channel), ..planes };
                        if whole && n >= S::LANES {
                            $tile::<S, true>(&patch, channel, n, planes, $images $(, $arg)*);
                        } else {
                            $tile::<S, false>(&patch, channel, n, planes, $images $(, $arg)*);
                        }
                    }
                }
            }
        }
    };
}

over_patches! {
    /// planes = Bᵀ d B of the images' patches.
    input_transform, input_body, input_tile, images: *const f32
}
over_patches! {
    /// images += B v Bᵀ: the adjoint of the input transform; patches overlap.
    input_adjoint, input_adjoint_body, input_adjoint_tile, images: *mut f32
}
over_patches! {
    /// images = Aᵀ m A + bias, where there is one.
    output_transform, output_body, output_tile, images: *mut f32, bias: Option<*const f32>
}
over_patches! {
    /// planes = A dy Aᵀ: the adjoint of the output transform.
    output_adjoint, output_adjoint_body, output_adjoint_tile, images: *const f32
}

/// # Safety
/// As for [`input_transform`], of one tile.
#[inline(always)]
unsafe fn input_tile<S: Simd, const WHOLE: bool>(
    patch: &Patch,
    channel: usize,
    n: usize,
    planes: Planes,
    images: *const f32,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let constants = Constants::<S>::new();
        let mut half = [[constants.zero; IN]; IN];
        for i in 0..IN {
            let mut d = [constants.zero; IN];
            for j in 0..IN {
                d[j] = patch.read::<S, WHOLE>(images, i, j, channel, n);
            }
            half[i] = constants.input(d);
        }
        for j in 0..IN {
            let v = constants.input([half[0][j], half[1][j], half[2][j], half[3][j], half[4][j], half[5][j]]);
            for i in 0..IN {
                v[i].store(planes.data.add((i * IN + j) * planes.plane));
            }
        }
    }
}

/// # Safety
/// As for [`input_adjoint`], of one tile.
#[inline(always)]
unsafe fn input_adjoint_tile<S: Simd, const WHOLE: bool>(
    patch: &Patch,
    channel: usize,
    n: usize,
    planes: Planes,
    images: *mut f32,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let constants = Constants::<S>::new();
        let mut half = [[constants.zero; IN]; IN];
        for j in 0..IN {
            let mut v = [constants.zero; IN];
            for i in 0..IN {
                v[i] = S::load(planes.data.add((i * IN + j) * planes.plane));
            }
            half[j] = constants.input_adjoint(v);
        }
        for i in 0..IN {
            let d = constants.input_adjoint([half[0][i], half[1][i], half[2][i], half[3][i], half[4][i], half[5][i]]);
            for j in 0..IN {
                let sum = patch.read::<S, WHOLE>(images, i, j, channel, n) + d[j];
                patch.write::<S, WHOLE>(sum, images, i, j, channel, n);
            }
        }
    }
}

/// # Safety
/// As for [`output_transform`], of one tile.
#[inline(always)]
unsafe fn output_tile<S: Simd, const WHOLE: bool>(
    patch: &Patch,
    channel: usize,
    n: usize,
    planes: Planes,
    images: *mut f32,
    bias: Option<*const f32>,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let constants = Constants::<S>::new();
        let bias = match bias {
            Some(bias) if n >= S::LANES => S::load(bias.add(channel)),
            Some(bias) => S::load_first(bias.add(channel), n),
            None => constants.zero,
        };
        let mut half = [[constants.zero; OUT]; IN];
        for j in 0..IN {
            let mut v = [constants.zero; IN];
            for i in 0..IN {
                v[i] = S::load(planes.data.add((i * IN + j) * planes.plane));
            }
            half[j] = constants.output(v);
        }
        for i in 0..OUT {
            let y = constants.output([half[0][i], half[1][i], half[2][i], half[3][i], half[4][i], half[5][i]]);
            for j in 0..OUT {
                patch.write::<S, WHOLE>(y[j] + bias, images, i, j, channel, n);
            }
        }
    }
}

/// # Safety
/// As for [`output_adjoint`], of one tile.
#[inline(always)]
unsafe fn output_adjoint_tile<S: Simd, const WHOLE: bool>(
    patch: &Patch,
    channel: usize,
    n: usize,
    planes: Planes,
    images: *const f32,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let constants = Constants::<S>::new();
        let mut half = [[constants.zero; IN]; OUT];
        for i in 0..OUT {
            let mut y = [constants.zero; OUT];
            for j in 0..OUT {
                y[j] = patch.read::<S, WHOLE>(images, i, j, channel, n);
            }
            half[i] = constants.output_adjoint(y);
        }
        for j in 0..IN {
            let z = constants.output_adjoint([half[0][j], half[1][j], half[2][j], half[3][j]]);
            for i in 0..IN {
                z[i].store(planes.data.add((i * IN + j) * planes.plane));
            }
        }
    }
}

/// The weights' constants in registers.
#[derive(Clone, Copy)]
struct Weights<S> {
    quarter: S,
    sixth: S,
    minus_sixth: S,
    twelfth: S,
    fourth: S,
}

impl<S: Simd> Weights<S> {
    /// # Safety
    /// The CPU has the instruction set of `S`.
    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: the caller's contract.
        unsafe {
            Self {
                quarter: S::splat(1.0 / 4.0),
                sixth: S::splat(1.0 / 6.0),
                minus_sixth: S::splat(-1.0 / 6.0),
                twelfth: S::splat(1.0 / 12.0),
                fourth: S::splat(1.0 / 24.0),
            }
        }
    }

    /// G g.
    #[inline(always)]
    fn straight(&self, [g0, g1, g2]: [S; 3]) -> [S; 6] {
        let (ends, middle) = ((g0 + g2) * self.minus_sixth, g1 * self.minus_sixth);
        let (ends2, middle2) = (self.fourth.mul_add(g0, self.sixth * g2), g1 * self.twelfth);
        [self.quarter * g0, ends + middle, ends - middle, ends2 + middle2, ends2 - middle2, g2]
    }

    /// Gᵀ u.
    #[inline(always)]
    fn adjoint(&self, [u0, u1, u2, u3, u4, u5]: [S; 6]) -> [S; 3] {
        let (s12, d12, s34, d34) = (u1 + u2, u2 - u1, u3 + u4, u3 - u4);
        [
            self.quarter.mul_add(u0, self.fourth * s34 - self.sixth * s12),
            self.sixth.mul_add(d12, self.twelfth * d34),
            self.sixth.mul_add(s34 - s12, u5),
        ]
    }
}

simd_entry! {
    /// U = G g Gᵀ for each element of the depth×O `panels` of a 3×3 convolution: `planes` of C×O panels, `plane` apart.
    ///
    /// # Safety
    /// The panels hold ⌈o / 32⌉ · 9 · c rows, and each plane ⌈o / 32⌉ · c.
    pub(super) unsafe fn weight_transform(c: usize, o: usize, panels: *const f32, planes: *mut f32, plane: usize) =
        weight_body
}

/// # Safety
/// As for [`weight_transform`]; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn weight_body<S: Simd>(c: usize, o: usize, panels: *const f32, planes: *mut f32, plane: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        let constants = Weights::<S>::new();
        for panel in 0..o.div_ceil(PANEL) {
            for channel in 0..c {
                for lane in (0..PANEL).step_by(S::LANES) {
                    let from = panels.add((panel * 9 * c + channel) * PANEL + lane);
                    let mut half = [[S::splat(0.0); IN]; 3];
                    for i in 0..3 {
                        let mut g = [S::splat(0.0); 3];
                        for j in 0..3 {
                            g[j] = S::load(from.add((3 * i + j) * c * PANEL));
                        }
                        half[i] = constants.straight(g);
                    }
                    let to = planes.add((panel * c + channel) * PANEL + lane);
                    for j in 0..IN {
                        let u = constants.straight([half[0][j], half[1][j], half[2][j]]);
                        for i in 0..IN {
                            u[i].store(to.add((i * IN + j) * plane));
                        }
                    }
                }
            }
        }
    }
}

simd_entry! {
    /// panels += Gᵀ dU G, the adjoint of [`weight_transform`]; columns past `o` stay as they are.
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn weight_adjoint(c: usize, o: usize, panels: *mut f32, planes: *const f32, plane: usize) =
        weight_adjoint_body
}

/// # Safety
/// As for [`weight_adjoint`]; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn weight_adjoint_body<S: Simd>(c: usize, o: usize, panels: *mut f32, planes: *const f32, plane: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        let constants = Weights::<S>::new();
        for panel in 0..o.div_ceil(PANEL) {
            for channel in 0..c {
                for lane in (0..PANEL).step_by(S::LANES) {
                    let n = o.saturating_sub(panel * PANEL + lane);
                    if n == 0 {
                        continue;
                    }
                    let from = planes.add((panel * c + channel) * PANEL + lane);
                    let mut half = [[S::splat(0.0); 3]; IN];
                    for i in 0..IN {
                        let mut u = [S::splat(0.0); IN];
                        for j in 0..IN {
                            u[j] = S::load(from.add((i * IN + j) * plane));
                        }
                        half[i] = constants.adjoint(u);
                    }
                    for j in 0..3 {
                        let column = [half[0][j], half[1][j], half[2][j], half[3][j], half[4][j], half[5][j]];
                        let g = constants.adjoint(column);
                        for i in 0..3 {
                            let to = panels.add((panel * 9 * c + (3 * i + j) * c + channel) * PANEL + lane);
                            if n >= S::LANES {
                                (S::load(to) + g[i]).store(to);
                            } else {
                                (S::load_first(to, n) + g[i]).store_first(to, n);
                            }
                        }
                    }
                }
            }
        }
    }
}
