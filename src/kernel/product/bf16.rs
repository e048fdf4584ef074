//! Products of numbers rounded to bf16 (bfloat16: the upper half of an f32), with sums in f32.
//!
//! Operands lie as pairs along the depth of the product, the even one in the lower half of an element that is an f32 by
//! type only, so that the drivers and tiles of f32 serve with a dot product in place of the multiply-add. Where the CPU
//! has AVX-512 BF16 that is `vdpbf16ps`; elsewhere [`dot`] computes the same bits (but for the payload of a NaN).

use super::tile::{Multiply, Tiles};
use super::tiled;
use crate::kernel::isa::dispatch;
use crate::kernel::simd::Simd;
use crate::kernel::view::{Rows, RowsMut, rows, slices, stride};
use crate::kernel::{Isa, PANEL, isa, panels_len, transpose};
use std::sync::OnceLock;

/// Whether products run on AVX-512 BF16.
pub fn native() -> bool {
    static NATIVE: OnceLock<bool> = OnceLock::new();
    *NATIVE.get_or_init(|| {
        #[cfg(target_arch = "x86_64")]
        return isa() == Isa::Avx512 && is_x86_feature_detected!("avx512bf16");
        #[cfg(not(target_arch = "x86_64"))]
        false
    })
}

/// Elements are pairs, multiplied by `vdpbf16ps`.
#[cfg(target_arch = "x86_64")]
pub(super) struct Native;

#[cfg(target_arch = "x86_64")]
impl Multiply<crate::kernel::simd::Avx512> for Native {
    #[inline(always)]
    unsafe fn multiply_add(
        a: crate::kernel::simd::Avx512,
        b: crate::kernel::simd::Avx512,
        c: crate::kernel::simd::Avx512,
    ) -> crate::kernel::simd::Avx512 {
        // SAFETY: the caller's contract.
        unsafe { a.dot_bf16(b, c) }
    }
}

/// Elements are pairs, multiplied by [`dot`].
pub(super) struct Emulated;

impl<S: Simd> Multiply<S> for Emulated {
    #[inline(always)]
    unsafe fn multiply_add(a: S, b: S, c: S) -> S {
        let mut lanes = [[0.0f32; 16]; 3];
        // SAFETY: the caller's contract; no vector has more lanes than the arrays.
        unsafe {
            for (vector, lanes) in [a, b, c].into_iter().zip(&mut lanes) {
                vector.store(lanes.as_mut_ptr());
            }
            let [a, b, c] = &mut lanes;
            for lane in 0..S::LANES {
                c[lane] = dot(a[lane].to_bits(), b[lane].to_bits(), c[lane]);
            }
            S::load(c.as_ptr())
        }
    }
}

/// c + a·b of two pairs, as `vdpbf16ps` computes it (Intel, Architecture Instruction Set Extensions): the upper numbers
/// first, then the lower, each by a multiply-add that rounds once, to nearest even, takes subnormal numbers for zero
/// and gives zero for them.
#[inline(always)]
fn dot(a: u32, b: u32, c: f32) -> f32 {
    let sum = multiply_add(f32::from_bits(a & 0xFFFF_0000), f32::from_bits(b & 0xFFFF_0000), flush(c));
    multiply_add(f32::from_bits(a << 16), f32::from_bits(b << 16), sum)
}

/// A number, or zero for a subnormal one.
#[inline(always)]
fn flush(x: f32) -> f32 {
    if x.abs() < f32::MIN_POSITIVE { 0f32.copysign(x) } else { x }
}

/// a·b + c for [`dot`], of which a and b have the precision of bf16 and c is no subnormal number.
#[inline(always)]
fn multiply_add(a: f32, b: f32, c: f32) -> f32 {
    let (a, b) = (flush(a), flush(b));
    let sum = a.mul_add(b, c);
    if sum.abs() == f32::MIN_POSITIVE && is_tiny(a, b, c) { 0f32.copysign(sum) } else { flush(sum) }
}

/// Whether a·b + c, which f32 rounds to its smallest normal number, would be less with more exponents at hand.
#[cold]
fn is_tiny(a: f32, b: f32, c: f32) -> bool {
    // 2⁻¹²⁶ less half of the distance of numbers below it.
    let limit = f64::from(f32::MIN_POSITIVE) * (1.0 - 2f64.powi(-25));
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    let part = sum - c;
    // What the sum lacks (Knuth's two-sum).
    let error = (c - (sum - part)) + (product - part);
    sum.abs() < limit || (sum.abs() == limit && error * sum < 0.0)
}

/// `x` rounded to bf16, to nearest even, as an f32's bits: as `vcvtneps2bf16` does it, with zero for subnormal numbers.
#[inline(always)]
fn round(x: f32) -> u32 {
    let bits = x.to_bits();
    let magnitude = bits & 0x7FFF_FFFF;
    let nearest = bits.wrapping_add(0x7FFF + (bits >> 16 & 1));
    let number = if magnitude < 0x0080_0000 { bits & 0x8000_0000 } else { nearest };
    (if magnitude > 0x7F80_0000 { bits | 0x0040_0000 } else { number }) & 0xFFFF_0000
}

#[inline(always)]
fn pair(lower: f32, upper: f32) -> f32 {
    f32::from_bits(round(lower) >> 16 | round(upper))
}

/// Rows (M, K) as M rows of ⌈k/2⌉ pairs of neighbours.
pub(in crate::kernel) fn pair_neighbours(a: Rows<'_, f32>, pairs: &mut [f32]) {
    let ((m, k), lda) = (a.dim(), stride(&a));
    let pairs = &mut pairs[..m * k.div_ceil(2)];
    #[cfg(target_arch = "x86_64")]
    if native() {
        // SAFETY: the CPU has the instructions, and the lengths were just checked.
        return unsafe { x86::pair_neighbours(m, k, a.as_ptr(), lda, pairs.as_mut_ptr()) };
    }
    neighbours(a, pairs);
}

/// Rows (M, K) as ⌈m/2⌉ rows of K pairs, each of a row and the next.
pub(in crate::kernel) fn pair_rows(a: Rows<'_, f32>, pairs: &mut [f32]) {
    let ((m, k), lda) = (a.dim(), stride(&a));
    let pairs = &mut pairs[..m.div_ceil(2) * k];
    #[cfg(target_arch = "x86_64")]
    if native() {
        // SAFETY: as above.
        return unsafe { x86::pair_rows(m, k, a.as_ptr(), lda, pairs.as_mut_ptr()) };
    }
    two_rows(a, pairs);
}

dispatch! {
    /// [`pair_neighbours`] in plain Rust.
    fn neighbours(a: Rows<'_, f32>, pairs: &mut [f32]) {
        let (row_len, row) = (a.ncols().div_ceil(2), slices(&a));
        for (index, to) in pairs.chunks_exact_mut(row_len.max(1)).take(a.nrows()).enumerate() {
            for (two, to) in row(index).chunks(2).zip(to) {
                *to = pair(two[0], two.get(1).copied().unwrap_or(0.0));
            }
        }
    }
}

dispatch! {
    /// [`pair_rows`] in plain Rust.
    fn two_rows(a: Rows<'_, f32>, pairs: &mut [f32]) {
        let ((m, k), row) = (a.dim(), slices(&a));
        for (two, to) in pairs.chunks_exact_mut(k.max(1)).enumerate() {
            let lower = &row(2 * two)[..k];
            // Zeros under the last of an odd number.
            let upper = if 2 * two + 1 < m { &row(2 * two + 1)[..k] } else { &[] };
            for ((to, lower), upper) in to.iter_mut().zip(lower).zip(upper) {
                *to = pair(*lower, *upper);
            }
            for (to, lower) in to.iter_mut().zip(lower).skip(upper.len()) {
                *to = pair(*lower, 0.0);
            }
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use crate::kernel::PANEL;
    use crate::kernel::simd::{Avx512, Simd};

    /// See [`super::pair_neighbours`].
    ///
    /// # Safety
    /// `m` rows of `a` can be read and of `pairs` written.
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn pair_neighbours(m: usize, k: usize, a: *const f32, lda: usize, pairs: *mut f32) {
        for row in 0..m {
            for at in (0..k).step_by(32) {
                let (left, from) = ((k - at).min(32), a.wrapping_add(row * lda + at));
                // SAFETY: `left` elements of the row, and as many pairs as they make.
                unsafe {
                    let lower = Avx512::load_first(from, left.min(16));
                    let upper = Avx512::load_first(from.wrapping_add(16), left.saturating_sub(16));
                    let to = pairs.add(row * k.div_ceil(2) + at / 2);
                    Avx512::chain_bf16(lower, upper).store_first(to, left.div_ceil(2));
                }
            }
        }
    }

    /// See [`super::pack`].
    ///
    /// # Safety
    /// `panels` are K×N, `packed` K×N of pairs and `transposed` N×K.
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn pack(k: usize, n: usize, panels: *const f32, packed: *mut f32, transposed: *mut f32) {
        // Of 16 rows: a pair is neighbours in a row, so that half as much is transposed as there are numbers.
        let (mut pairs, mut turned) = ([0.0f32; 256], [0.0f32; 256]);
        for k0 in (0..k.next_multiple_of(PANEL)).step_by(16) {
            for n0 in (0..n).step_by(PANEL) {
                let (height, width) = (k.saturating_sub(k0).min(16), (n - n0).min(PANEL));
                let first = panels.wrapping_add(n0 * k + k0 * PANEL);
                // SAFETY: `height` rows of a panel, pairs of them, and a pair for each two of `width` columns.
                unsafe {
                    // Both halves of a row, or zeros behind the last; no columns from `columns` on.
                    let load = |row: usize, columns: usize| {
                        let from = first.wrapping_add(row * PANEL);
                        let count = if row < height { columns } else { 0 };
                        let upper = Avx512::load_first(from.wrapping_add(16), count.saturating_sub(16));
                        (Avx512::load_first(from, count.min(16)), upper)
                    };
                    for row in 0..16 {
                        // What comes two blocks later.
                        Avx512::prefetch_far(first.wrapping_add((row + 32) * PANEL));
                        Avx512::prefetch_far(first.wrapping_add((row + 32) * PANEL + 16));
                        let (lower, upper) = load(row, width);
                        Avx512::chain_bf16(lower, upper).store(pairs.as_mut_ptr().add(16 * row));
                        if row % 2 == 0 && row < height {
                            let ((a, b), (c, d)) = (load(row, PANEL), load(row + 1, PANEL));
                            let to = packed.add((n0 / PANEL * k.div_ceil(2) + (k0 + row) / 2) * PANEL);
                            Avx512::zip_bf16(a, c).store(to);
                            Avx512::zip_bf16(b, d).store(to.add(16));
                        }
                    }
                    let to = transposed.add((k0 / PANEL * n.div_ceil(2) + n0 / 2) * PANEL + k0 % PANEL);
                    if width == PANEL {
                        Avx512::transpose(pairs.as_ptr(), 16, to, PANEL);
                        continue;
                    }
                    Avx512::transpose(pairs.as_ptr(), 16, turned.as_mut_ptr(), 16);
                    for pair in 0..width.div_ceil(2) {
                        Avx512::load(turned.as_ptr().add(16 * pair)).store(to.add(pair * PANEL));
                    }
                }
            }
        }
    }

    /// See [`super::pair_rows`].
    ///
    /// # Safety
    /// `m` rows of `a` can be read and ⌈m/2⌉ of `pairs` written.
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    pub(super) unsafe fn pair_rows(m: usize, k: usize, a: *const f32, lda: usize, pairs: *mut f32) {
        for row in (0..m).step_by(2) {
            for at in (0..k).step_by(16) {
                let (left, from) = ((k - at).min(16), a.wrapping_add(row * lda + at));
                // SAFETY: `left` elements of the row, and of the next if there is one, and as many pairs.
                unsafe {
                    let lower = Avx512::load_first(from, left);
                    let upper = Avx512::load_first(from.wrapping_add(lda), if row + 1 < m { left } else { 0 });
                    Avx512::zip_bf16(lower, upper).store_first(pairs.add(row / 2 * k + at), left);
                }
            }
        }
    }
}

/// Elements of K×N panels of pairs: `[⌈N/32⌉][⌈K/2⌉][32]`.
pub(in crate::kernel) const fn pairs_len(k: usize, n: usize) -> usize {
    panels_len(k.div_ceil(2), n)
}

/// Packs K×N `panels` and their transpose (N×K) as pairs.
pub(in crate::kernel) fn pack(
    isa: Isa,
    k: usize,
    n: usize,
    panels: &[f32],
    packed: &mut [f32],
    transposed: &mut [f32],
) {
    assert!(panels.len() >= panels_len(k, n), "the panels are too short");
    assert!(packed.len() >= pairs_len(k, n) && transposed.len() >= pairs_len(n, k), "the pairs are too short");
    #[cfg(target_arch = "x86_64")]
    if isa == Isa::Avx512 && native() {
        // SAFETY: the CPU has the instructions, and the lengths were just checked.
        return unsafe { x86::pack(k, n, panels.as_ptr(), packed.as_mut_ptr(), transposed.as_mut_ptr()) };
    }
    let mut block = [0.0; PANEL * PANEL];
    for n0 in (0..n).step_by(PANEL) {
        pair_rows(rows(k, PANEL, &panels[n0 * k..]), &mut packed[n0 * k.div_ceil(2)..]);
        for k0 in (0..k).step_by(PANEL) {
            let (height, width) = (PANEL.min(k - k0), PANEL.min(n - n0));
            transpose::transpose_panels(isa, height, width, &panels[n0 * k + k0 * PANEL..], &mut block);
            let to = &mut transposed[(k0 / PANEL * n.div_ceil(2) + n0 / 2) * PANEL..];
            pair_rows(rows(width, PANEL, &block), to);
        }
    }
}

/// Elements of scratch for the products of M×K by K×N and of its gradients.
pub(super) const fn scratch_len(m: usize, k: usize, n: usize) -> usize {
    m.div_ceil(2) * (k + n)
}

/// [`tiled::product`] of numbers rounded to bf16, the panels as [`pack`] left them; the sums are not rounded.
pub(super) fn product(
    isa: Isa,
    a: Rows<'_, f32>,
    packed: &[f32],
    bias: Option<&[f32]>,
    c: RowsMut<'_, f32>,
    scratch: &mut [f32],
) {
    let (m, k) = a.dim();
    pair_neighbours(a, scratch);
    tiled::product_by(Tiles::of_bf16(isa), isa, rows(m, k.div_ceil(2), scratch), packed, bias, c);
}

/// [`tiled::outer`] of numbers rounded to bf16; the sums are not.
pub(super) fn outer(isa: Isa, a: Rows<'_, f32>, b: Rows<'_, f32>, add: bool, panels: &mut [f32], scratch: &mut [f32]) {
    let ((m, k), n) = (a.dim(), b.ncols());
    let pairs = m.div_ceil(2);
    let (pairs_a, pairs_b) = scratch.split_at_mut(pairs * k);
    pair_rows(a, pairs_a);
    pair_rows(b, pairs_b);
    tiled::outer_by(Tiles::of_bf16(isa), isa, rows(pairs, k, pairs_a), rows(pairs, n, pairs_b), add, panels);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::testing::{close, filled, isas};
    use crate::kernel::view::{rows_apart, rows_mut};
    use crate::kernel::{panel, reference};

    /// Bits of f32: any, from about 1, and, in bf16's upper half, the special ones.
    fn bits(seed: u64, len: usize) -> Vec<f32> {
        const SPECIAL: [u32; 12] = [0, 1, 0x7F, 0x80, 0x81, 0x100, 0x2000, 0x3F80, 0x7F7F, 0x7F80, 0x7F81, 0x7FC0];
        let whole = |v: f32| ((v + 1.0) * (1 << 23) as f32) as u32;
        let (high, low, kinds) = (filled(seed, len), filled(seed + 1, len), filled(seed + 2, len));
        let values = high.iter().zip(&low).zip(&kinds).map(|((&high, &low), &kind)| {
            let any = whole(high) << 8 ^ whole(low);
            match whole(kind) % 4 {
                0 => any & 0x8000_7F7F | SPECIAL[any as usize % 12] << 16,
                1 => any & 0x80FF_FFFF | 0x3F00_0000,
                _ => any,
            }
        });
        values.map(f32::from_bits).collect()
    }

    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx512bf16,avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
    fn instruction(a: &[f32], b: &[f32], c: &[f32], out: &mut [f32]) {
        use crate::kernel::simd::Avx512;
        assert!([a.len(), b.len(), c.len(), out.len()].iter().all(|&len| len >= 16));
        // SAFETY: sixteen elements each; the caller saw that the CPU has these instructions.
        unsafe {
            let (a, b, c) = (Avx512::load(a.as_ptr()), Avx512::load(b.as_ptr()), Avx512::load(c.as_ptr()));
            Native::multiply_add(a, b, c).store(out.as_mut_ptr());
        }
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn the_emulation_gives_the_bits_of_the_instruction() {
        if !native() || !isas().any(|isa| isa == Isa::Avx512) {
            return;
        }
        let len = 4 << 20;
        let (a, b, c) = (bits(1, len), bits(4, len), bits(7, len));
        let mut out = [0.0; 16];
        for at in (0..len).step_by(16) {
            // SAFETY: `native` says so.
            unsafe { instruction(&a[at..], &b[at..], &c[at..], &mut out) };
            for (lane, expected) in out.iter().enumerate() {
                let (a, b, c) = (a[at + lane].to_bits(), b[at + lane].to_bits(), c[at + lane]);
                let found = dot(a, b, c);
                let same = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
                assert!(same, "{a:08x} {b:08x} {:08x}: {found:e}, the instruction's {expected:e}", c.to_bits());
            }
        }
    }

    #[test]
    fn the_smallest_numbers_become_zero() {
        let smallest = f32::MIN_POSITIVE;
        let power = |exponent: i32| 2f32.powi(exponent).to_bits();
        // Less 2⁻¹⁵¹ it would round to itself with any exponent, less 2⁻¹⁵⁰ it would not.
        assert_eq!(dot(power(-76) | 1 << 31, power(-75), smallest), smallest);
        assert_eq!(dot(power(-75) | 1 << 31, power(-75), smallest), 0.0);
        assert_eq!(dot(0, 0, smallest / 2.0), 0.0);
        assert_eq!(dot(0x0040_0000, power(120), 1.0), 1.0);
        // The upper product alone is below the range, so that the lower one does not find it.
        assert_eq!(dot(power(-64) | power(-64) >> 16, power(-64) | power(-64) >> 16, 0.0), 0.0);
    }

    #[test]
    fn rounding_is_to_nearest_even() {
        let cases = [
            (1.0, 1.0),
            (1.0 + 1.0 / 256.0, 1.0),
            (1.0 + 3.0 / 256.0, 1.0 + 2.0 / 128.0),
            (-1.0 - 1.1 / 256.0, -1.0 - 1.0 / 128.0),
            (f32::MAX, f32::INFINITY),
            (f32::NEG_INFINITY, f32::NEG_INFINITY),
            (1e-40, 0.0),
            (-1e-40, -0.0),
        ];
        for (x, expected) in cases {
            assert_eq!(round(x), f32::to_bits(expected), "{x}");
        }
        for payload in [1, 0x0040_0000, 0x007F_FFFF] {
            assert!(f32::from_bits(round(f32::from_bits(0x7F80_0000 | payload))).is_nan());
        }
    }

    #[test]
    fn pairs_are_the_same_bits_by_instructions_and_without() {
        for (m, k, lda) in [(1usize, 1usize, 1), (2, 16, 16), (3, 33, 40), (5, 64, 64), (4, 15, 17), (7, 100, 100)] {
            let a = bits(11, m * lda);
            for (any, plain, len) in [
                (
                    pair_neighbours as fn(Rows<'_, f32>, &mut [f32]),
                    neighbours as fn(Rows<'_, f32>, &mut [f32]),
                    m * k.div_ceil(2),
                ),
                (pair_rows, two_rows, m.div_ceil(2) * k),
            ] {
                let a = rows_apart(m, k, lda, &a);
                let (mut found, mut expected) = (vec![1.0; len + 1], vec![1.0; len + 1]);
                any(a, &mut found);
                plain(a, &mut expected[..len]);
                assert!(found.iter().zip(&expected).all(|(a, b)| a.to_bits() == b.to_bits()), "{m} {k} {lda}");
            }
            let mut pairs = vec![0.0; m.div_ceil(2) * k];
            pair_rows(rows_apart(m, k, lda, &a), &mut pairs);
            let last = pairs[(m - 1) / 2 * k].to_bits();
            let [row, next] = [m - 1 - (m - 1) % 2, m - 1].map(|row| round(a[row * lda]));
            assert_eq!(last, row >> 16 | if m % 2 == 0 { next } else { 0 });
        }
    }

    /// What bf16 keeps.
    fn kept(x: &[f32]) -> Vec<f32> {
        x.iter().map(|&x| f32::from_bits(round(x))).collect()
    }

    #[test]
    fn products_are_those_of_rounded_numbers_and_the_same_bits_everywhere() {
        for (m, k, n) in [(1, 1, 1), (3, 5, 7), (16, 60, 128), (15, 33, 31), (9, 700, 40), (17, 2, 70), (30, 64, 1)] {
            let (a, dy) = (filled(1, m * (k + 1)), filled(2, m * n));
            let (bias, panels) = (filled(3, n), {
                let mut panels = vec![0.0; panels_len(k, n)];
                panel::pack(rows(k, n, &filled(4, k * n)), &mut panels);
                panels
            });
            let (kept_a, kept_dy, mut scratch) = (kept(&a), kept(&dy), vec![f32::NAN; scratch_len(m, k, n)]);
            let (rounded, rounded_dy) = (rows_apart(m, k, k + 1, &kept_a), rows(m, n, &kept_dy));
            let (mut y, mut dx, mut dw) = (vec![0.0; m * n], vec![0.0; m * k], filled(5, panels_len(k, n)));
            let before = dw.clone();
            reference::product(rounded, &kept(&panels), Some(&bias), rows_mut(m, n, &mut y));
            let mut transposed = vec![0.0; panels_len(n, k)];
            reference::transpose_panels(k, n, &kept(&panels), &mut transposed);
            reference::product(rounded_dy, &transposed, None, rows_mut(m, k, &mut dx));
            reference::outer(rounded, rounded_dy, true, &mut dw);
            let (a, dy) = (rows_apart(m, k, k + 1, &a), rows(m, n, &dy));
            let mut first: Option<Vec<f32>> = None;
            for isa in isas() {
                let mut packed = vec![f32::NAN; pairs_len(k, n)];
                let mut packed_t = vec![f32::NAN; pairs_len(n, k)];
                pack(isa, k, n, &panels, &mut packed, &mut packed_t);
                let (mut c, mut dc, mut dp) = (vec![f32::NAN; m * n], vec![f32::NAN; m * k], before.clone());
                product(isa, a, &packed, Some(&bias), rows_mut(m, n, &mut c), &mut scratch);
                product(isa, dy, &packed_t, None, rows_mut(m, k, &mut dc), &mut scratch);
                outer(isa, a, dy, true, &mut dp, &mut scratch);
                for (found, expected) in [(&c, &y), (&dc, &dx), (&dp, &dw)] {
                    close(found, expected, 1e-6 * (k.max(n) as f32).sqrt().max(4.0), &(isa, m, k, n));
                }
                let all = [c, dc, dp].concat();
                let first = first.get_or_insert_with(|| all.clone());
                let same = first.iter().zip(&all).all(|(a, b)| a.to_bits() == b.to_bits());
                assert!(same, "{isa:?} gives other bits: {m} {k} {n}");
            }
        }
    }
}
