//! Sums over long slices, for gradients of many micro-batches and ranks.

use super::isa::dispatch;

/// Elements that are summed and updated while they are in cache: few enough that the streams of gradients, parameters and
/// moments all keep flowing.
pub const BLOCK: usize = 1024;
/// Elements whose squares are summed in f32 before they go into an f64, at most.
const IN_F32: usize = 4096;
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
    /// Σ v² of some thousand elements, by the same additions whatever the instruction set.
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
        total(&sums)
    }
}

dispatch! {
    /// [`add`], and [`block_squares`] of the sum.
    pub fn add_with_squares(to: &mut [f32], from: &[f32]) -> f64 {
        assert_eq!(to.len(), from.len());
        let mut sums = [0.0f32; LANES];
        let whole = to.len() / LANES * LANES;
        let (to, to_rest) = to.split_at_mut(whole);
        let (from, from_rest) = from.split_at(whole);
        for ((sum, to), from) in sums.iter_mut().zip(to_rest).zip(from_rest) {
            *to += *from;
            *sum += *to * *to;
        }
        for (to, from) in to.chunks_exact_mut(LANES).zip(from.chunks_exact(LANES)) {
            for lane in 0..LANES {
                to[lane] += from[lane];
                sums[lane] += to[lane] * to[lane];
            }
        }
        total(&sums)
    }
}

/// The sum of accumulators, in an order that vectors follow.
#[inline(always)]
fn total(sums: &[f32; LANES]) -> f64 {
    let mut wide = [0.0; 8];
    for eight in sums.chunks_exact(8) {
        for (wide, sum) in wide.iter_mut().zip(eight) {
            *wide += f64::from(*sum);
        }
    }
    wide.iter().sum()
}

/// Σ v² of any number of elements.
pub fn squares(values: &[f32]) -> f64 {
    values.chunks(IN_F32).map(block_squares).sum()
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
            let (mut sum, more) = (filled(7, len), filled(8, len));
            let mut expected = sum.clone();
            add(&mut expected, &more);
            let squares = add_with_squares(&mut sum, &more);
            assert!(sum == expected && squares == block_squares(&expected), "{len}");
        }
        assert!(squares(&[1.0, f32::NAN]).is_nan());
    }
}
