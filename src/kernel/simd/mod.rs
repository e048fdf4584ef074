//! Vectors of f32 for each instruction set, under one trait, so that a kernel is written once.
//!
//! A kernel body is a generic `#[inline(always)]` function over [`Simd`]; [`simd_entry!`] wraps it in one
//! `#[target_feature]` function for each instruction set, into which the body and the intrinsics are inlined.

#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "x86_64")]
mod x86;

#[cfg(target_arch = "x86_64")]
pub(crate) use x86::{Avx2, Avx512};

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

    /// self · b + c, rounded once.
    fn mul_add(self, b: Self, c: Self) -> Self;

    /// The smaller; `other` where either is NaN.
    fn min(self, other: Self) -> Self;

    /// The larger; `other` where either is NaN.
    fn max(self, other: Self) -> Self;

    /// `then` in the lanes where self < bound, `otherwise` in the others and where either is NaN.
    fn select_less(self, bound: Self, then: Self, otherwise: Self) -> Self;

    /// `then` in the lanes where self > bound or self is NaN, `otherwise` in the others.
    fn select_above(self, bound: Self, then: Self, otherwise: Self) -> Self;

    /// `then` in the lanes where self = other, `otherwise` in the others.
    fn select_equal(self, other: Self, then: Self, otherwise: Self) -> Self;

    /// The first `n` bytes (n ≤ LANES) as numbers, the rest zero.
    ///
    /// # Safety
    /// The CPU has this instruction set; `n` bytes can be read at `from`.
    unsafe fn load_bytes(from: *const u8, n: usize) -> Self {
        let mut lanes = [0.0; 16];
        for lane in 0..n.min(Self::LANES) {
            // SAFETY: the caller's contract.
            lanes[lane] = f32::from(unsafe { *from.add(lane) });
        }
        // SAFETY: no vector has more than 16 lanes.
        unsafe { Self::load(lanes.as_ptr()) }
    }

    /// Writes the first `n` lanes (n ≤ LANES), integers of 0 to 255, as bytes.
    ///
    /// # Safety
    /// `n` bytes can be written at `to`.
    unsafe fn store_bytes(self, to: *mut u8, n: usize) {
        let mut lanes = [0.0; 16];
        // SAFETY: no vector has more than 16 lanes; the caller's contract.
        unsafe {
            self.store(lanes.as_mut_ptr());
            for lane in 0..n.min(Self::LANES) {
                *to.add(lane) = lanes[lane] as u8;
            }
        }
    }

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

    /// Asks for it into L2 only: it is needed a while later.
    #[inline(always)]
    fn prefetch_far(_at: *const f32) {}

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
use operators;

/// What every machine of this architecture has.
#[cfg(not(target_arch = "aarch64"))]
pub(crate) type Baseline = Plain;
/// What every machine of this architecture has.
#[cfg(target_arch = "aarch64")]
pub(crate) type Baseline = neon::Neon;

/// Eight lanes in plain Rust.
#[derive(Clone, Copy)]
#[cfg_attr(target_arch = "aarch64", allow(dead_code))]
pub(crate) struct Plain([f32; 8]);

#[inline(always)]
fn zip(a: [f32; 8], b: [f32; 8], f: impl Fn(f32, f32) -> f32) -> [f32; 8] {
    std::array::from_fn(|lane| f(a[lane], b[lane]))
}

/// a·b + c rounded once, as the hardware of other instruction sets does it. `f32::mul_add` would be a call for each number.
///
/// The product is exact in f64. Their sum, rounded to odd there, rounds to f32 as the exact one does (Boldo and Melquiond 2008).
#[inline(always)]
fn fused(a: f32, b: f32, c: f32) -> f32 {
    let (product, c) = (f64::from(a) * f64::from(b), f64::from(c));
    let sum = product + c;
    // What the sum lost (Knuth's two-sum); NaN where it is not finite.
    let of_c = sum - product;
    let lost = (product - (sum - of_c)) + (c - of_c);
    let bits = sum.to_bits();
    let away = u64::from((lost > 0.0) == (sum > 0.0)).wrapping_mul(2).wrapping_sub(1);
    let inexact = u64::from(lost > 0.0) | u64::from(lost < 0.0);
    // An even sum gives way to its odd neighbour on the side of the exact one.
    f64::from_bits(bits.wrapping_add(away.wrapping_mul(inexact & !bits & 1))) as f32
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
        if n >= 8 {
            // SAFETY: eight elements by the caller's contract.
            return unsafe { Self::load(from) };
        }
        let mut lanes = [0.0; 8];
        for lane in 0..n {
            // SAFETY: `n` elements by the caller's contract.
            lanes[lane] = unsafe { *from.add(lane) };
        }
        Plain(lanes)
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: eight elements by the caller's contract.
        unsafe { to.cast::<[f32; 8]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        if n >= 8 {
            // SAFETY: eight elements by the caller's contract.
            return unsafe { self.store(to) };
        }
        for lane in 0..n {
            // SAFETY: `n` elements by the caller's contract.
            unsafe { *to.add(lane) = self.0[lane] }
        }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        Plain(std::array::from_fn(|lane| fused(self.0[lane], b.0[lane], c.0[lane])))
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
    fn select_above(self, bound: Self, then: Self, otherwise: Self) -> Self {
        let above = |lane: usize| self.0[lane] > bound.0[lane] || self.0[lane].is_nan();
        Plain(std::array::from_fn(|lane| if above(lane) { then.0[lane] } else { otherwise.0[lane] }))
    }

    #[inline(always)]
    fn select_equal(self, other: Self, then: Self, otherwise: Self) -> Self {
        Plain(std::array::from_fn(|lane| if self.0[lane] == other.0[lane] { then.0[lane] } else { otherwise.0[lane] }))
    }

    #[inline(always)]
    fn exp2_integral(self) -> Self {
        Plain(self.0.map(|n| f32::from_bits(((n as i32).wrapping_add(127) as u32) << 23)))
    }
}

#[cfg(test)]
mod tests {
    use super::fused;

    /// What decides a rounding lies far behind, cancels, is subnormal, or is no number.
    #[test]
    fn the_plain_multiply_add_rounds_once() {
        let mut state = 1u32;
        let mut next = || {
            state = state.wrapping_mul(747_796_405).wrapping_add(2_891_336_453);
            let word = ((state >> ((state >> 28) + 4)) ^ state).wrapping_mul(277_803_737);
            (word >> 22) ^ word
        };
        let special = [0.0, -0.0, 1.0, f32::MIN_POSITIVE, 1e-45, f32::MAX, f32::INFINITY, f32::NEG_INFINITY, f32::NAN];
        for round in 0..400_000 {
            let [mut a, mut b, mut c] = std::array::from_fn(|_| f32::from_bits(next()));
            match round % 4 {
                // Close to halfway between two numbers, from either side.
                0 => {
                    (a, b) = (1.0 + (a.to_bits() % 4096) as f32 / 4096.0, 1.0 + (b.to_bits() % 4096) as f32 / 4096.0);
                    c = (c.to_bits() % 7) as f32 * 2f32.powi(-(next() as i32 % 60).abs()) - 2f32.powi(-24);
                }
                1 => c = -(a * b),
                2 => (a, b) = (a.abs().min(1e-20), b.abs().min(1e-20)),
                _ => a = special[round / 4 % special.len()],
            }
            let (got, expected) = (fused(a, b, c), a.mul_add(b, c));
            assert!(
                got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan(),
                "{a:e} {b:e} {c:e}: {got:e}, {expected:e}"
            );
        }
    }
}
