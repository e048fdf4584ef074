//! The gradient of a convolution's output, made a tile at a time from the gradient of what it became: through pooling,
//! ReLU and batch norm, the way back of [`epilogue`](super::epilogue).

use super::Window;
use super::epilogue::{Activation, Channels, HALF, Norm, Pooled, add_up, channels, load, sum};
use super::patch::{OUT, Side, Spot, over_patches};
use crate::kernel::simd::Simd;

/// Arrays of O elements in the sums for batch norm's gradient, see [`Fused`](super::Fused).
pub(super) const SUMS: usize = 4;

/// A normalised convolution's output and how its gradient comes from that of the normalised one, g:
/// a·g + b·(x − mean) + d, per channel.
#[derive(Debug, Clone, Copy)]
pub struct Normalised<'a, T> {
    /// The convolution's output.
    pub x: &'a [T],
    /// How it was normalised.
    pub norm: Norm<'a, T>,
    /// a, b and d.
    pub slope: [&'a [T]; 3],
}

/// From where the gradient of a convolution's output comes.
#[derive(Debug, Clone, Copy)]
pub struct Upstream<'a, T> {
    /// What the output went through last.
    pub activation: Activation,
    /// The gradient of what came out of that.
    pub dy: &'a [T],
    /// What came out, where ReLU came last and nothing was normalised: it tells what ReLU closed.
    pub y: &'a [T],
    /// Which tap was the largest, where pooled.
    pub taps: &'a [u8],
    /// What it went through before that.
    pub normalised: Option<Normalised<'a, T>>,
}

/// From where the output's gradient comes, as pointers to whole batches.
#[derive(Clone, Copy)]
pub(super) struct Source {
    dy: *const f32,
    y: Option<*const f32>,
    relu: bool,
    pooled: Option<Pooled<*const u8>>,
    normalised: Option<(*const f32, Channels, Channels)>,
}

impl Source {
    /// The gradient itself.
    pub(super) fn plain(window: &Window, m: usize, dy: &[f32]) -> Self {
        assert!(dy.len() >= m * Side::output(window).image(), "dy is too short");
        Self { dy: dy.as_ptr(), y: None, relu: false, pooled: None, normalised: None }
    }

    /// See [`Upstream`].
    pub(super) fn of(window: &Window, m: usize, from: &Upstream<'_, f32>) -> Self {
        let Activation { relu, pool } = from.activation;
        let (output, side) = (Side::output(window), Side::pooled(window));
        let by_output = relu && !pool && from.normalised.is_none();
        assert!(from.dy.len() >= m * if pool { side.image() } else { output.image() }, "dy is too short");
        assert!(!pool || from.taps.len() >= m * side.image(), "the taps are too short");
        assert!(!by_output || from.y.len() >= m * output.image(), "y is too short");
        let normalised = from.normalised.map(|Normalised { x, norm, slope }| {
            assert!(x.len() >= m * output.image(), "x is too short");
            let slope = slope.map(|each| {
                assert!(each.len() >= window.o, "the slope is too short");
                each.as_ptr()
            });
            (x.as_ptr(), channels(window, norm), slope)
        });
        let pooled = pool.then_some(Pooled { side, taps: from.taps.as_ptr() });
        Self { dy: from.dy.as_ptr(), y: by_output.then_some(from.y.as_ptr()), relu, pooled, normalised }
    }

    /// Asks for the gradient of a tile soon after this one.
    #[inline(always)]
    pub(super) fn prefetch<S: Simd>(&self, spot: &Spot, channel: usize) {
        match self.pooled {
            None => spot.next_patch.prefetch::<S, _>(self.dy, channel),
            Some(Pooled { side, taps }) => {
                let patch = side.patch(spot.next);
                patch.prefetch::<S, _>(self.dy, channel);
                patch.prefetch::<S, _>(taps, channel);
            }
        }
        if let Some(y) = self.y {
            spot.next_patch.prefetch::<S, _>(y, channel);
        }
        if let Some((x, ..)) = self.normalised {
            spot.next_patch.prefetch::<S, _>(x, channel);
        }
    }
}

/// The gradient of the normalised output (of the output itself, where nothing is normalised), and x − mean.
///
/// # Safety
/// The tile lies in the batch for which the source was made; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn incoming<S: Simd, const WHOLE: bool>(
    source: &Source,
    spot: &Spot,
    channel: usize,
    n: usize,
) -> ([[S; OUT]; OUT], [[S; OUT]; OUT]) {
    // SAFETY: the caller's contract.
    unsafe {
        let zero = S::splat(0.0);
        let (mut g, mut centred) = ([[zero; OUT]; OUT], [[zero; OUT]; OUT]);
        let counts = spot.patch.counts::<S, OUT>(n);
        match source.pooled {
            None => {
                for i in 0..OUT {
                    g[i] = spot.patch.read::<S, OUT, WHOLE>(source.dy, i, channel, &counts);
                }
            }
            Some(Pooled { side, taps }) => {
                let patch = side.patch(spot.at);
                let counts = patch.counts::<S, HALF>(n);
                for i in 0..HALF {
                    let dy = patch.read::<S, HALF, WHOLE>(source.dy, i, channel, &counts);
                    for j in 0..HALF {
                        if !WHOLE && !patch.contains(i, j) {
                            continue;
                        }
                        let tap = S::load_bytes(taps.wrapping_add(patch.at(i, j, channel)), counts[j]);
                        for number in 0..4 {
                            let (row, col) = (2 * i + number / 2, 2 * j + number % 2);
                            g[row][col] = tap.select_equal(S::splat(number as f32), dy[j], zero);
                        }
                    }
                }
            }
        }
        if let Some(y) = source.y {
            for i in 0..OUT {
                let y = spot.patch.read::<S, OUT, WHOLE>(y, i, channel, &counts);
                for j in 0..OUT {
                    g[i][j] = zero.select_less(y[j], g[i][j], zero);
                }
            }
        }
        if let Some((x, norm, _)) = &source.normalised {
            let [mean, scale, offset] = load::<S, 3>(norm, channel, n);
            for i in 0..OUT {
                let x = spot.patch.read::<S, OUT, WHOLE>(*x, i, channel, &counts);
                for j in 0..OUT {
                    centred[i][j] = x[j] - mean;
                    if source.relu && source.pooled.is_none() {
                        // The very number that the forward pass had.
                        let y = scale.mul_add(centred[i][j], offset);
                        g[i][j] = zero.select_less(y, g[i][j], zero);
                    }
                }
            }
        }
        (g, centred)
    }
}

/// A tile of the gradient of the convolution's output; zeros outside the image.
///
/// # Safety
/// As for [`incoming`].
#[inline(always)]
pub(super) unsafe fn gradient<S: Simd, const WHOLE: bool>(
    source: &Source,
    spot: &Spot,
    channel: usize,
    n: usize,
) -> [[S; OUT]; OUT] {
    // SAFETY: the caller's contract.
    unsafe {
        let (mut g, centred) = incoming::<S, WHOLE>(source, spot, channel, n);
        if let Some((_, _, slope)) = &source.normalised {
            let [a, b, d] = load::<S, 3>(slope, channel, n);
            for i in 0..OUT {
                for j in 0..OUT {
                    let inside = WHOLE || spot.patch.contains(i, j);
                    g[i][j] = if inside { a.mul_add(g[i][j], b.mul_add(centred[i][j], d)) } else { S::splat(0.0) };
                }
            }
        }
        g
    }
}

over_patches! {
    /// images = the gradient of a convolution's output.
    gradient_images, gradient_body, gradient_tile, images: *mut f32, source: &Source
}
over_patches! {
    /// Adds up g and g·(x − mean), for the gradients of batch norm, in the SUMS arrays of `sums`.
    norm_sums, norm_sums_body, norm_sums_tile, source: &Source, sums: *mut f32
}

/// # Safety
/// As for [`gradient_images`], of one tile.
#[inline(always)]
unsafe fn gradient_tile<S: Simd, const WHOLE: bool>(
    spot: &Spot,
    channel: usize,
    n: usize,
    images: *mut f32,
    source: &Source,
) {
    // SAFETY: the caller's contract.
    unsafe {
        source.prefetch::<S>(spot, channel);
        let tile = gradient::<S, WHOLE>(source, spot, channel, n);
        let counts = spot.patch.counts::<S, OUT>(n);
        for i in 0..OUT {
            spot.patch.write::<S, OUT, WHOLE>(tile[i], images, i, channel, &counts);
        }
    }
}

/// # Safety
/// As for [`norm_sums`], of one tile.
#[inline(always)]
unsafe fn norm_sums_tile<S: Simd, const WHOLE: bool>(
    spot: &Spot,
    channel: usize,
    n: usize,
    source: &Source,
    sums: *mut f32,
) {
    // SAFETY: the caller's contract; g is zero outside the image.
    unsafe {
        source.prefetch::<S>(spot, channel);
        let (g, centred) = incoming::<S, WHOLE>(source, spot, channel, n);
        let (mut straight, mut weighted) = ([S::splat(0.0); OUT], [S::splat(0.0); OUT]);
        for i in 0..OUT {
            for j in 0..OUT {
                straight[j] = straight[j] + g[i][j];
                weighted[j] = g[i][j].mul_add(centred[i][j], weighted[j]);
            }
        }
        let array = |index: usize| sums.add(index * spot.channels + channel);
        let new_row = spot.at.begins_row();
        add_up(new_row, sum(straight), array(0), array(2), n);
        add_up(new_row, sum(weighted), array(1), array(3), n);
    }
}
