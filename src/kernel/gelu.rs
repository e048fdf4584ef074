//! x·Φ(x) and its gradient, Φ the normal distribution, exactly or by the tanh form (Hendrycks and Gimpel, 2016).

use super::activation::{exp, sigmoid};
use super::simd::{Simd, simd_entry};
use super::{Isa, Real};
use serde::{Deserialize, Serialize};
use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// How Φ is computed, by the names of torch.nn.GELU.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Approximate {
    /// By erf.
    #[default]
    None,
    /// ½(1 + tanh(√(2/π)·(x + 0.044715·x³))).
    Tanh,
}

/// √(2/π) and the cubic's factor in the tanh form.
const TANH_SCALE: f64 = 0.797_884_560_802_865_4;
const TANH_CUBE: f64 = 0.044_715;

impl Approximate {
    /// Φ(x) and Φ'(x).
    fn distribution(self, x: f64) -> (f64, f64) {
        match self {
            Self::None => {
                let density = libm::exp(-0.5 * x * x) / (2.0 * PI).sqrt();
                (0.5 * (1.0 + libm::erf(x * FRAC_1_SQRT_2)), density)
            }
            Self::Tanh => {
                let t = libm::tanh(TANH_SCALE * (x + TANH_CUBE * x * x * x));
                (0.5 * (1.0 + t), 0.5 * (1.0 - t * t) * TANH_SCALE * (1.0 + 3.0 * TANH_CUBE * x * x))
            }
        }
    }
}

/// [`Real::gelu`] element by element.
pub(super) fn reference<T: Real>(form: Approximate, x: &[T], y: &mut [T]) {
    for (y, x) in y.iter_mut().zip(x) {
        *y = T::of(x.to_f64() * form.distribution(x.to_f64()).0);
    }
}

/// [`Real::gelu_gradient`] element by element.
pub(super) fn reference_gradient<T: Real>(form: Approximate, x: &[T], dy: &[T], dx: &mut [T]) {
    for ((dx, dy), x) in dx.iter_mut().zip(dy).zip(x) {
        let (value, slope) = form.distribution(x.to_f64());
        *dx = *dy * T::of(value + x.to_f64() * slope);
    }
}

/// [`Real::gelu`] in f32.
pub(super) fn forward(isa: Isa, form: Approximate, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len());
    // SAFETY: the slices have one length.
    unsafe {
        match form {
            Approximate::None => forward_exact(isa, x, y),
            Approximate::Tanh => forward_tanh(isa, x, y),
        }
    }
}

/// [`Real::gelu_gradient`] in f32.
pub(super) fn gradient(isa: Isa, form: Approximate, x: &[f32], dy: &[f32], dx: &mut [f32]) {
    assert!(x.len() == dy.len() && x.len() == dx.len());
    // SAFETY: the slices have one length.
    unsafe {
        match form {
            Approximate::None => gradient_exact(isa, x, dy, dx),
            Approximate::Tanh => gradient_tanh(isa, x, dy, dx),
        }
    }
}

/// Φ(x) and Φ'(x), to 8e-7 of Φ above -5.
///
/// Φ(-|x|) = e^(-x²/2)·t·P(t) with t = 1 / (1 + 0.3·|x|/√2), the form of Abramowitz and Stegun 7.1.26. P is of degree 8, fitted by
/// reweighted least squares until the largest relative error on |x| ≤ 14 was 2e-8; beyond, the power is 0.
///
/// # Safety
/// The CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn exact<S: Simd>(x: S) -> (S, S) {
    // SAFETY: the caller's contract.
    unsafe {
        let (zero, one) = (S::splat(0.0), S::splat(1.0));
        let size = x.max(zero - x);
        let t = one / size.mul_add(S::splat(0.212_132_03), one);
        let mut p = S::splat(-6.476_983e-2);
        for coefficient in [
            2.428_258e-1,
            -2.562_39e-1,
            2.739_863_6e-1,
            -4.742_285_3e-2,
            1.075_099_7e-1,
            7.415_583e-2,
            8.535_985e-2,
            8.459_385e-2,
        ] {
            p = p.mul_add(t, S::splat(coefficient));
        }
        let power = exp::<S>(x * x * S::splat(-0.5));
        let tail = p * t * power;
        (x.select_less(zero, tail, one - tail), power * S::splat(0.398_942_3))
    }
}

/// The same by the tanh form: ½(1 + tanh u) is the sigmoid of 2u.
///
/// # Safety
/// The CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn tanh_form<S: Simd>(x: S) -> (S, S) {
    const TWICE: f32 = (2.0 * TANH_SCALE) as f32;
    const CUBE: f32 = (2.0 * TANH_SCALE * TANH_CUBE) as f32;
    // SAFETY: the caller's contract.
    unsafe {
        // Beyond, nothing changes until the square overflows.
        let x = S::splat(20.0).min(S::splat(-20.0).max(x));
        let (one, square) = (S::splat(1.0), x * x);
        let value = sigmoid::<S>(x * square.mul_add(S::splat(CUBE), S::splat(TWICE)));
        let inner = square.mul_add(S::splat(3.0 * CUBE), S::splat(TWICE));
        (value, value * (one - value) * inner)
    }
}

macro_rules! passes {
    ($function:ident, $forward:ident, $forward_body:ident, $gradient:ident, $gradient_body:ident) => {
        simd_entry! {
            /// # Safety
            /// `y` is as long as `x`.
            unsafe fn $forward(x: &[f32], y: &mut [f32]) = $forward_body
        }

        /// # Safety
        /// The CPU has the instruction set of `S`; `y` is as long as `x`.
        #[inline(always)]
        unsafe fn $forward_body<S: Simd>(x: &[f32], y: &mut [f32]) {
            for at in (0..x.len()).step_by(S::LANES) {
                let left = S::LANES.min(x.len() - at);
                // SAFETY: so many elements are left of both slices.
                unsafe {
                    let (from, to) = (x.as_ptr().add(at), y.as_mut_ptr().add(at));
                    if left == S::LANES {
                        let x = S::load(from);
                        (x * $function::<S>(x).0).store(to);
                    } else {
                        let x = S::load_first(from, left);
                        (x * $function::<S>(x).0).store_first(to, left);
                    }
                }
            }
        }

        simd_entry! {
            /// # Safety
            /// `dy` and `dx` are as long as `x`.
            unsafe fn $gradient(x: &[f32], dy: &[f32], dx: &mut [f32]) = $gradient_body
        }

        /// # Safety
        /// The CPU has the instruction set of `S`; `dy` and `dx` are as long as `x`.
        #[inline(always)]
        unsafe fn $gradient_body<S: Simd>(x: &[f32], dy: &[f32], dx: &mut [f32]) {
            for at in (0..x.len()).step_by(S::LANES) {
                let left = S::LANES.min(x.len() - at);
                // SAFETY: so many elements are left of all slices.
                unsafe {
                    let (x, dy, to) = (x.as_ptr().add(at), dy.as_ptr().add(at), dx.as_mut_ptr().add(at));
                    let (x, dy) = match left == S::LANES {
                        true => (S::load(x), S::load(dy)),
                        false => (S::load_first(x, left), S::load_first(dy, left)),
                    };
                    let (value, slope) = $function::<S>(x);
                    let gradient = dy * x.mul_add(slope, value);
                    match left == S::LANES {
                        true => gradient.store(to),
                        false => gradient.store_first(to, left),
                    }
                }
            }
        }
    };
}

passes!(exact, forward_exact, forward_exact_body, gradient_exact, gradient_exact_body);
passes!(tanh_form, forward_tanh, forward_tanh_body, gradient_tanh, gradient_tanh_body);

#[cfg(test)]
mod tests {
    use super::super::testing::isas;
    use super::*;

    #[test]
    fn values_and_gradients_are_those_of_f64() {
        let x: Vec<f32> = (-150_001..150_000).map(|i| i as f32 * 1e-4).collect();
        let dy: Vec<f32> = (0..x.len()).map(|i| 1.0 + (i % 7) as f32).collect();
        for form in [Approximate::None, Approximate::Tanh] {
            for isa in isas() {
                let (mut y, mut dx) = (vec![f32::NAN; x.len()], vec![f32::NAN; x.len()]);
                forward(isa, form, &x, &mut y);
                gradient(isa, form, &x, &dy, &mut dx);
                for i in 0..x.len() {
                    let at = f64::from(x[i]);
                    let (value, slope) = form.distribution(at);
                    let (expected, steep) = (at * value, value + at * slope);
                    let allowed = if at > -4.0 { 3e-6 * expected.abs() } else { 1e-9 };
                    assert!((f64::from(y[i]) - expected).abs() <= allowed, "{form:?} {isa:?} {at}: {}", y[i]);
                    let found = f64::from(dx[i] / dy[i]);
                    assert!((found - steep).abs() <= 2e-6, "{form:?} {isa:?} {at}: {found}, {steep}");
                }
            }
        }
    }

    /// Of every length the last vector is cut, and every instruction set gives the same bits.
    #[test]
    fn ends_and_extremes_are_the_same_on_every_instruction_set() {
        let extreme = [0.0, -0.0, 1e-40, -1e-40, 1e30, -1e30, f32::INFINITY, f32::NAN, 14.5, -14.5];
        let x: Vec<f32> = (0..61).map(|i| extreme.get(i).copied().unwrap_or(i as f32 * 0.31 - 9.0)).collect();
        for form in [Approximate::None, Approximate::Tanh] {
            for len in [0, 1, 7, 8, 15, 16, 33, 61] {
                let made = |isa: Isa| {
                    let (mut y, mut dx) = (vec![5.0; x.len()], vec![5.0; x.len()]);
                    forward(isa, form, &x[..len], &mut y[..len]);
                    gradient(isa, form, &x[..len], &vec![1.5; len], &mut dx[..len]);
                    assert!(y[len..].iter().chain(&dx[len..]).all(|v| *v == 5.0), "{isa:?}");
                    let bits = |v: &f32| if v.is_nan() { u32::MAX } else { v.to_bits() };
                    (y.iter().map(bits).collect::<Vec<_>>(), dx.iter().map(bits).collect::<Vec<_>>())
                };
                let first = made(Isa::Portable);
                for isa in isas() {
                    assert_eq!(first, made(isa), "{form:?} {isa:?} {len}");
                }
            }
        }
        let mut y = [0.0; 3];
        forward(Isa::Portable, Approximate::None, &[1e30, f32::NAN, -20.0], &mut y);
        assert!(y[0] == 1e30 && y[1].is_nan() && y[2] == 0.0, "{y:?}");
    }
}
