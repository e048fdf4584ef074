//! The gradient noise scale: up to which batch size more samples a step still help (McCandlish et al., 2018, "An
//! Empirical Model of Large-Batch Training", appendix A.1).

/// Sums over steps of the estimates of tr Σ, the variance of one sample's gradient, and of |G|², the square of the true
/// gradient.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Noise {
    /// Σ of tr Σ.
    pub spread: f64,
    /// Σ of |G|².
    pub signal: f64,
}

impl Noise {
    /// From the squared norms of the mean gradients of `few` samples and of the `many` of which they are some; nothing
    /// where those are the same.
    pub fn of((few, few_squares): (usize, f64), (many, many_squares): (usize, f64)) -> Self {
        if few == 0 || few >= many {
            return Self::default();
        }
        let (few, many) = (few as f64, many as f64);
        Self {
            spread: (few_squares - many_squares) / (1.0 / few - 1.0 / many),
            signal: (many * many_squares - few * few_squares) / (many - few),
        }
    }

    /// Over the last half of some epochs: one alone may tell anything, and the scale grows as training goes on.
    pub fn of_last(epochs: &[Noise]) -> Self {
        let last = &epochs[epochs.len() / 2..];
        last.iter().fold(Self::default(), |sum, epoch| Self {
            spread: sum.spread + epoch.spread,
            signal: sum.signal + epoch.signal,
        })
    }

    /// tr Σ / |G|² in samples; infinite where the noise hides the gradient, None where nothing was measured.
    pub fn scale(self) -> Option<f64> {
        (self != Self::default())
            .then(|| if self.signal > 0.0 { self.spread.max(0.0) / self.signal } else { f64::INFINITY })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

    #[test]
    fn the_scale_of_known_noise_is_found() {
        // Gradients of 200 elements of 0.1, each sample's with uniform noise of variance 3²/12.
        let (elements, mean, width, few, many) = (200, 0.1f64, 3.0f64, 4, 32);
        let mut noise = Noise::default();
        for step in 0..400 {
            let mut stream = Stream::new(1, Purpose::Synthetic, step, 0);
            let mut sums = [[0.0; 2]; 200];
            for sample in 0..many {
                for sums in &mut sums {
                    let g = mean + width * (f64::from(stream.uniform()) - 0.5);
                    sums[1] += g;
                    sums[0] += if sample < few { g } else { 0.0 };
                }
            }
            let squares = |of: usize, n: usize| sums.iter().map(|sums| (sums[of] / n as f64).powi(2)).sum::<f64>();
            let of_step = Noise::of((few, squares(0, few)), (many, squares(1, many)));
            noise = Noise { spread: noise.spread + of_step.spread, signal: noise.signal + of_step.signal };
        }
        let (found, expected) = (noise.scale().unwrap(), width * width / 12.0 / (mean * mean));
        assert!((found / expected - 1.0).abs() < 0.05, "{found}, expected {expected} for {elements} elements");
        assert_eq!(Noise::of((32, 1.0), (32, 1.0)).scale(), None);
        assert_eq!(Noise { spread: 1.0, signal: -1.0 }.scale(), Some(f64::INFINITY));
    }
}
