//! The numbers that layers work in.

/// A floating-point type: arithmetic, and functions of one number.
pub trait Scalar:
    Copy
    + Send
    + Sync
    + PartialOrd
    + Default
    + std::fmt::Debug
    + bytemuck::Pod
    + ndarray::LinalgScalar
    + ndarray::ScalarOperand
    + std::ops::Neg<Output = Self>
    + std::ops::AddAssign
    + std::ops::SubAssign
    + std::ops::MulAssign
    + std::iter::Sum
{
    /// 0.
    const ZERO: Self;
    /// 1.
    const ONE: Self;
    /// Rounds from f64.
    fn of(value: f64) -> Self;
    /// Widens to f64.
    fn to_f64(self) -> f64;
    /// √x.
    fn sqrt(self) -> Self;
    /// |x|.
    fn abs(self) -> Self;
    /// eˣ.
    fn exp(self) -> Self;
    /// ln x.
    fn ln(self) -> Self;
    /// tanh x.
    fn tanh(self) -> Self;
    /// 1 / (1 + e⁻ˣ).
    fn sigmoid(self) -> Self;
    /// The larger; a NaN wins.
    #[allow(clippy::eq_op)] // True for a NaN.
    fn max(self, other: Self) -> Self {
        if other > self || other != other { other } else { self }
    }
    /// 0 where it is subnormal, which many CPUs compute with a hundred times as slowly.
    fn flushed(self) -> Self;
    /// Whether neither infinite nor NaN.
    fn is_finite(self) -> bool;
}

/// What a system's own library would round as it likes is `libm`'s: the same bits everywhere.
macro_rules! scalar {
    ($t:ty, $exp:path, $ln:path, $tanh:path) => {
        impl Scalar for $t {
            const ZERO: Self = 0.0;
            const ONE: Self = 1.0;
            #[inline(always)]
            fn of(value: f64) -> Self {
                value as $t
            }
            #[inline(always)]
            fn to_f64(self) -> f64 {
                self.into()
            }
            #[inline(always)]
            fn sqrt(self) -> Self {
                <$t>::sqrt(self)
            }
            #[inline(always)]
            fn abs(self) -> Self {
                <$t>::abs(self)
            }
            #[inline(always)]
            fn exp(self) -> Self {
                $exp(self)
            }
            #[inline(always)]
            fn ln(self) -> Self {
                $ln(self)
            }
            #[inline(always)]
            fn tanh(self) -> Self {
                $tanh(self)
            }
            #[inline(always)]
            fn sigmoid(self) -> Self {
                1.0 / (1.0 + $exp(-self))
            }
            #[inline(always)]
            fn flushed(self) -> Self {
                if self.abs() < <$t>::MIN_POSITIVE { 0.0 } else { self }
            }
            #[inline(always)]
            fn is_finite(self) -> bool {
                <$t>::is_finite(self)
            }
        }
    };
}

scalar!(f64, libm::exp, libm::log, libm::tanh);
scalar!(f32, libm::expf, libm::logf, libm::tanhf);
