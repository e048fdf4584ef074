//! exp, tanh and sigmoid over slices of f32, in registers.

use super::Isa;
use super::simd::{Simd, simd_entry};

/// eˣ for x clamped to ±87, to 2 ulp. NaN stays NaN.
///
/// The argument is reduced to |r| ≤ ln 2 / 2, with Cephes' polynomial (expf) there.
///
/// # Safety
/// The CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn exp_clamped<S: Simd>(x: S) -> S {
    // SAFETY: the caller's contract.
    unsafe {
        let (power, fraction) = reduce::<S>(S::splat(87.0).min(S::splat(-87.0).max(x)));
        fraction * power.exp2_integral()
    }
}

/// n and eʳ with x = n·ln 2 + r.
///
/// # Safety
/// The CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn reduce<S: Simd>(x: S) -> (S, S) {
    // SAFETY: the caller's contract.
    unsafe {
        // Adding 1.5·2²³ leaves no bits for a fraction.
        let magic = S::splat(12_582_912.0);
        let n = x.mul_add(S::splat(std::f32::consts::LOG2_E), magic) - magic;
        // ln 2 in two parts, the first short enough for an exact n·part.
        let r = n.mul_add(S::splat(2.121_944_4e-4), n.mul_add(S::splat(-0.693_359_4), x));
        let mut p = S::splat(1.987_569_1e-4);
        for coefficient in [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 0.5] {
            p = p.mul_add(r, S::splat(coefficient));
        }
        (n, p.mul_add(r * r, r) + S::splat(1.0))
    }
}

/// eˣ over all of f32's range: infinity above 88.73, subnormal numbers and zero below -87.3.
///
/// # Safety
/// The CPU has the instruction set of `S`.
#[inline(always)]
pub(super) unsafe fn exp<S: Simd>(x: S) -> S {
    // SAFETY: the caller's contract.
    unsafe {
        let (power, fraction) = reduce::<S>(S::splat(89.0).min(S::splat(-104.0).max(x)));
        // 2ⁿ in two factors, since n reaches beyond the exponents of normal numbers.
        let magic = S::splat(12_582_912.0);
        let half = power.mul_add(S::splat(0.5), magic) - magic;
        fraction * half.exp2_integral() * (power - half).exp2_integral()
    }
}

/// 1 / (1 + e⁻ˣ), to 3 ulp; exactly 1 for large x.
///
/// # Safety
/// The CPU has the instruction set of `S`.
#[inline(always)]
pub(super) unsafe fn sigmoid<S: Simd>(x: S) -> S {
    // SAFETY: the caller's contract.
    unsafe {
        let one = S::splat(1.0);
        one / (one + exp_clamped::<S>(S::splat(0.0) - x))
    }
}

/// tanh x, to 3 ulp; exactly ±1 for large x.
///
/// Cephes' odd polynomial (tanhf) below 0.625, 1 - 2 / (e²ˣ + 1) above.
///
/// # Safety
/// The CPU has the instruction set of `S`.
#[inline(always)]
pub(super) unsafe fn tanh<S: Simd>(x: S) -> S {
    // SAFETY: the caller's contract.
    unsafe {
        let (one, two) = (S::splat(1.0), S::splat(2.0));
        let large = one - two / (exp_clamped::<S>(x + x) + one);
        let square = x * x;
        let mut p = S::splat(-5.704_988_7e-3);
        for coefficient in [2.063_908_8e-2, -5.373_971_6e-2, 1.333_144_2e-1, -3.333_328e-1] {
            p = p.mul_add(square, S::splat(coefficient));
        }
        let small = (p * square).mul_add(x, x);
        square.select_less(S::splat(0.625 * 0.625), small, large)
    }
}

/// tanh x, to 4e-7 and exactly ±1 for large x (without a fused multiply-add to 8e-7). Its chain of operations is shorter than [`tanh`]'s, which counts where one
/// result waits for another.
///
/// A minimax quotient of polynomials in x² (Eigen's ptanh).
///
/// # Safety
/// The CPU has the instruction set of `S`.
#[inline(always)]
pub(super) unsafe fn tanh_rational<S: Simd>(x: S) -> S {
    // SAFETY: the caller's contract.
    unsafe {
        // Beyond this the quotient would exceed 1.
        let x = S::splat(7.998_811_7).min(S::splat(-7.998_811_7).max(x));
        let square = x * x;
        let mut p = S::splat(-2.760_768_4e-16);
        for coefficient in
            [2.000_188e-13, -8.604_672e-11, 5.122_297_3e-8, 1.485_722_35e-5, 6.372_619_5e-4, 4.893_524_6e-3]
        {
            p = p.mul_add(square, S::splat(coefficient));
        }
        let mut q = S::splat(1.198_258_4e-6);
        for coefficient in [1.185_347_1e-4, 2.268_434_7e-3, 4.893_525e-3] {
            q = q.mul_add(square, S::splat(coefficient));
        }
        x * p / q
    }
}

/// 1 / (1 + e⁻ˣ), to 2e-7 (4e-7), by [`tanh_rational`].
///
/// # Safety
/// The CPU has the instruction set of `S`.
#[inline(always)]
pub(super) unsafe fn sigmoid_rational<S: Simd>(x: S) -> S {
    // SAFETY: the caller's contract.
    unsafe {
        let half = S::splat(0.5);
        tanh_rational(half * x).mul_add(half, half)
    }
}

macro_rules! over_slices {
    ($(#[$meta:meta])* $name:ident, $entry:ident, $body:ident, $function:ident) => {
        simd_entry! {
            /// # Safety
            /// None beyond the instruction set, which the entry checks.
            unsafe fn $entry(values: &mut [f32]) = $body
        }

        /// # Safety
        /// The CPU has the instruction set of `S`.
        #[inline(always)]
        unsafe fn $body<S: Simd>(values: &mut [f32]) {
            let mut chunks = values.chunks_exact_mut(S::LANES);
            for chunk in &mut chunks {
                // SAFETY: a chunk has LANES elements.
                unsafe { $function::<S>(S::load(chunk.as_ptr())).store(chunk.as_mut_ptr()) };
            }
            let rest = chunks.into_remainder();
            // SAFETY: as many elements as the rest has.
            unsafe { $function::<S>(S::load_first(rest.as_ptr(), rest.len())).store_first(rest.as_mut_ptr(), rest.len()) };
        }

        $(#[$meta])*
        pub(crate) fn $name(isa: Isa, values: &mut [f32]) {
            // SAFETY: the entry asks for nothing more.
            unsafe { $entry(isa, values) }
        }
    };
}

over_slices!(
    /// x = eˣ.
    exp_slice,
    exp_entry,
    exp_body,
    exp
);
over_slices!(
    /// x = tanh x.
    tanh_slice,
    tanh_entry,
    tanh_body,
    tanh
);
over_slices!(
    /// x = 1 / (1 + e⁻ˣ).
    sigmoid_slice,
    sigmoid_entry,
    sigmoid_body,
    sigmoid
);

#[cfg(test)]
mod tests {
    use super::super::testing::isas;
    use super::*;

    /// The largest absolute and relative errors over a fine grid.
    fn errors(isa: Isa, fast: fn(Isa, &mut [f32]), exact: fn(f64) -> f64) -> (f64, f64) {
        let x: Vec<f32> = (-400_003..400_000).map(|i| i as f32 * 5e-5).collect();
        let mut y = x.clone();
        fast(isa, &mut y);
        x.iter().zip(&y).fold((0.0, 0.0), |(absolute, relative), (&x, &y)| {
            let e = exact(x.into());
            let error = (f64::from(y) - e).abs();
            (f64::max(absolute, error), if e == 0.0 { relative } else { f64::max(relative, error / e.abs()) })
        })
    }

    #[test]
    fn functions_are_accurate() {
        for isa in isas() {
            let (_, relative) = errors(isa, exp_slice, f64::exp);
            assert!(relative < 2.5e-7, "exp {isa:?} {relative}");
            let (absolute, relative) = errors(isa, tanh_slice, f64::tanh);
            assert!(absolute < 2e-7 && relative < 4e-7, "tanh {isa:?} {absolute} {relative}");
            let (absolute, relative) = errors(isa, sigmoid_slice, |x| 1.0 / (1.0 + (-x).exp()));
            assert!(absolute < 1.5e-7 && relative < 4e-7, "sigmoid {isa:?} {absolute} {relative}");
        }
    }

    simd_entry! {
        /// # Safety
        /// None beyond the instruction set, which the entry checks.
        unsafe fn rational_entry(tanh: &mut [f32], sigmoid: &mut [f32]) = rational_body
    }

    /// # Safety
    /// The CPU has the instruction set of `S`.
    #[inline(always)]
    unsafe fn rational_body<S: Simd>(tanh: &mut [f32], sigmoid: &mut [f32]) {
        for (tanh, sigmoid) in tanh.chunks_exact_mut(S::LANES).zip(sigmoid.chunks_exact_mut(S::LANES)) {
            // SAFETY: chunks have LANES elements.
            unsafe {
                tanh_rational(S::load(tanh.as_ptr())).store(tanh.as_mut_ptr());
                sigmoid_rational(S::load(sigmoid.as_ptr())).store(sigmoid.as_mut_ptr());
            }
        }
    }

    #[test]
    fn quotients_of_polynomials_are_accurate_and_saturate() {
        for isa in isas() {
            let mut x: Vec<f32> = (-400_000..400_000).map(|i| i as f32 * 5e-5).collect();
            x[..4].copy_from_slice(&[f32::NEG_INFINITY, -1e30, 1e30, f32::INFINITY]);
            let (mut t, mut s) = (x.clone(), x.clone());
            // Without a fused multiply-add each step rounds twice.
            let wide = if isa == Isa::Portable { 2.0 } else { 1.0 };
            // SAFETY: the entry asks for nothing more.
            unsafe { rational_entry(isa, &mut t, &mut s) };
            for ((x, t), s) in x.iter().zip(&t).zip(&s) {
                let x = f64::from(*x);
                assert!((f64::from(*t) - x.tanh()).abs() < wide * 4e-7, "tanh {x}: {t} {isa:?}");
                let error = (f64::from(*s) - 1.0 / (1.0 + (-x).exp())).abs();
                assert!(error < wide * 2e-7, "sigmoid {x}: {s} {isa:?}");
            }
            if isa != Isa::Portable {
                assert_eq!((t[0], t[3], s[0], s[3]), (-1.0, 1.0, 0.0, 1.0));
                assert!(t.iter().all(|t| t.abs() <= 1.0));
            }
            let (mut t, mut s) = ([f32::NAN; 16], [f32::NAN; 16]);
            // SAFETY: as above.
            unsafe { rational_entry(isa, &mut t, &mut s) };
            assert!(t.iter().chain(&s).all(|v| v.is_nan()));
        }
    }

    #[test]
    fn extremes_saturate_and_nan_stays() {
        for isa in isas() {
            let extremes = [f32::NEG_INFINITY, -1e30, -200.0, -20.0, 20.0, 200.0, 1e30, f32::INFINITY, f32::NAN];
            let (mut e, mut t, mut s) = (extremes, extremes, extremes);
            exp_slice(isa, &mut e);
            tanh_slice(isa, &mut t);
            sigmoid_slice(isa, &mut s);
            assert_eq!(e[..3], [0.0; 3]);
            assert_eq!(e[5..8], [f32::INFINITY; 3]);
            assert_eq!(t[..8], [-1.0, -1.0, -1.0, -1.0, 1.0, 1.0, 1.0, 1.0]);
            assert_eq!(s[4..8], [1.0; 4]);
            assert!(s[..3].iter().all(|&v| (0.0..1e-37).contains(&v)));
            assert!(e[8].is_nan() && t[8].is_nan() && s[8].is_nan());
            let mut subnormal = [-100.0, 88.7, 0.0];
            exp_slice(isa, &mut subnormal);
            assert!((subnormal[0] - (-100f32).exp()).abs() < 1e-44 && subnormal[1].is_finite() && subnormal[2] == 1.0);
        }
    }

    #[test]
    fn a_value_does_not_depend_on_its_place() {
        for isa in isas() {
            let x: Vec<f32> = (0..77).map(|i| (i as f32 - 38.0) * 0.17).collect();
            for function in [exp_slice, tanh_slice, sigmoid_slice] {
                let mut whole = x.clone();
                function(isa, &mut whole);
                for at in 0..x.len() {
                    let mut single = [x[at]];
                    function(isa, &mut single);
                    assert_eq!(single[0].to_bits(), whole[at].to_bits());
                }
            }
        }
    }
}
