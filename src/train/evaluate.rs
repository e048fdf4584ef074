//! Exact metrics on the test part at any number of ranks: every sample once, no padding.

use super::trainer::{Goal, Trainer, over};
use crate::comm::{Comm, agree};
use crate::data::{Dataset, Loader, Part, Targets, Task};
use crate::error::Result;
use crate::layer::{Mode, Pass};
use crate::loss::largest;
use crate::model::Model;
use crate::shard::own;

/// Metrics of a pass over a part.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metrics {
    /// Mean loss in the network's own scale.
    pub loss: f64,
    /// For classes: (true, given) counts, row by row.
    pub confusion: Vec<u64>,
    /// For values, in the data's own units, over all targets; R² is the mean of theirs.
    pub errors: Option<Errors>,
    /// Of each target, where there are several.
    pub targets: Vec<Errors>,
    /// Samples seen.
    pub samples: usize,
    /// For values: what the network gave for this rank's samples, (samples, outputs); ranks have consecutive ones, in order.
    pub outputs: Vec<f32>,
}

/// Errors of a forecast in the data's own units.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Errors {
    /// Mean of e².
    pub mse: f64,
    /// Mean of |e|.
    pub mae: f64,
    /// √mse.
    pub rmse: f64,
    /// Mean of |e / true| in percent, over true values that are not 0.
    pub mape: f64,
    /// 1 − Σe² / Σ(true − mean)²; over several targets the mean of theirs.
    pub r2: f64,
}

impl Metrics {
    /// Share of right answers.
    pub fn accuracy(&self) -> Option<f64> {
        let classes = self.confusion.len().isqrt();
        let correct: u64 = (0..classes).map(|class| self.confusion[class * classes + class]).sum();
        (classes > 0).then(|| correct as f64 / self.samples as f64)
    }

    /// Names as in the run file, and figures.
    pub fn columns(&self, part: Part) -> Vec<(String, f64)> {
        let mut columns = vec![(column(part, "loss"), self.loss)];
        columns.extend(self.accuracy().map(|accuracy| (column(part, "accuracy"), accuracy)));
        columns.extend(self.errors.iter().flat_map(|errors| errors.columns(part)));
        columns
    }
}

impl Errors {
    /// Names as in the run file, and figures.
    pub fn columns(&self, part: Part) -> [(String, f64); 5] {
        let figures = [("mse", self.mse), ("mae", self.mae), ("rmse", self.rmse), ("mape", self.mape), ("r2", self.r2)];
        figures.map(|(name, figure)| (column(part, name), figure))
    }
}

/// `test_loss`.
fn column(part: Part, name: &str) -> String {
    let part = match part {
        Part::Train => "train",
        Part::Validation => "validation",
        Part::Test => "test",
    };
    format!("{part}_{name}")
}

/// Sums from which [`Errors`] follow; they add up over ranks.
#[derive(Debug, Clone, Copy, Default)]
struct ErrorSums {
    count: f64,
    squares: f64,
    absolute: f64,
    relative: f64,
    relative_count: f64,
    /// Of the true values, about `pivot` to keep the digits.
    values: f64,
    value_squares: f64,
}

const ERROR_SUMS: usize = 7;

impl ErrorSums {
    fn add(&mut self, forecast: f64, truth: f64, pivot: f64) {
        let error = forecast - truth;
        self.count += 1.0;
        self.squares += error * error;
        self.absolute += error.abs();
        if truth != 0.0 {
            self.relative += (error / truth).abs();
            self.relative_count += 1.0;
        }
        self.values += truth - pivot;
        self.value_squares += (truth - pivot) * (truth - pivot);
    }

    fn to_array(self) -> [f64; ERROR_SUMS] {
        [self.count, self.squares, self.absolute, self.relative, self.relative_count, self.values, self.value_squares]
    }

    fn from_array(sums: &[f64]) -> Errors {
        let [count, squares, absolute, relative, relative_count, values, value_squares] = sums else {
            return Errors { mse: f64::NAN, mae: f64::NAN, rmse: f64::NAN, mape: f64::NAN, r2: f64::NAN };
        };
        let mse = squares / count;
        Errors {
            mse,
            mae: absolute / count,
            rmse: mse.sqrt(),
            mape: 100.0 * relative / relative_count,
            r2: 1.0 - squares / (value_squares - values * values / count),
        }
    }
}

/// What an evaluation works with: a network, its weights, and which ranks share the samples.
pub(super) struct Evaluation<'a> {
    pub comm: &'a dyn Comm,
    pub model: &'a mut Model<f32>,
    pub params: &'a [f32],
    pub state: &'a [f32],
    pub goal: &'a Goal,
    pub targets: &'a mut Targets,
    pub micro: usize,
}

impl Trainer<'_> {
    /// The metrics of the whole of `part`, the same on every rank.
    ///
    /// # Errors
    /// Samples in files that cannot be read any more; on every rank.
    pub fn evaluate(&mut self, data: &Dataset, part: Part) -> Result<Metrics> {
        let (model, goal, targets) = (&mut self.model, &self.goal, &mut self.targets);
        let (params, state) = (&self.replica.params, &self.replica.state);
        Evaluation { comm: self.comm, model, params, state, goal, targets, micro: self.micro }.evaluate(data, part)
    }
}

impl Evaluation<'_> {
    /// Calls `visit(sample, outputs)` for this rank's share of `part`, in evaluation mode. Returns Σ loss of each
    /// micro-batch of the part, 0 for those of other ranks. Collective where samples stay in their files.
    ///
    /// # Errors
    /// They cannot be read any more; on every rank.
    pub(super) fn for_each_output(
        &mut self,
        data: &Dataset,
        part: Part,
        with_loss: bool,
        mut visit: impl FnMut(u32, &[f32], &Targets, usize),
    ) -> Result<Vec<f64>> {
        let len = data.len(part);
        let parts = len.div_ceil(self.micro);
        let mine = own(parts, self.comm.rank(), self.comm.size());
        self.model.stack.prepare(self.params);
        let mut statistics = vec![0.0; self.state.len()];
        let samples: Vec<u32> = (mine.start * self.micro..len.min(mine.end * self.micro)).map(|i| i as u32).collect();
        let mut losses = vec![0.0; parts];
        let mut loader = Loader::new(data, part, (&samples, self.micro), self.micro, |_, samples, needed| {
            needed.own(0..samples.len(), samples);
        });
        let streams = data.is_unread(part);
        let (mut index, mut read) = (mine.start, Ok(()));
        while let Some(batch) = loader.next() {
            // Others go on without this rank, up to where all agree.
            let batch = match batch {
                Ok(batch) => batch,
                Err(error) => {
                    read = Err(error);
                    break;
                }
            };
            let m = batch.samples.len();
            data.fill(part, batch.pick(0..m), None, self.model.stack.x(m), self.targets);
            let micro = Pass { m, mode: Mode::Eval, params: self.params };
            self.model.stack.forward(micro, self.state, &mut statistics);
            let y = self.model.stack.y(m);
            if with_loss {
                losses[index] = self.goal.loss.evaluate(m, self.goal.outputs, y, self.targets, 1.0, None);
            }
            for (row, sample) in batch.samples.iter().enumerate() {
                visit(*sample, &y[row * self.goal.outputs..][..self.goal.outputs], self.targets, row);
            }
            index += 1;
        }
        if streams {
            agree(self.comm, read)?;
        }
        Ok(losses)
    }

    /// The metrics of the whole of `part`, the same on every rank. Errors: as of [`Trainer::evaluate`].
    pub fn evaluate(&mut self, data: &Dataset, part: Part) -> Result<Metrics> {
        let (samples, outputs) = (data.len(part), self.goal.outputs);
        let classes = match data.task() {
            Task::Classes(names) => names.len(),
            Task::Values(_) => 0,
        };
        let mut confusion = vec![0.0; classes * classes];
        let (micro, parts) = (self.micro, samples.div_ceil(self.micro));
        let mut errors = vec![ErrorSums::default(); if classes > 0 { 0 } else { parts * outputs }];
        let pivots: Vec<f64> = (0..outputs).map(|output| pivot(data, part, output)).collect();
        let mut given = Vec::new();
        let losses = self.for_each_output(data, part, true, |sample, y, targets, row| {
            if classes > 0 {
                confusion[targets.classes[row] as usize * classes + largest(y)] += 1.0;
                return;
            }
            given.extend(y);
            let errors = &mut errors[sample as usize / micro * outputs..][..outputs];
            for (output, (y, errors)) in y.iter().zip(errors).enumerate() {
                // As it is in the file: an f32 made of it and back may be far off where the offset is large.
                let Some(truth) = data.target_value(part, sample, output) else { continue };
                let unit = data.unit(part, sample, output);
                errors.add(f64::from(*y) * unit.scale + unit.offset, truth, pivots[output]);
            }
        })?;
        // Each micro-batch's sums come from one rank, so that they add up alike at any number of ranks.
        let mut sums = confusion;
        sums.extend(losses);
        sums.extend(errors.iter().flat_map(|errors| errors.to_array()));
        self.comm.sum_f64(&mut sums);
        let (confusion, rest) = sums.split_at(classes * classes);
        let (losses, errors) = rest.split_at(parts);
        let mut totals = vec![0.0; ERROR_SUMS * outputs];
        for of_part in errors.chunks_exact(totals.len()) {
            totals.iter_mut().zip(of_part).for_each(|(total, sum)| *total += sum);
        }
        let targets: Vec<Errors> = totals.chunks_exact(ERROR_SUMS).map(ErrorSums::from_array).collect();
        Ok(Metrics {
            loss: over(losses.iter().sum(), self.goal.total(data, part, 0..samples as u32)),
            errors: (classes == 0).then(|| pooled(&totals, &targets)),
            targets: if classes == 0 && outputs > 1 { targets } else { Vec::new() },
            confusion: confusion.iter().map(|count| *count as u64).collect(),
            samples,
            outputs: given,
        })
    }
}

/// The errors over all targets. A variance over values of different kinds would say nothing, so R² is the targets' mean.
fn pooled(totals: &[f64], targets: &[Errors]) -> Errors {
    let mut all = [0.0; ERROR_SUMS];
    for of_target in totals.chunks_exact(ERROR_SUMS) {
        all.iter_mut().zip(of_target).for_each(|(all, sum)| *all += sum);
    }
    let r2 = targets.iter().map(|errors| errors.r2).sum::<f64>() / targets.len() as f64;
    Errors { r2, ..ErrorSums::from_array(&all) }
}

/// A value near the data's, about which variances are summed.
fn pivot(data: &Dataset, part: Part, output: usize) -> f64 {
    if data.len(part) == 0 { 0.0 } else { data.target_value(part, 0, output).unwrap_or(0.0) }
}

/// The figures of the naive forecast that the last known values stay, over all targets as those of [`Evaluation::evaluate`], so
/// that nobody is fooled; series only.
pub fn last_value(data: &Dataset, part: Part) -> Option<Errors> {
    if !data.is_series() || data.len(part) == 0 {
        return None;
    }
    let Task::Values(outputs) = data.task() else { return None };
    let of_output = |output: usize| {
        let pivot = pivot(data, part, output);
        let mut sums = ErrorSums::default();
        for sample in 0..data.len(part) as u32 {
            sums.add(data.last_value(part, sample, output)?, data.target_value(part, sample, output)?, pivot);
        }
        Some(sums.to_array())
    };
    let sums = (0..*outputs).map(of_output).collect::<Option<Vec<_>>>()?;
    let targets: Vec<Errors> = sums.iter().map(|sums| ErrorSums::from_array(sums)).collect();
    Some(pooled(&sums.concat(), &targets))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_match_their_definitions() {
        let pairs = [(1.0, 2.0), (3.0, 2.5), (5.0, 4.0), (0.5, 0.0)];
        let mut sums = ErrorSums::default();
        for (forecast, truth) in pairs {
            sums.add(forecast, truth, 2.0);
        }
        let errors = ErrorSums::from_array(&sums.to_array());
        let mse = (1.0 + 0.25 + 1.0 + 0.25) / 4.0;
        let mean = 8.5 / 4.0;
        let variance: f64 = pairs.iter().map(|(_, t)| (t - mean) * (t - mean)).sum();
        assert!((errors.mse - mse).abs() < 1e-12 && (errors.rmse - mse.sqrt()).abs() < 1e-12);
        assert!((errors.mae - 0.75).abs() < 1e-12);
        assert!((errors.mape - 100.0 * (0.5 + 0.2 + 0.25) / 3.0).abs() < 1e-9);
        assert!((errors.r2 - (1.0 - 4.0 * mse / variance)).abs() < 1e-12);
    }

    #[test]
    fn accuracy_is_the_diagonal() {
        let metrics = Metrics { confusion: vec![3, 1, 0, 4], samples: 8, ..Metrics::default() };
        assert_eq!(metrics.accuracy(), Some(7.0 / 8.0));
    }
}
