//! The transforms of Winograd's F(4×4, 3×3) and their adjoints, for f32, a vector of channels at a time.
//!
//! Matrices Aᵀ, G and Bᵀ as in Lavin and Gray, "Fast Algorithms for Convolutional Neural Networks" (2015), section 4.3:
//! y = Aᵀ [(G g Gᵀ) ⊙ (Bᵀ d B)] A, with interpolation points 0, ±1, ±2 and infinity.

use super::super::epilogue::{Epilogue, finish};
use super::super::patch::{IN, OUT, Spot, over_patches};
use super::super::upstream::{Source, gradient};
use crate::kernel::simd::Simd;

/// Elements of a transformed tile.
pub(super) const PLANES: usize = IN * IN;

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

impl Planes {
    /// Those of a tile, from a channel on.
    #[inline(always)]
    fn of(self, spot: &Spot, channel: usize) -> Self {
        Self { data: self.data.wrapping_add(spot.index * self.row + channel), ..self }
    }
}

over_patches! {
    /// planes = Bᵀ d B of the images' patches.
    input_transform, input_body, input_tile, planes: Planes, images: *const f32
}
over_patches! {
    /// images = B v Bᵀ, added up where patches overlap: the adjoint of the input transform. Tiles come in order from the
    /// first of an image on; then every pixel of it is written.
    input_adjoint, input_adjoint_body, input_adjoint_tile, planes: Planes, images: *mut f32
}
over_patches! {
    /// Takes Aᵀ m A + bias, where there is one, to where the epilogue says.
    output_transform, output_body, output_tile, planes: Planes, bias: Option<*const f32>, epilogue: &Epilogue
}
over_patches! {
    /// planes = A dy Aᵀ: the adjoint of the output transform.
    output_adjoint, output_adjoint_body, output_adjoint_tile, planes: Planes, source: &Source
}

/// # Safety
/// As for [`input_transform`], of one tile.
#[inline(always)]
unsafe fn input_tile<S: Simd, const WHOLE: bool>(
    spot: &Spot,
    channel: usize,
    n: usize,
    planes: Planes,
    images: *const f32,
) {
    // SAFETY: the caller's contract.
    unsafe {
        spot.next_patch.prefetch::<S, _>(images, channel);
        let (patch, planes) = (&spot.patch, planes.of(spot, channel));
        let constants = Constants::<S>::new();
        let counts = patch.counts::<S, IN>(n);
        let mut half = [[constants.zero; IN]; IN];
        for i in 0..IN {
            half[i] = constants.input(patch.read::<S, IN, WHOLE>(images, i, channel, &counts));
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
    spot: &Spot,
    channel: usize,
    n: usize,
    planes: Planes,
    images: *mut f32,
) {
    // SAFETY: the caller's contract.
    unsafe {
        spot.next_patch.prefetch::<S, _>(images, channel);
        let (patch, planes) = (&spot.patch, planes.of(spot, channel));
        let constants = Constants::<S>::new();
        let counts = patch.counts::<S, IN>(n);
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
            // Of the patches above and to the left this one overlaps two rows and two columns.
            let mut sums = d;
            if i < IN - OUT && !spot.at.is_on_top() {
                let before = patch.read::<S, IN, WHOLE>(images, i, channel, &counts);
                for j in 0..IN {
                    sums[j] = before[j] + d[j];
                }
            } else if !spot.at.begins_row() {
                let first = [counts[0], counts[1]];
                let before = patch.read::<S, { IN - OUT }, WHOLE>(images, i, channel, &first);
                for j in 0..IN - OUT {
                    sums[j] = before[j] + d[j];
                }
            }
            patch.write::<S, IN, WHOLE>(sums, images, i, channel, &counts);
        }
    }
}

/// # Safety
/// As for [`output_transform`], of one tile.
#[inline(always)]
unsafe fn output_tile<S: Simd, const WHOLE: bool>(
    spot: &Spot,
    channel: usize,
    n: usize,
    planes: Planes,
    bias: Option<*const f32>,
    epilogue: &Epilogue,
) {
    // SAFETY: the caller's contract.
    unsafe {
        epilogue.prefetch::<S>(spot, channel);
        let planes = planes.of(spot, channel);
        let constants = Constants::<S>::new();
        let bias = match bias {
            Some(bias) => S::load_first(bias.add(channel), n.min(S::LANES)),
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
        let mut tile = [[constants.zero; OUT]; OUT];
        for i in 0..OUT {
            let y = constants.output([half[0][i], half[1][i], half[2][i], half[3][i], half[4][i], half[5][i]]);
            tile[i] = [y[0] + bias, y[1] + bias, y[2] + bias, y[3] + bias];
        }
        finish::<S, WHOLE>(epilogue, spot, channel, n, tile);
    }
}

/// # Safety
/// As for [`output_adjoint`], of one tile.
#[inline(always)]
unsafe fn output_adjoint_tile<S: Simd, const WHOLE: bool>(
    spot: &Spot,
    channel: usize,
    n: usize,
    planes: Planes,
    source: &Source,
) {
    // SAFETY: the caller's contract.
    unsafe {
        source.prefetch::<S>(spot, channel);
        let planes = planes.of(spot, channel);
        let constants = Constants::<S>::new();
        let dy = gradient::<S, WHOLE>(source, spot, channel, n);
        let mut half = [[constants.zero; IN]; OUT];
        for i in 0..OUT {
            half[i] = constants.output_adjoint(dy[i]);
        }
        for j in 0..IN {
            let z = constants.output_adjoint([half[0][j], half[1][j], half[2][j], half[3][j]]);
            for i in 0..IN {
                z[i].store(planes.data.add((i * IN + j) * planes.plane));
            }
        }
    }
}
