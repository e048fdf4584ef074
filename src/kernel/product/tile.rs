//! The register tiles: the inner loops of products, convolutions and their weight gradients.
//!
//! A tile is up to [`Tiles::rows`] rows × two vectors of accumulators held in registers: 14 × 32 for AVX-512, 6 × 16
//! for AVX2 and NEON. B is read as rows of a panel, A by broadcasts straight from memory. An element is a number, or a
//! pair of bf16 numbers ([`super::bf16`]).

use super::bf16::{Emulated, native};
use crate::kernel::simd::{Baseline, Simd, best_isa};
use crate::kernel::{Isa, PANEL};
use std::mem::MaybeUninit;

/// Elements of a cache line.
pub(in crate::kernel) const LINE: usize = 16;
/// Rows of the largest tile of any instruction set.
const MOST_ROWS: usize = 14;

/// How two elements are multiplied.
pub(super) trait Multiply<S> {
    /// a·b + c.
    ///
    /// # Safety
    /// The CPU has the instruction set of `S`, and what this multiplies with.
    unsafe fn multiply_add(a: S, b: S, c: S) -> S;
}

/// Elements are numbers.
struct Single;

impl<S: Simd> Multiply<S> for Single {
    #[inline(always)]
    unsafe fn multiply_add(a: S, b: S, c: S) -> S {
        a.mul_add(b, c)
    }
}

/// What a tile does with what is already in its output.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TileInit {
    /// Overwrite.
    Zero,
    /// Overwrite, starting from a bias; the pointer is to the tile's first column.
    Bias(*const f32),
    /// Add.
    Add,
}

/// C(R × columns) = A(R × segments·length) · B. Depth is cut into segments: a product has one, a convolution one for each
/// kernel row, along which its input is contiguous.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ProductTile {
    /// Contiguous runs of depth.
    pub segments: usize,
    /// Elements of a run.
    pub length: usize,
    /// First row of A.
    pub a: *const f32,
    /// Elements from a row of A to the next.
    pub a_row: usize,
    /// Elements from a segment of A to the next.
    pub a_segment: usize,
    /// First row of B; rows are [`PANEL`] apart.
    pub b: *const f32,
    /// What C starts from.
    pub init: TileInit,
    /// First element of C.
    pub c: *mut f32,
    /// Elements from a row of C to the next.
    pub c_row: usize,
    /// Columns to write, at most the tile's width.
    pub columns: usize,
    /// Asks for a cache line from here on with each step of depth: what the next tiles need.
    pub ahead: *const f32,
    /// Elements from where it asks in a segment to where it does in the next.
    pub ahead_segment: usize,
}

/// C(R × columns) = (or +=) Σ over pixels of A(pixel, R) · B(pixel, width). Pixels are `rows` × `cols`: an outer product
/// over a matrix has one row, a convolution's weight gradient one for each output row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct OuterTile<'a> {
    /// Rows of pixels.
    pub rows: usize,
    /// Pixels in a row.
    pub cols: usize,
    /// A of the first pixel.
    pub a: *const f32,
    /// Where the tile's elements of A lie, from there on, at the first pixel; None for one after the other.
    pub offsets: Option<&'a [usize]>,
    /// Elements from a row of A to the next.
    pub a_row: usize,
    /// Elements from a pixel of A to the next.
    pub a_col: usize,
    /// B of the first pixel; a whole tile's width is read.
    pub b: *const f32,
    /// Elements from a row of B to the next.
    pub b_row: usize,
    /// Elements from a pixel of B to the next.
    pub b_col: usize,
    /// Asks for a cache line from here on with each pixel: what the next tiles need.
    pub ahead: *const f32,
    /// Lines behind those that it asks for at once, where pixels are few.
    pub more: usize,
    /// First element of C; rows are [`PANEL`] apart.
    pub c: *mut f32,
    /// Columns to write, at most the tile's width.
    pub columns: usize,
    /// Whether to add to C or to overwrite it.
    pub add: bool,
}

type ProductFn = unsafe fn(&ProductTile);
type OuterFn = unsafe fn(&OuterTile);

/// The tiles of an instruction set.
pub(crate) struct Tiles {
    /// Lanes of a vector; a tile is one or two vectors wide.
    lanes: usize,
    /// By rows - 1, then vectors - 1.
    product: &'static [[ProductFn; 2]],
    outer: &'static [[OuterFn; 2]],
    /// Outer tiles with offsets; none for bf16.
    scattered: &'static [[OuterFn; 2]],
}

impl Tiles {
    /// Those for `isa`, which this CPU must have.
    pub(crate) fn of(isa: Isa) -> &'static Tiles {
        assert!(isa <= best_isa(), "this CPU has no {}", isa.name());
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 => &x86::AVX512,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => &x86::AVX2,
            _ => &BASELINE,
        }
    }

    /// Those whose elements are pairs of bf16, for `isa`, which this CPU must have: the same bits from all of them.
    pub(crate) fn of_bf16(isa: Isa) -> &'static Tiles {
        assert!(isa <= best_isa(), "this CPU has no {}", isa.name());
        match isa {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 if native() => &x86::AVX512_BF16,
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx2 => &x86::AVX2_BF16,
            _ => &BASELINE_BF16,
        }
    }

    /// Rows of the largest tile.
    pub(crate) fn rows(&self) -> usize {
        self.product.len()
    }

    /// Columns of the widest tile; divides [`PANEL`].
    pub(crate) fn width(&self) -> usize {
        2 * self.lanes
    }

    /// Vectors that `columns` columns, at most [`Tiles::width`], take.
    fn vectors(&self, columns: usize) -> usize {
        if columns > self.lanes { 2 } else { 1 }
    }

    /// Runs a product tile of `rows` rows.
    ///
    /// # Safety
    /// 1 ≤ `rows` ≤ [`Tiles::rows`], 1 ≤ `columns` ≤ [`Tiles::width`], and all that the tile describes is in bounds
    /// (rows of B for the tile's width).
    #[inline(always)]
    pub(crate) unsafe fn product(&self, rows: usize, tile: &ProductTile) {
        // SAFETY: the caller's contract; `of` checked the instruction set.
        unsafe { self.product[rows - 1][self.vectors(tile.columns) - 1](tile) }
    }

    /// Runs an outer tile of `rows` rows.
    ///
    /// # Safety
    /// As for [`Tiles::product`].
    #[inline(always)]
    pub(crate) unsafe fn outer(&self, rows: usize, tile: &OuterTile) {
        let tiles = match tile.offsets {
            None => self.outer,
            Some(offsets) => {
                assert!(offsets.len() >= rows);
                self.scattered
            }
        };
        // SAFETY: the caller's contract; `of` checked the instruction set.
        unsafe { tiles[rows - 1][self.vectors(tile.columns) - 1](tile) }
    }

    /// Cuts `n` rows into tiles of nearly equal height and calls `visit(first, rows)` for each.
    #[inline(always)]
    pub(crate) fn split(&self, n: usize, mut visit: impl FnMut(usize, usize)) {
        let tiles = n.div_ceil(self.rows());
        let mut first = 0;
        for tile in 0..tiles {
            let rows = n / tiles + usize::from(tile < n % tiles);
            visit(first, rows);
            first += rows;
        }
    }
}

/// See [`ProductTile`].
///
/// # Safety
/// The CPU has the instruction set of `S` and `X`; see [`Tiles::product`].
#[inline(always)]
unsafe fn product_tile<S: Simd, X: Multiply<S>, const R: usize, const V: usize>(tile: &ProductTile) {
    let &ProductTile { segments, length, a, a_row, a_segment, mut b, init, c, c_row, columns, ahead, ahead_segment } =
        tile;
    // SAFETY: every pointer stays in what the tile describes, which is in bounds by the caller's contract.
    unsafe {
        let mut sums = [[S::splat(0.0); V]; R];
        for segment in 0..segments {
            let (mut a, mut ahead) = (a.add(segment * a_segment), ahead.wrapping_add(segment * ahead_segment));
            // Not unrolled: the compiler would load ahead and spill sums.
            for _ in 0..length {
                S::prefetch_far(ahead);
                multiply::<S, X, R, V>(&mut sums, a, a_row, b);
                a = a.wrapping_add(1);
                b = b.wrapping_add(PANEL);
                ahead = ahead.wrapping_add(LINE);
            }
        }
        match init {
            TileInit::Zero => write(&sums, false, c, c_row, columns),
            TileInit::Bias(bias) => {
                for v in 0..V {
                    let left = S::LANES.min(columns - (v * S::LANES).min(columns));
                    let bias = S::load_first(bias.wrapping_add(v * S::LANES), left);
                    for r in 0..R {
                        sums[r][v] = sums[r][v] + bias;
                    }
                }
                write(&sums, false, c, c_row, columns);
            }
            TileInit::Add => write(&sums, true, c, c_row, columns),
        }
    }
}

/// C = sums, or += where `add`. The loops over a whole tile are so short that they unroll, which keeps the sums in
/// registers throughout.
///
/// # Safety
/// R rows of `columns` elements, `c_row` apart, can be written, and read to add; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn write<S: Simd, const R: usize, const V: usize>(
    sums: &[[S; V]; R],
    add: bool,
    c: *mut f32,
    c_row: usize,
    columns: usize,
) {
    // SAFETY: the caller's contract.
    unsafe {
        if columns < V * S::LANES {
            let mut whole = Whole::uninit();
            let from = spread(sums, &mut whole);
            for r in 0..R {
                for at in (0..columns).step_by(S::LANES) {
                    let (sum, c, left) = (S::load(from.add(r * PANEL + at)), c.add(r * c_row + at), columns - at);
                    let left = left.min(S::LANES);
                    let sum = if add { sum + S::load_first(c, left) } else { sum };
                    sum.store_first(c, left);
                }
            }
        } else if add {
            for r in 0..R {
                for v in 0..V {
                    let c = c.add(r * c_row + v * S::LANES);
                    (sums[r][v] + S::load(c)).store(c);
                }
            }
        } else {
            for r in 0..R {
                for v in 0..V {
                    sums[r][v].store(c.add(r * c_row + v * S::LANES));
                }
            }
        }
    }
}

/// A tile in memory.
type Whole = MaybeUninit<[f32; MOST_ROWS * PANEL]>;

/// Puts the sums there, for loops that do not unroll.
///
/// # Safety
/// The CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn spread<S: Simd, const R: usize, const V: usize>(sums: &[[S; V]; R], whole: &mut Whole) -> *const f32 {
    const { assert!(R <= MOST_ROWS && V * S::LANES <= PANEL) };
    let to = whole.as_mut_ptr().cast::<f32>();
    for r in 0..R {
        for v in 0..V {
            // SAFETY: R rows of V vectors, no more than there is room for.
            unsafe { sums[r][v].store(to.add(r * PANEL + v * S::LANES)) };
        }
    }
    to
}

/// sums += column of A (elements `a_row` apart) · row of B.
///
/// # Safety
/// The CPU has the instruction set of `S` and `X`; R elements of A and V vectors of B can be read.
#[inline(always)]
unsafe fn multiply<S: Simd, X: Multiply<S>, const R: usize, const V: usize>(
    sums: &mut [[S; V]; R],
    a: *const f32,
    a_row: usize,
    b: *const f32,
) {
    // SAFETY: the caller's contract.
    unsafe {
        let b: [S; V] = std::array::from_fn(|v| S::load(b.add(v * S::LANES)));
        for r in 0..R {
            let a = S::splat(*a.add(r * a_row));
            for v in 0..V {
                sums[r][v] = X::multiply_add(a, b[v], sums[r][v]);
            }
        }
    }
}

/// See [`OuterTile`]; SCATTERED by its offsets.
///
/// # Safety
/// The CPU has the instruction set of `S` and `X`; see [`Tiles::outer`].
#[inline(always)]
unsafe fn outer_tile<S: Simd, X: Multiply<S>, const R: usize, const V: usize, const SCATTERED: bool>(tile: &OuterTile) {
    let &OuterTile { rows, cols, a, offsets, a_row, a_col, b, b_row, b_col, mut ahead, more, c, columns, add } = tile;
    // SAFETY: every pointer stays in what the tile describes, which is in bounds by the caller's contract.
    unsafe {
        for line in 0..more {
            S::prefetch_far(ahead.wrapping_add((rows * cols + line) * LINE));
        }
        let mut scattered = [a; R];
        if let (true, Some(offsets)) = (SCATTERED, offsets) {
            for r in 0..R {
                scattered[r] = a.add(offsets[r]);
            }
        }
        let mut sums = [[S::splat(0.0); V]; R];
        for row in 0..rows {
            let (mut at, mut b) = (row * a_row, b.add(row * b_row));
            for _ in 0..cols {
                S::prefetch_far(ahead);
                ahead = ahead.wrapping_add(LINE);
                if SCATTERED {
                    let mut vectors = [S::splat(0.0); V];
                    for v in 0..V {
                        vectors[v] = S::load(b.add(v * S::LANES));
                    }
                    for r in 0..R {
                        let a = S::splat(*scattered[r].add(at));
                        for v in 0..V {
                            sums[r][v] = X::multiply_add(a, vectors[v], sums[r][v]);
                        }
                    }
                } else {
                    multiply::<S, X, R, V>(&mut sums, a.add(at), 1, b);
                }
                at += a_col;
                b = b.wrapping_add(b_col);
            }
        }
        write(&sums, add, c, PANEL, columns);
    }
}

/// A table of tiles with one or two vectors for each number of rows.
macro_rules! table {
    ($type:ident, $function:ident, $($rows:literal)*) => {
        &[$([$function::<$rows, 1> as $type, $function::<$rows, 2> as $type]),*]
    };
}

// SAFETY (of the blocks in this macro): the contract of the function in which they stand.
macro_rules! wrap {
    ($simd:ty, $multiply:ty, $product:ident, $outer:ident $(, $scattered:ident)? $(; $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $product<const R: usize, const V: usize>(tile: &ProductTile) {
            // SAFETY: the caller's contract.
            unsafe { product_tile::<$simd, $multiply, R, V>(tile) }
        }
        $(#[target_feature(enable = $feature)])?
        unsafe fn $outer<const R: usize, const V: usize>(tile: &OuterTile) {
            // SAFETY: the caller's contract.
            unsafe { outer_tile::<$simd, $multiply, R, V, false>(tile) }
        }
        wrap! { @scattered $simd, $multiply $(, $scattered)? $(; $feature)? }
    };
    (@scattered $simd:ty, $multiply:ty $(; $feature:literal)?) => {};
    (@scattered $simd:ty, $multiply:ty, $scattered:ident $(; $feature:literal)?) => {
        $(#[target_feature(enable = $feature)])?
        unsafe fn $scattered<const R: usize, const V: usize>(tile: &OuterTile) {
            // SAFETY: the caller's contract.
            unsafe { outer_tile::<$simd, $multiply, R, V, true>(tile) }
        }
    };
}

wrap!(Baseline, Single, product_baseline, outer_baseline, scattered_baseline);
wrap!(Baseline, Emulated, product_emulated, outer_emulated);

/// Small, since it is slow with any size.
static BASELINE_BF16: Tiles = Tiles {
    lanes: 8,
    product: table!(ProductFn, product_emulated, 1 2),
    outer: table!(OuterFn, outer_emulated, 1 2),
    scattered: &[],
};

/// Without NEON there are 16 registers of four lanes: two rows of two eight-lane vectors take eight.
#[cfg(not(target_arch = "aarch64"))]
static BASELINE: Tiles = Tiles {
    lanes: 8,
    product: table!(ProductFn, product_baseline, 1 2),
    outer: table!(OuterFn, outer_baseline, 1 2),
    scattered: table!(OuterFn, scattered_baseline, 1 2),
};

#[cfg(target_arch = "aarch64")]
static BASELINE: Tiles = Tiles {
    lanes: 8,
    product: table!(ProductFn, product_baseline, 1 2 3 4 5 6),
    outer: table!(OuterFn, outer_baseline, 1 2 3 4 5 6),
    scattered: table!(OuterFn, scattered_baseline, 1 2 3 4 5 6),
};

#[cfg(target_arch = "x86_64")]
mod x86 {
    use super::super::bf16::Native;
    use super::*;
    use crate::kernel::simd::{Avx2, Avx512};

    wrap!(Avx512, Single, product_avx512, outer_avx512, scattered_avx512; "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma");
    wrap!(Avx2, Single, product_avx2, outer_avx2, scattered_avx2; "avx2,fma");
    wrap!(Avx512, Native, product_bf16, outer_bf16; "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma");
    wrap!(Avx2, Emulated, product_emulated, outer_emulated; "avx2,fma");

    pub(super) static AVX512_BF16: Tiles = Tiles {
        lanes: 16,
        product: table!(ProductFn, product_bf16, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        outer: table!(OuterFn, outer_bf16, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        scattered: &[],
    };

    pub(super) static AVX2_BF16: Tiles = Tiles {
        lanes: 8,
        product: table!(ProductFn, product_emulated, 1 2),
        outer: table!(OuterFn, outer_emulated, 1 2),
        scattered: &[],
    };

    pub(super) static AVX512: Tiles = Tiles {
        lanes: 16,
        product: table!(ProductFn, product_avx512, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        outer: table!(OuterFn, outer_avx512, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
        scattered: table!(OuterFn, scattered_avx512, 1 2 3 4 5 6 7 8 9 10 11 12 13 14),
    };

    pub(super) static AVX2: Tiles = Tiles {
        lanes: 8,
        product: table!(ProductFn, product_avx2, 1 2 3 4 5 6),
        outer: table!(OuterFn, outer_avx2, 1 2 3 4 5 6),
        scattered: table!(OuterFn, scattered_avx2, 1 2 3 4 5 6),
    };
}
