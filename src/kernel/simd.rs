//! Vectors of f32 for each instruction set, under one trait, so that a kernel is written once.
//!
//! A kernel body is a generic `#[inline(always)]` function over [`Simd`]; [`simd_entry!`] wraps it in one
//! `#[target_feature]` function for each instruction set, into which the body and the intrinsics are inlined.

use super::Isa;
use std::ops::{Add, Div, Mul, Sub};
use std::sync::OnceLock;

/// A vector of `LANES` f32.
///
/// Values are made by unsafe functions only, whose contract is that the CPU has the instruction set of the type; so the
/// arithmetic on values is safe.
pub(crate) trait Simd:
    Copy + Add<Output = Self> + Sub<Output = Self> + Mul<Output = Self> + Div<Output = Self>
{
    /// Elements.
    const LANES: usize;

    /// All lanes `x`.
    ///
    /// # Safety
    /// The CPU has this instruction set.
    unsafe fn splat(x: f32) -> Self;

    /// `LANES` elements, of any alignment.
    ///
    /// # Safety
    /// The CPU has this instruction set; `LANES` elements can be read at `from`.
    unsafe fn load(from: *const f32) -> Self;

    /// The first `n` elements (n ≤ LANES), the rest zero; nothing past them is read.
    ///
    /// # Safety
    /// The CPU has this instruction set; `n` elements can be read at `from`.
    unsafe fn load_first(from: *const f32, n: usize) -> Self;

    /// `LANES` elements, of any alignment.
    ///
    /// # Safety
    /// `LANES` elements can be written at `to`.
    unsafe fn store(self, to: *mut f32);

    /// Writes the first `n` elements (n ≤ LANES) only.
    ///
    /// # Safety
    /// `n` elements can be written at `to`.
    unsafe fn store_first(self, to: *mut f32, n: usize);

    /// self · b + c, fused where the hardware does.
    fn mul_add(self, b: Self, c: Self) -> Self;

    /// The smaller; `other` where either is NaN.
    fn min(self, other: Self) -> Self;

    /// The larger; `other` where either is NaN.
    fn max(self, other: Self) -> Self;

    /// `then` in the lanes where self < bound, `otherwise` in the others and where either is NaN.
    fn select_less(self, bound: Self, then: Self, otherwise: Self) -> Self;

    /// Transposes a block of LANES × LANES elements; rows are `from_row` and `to_row` apart.
    ///
    /// # Safety
    /// The CPU has this instruction set; LANES rows of LANES elements can be read and written.
    unsafe fn transpose(from: *const f32, from_row: usize, to: *mut f32, to_row: usize) {
        for row in 0..Self::LANES {
            for col in 0..Self::LANES {
                // SAFETY: the caller's contract.
                unsafe { *to.add(row * to_row + col) = *from.add(col * from_row + row) };
            }
        }
    }

    /// Asks for the cache line of `at`; the address need not exist.
    #[inline(always)]
    fn prefetch(_at: *const f32) {}

    /// 2ⁿ for integral n in -126..=127; anything for others.
    fn exp2_integral(self) -> Self;
}

/// The best instruction set of this CPU, detected once: what the entry points check against.
pub(crate) fn best_isa() -> Isa {
    static BEST: OnceLock<Isa> = OnceLock::new();
    *BEST.get_or_init(Isa::detect)
}

/// Defines `name(isa, arguments)`, which runs `body::<S>(arguments)` compiled for that instruction set.
/// `body` is an unsafe `#[inline(always)]` function generic over [`Simd`]; the expansion vouches for the instruction set
/// only, so `name` is unsafe if `body` asks for more.
macro_rules! simd_entry {
    ($(#[$meta:meta])* $vis:vis unsafe fn $name:ident($($arg:ident : $ty:ty),* $(,)?) = $body:ident) => {
        $(#[$meta])*
        $vis unsafe fn $name(isa: $crate::kernel::Isa, $($arg: $ty),*) {
            assert!(isa <= $crate::kernel::simd::best_isa(), "this CPU has no {}", isa.name());
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                unsafe fn avx512($($arg: $ty),*) {
                    // SAFETY: the caller's contract.
                    unsafe { $body::<$crate::kernel::simd::Avx512>($($arg),*) }
                }
                #[target_feature(enable = "avx2,fma")]
                unsafe fn avx2($($arg: $ty),*) {
                    // SAFETY: the caller's contract.
                    unsafe { $body::<$crate::kernel::simd::Avx2>($($arg),*) }
                }
                match isa {
                    // SAFETY: the assertion above: the CPU has the features; the rest is the caller's contract.
                    $crate::kernel::Isa::Avx512 => return unsafe { avx512($($arg),*) },
                    // SAFETY: as above.
                    $crate::kernel::Isa::Avx2 => return unsafe { avx2($($arg),*) },
                    $crate::kernel::Isa::Portable => {}
                }
            }
            // SAFETY: the baseline instruction set; the rest is the caller's contract.
            unsafe { $body::<$crate::kernel::simd::Baseline>($($arg),*) }
        }
    };
}
pub(crate) use simd_entry;

/// What every machine of this architecture has.
#[cfg(not(target_arch = "aarch64"))]
pub(crate) type Baseline = Plain;
/// What every machine of this architecture has.
#[cfg(target_arch = "aarch64")]
pub(crate) type Baseline = neon::Neon;

/// Implements the operators of a vector type by expressions over `$a` and `$b`.
macro_rules! operators {
    ($vector:ident, $a:ident, $b:ident, $($trait:ident $method:ident $value:expr;)*) => {$(
        impl $trait for $vector {
            type Output = Self;
            #[inline(always)]
            fn $method(self, other: Self) -> Self {
                let ($a, $b) = (self.0, other.0);
                // SAFETY: a value of this type exists only where the CPU has the instruction set.
                #[allow(unused_unsafe)]
                unsafe { $vector($value) }
            }
        }
    )*};
}

/// Eight lanes in plain Rust.
#[derive(Clone, Copy)]
#[cfg_attr(target_arch = "aarch64", allow(dead_code))]
pub(crate) struct Plain([f32; 8]);

#[inline(always)]
fn zip(a: [f32; 8], b: [f32; 8], f: impl Fn(f32, f32) -> f32) -> [f32; 8] {
    std::array::from_fn(|lane| f(a[lane], b[lane]))
}

operators! { Plain, a, b,
    Add add zip(a, b, |a, b| a + b);
    Sub sub zip(a, b, |a, b| a - b);
    Mul mul zip(a, b, |a, b| a * b);
    Div div zip(a, b, |a, b| a / b);
}

impl Simd for Plain {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Plain([x; 8])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: eight elements by the caller's contract.
        unsafe { Plain(from.cast::<[f32; 8]>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        // SAFETY: `n` elements by the caller's contract.
        Plain(std::array::from_fn(|lane| if lane < n { unsafe { *from.add(lane) } } else { 0.0 }))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: eight elements by the caller's contract.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        for lane in 0..n.min(8) {
            // SAFETY: `n` elements by the caller's contract.
            unsafe { *to.add(lane) = self.0[lane] }
        }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        // Not f32::mul_add: without hardware FMA that is a slow library call.
        Plain(std::array::from_fn(|lane| self.0[lane] * b.0[lane] + c.0[lane]))
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        Plain(zip(self.0, other.0, |a, b| if a < b { a } else { b }))
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        Plain(zip(self.0, other.0, |a, b| if a > b { a } else { b }))
    }

    #[inline(always)]
    fn select_less(self, bound: Self, then: Self, otherwise: Self) -> Self {
        Plain(std::array::from_fn(|lane| if self.0[lane] < bound.0[lane] { then.0[lane] } else { otherwise.0[lane] }))
    }

    #[inline(always)]
    fn exp2_integral(self) -> Self {
        Plain(self.0.map(|n| f32::from_bits(((n as i32).wrapping_add(127) as u32) << 23)))
    }
}

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

#[cfg(target_arch = "x86_64")]
mod x86 {
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
        fn exp2_integral(self) -> Self {
            unsafe {
                let biased = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
                Avx512(_mm512_castsi512_ps(_mm512_slli_epi32::<23>(biased)))
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
                let mask = _mm256_loadu_si256(MASKS.as_ptr().add(8 - n.min(8)).cast());
                Avx2(_mm256_maskload_ps(from, mask))
            }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe { _mm256_storeu_ps(to, self.0) }
        }

        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, n: usize) {
            unsafe {
                let mask = _mm256_loadu_si256(MASKS.as_ptr().add(8 - n.min(8)).cast());
                _mm256_maskstore_ps(to, mask, self.0)
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
        fn exp2_integral(self) -> Self {
            unsafe {
                let biased = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), _mm256_set1_epi32(127));
                Avx2(_mm256_castsi256_ps(_mm256_slli_epi32::<23>(biased)))
            }
        }
    }
}

#[cfg(target_arch = "aarch64")]
mod neon {
    use super::*;
    use std::arch::aarch64::*;

    /// Eight lanes as two NEON registers.
    #[derive(Clone, Copy)]
    pub(crate) struct Neon([float32x4_t; 2]);

    operators! { Neon, a, b,
        Add add [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1])];
        Sub sub [vsubq_f32(a[0], b[0]), vsubq_f32(a[1], b[1])];
        Mul mul [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])];
        Div div [vdivq_f32(a[0], b[0]), vdivq_f32(a[1], b[1])];
    }

    // SAFETY of the blocks below: memory by the caller's contract; every aarch64 CPU has NEON.
    #[allow(clippy::undocumented_unsafe_blocks, unused_unsafe)]
    impl Simd for Neon {
        const LANES: usize = 8;

        #[inline(always)]
        unsafe fn splat(x: f32) -> Self {
            unsafe { Neon([vdupq_n_f32(x); 2]) }
        }

        #[inline(always)]
        unsafe fn load(from: *const f32) -> Self {
            unsafe { Neon([vld1q_f32(from), vld1q_f32(from.add(4))]) }
        }

        #[inline(always)]
        unsafe fn load_first(from: *const f32, n: usize) -> Self {
            let mut lanes = [0.0f32; 8];
            for lane in 0..n.min(8) {
                lanes[lane] = unsafe { *from.add(lane) };
            }
            unsafe { Self::load(lanes.as_ptr()) }
        }

        #[inline(always)]
        unsafe fn store(self, to: *mut f32) {
            unsafe {
                vst1q_f32(to, self.0[0]);
                vst1q_f32(to.add(4), self.0[1]);
            }
        }

        #[inline(always)]
        unsafe fn store_first(self, to: *mut f32, n: usize) {
            let mut lanes = [0.0f32; 8];
            unsafe { self.store(lanes.as_mut_ptr()) };
            for lane in 0..n.min(8) {
                unsafe { *to.add(lane) = lanes[lane] };
            }
        }

        #[inline(always)]
        fn mul_add(self, b: Self, c: Self) -> Self {
            let (a, b, c) = (self.0, b.0, c.0);
            unsafe { Neon([vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])]) }
        }

        #[inline(always)]
        fn min(self, other: Self) -> Self {
            let (a, b) = (self.0, other.0);
            // Not vminq: it makes a NaN of either operand win, the trait promises `other`.
            unsafe {
                Neon([vbslq_f32(vcltq_f32(a[0], b[0]), a[0], b[0]), vbslq_f32(vcltq_f32(a[1], b[1]), a[1], b[1])])
            }
        }

        #[inline(always)]
        fn max(self, other: Self) -> Self {
            let (a, b) = (self.0, other.0);
            unsafe {
                Neon([vbslq_f32(vcgtq_f32(a[0], b[0]), a[0], b[0]), vbslq_f32(vcgtq_f32(a[1], b[1]), a[1], b[1])])
            }
        }

        #[inline(always)]
        fn select_less(self, bound: Self, then: Self, otherwise: Self) -> Self {
            Neon(std::array::from_fn(|half| unsafe {
                vbslq_f32(vcltq_f32(self.0[half], bound.0[half]), then.0[half], otherwise.0[half])
            }))
        }

        #[inline(always)]
        fn exp2_integral(self) -> Self {
            let bias = unsafe { vdupq_n_s32(127) };
            Neon(self.0.map(|n| unsafe { vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtq_s32_f32(n), bias))) }))
        }
    }
}
