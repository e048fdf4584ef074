//! What the tests of the kernels share.

use super::Isa;
use super::simd::best_isa;

/// Every instruction set of this CPU.
pub(crate) fn isas() -> impl Iterator<Item = Isa> {
    [Isa::Portable, Isa::Avx2, Isa::Avx512].into_iter().filter(|&isa| isa <= best_isa())
}

/// `len` values in -1..1, by a seed (a multiplicative generator: Steele and Vigna 2021).
pub(crate) fn filled(seed: u64, len: usize) -> Vec<f32> {
    let mut state = seed.wrapping_mul(2).wrapping_add(0x9E37_79B9_7F4A_7C15) | 1;
    std::iter::repeat_with(|| {
        state = state.wrapping_mul(0xF135_7AEA_2E62_A9C5);
        (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    })
    .take(len)
    .collect()
}

/// Panics unless all elements agree to `tolerance` × max(1, largest expected).
pub(crate) fn close(got: &[f32], expected: &[f32], tolerance: f32, what: &dyn std::fmt::Debug) {
    assert_eq!(got.len(), expected.len());
    let scale = expected.iter().filter(|v| v.is_finite()).fold(1.0f32, |a, v| a.max(v.abs()));
    for (at, (&g, &e)) in got.iter().zip(expected).enumerate() {
        assert!((g - e).abs() <= tolerance * scale, "{what:?}: element {at} is {g}, expected {e}");
    }
}
