//! Tiles of 4 × 4 outputs over the images of a batch: where the pixels of a tile lie, and how they are read and written.

use super::Window;
use crate::kernel::simd::Simd;

/// Outputs of a tile, along each axis.
pub(super) const OUT: usize = 4;
/// Inputs that a 3×3 kernel needs for them.
pub(super) const IN: usize = 6;

/// A tile of the batch.
#[derive(Debug, Clone, Copy)]
pub(super) struct Position {
    image: usize,
    down: usize,
    across: usize,
}

impl Position {
    /// Whether it is the first tile of the batch.
    #[inline(always)]
    pub(super) fn is_first(&self) -> bool {
        self.image + self.down + self.across == 0
    }

    /// Whether it is the first of a row of tiles.
    #[inline(always)]
    pub(super) fn begins_row(&self) -> bool {
        self.across == 0
    }

    /// Whether it is in the first row of tiles of its image.
    #[inline(always)]
    pub(super) fn is_on_top(&self) -> bool {
        self.down == 0
    }
}

/// One side of the tiles of a batch: the images that are read (patches that may overlap) or those that are written.
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
    /// From one patch to the next, along each axis.
    step: usize,
    /// Tiles in an image, down and across.
    pub tiles: (usize, usize),
}

impl Side {
    /// The input of a 3×3 convolution: patches of 6 × 6.
    pub(super) fn input(window: &Window) -> Self {
        let Window { c, h, w, padding, .. } = *window;
        Self { h, w, c, before: padding, size: IN, step: OUT, tiles: tiles(window) }
    }

    /// The output of a convolution.
    pub(super) fn output(window: &Window) -> Self {
        let (h, w) = (window.out_h(), window.out_w());
        Self { h, w, c: window.o, before: (0, 0), size: OUT, step: OUT, tiles: tiles(window) }
    }

    /// The output of a convolution, pooled by 2 × 2.
    pub(super) fn pooled(window: &Window) -> Self {
        let (h, w) = (window.out_h() / 2, window.out_w() / 2);
        Self { h, w, c: window.o, before: (0, 0), size: OUT / 2, step: OUT / 2, tiles: tiles(window) }
    }

    /// Elements of an image.
    pub(super) fn image(&self) -> usize {
        self.h * self.w * self.c
    }

    /// Tile `index` of the batch.
    pub(super) fn position(&self, index: usize) -> Position {
        let (down, across) = (index / self.tiles.1 % self.tiles.0, index % self.tiles.1);
        Position { image: index / (self.tiles.0 * self.tiles.1), down, across }
    }

    /// The tile after this one.
    #[inline(always)]
    pub(super) fn after(&self, Position { image, down, across }: Position) -> Position {
        if across + 1 < self.tiles.1 {
            Position { image, down, across: across + 1 }
        } else if down + 1 < self.tiles.0 {
            Position { image, down: down + 1, across: 0 }
        } else {
            Position { image: image + 1, down: 0, across: 0 }
        }
    }

    /// How many tiles before its turn a tile is asked for: with few channels a tile takes less time than memory.
    pub(super) fn ahead(&self) -> usize {
        (128 / self.c).clamp(1, 4)
    }

    /// The patch of a tile.
    #[inline(always)]
    pub(super) fn patch(&self, at: Position) -> Patch {
        let (top, left) = (at.down * self.step, at.across * self.step);
        Patch {
            // May wrap where the patch begins outside the image; only elements inside are reached.
            first: (at.image * self.image() + (top * self.w + left) * self.c)
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
pub(super) struct Patch {
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
    pub(super) fn is_whole(&self) -> bool {
        self.rows == (0, self.full) && self.cols == (0, self.full)
    }

    /// Whether a pixel lies inside the image.
    #[inline(always)]
    pub(super) fn contains(&self, row: usize, col: usize) -> bool {
        row >= self.rows.0 && row < self.rows.1 && col >= self.cols.0 && col < self.cols.1
    }

    #[inline(always)]
    pub(super) fn at(&self, row: usize, col: usize, channel: usize) -> usize {
        self.first.wrapping_add(row * self.row + col * self.pixel + channel)
    }

    /// Asks for a line of each pixel that the patch before did not have: memory answers while that is worked on.
    #[inline(always)]
    pub(super) fn prefetch<S: Simd, P>(&self, images: *const P, channel: usize) {
        for row in 0..self.full {
            for col in self.full.saturating_sub(OUT)..self.full {
                S::prefetch(images.wrapping_add(self.at(row, col, channel)).cast());
            }
        }
    }

    /// Channels to take of each pixel of a row, of `n` that are left: a vector's or fewer, none outside the image.
    #[inline(always)]
    pub(super) fn counts<S: Simd, const N: usize>(&self, n: usize) -> [usize; N] {
        let mut counts = [0; N];
        for col in 0..N {
            counts[col] = if col >= self.cols.0 && col < self.cols.1 { n.min(S::LANES) } else { 0 };
        }
        counts
    }

    /// A row of N pixels, `counts` channels of each from `channel` on; zeros outside the image. WHOLE vouches for all
    /// of it being inside, with all lanes.
    ///
    /// # Safety
    /// `from` is the images' array; the CPU has the instruction set of `S`.
    #[inline(always)]
    pub(super) unsafe fn read<S: Simd, const N: usize, const WHOLE: bool>(
        &self,
        from: *const f32,
        row: usize,
        channel: usize,
        counts: &[usize; N],
    ) -> [S; N] {
        let from = from.wrapping_add(self.at(row, 0, channel));
        // SAFETY: elements inside the image.
        unsafe {
            let mut pixels = [S::splat(0.0); N];
            if WHOLE {
                for col in 0..N {
                    pixels[col] = S::load(from.wrapping_add(col * self.pixel));
                }
            } else if row >= self.rows.0 && row < self.rows.1 {
                for col in 0..N {
                    pixels[col] = S::load_first(from.wrapping_add(col * self.pixel), counts[col]);
                }
            }
            pixels
        }
    }

    /// Writes a row of N pixels; nothing outside the image.
    ///
    /// # Safety
    /// As for `read`.
    #[inline(always)]
    pub(super) unsafe fn write<S: Simd, const N: usize, const WHOLE: bool>(
        &self,
        pixels: [S; N],
        to: *mut f32,
        row: usize,
        channel: usize,
        counts: &[usize; N],
    ) {
        let to = to.wrapping_add(self.at(row, 0, channel));
        // SAFETY: elements inside the image.
        unsafe {
            if WHOLE {
                for col in 0..N {
                    pixels[col].store(to.wrapping_add(col * self.pixel));
                }
            } else if row >= self.rows.0 && row < self.rows.1 {
                for col in 0..N {
                    pixels[col].store_first(to.wrapping_add(col * self.pixel), counts[col]);
                }
            }
        }
    }
}

/// Defines `$entry(isa, side, first, count, arguments)`, which runs `$tile::<S, WHOLE>(spot, channel, n, arguments)` for
/// each vector of channels of each of `count` tiles from `first` on: `n` channels are left from `channel` on. WHOLE says
/// that no pixel of the patch lies outside the image and that the vector is full. `index` counts the tiles from 0.
macro_rules! over_patches {
    ($(#[$meta:meta])* $entry:ident, $body:ident, $tile:ident $(, $arg:ident : $ty:ty)*) => {
        $crate::kernel::simd::simd_entry! {
            $(#[$meta])*
            ///
            /// # Safety
            /// What the pointers are to holds the images of the `count` tiles from `first` on of a batch.
            pub(in $crate::kernel) unsafe fn $entry(
                side: &$crate::kernel::conv::patch::Side, first: usize, count: usize $(, $arg: $ty)*
            ) = $body
        }

        /// # Safety
        /// As for the entry; the CPU has the instruction set of `S`.
        #[inline(always)]
        unsafe fn $body<S: $crate::kernel::simd::Simd>(
            side: &$crate::kernel::conv::patch::Side, first: usize, count: usize $(, $arg: $ty)*
        ) {
            let (mut at, mut next) = (side.position(first), side.position(first));
            for _ in 0..side.ahead() {
                next = side.after(next);
            }
            for index in 0..count {
                let spot = $crate::kernel::conv::patch::Spot {
                    index, at, patch: side.patch(at), next, next_patch: side.patch(next), channels: side.c
                };
                let whole = spot.patch.is_whole();
                for channel in (0..side.c).step_by(S::LANES) {
                    let n = side.c - channel;
                    // SAFETY: the caller's contract.
                    unsafe {
                        if whole && n >= S::LANES {
                            $tile::<S, true>(&spot, channel, n $(, $arg)*);
                        } else {
                            $tile::<S, false>(&spot, channel, n $(, $arg)*);
                        }
                    }
                }
                (at, next) = (side.after(at), side.after(next));
            }
        }
    };
}
pub(super) use over_patches;

/// A tile at work, and the one to ask memory for.
#[derive(Clone, Copy)]
pub(super) struct Spot {
    /// From the first tile of the call.
    pub index: usize,
    /// Of all tiles.
    pub at: Position,
    /// Of the side that the call is over.
    pub patch: Patch,
    /// A tile soon after it, maybe past the last image.
    pub next: Position,
    /// Its patch.
    pub next_patch: Patch,
    /// Channels of the side.
    pub channels: usize,
}
