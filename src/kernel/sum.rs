//! Sums over long slices, for gradients of many micro-batches and ranks.

use super::isa::dispatch;

/// Elements whose squares are summed in f32 before they go into an f64; also a good stretch to stay in cache.
pub const BLOCK: usize = 4096;
/// Accumulators of a sum of squares: four of the widest vectors, since each addition waits for the one before.
const LANES: usize = 64;

dispatch! {
    /// to += from.
    pub fn add<T>(to: &mut [T], from: &[T]) {
        for (to, from) in to.iter_mut().zip(from) {
            *to += *from;
        }
    }
}

dispatch! {
    /// Σ v² of at most [`BLOCK`] elements, by the same additions whatever the instruction set.
    pub fn block_squares(values: &[f32]) -> f64 {
        let mut sums = [0.0f32; LANES];
        let chunks = values.chunks_exact(LANES);
        for (sum, v) in sums.iter_mut().zip(chunks.remainder()) {
            *sum += v * v;
        }
        for chunk in chunks {
            for lane in 0..LANES {
                sums[lane] += chunk[lane] * chunk[lane];
            }
        }
        sums.iter().map(|sum| f64::from(*sum)).sum()
    }
}

/// Σ v², by blocks.
pub fn squares(values: &[f32]) -> f64 {
    values.chunks(BLOCK).map(block_squares).sum()
}

#[cfg(test)]
mod tests {
    use super::super::testing::filled;
    use super::*;

    #[test]
    fn squares_are_those_of_f64() {
        for len in [0, 1, 63, 64, 65, 4095, 4096, 4097, 20_000] {
            let values = filled(len as u64, len);
            let exact: f64 = values.iter().map(|v| f64::from(*v) * f64::from(*v)).sum();
            assert!((squares(&values) - exact).abs() <= 1e-6 * exact, "{len}");
        }
        assert!(squares(&[1.0, f32::NAN]).is_nan());
    }
}
