//! Vectors of AVX-512 and AVX2.

use super::*;
use std::arch::x86_64::*;

/// Sixteen lanes: AVX-512.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(__m512);

operators! { Avx512, a, b,
    Add add _mm512_add_ps(a, b);
    Sub sub _mm512_sub_ps(a, b);
    Mul mul _mm512_mul_ps(a, b);
    Div div _mm512_div_ps(a, b);
}

// SAFETY of the blocks below: memory by the caller's contract; the instruction set by that of `splat` and `load`,
// or because a value exists.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx512 {
    const LANES: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { Avx512(_mm512_set1_ps(x)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Avx512(_mm512_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        unsafe { Avx512(_mm512_maskz_loadu_ps(((1u32 << n) - 1) as u16, from)) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        unsafe { _mm512_mask_storeu_ps(to, ((1u32 << n) - 1) as u16, self.0) }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        unsafe { Avx512(_mm512_fmadd_ps(self.0, b.0, c.0)) }
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        unsafe { Avx512(_mm512_min_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        unsafe { Avx512(_mm512_max_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn select_less(self, bound: Self, then: Self, otherwise: Self) -> Self {
        unsafe {
            let less = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, bound.0);
            Avx512(_mm512_mask_blend_ps(less, otherwise.0, then.0))
        }
    }

    #[inline(always)]
    fn select_above(self, bound: Self, then: Self, otherwise: Self) -> Self {
        unsafe {
            let above = _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, bound.0);
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0);
            Avx512(_mm512_mask_blend_ps(above | nan, otherwise.0, then.0))
        }
    }

    #[inline(always)]
    fn select_equal(self, other: Self, then: Self, otherwise: Self) -> Self {
        unsafe {
            let equal = _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, other.0);
            Avx512(_mm512_mask_blend_ps(equal, otherwise.0, then.0))
        }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8, n: usize) -> Self {
        unsafe {
            let bytes = _mm_maskz_loadu_epi8(((1u32 << n) - 1) as u16, from.cast());
            Avx512(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(bytes)))
        }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8, n: usize) {
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(self.0));
            _mm_mask_storeu_epi8(to.cast(), ((1u32 << n) - 1) as u16, bytes)
        }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        unsafe {
            // Quarter rows: register i holds columns 0..4 (then 4..8, ...) of rows i, i + 4, i + 8 and i + 12.
            for quarter in 0..4 {
                let load = |row: usize| _mm_loadu_ps(from.add(row * from_row + 4 * quarter));
                let mut rows = [_mm512_setzero_ps(); 4];
                for i in 0..4 {
                    let mut row = _mm512_castps128_ps512(load(i));
                    row = _mm512_insertf32x4::<1>(row, load(i + 4));
                    row = _mm512_insertf32x4::<2>(row, load(i + 8));
                    rows[i] = _mm512_insertf32x4::<3>(row, load(i + 12));
                }
                // 4 × 4 transposes in each 128-bit lane.
                let (a, b) = (_mm512_unpacklo_ps(rows[0], rows[1]), _mm512_unpackhi_ps(rows[0], rows[1]));
                let (c, d) = (_mm512_unpacklo_ps(rows[2], rows[3]), _mm512_unpackhi_ps(rows[2], rows[3]));
                let columns = [
                    _mm512_shuffle_ps::<0x44>(a, c),
                    _mm512_shuffle_ps::<0xEE>(a, c),
                    _mm512_shuffle_ps::<0x44>(b, d),
                    _mm512_shuffle_ps::<0xEE>(b, d),
                ];
                for i in 0..4 {
                    _mm512_storeu_ps(to.add((4 * quarter + i) * to_row), columns[i]);
                }
            }
        }
    }

    #[inline(always)]
    fn prefetch(at: *const f32) {
        // Prefetching an address that cannot be accessed does nothing.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    fn prefetch_far(at: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }

    #[inline(always)]
    fn exp2_integral(self) -> Self {
        unsafe {
            let biased = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
            Avx512(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased)))
        }
    }
}

impl Avx512 {
    /// Both rounded to bf16: those of `lower`, then those of `upper`.
    ///
    /// # Safety
    /// The CPU has AVX-512 BF16.
    #[inline(always)]
    pub(crate) unsafe fn chain_bf16(lower: Self, upper: Self) -> Self {
        // SAFETY: the caller's contract; both types are 512 bits of which any are valid.
        unsafe { Avx512(std::mem::transmute::<__m512bh, __m512>(_mm512_cvtne2ps_pbh(upper.0, lower.0))) }
    }

    /// Pairs of both, rounded to bf16: those of `lower` in the lower halves.
    ///
    /// # Safety
    /// The CPU has AVX-512 BF16.
    #[inline(always)]
    pub(crate) unsafe fn zip_bf16(lower: Self, upper: Self) -> Self {
        const ORDER: [u16; 32] = {
            let mut order = [0; 32];
            let mut lane = 0;
            while lane < 32 {
                order[lane] = (lane / 2 + lane % 2 * 16) as u16;
                lane += 1;
            }
            order
        };
        // SAFETY: the caller's contract.
        unsafe {
            let chained = _mm512_castps_si512(Self::chain_bf16(lower, upper).0);
            let order = _mm512_loadu_si512(ORDER.as_ptr().cast());
            Avx512(_mm512_castsi512_ps(_mm512_permutexvar_epi16(order, chained)))
        }
    }

    /// self·b + c with lanes that are pairs of bf16: see [`super::super::bf16`].
    ///
    /// # Safety
    /// The CPU has AVX-512 BF16.
    #[inline(always)]
    pub(crate) unsafe fn dot_bf16(self, b: Self, c: Self) -> Self {
        // SAFETY: the caller's contract; both types are 512 bits of which any are valid.
        unsafe {
            let pairs = |vector: __m512| std::mem::transmute::<__m512, __m512bh>(vector);
            Avx512(_mm512_dpbf16_ps(c.0, pairs(self.0), pairs(b.0)))
        }
    }
}

/// Eight lanes: AVX2 and FMA.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(__m256);

operators! { Avx2, a, b,
    Add add _mm256_add_ps(a, b);
    Sub sub _mm256_sub_ps(a, b);
    Mul mul _mm256_mul_ps(a, b);
    Div div _mm256_div_ps(a, b);
}

/// A window of eight at 8 - n has n lanes set.
static MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

// SAFETY of the blocks below: as for AVX-512.
#[allow(clippy::undocumented_unsafe_blocks)]
impl Simd for Avx2 {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { Avx2(_mm256_set1_ps(x)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Avx2(_mm256_loadu_ps(from)) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        unsafe {
            match n {
                0 => Self::splat(0.0),
                1..8 => {
                    let mask = _mm256_loadu_si256(MASKS.as_ptr().add(8 - n).cast());
                    Avx2(_mm256_maskload_ps(from, mask))
                }
                _ => Self::load(from),
            }
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        // Masked stores are slow on some CPUs.
        unsafe {
            match n {
                0 => {}
                1..8 => {
                    let mask = _mm256_loadu_si256(MASKS.as_ptr().add(8 - n).cast());
                    _mm256_maskstore_ps(to, mask, self.0)
                }
                _ => self.store(to),
            }
        }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        unsafe { Avx2(_mm256_fmadd_ps(self.0, b.0, c.0)) }
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        unsafe { Avx2(_mm256_min_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        unsafe { Avx2(_mm256_max_ps(self.0, other.0)) }
    }

    #[inline(always)]
    fn select_less(self, bound: Self, then: Self, otherwise: Self) -> Self {
        unsafe {
            let less = _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, bound.0);
            Avx2(_mm256_blendv_ps(otherwise.0, then.0, less))
        }
    }

    #[inline(always)]
    fn select_above(self, bound: Self, then: Self, otherwise: Self) -> Self {
        unsafe {
            let above = _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, bound.0);
            let nan = _mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0);
            Avx2(_mm256_blendv_ps(otherwise.0, then.0, _mm256_or_ps(above, nan)))
        }
    }

    #[inline(always)]
    fn select_equal(self, other: Self, then: Self, otherwise: Self) -> Self {
        unsafe {
            let equal = _mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, other.0);
            Avx2(_mm256_blendv_ps(otherwise.0, then.0, equal))
        }
    }

    #[inline(always)]
    unsafe fn load_bytes(from: *const u8, n: usize) -> Self {
        unsafe {
            let mut bytes = [0u8; 8];
            if n >= 8 {
                bytes = from.cast::<[u8; 8]>().read();
            } else {
                for lane in 0..n {
                    bytes[lane] = *from.add(lane);
                }
            }
            let bytes = _mm_cvtsi64_si128(i64::from_le_bytes(bytes));
            Avx2(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(bytes)))
        }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, to: *mut u8, n: usize) {
        unsafe {
            let whole = _mm256_cvtps_epi32(self.0);
            let words = _mm_packus_epi32(_mm256_castsi256_si128(whole), _mm256_extracti128_si256::<1>(whole));
            let bytes = _mm_cvtsi128_si64(_mm_packus_epi16(words, words)).to_le_bytes();
            if n >= 8 {
                to.cast::<[u8; 8]>().write(bytes);
            } else {
                for lane in 0..n {
                    *to.add(lane) = bytes[lane];
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        unsafe {
            for half in 0..2 {
                let load = |row: usize| _mm_loadu_ps(from.add(row * from_row + 4 * half));
                let mut rows = [_mm256_setzero_ps(); 4];
                for i in 0..4 {
                    rows[i] = _mm256_insertf128_ps::<1>(_mm256_castps128_ps256(load(i)), load(i + 4));
                }
                let (a, b) = (_mm256_unpacklo_ps(rows[0], rows[1]), _mm256_unpackhi_ps(rows[0], rows[1]));
                let (c, d) = (_mm256_unpacklo_ps(rows[2], rows[3]), _mm256_unpackhi_ps(rows[2], rows[3]));
                let columns = [
                    _mm256_shuffle_ps::<0x44>(a, c),
                    _mm256_shuffle_ps::<0xEE>(a, c),
                    _mm256_shuffle_ps::<0x44>(b, d),
                    _mm256_shuffle_ps::<0xEE>(b, d),
                ];
                for i in 0..4 {
                    _mm256_storeu_ps(to.add((4 * half + i) * to_row), columns[i]);
                }
            }
        }
    }

    #[inline(always)]
    fn prefetch(at: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) }
    }

    #[inline(always)]
    fn prefetch_far(at: *const f32) {
        unsafe { _mm_prefetch::<_MM_HINT_T1>(at.cast()) }
    }

    #[inline(always)]
    fn exp2_integral(self) -> Self {
        unsafe {
            let biased = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), _mm256_set1_epi32(127));
            Avx2(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased)))
        }
    }
}
