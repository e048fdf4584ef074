//! What the network answers on the test part once it is trained, for the run file: the confusion of classes, or forecasts beside
//! what came.

use super::evaluate::Metrics;
use crate::comm::Comm;
use crate::data::{Dataset, Part, Task};
use crate::store::{Answers, Forecast, SeriesError};
use std::collections::BTreeMap;

/// Of more classes nobody looks at the confusion.
const MOST_CLASSES: usize = 1000;
/// More outputs are not gathered for it.
const MOST_OUTPUTS: usize = 1 << 24;
/// Samples of a curve, curves, and targets among them.
const MOST_POINTS: usize = 2000;
const MOST_CURVES: usize = 5;
const MOST_TARGETS: usize = 3;
/// Nobody reads the errors of more series one by one.
const MOST_SERIES: usize = 10_000;

/// The answers that `metrics` of the test part were made of, on rank 0. Collective.
pub(super) fn answers(data: &Dataset, metrics: &Metrics, comm: &dyn Comm) -> Answers {
    let outputs = match data.task() {
        Task::Classes(names) if names.len() <= MOST_CLASSES => {
            let (classes, confusion) = (names.clone(), metrics.confusion.clone());
            return Answers { classes, confusion, ..Answers::default() };
        }
        Task::Values(outputs) if metrics.samples * outputs <= MOST_OUTPUTS => *outputs,
        _ => return Answers::default(),
    };
    let bytes = comm.gather_bytes(bytemuck::cast_slice(&metrics.outputs)).concat();
    let mut all = vec![0f32; bytes.len() / size_of::<f32>()];
    bytemuck::cast_slice_mut(&mut all).copy_from_slice(&bytes);
    if all.is_empty() { Answers::default() } else { of_values(data, &all, outputs) }
}

/// From the outputs (samples, outputs) of the test part.
fn of_values(data: &Dataset, all: &[f32], outputs: usize) -> Answers {
    let names = data.description().targets;
    let mut of_series: BTreeMap<String, Vec<u32>> = BTreeMap::new();
    for sample in 0..(all.len() / outputs) as u32 {
        let series = data.place_in_series(Part::Test, sample).map_or_else(String::new, |(series, _)| series);
        of_series.entry(series).or_default().push(sample);
    }
    let mut answers = Answers::default();
    for output in 0..outputs.min(MOST_TARGETS) {
        let target = names.get(output).cloned().unwrap_or_else(|| output.to_string());
        let predicted = |sample: u32| {
            let unit = data.unit(Part::Test, sample, output);
            f64::from(all[sample as usize * outputs + output]) * unit.scale + unit.offset
        };
        let truth = |sample: u32| data.target_value(Part::Test, sample, output).unwrap_or(f64::NAN);
        let naive = |sample: u32| data.last_value(Part::Test, sample, output);
        let first = answers.errors.len();
        for (series, samples) in &of_series {
            let mean = |of: &dyn Fn(u32) -> f64| {
                let (mut sum, mut count) = (0.0, 0u64);
                for value in samples.iter().map(|&sample| of(sample)).filter(|value| value.is_finite()) {
                    (sum, count) = (sum + value, count + 1);
                }
                sum / count as f64
            };
            answers.errors.push(SeriesError {
                series: series.clone(),
                target: target.clone(),
                samples: samples.len() as u64,
                mape: 100.0 * mean(&|sample| ((predicted(sample) - truth(sample)) / truth(sample)).abs()),
                rmse: mean(&|sample| (predicted(sample) - truth(sample)).powi(2)).sqrt(),
                naive_rmse: mean(&|sample| naive(sample).map_or(f64::NAN, |last| (last - truth(sample)).powi(2)))
                    .sqrt(),
            });
        }
        let mut ranked: Vec<&SeriesError> = answers.errors[first..].iter().collect();
        ranked.sort_by(|a, b| a.mape.total_cmp(&b.mape));
        // From the best to the worst, evenly.
        let shown = ranked.len().min(MOST_CURVES);
        let places = (0..shown).map(|place| place * (ranked.len() - 1) / (shown - 1).max(1));
        let shown: Vec<String> = places.map(|place| ranked[place].series.clone()).collect();
        for series in shown {
            let samples = &of_series[&series];
            let samples: Vec<u32> =
                samples.iter().copied().step_by(samples.len().div_ceil(MOST_POINTS).max(1)).collect();
            let times =
                samples.iter().filter_map(|&sample| data.place_in_series(Part::Test, sample)).map(|(_, time)| time);
            answers.forecasts.push(Forecast {
                series,
                target: target.clone(),
                times: times.collect(),
                actual: samples.iter().map(|&sample| truth(sample)).collect(),
                predicted: samples.iter().map(|&sample| predicted(sample)).collect(),
                naive: samples.iter().filter_map(|&sample| naive(sample)).collect(),
            });
        }
    }
    if of_series.len() > MOST_SERIES {
        answers.errors.clear();
    }
    answers
}
