//! What follows a convolution, done while a tile of its output is at hand: batch norm's sums, normalisation, ReLU, 2×2
//! pooling. So the output need not go through memory in full size, but for batch norm, which must see the whole
//! micro-batch first.

use super::Window;
use super::patch::{OUT, Side, Spot, over_patches};
use crate::kernel::simd::Simd;

/// Pixels of a pooled tile, along each axis.
pub(super) const HALF: usize = OUT / 2;
/// The tap of a window that ReLU closed: gradients go nowhere.
const NONE: f32 = 4.0;
/// Arrays of O elements in `moments`, see [`Fused`](super::Fused).
pub(super) const MOMENTS: usize = 5;

/// ReLU, then max-pooling by 2 × 2; either or both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Activation {
    /// max(x, 0).
    pub relu: bool,
    /// The largest of each 2 × 2 window; a last odd row or column is left out.
    pub pool: bool,
}

/// scale·(x − mean) + offset, per channel: O elements each.
#[derive(Debug, Clone, Copy)]
pub struct Norm<'a, T> {
    /// Subtracted.
    pub mean: &'a [T],
    /// Multiplied by.
    pub scale: &'a [T],
    /// Added.
    pub offset: &'a [T],
}

/// Pooled images: their side and the bytes that tell the taps.
#[derive(Clone, Copy)]
pub(super) struct Pooled<P> {
    pub side: Side,
    pub taps: P,
}

/// Per-channel constants: mean, scale, offset.
pub(super) type Channels = [*const f32; 3];

/// Where a convolution's output goes, as pointers to whole batches.
#[derive(Clone, Copy)]
pub(super) struct Epilogue {
    y: *mut f32,
    moments: Option<*mut f32>,
    norm: Option<Channels>,
    relu: bool,
    pooled: Option<Pooled<*mut u8>>,
}

impl Epilogue {
    /// Asks for where a tile soon after this one goes.
    #[inline(always)]
    pub(super) fn prefetch<S: Simd>(&self, spot: &Spot, channel: usize) {
        match self.pooled {
            None => spot.next_patch.prefetch::<S, _>(self.y, channel),
            Some(Pooled { side, taps }) => {
                let patch = side.patch(spot.next);
                patch.prefetch::<S, _>(self.y, channel);
                patch.prefetch::<S, _>(taps, channel);
            }
        }
    }

    /// Just stores it.
    pub(super) fn store(window: &Window, m: usize, y: &mut [f32]) -> Self {
        assert!(y.len() >= m * Side::output(window).image(), "y is too short");
        Self { y: y.as_mut_ptr(), moments: None, norm: None, relu: false, pooled: None }
    }

    /// Stores it and sums it up in `moments`.
    pub(super) fn moments(window: &Window, m: usize, y: &mut [f32], moments: &mut [f32]) -> Self {
        assert!(moments.len() >= MOMENTS * window.o, "moments are too short");
        Self { moments: Some(moments.as_mut_ptr()), ..Self::store(window, m, y) }
    }

    /// Normalises it where there is a norm, and stores what the activation makes of it.
    pub(super) fn activate(
        window: &Window,
        m: usize,
        norm: Option<Norm<'_, f32>>,
        activation: Activation,
        y: &mut [f32],
        taps: &mut [u8],
    ) -> Self {
        let side = if activation.pool { Side::pooled(window) } else { Side::output(window) };
        assert!(y.len() >= m * side.image(), "y is too short");
        assert!(!activation.pool || taps.len() >= m * side.image(), "the taps are too short");
        Self {
            y: y.as_mut_ptr(),
            moments: None,
            norm: norm.map(|norm| channels(window, norm)),
            relu: activation.relu,
            pooled: activation.pool.then_some(Pooled { side, taps: taps.as_mut_ptr() }),
        }
    }
}

pub(super) fn channels(window: &Window, norm: Norm<'_, f32>) -> Channels {
    [norm.mean, norm.scale, norm.offset].map(|each| {
        assert!(each.len() >= window.o, "the norm is too short");
        each.as_ptr()
    })
}

/// A vector of each of N arrays, `n` channels of it.
///
/// # Safety
/// `n` elements can be read from `channel` on; the CPU has the instruction set of `S`.
#[inline(always)]
pub(super) unsafe fn load<S: Simd, const N: usize>(arrays: &[*const f32; N], channel: usize, n: usize) -> [S; N] {
    // SAFETY: the caller's contract.
    unsafe {
        let mut vectors = [S::splat(0.0); N];
        for i in 0..N {
            vectors[i] = S::load_first(arrays[i].add(channel), n.min(S::LANES));
        }
        vectors
    }
}

/// Adds a tile's sum to the sum of its row of tiles, which joins the total when a new row begins: the rounding errors of
/// short sums are small.
///
/// # Safety
/// `n` elements can be read and written at both; the CPU has the instruction set of `S`.
#[inline(always)]
pub(super) unsafe fn add_up<S: Simd>(new_row: bool, sum: S, row: *mut f32, total: *mut f32, n: usize) {
    let n = n.min(S::LANES);
    // SAFETY: the caller's contract.
    unsafe {
        let before = S::load_first(row, n);
        if new_row {
            (S::load_first(total, n) + before).store_first(total, n);
            sum.store_first(row, n);
        } else {
            (before + sum).store_first(row, n);
        }
    }
}

/// Takes a tile of the convolution's output to where it goes.
///
/// # Safety
/// The tile lies in the batch for which the epilogue was made; the CPU has the instruction set of `S`.
#[inline(always)]
pub(super) unsafe fn finish<S: Simd, const WHOLE: bool>(
    epilogue: &Epilogue,
    spot: &Spot,
    channel: usize,
    n: usize,
    mut tile: [[S; OUT]; OUT],
) {
    // SAFETY: the caller's contract; `channel` lies below O.
    unsafe {
        let zero = S::splat(0.0);
        if let Some(moments) = epilogue.moments {
            add_moments::<S, WHOLE>(moments, spot, channel, n, &tile);
        }
        if let Some(norm) = &epilogue.norm {
            let [mean, scale, offset] = load::<S, 3>(norm, channel, n);
            for row in &mut tile {
                for x in row {
                    *x = scale.mul_add(*x - mean, offset);
                }
            }
        }
        let Some(Pooled { side, taps }) = epilogue.pooled else {
            let counts = spot.patch.counts::<S, OUT>(n);
            for i in 0..OUT {
                let mut row = tile[i];
                if epilogue.relu {
                    for x in &mut row {
                        // Written so that NaN passes through, as in torch.
                        *x = x.select_less(zero, zero, *x);
                    }
                }
                spot.patch.write::<S, OUT, WHOLE>(row, epilogue.y, i, channel, &counts);
            }
            return;
        };
        let patch = side.patch(spot.at);
        let counts = patch.counts::<S, HALF>(n);
        for i in 0..HALF {
            let (mut pixels, mut bytes) = ([zero; HALF], [zero; HALF]);
            for j in 0..HALF {
                let (above, below) = (&tile[2 * i][2 * j..], &tile[2 * i + 1][2 * j..]);
                let (mut best, mut tap) = (above[0], zero);
                for (number, x) in [(1.0, above[1]), (2.0, below[0]), (3.0, below[1])] {
                    tap = x.select_above(best, S::splat(number), tap);
                    best = x.select_above(best, x, best);
                }
                if epilogue.relu {
                    tap = zero.select_less(best, tap, S::splat(NONE));
                    best = best.select_less(zero, zero, best);
                }
                (pixels[j], bytes[j]) = (best, tap);
            }
            patch.write::<S, HALF, WHOLE>(pixels, epilogue.y, i, channel, &counts);
            for j in 0..HALF {
                if WHOLE || patch.contains(i, j) {
                    bytes[j].store_bytes(taps.wrapping_add(patch.at(i, j, channel)), counts[j]);
                }
            }
        }
    }
}

/// Sums of y − shift and of its square, with the batch's first pixel as shift: near the mean, the squares lose no digits.
///
/// # Safety
/// As for [`finish`].
#[inline(always)]
unsafe fn add_moments<S: Simd, const WHOLE: bool>(
    moments: *mut f32,
    spot: &Spot,
    channel: usize,
    n: usize,
    tile: &[[S; OUT]; OUT],
) {
    // SAFETY: the caller's contract: `moments` has MOMENTS arrays of `c` elements.
    unsafe {
        let c = spot.channels;
        let array = |index: usize| moments.add(index * c + channel);
        let zero = S::splat(0.0);
        if spot.at.is_first() {
            tile[0][0].store_first(array(0), n.min(S::LANES));
        }
        let shift = S::load_first(array(0), n.min(S::LANES));
        let (mut sums, mut squares) = ([zero; OUT], [zero; OUT]);
        for i in 0..OUT {
            for j in 0..OUT {
                if WHOLE || spot.patch.contains(i, j) {
                    let x = tile[i][j] - shift;
                    sums[j] = sums[j] + x;
                    squares[j] = x.mul_add(x, squares[j]);
                }
            }
        }
        let new_row = spot.at.begins_row();
        add_up(new_row, sum(sums), array(1), array(3), n);
        add_up(new_row, sum(squares), array(2), array(4), n);
    }
}

#[inline(always)]
pub(super) fn sum<S: Simd>([a, b, c, d]: [S; OUT]) -> S {
    (a + b) + (c + d)
}

over_patches! {
    /// Takes images of a convolution's output to where they go.
    finish_images, finish_body, finish_tile, images: *const f32, epilogue: &Epilogue
}
/// # Safety
/// As for [`finish_images`], of one tile.
#[inline(always)]
unsafe fn finish_tile<S: Simd, const WHOLE: bool>(
    spot: &Spot,
    channel: usize,
    n: usize,
    images: *const f32,
    epilogue: &Epilogue,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let mut tile = [[S::splat(0.0); OUT]; OUT];
        spot.next_patch.prefetch::<S, _>(images, channel);
        epilogue.prefetch::<S>(spot, channel);
        let counts = spot.patch.counts::<S, OUT>(n);
        for i in 0..OUT {
            tile[i] = spot.patch.read::<S, OUT, WHOLE>(images, i, channel, &counts);
        }
        finish::<S, WHOLE>(epilogue, spot, channel, n, tile);
    }
}
