//! Mixup (Zhang, Cisse, Dauphin and Lopez-Paz, "mixup: Beyond Empirical Risk Minimization", 2018): each sample of a batch is
//! mixed with another of the batch.

use crate::rng::{Purpose, Stream, permute};

/// Who is mixed with whom in a step: a pure function of the seed, the step and the batch.
pub(super) struct Mixing {
    alpha: f32,
    /// Of each sample of the batch the other.
    others: Vec<u32>,
    /// What is left of a sample itself.
    share: f32,
}

impl Mixing {
    /// With room for batches of up to `batch` samples.
    pub fn new(alpha: f32, batch: usize) -> Self {
        Self { alpha, others: Vec::with_capacity(batch), share: 1.0 }
    }

    /// Draws a step's.
    pub fn draw(&mut self, seed: u64, step: u64, samples: &[u32]) {
        let mut stream = Stream::new(seed, Purpose::Mixup, step, 0);
        self.share = beta(f64::from(self.alpha), &mut stream);
        self.others.clear();
        self.others.extend(samples);
        permute(&mut stream, &mut self.others);
    }

    /// The others of the batch's samples from `first` on.
    pub fn others(&self, first: usize, count: usize) -> &[u32] {
        &self.others[first..][..count]
    }

    /// What is left of each sample.
    pub fn share(&self) -> f32 {
        self.share
    }
}

/// A number of the distribution Beta(α, α): X / (X + Y) of two of Gamma(α). By `libm`, and not the system's functions, so that
/// it has the same bits everywhere.
fn beta(alpha: f64, stream: &mut Stream) -> f32 {
    let (x, y) = (ln_gamma_variate(alpha, stream), ln_gamma_variate(alpha, stream));
    (1.0 / (1.0 + libm::exp(y - x))) as f32
}

/// The logarithm of a number of the distribution Gamma(α), which for a small α is too small itself (Marsaglia and Tsang, "A
/// Simple Method for Generating Gamma Variables", 2000).
fn ln_gamma_variate(alpha: f64, stream: &mut Stream) -> f64 {
    // Never 0, of which there is no logarithm.
    let mut uniform = || 1.0 - f64::from(stream.uniform());
    // Gamma(α) is Gamma(α + 1) · U^(1/α).
    let boost = if alpha < 1.0 { libm::log(uniform()) / alpha } else { 0.0 };
    let d = if alpha < 1.0 { alpha + 1.0 } else { alpha } - 1.0 / 3.0;
    let c = 1.0 / (9.0 * d).sqrt();
    loop {
        // Box and Muller's normal variate.
        let normal = (-2.0 * libm::log(uniform())).sqrt() * libm::cos(std::f64::consts::TAU * uniform());
        let cube = 1.0 + c * normal;
        let v = cube * cube * cube;
        if v > 0.0 && libm::log(uniform()) < 0.5 * normal * normal + d * (1.0 - v + libm::log(v)) {
            return boost + libm::log(d * v);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_mixed_with_itself_by_shares_that_are_beta() {
        let samples: Vec<u32> = (100..150).collect();
        for (alpha, variance) in [(0.2f32, 1.0 / 5.6), (1.0, 1.0 / 12.0), (8.0, 1.0 / 68.0)] {
            let mut mixing = Mixing::new(alpha, 50);
            let (mut sum, mut squares) = (0.0, 0.0);
            for step in 0..4000 {
                mixing.draw(3, step, &samples);
                let mut others = mixing.others(0, 50).to_vec();
                assert_ne!(others, samples);
                others.sort_unstable();
                assert_eq!(others, samples);
                let off = f64::from(mixing.share()) - 0.5;
                sum += off;
                squares += off * off;
            }
            assert!((sum / 4000.0).abs() < 0.03, "{alpha}: {sum}");
            assert!((squares / 4000.0 - variance).abs() < 0.1 * variance, "{alpha}: {squares}");
        }
    }
}
