//! What the losses on values share: a function of each error, averaged over samples and elements.

use super::Loss;
use crate::data::Targets;
use crate::kernel::Real;

/// From an error y − target to the loss and its derivative.
pub(super) struct Elementwise<F>(pub F);

impl<F: Fn(f64) -> (f64, f64) + Send> Elementwise<F> {
    fn compute<T: Real>(
        &self,
        m: usize,
        n: usize,
        y: &[T],
        targets: &Targets,
        share: f64,
        mut dy: Option<&mut [T]>,
    ) -> f64 {
        let share = share / n as f64;
        let mut total = 0.0;
        for (i, (y, target)) in y[..m * n].iter().zip(&targets.values).enumerate() {
            let (loss, slope) = (self.0)(y.to_f64() - f64::from(*target));
            total += loss;
            if let Some(dy) = &mut dy {
                dy[i] = T::of(share * slope);
            }
        }
        total * share
    }
}

impl<F: Fn(f64) -> (f64, f64) + Send> Loss for Elementwise<F> {
    fn evaluate(&self, m: usize, n: usize, y: &[f32], targets: &Targets, share: f64, dy: Option<&mut [f32]>) -> f64 {
        self.compute(m, n, y, targets, share, dy)
    }

    fn evaluate_f64(
        &self,
        m: usize,
        n: usize,
        y: &[f64],
        targets: &Targets,
        share: f64,
        dy: Option<&mut [f64]>,
    ) -> f64 {
        self.compute(m, n, y, targets, share, dy)
    }
}
