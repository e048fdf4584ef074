//! Windows over series of prices: each series is kept once, a sample is a place in it.

use super::{Part, Targets, Unit};
use jiff::civil::Date;

/// One ticker's series.
pub struct Series {
    /// What it is called.
    pub name: String,
    /// Ascending, no day twice.
    pub dates: Vec<Date>,
    /// In the data's unit.
    pub raw: Vec<f64>,
    /// As the network sees it; empty where each window is normalised by itself.
    pub(super) scaled: Vec<f32>,
    /// From scaled to raw.
    pub(super) unit: Unit,
}

/// A run of samples of one series: sample `first` is the window that ends before time `start`, the next one `start` + 1.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: usize,
    series: usize,
    start: usize,
}

/// All windows of the training and the test part. Sample with time t: input raw[t - window..t], target raw[t + horizon - 1].
pub(super) struct Windows {
    pub window: usize,
    pub horizon: usize,
    /// Whether each window is normalised by its own mean and deviation.
    pub by_window: bool,
    pub series: Vec<Series>,
    /// Of each series with such windows: the unit of each window, from that before time `window` on.
    units: Vec<Vec<Unit>>,
    spans: [Vec<Span>; 2],
    lens: [usize; 2],
}

impl Windows {
    /// No series yet.
    pub fn new(window: usize, horizon: usize, by_window: bool) -> Self {
        Self {
            window,
            horizon,
            by_window,
            series: Vec::new(),
            units: Vec::new(),
            spans: Default::default(),
            lens: [0; 2],
        }
    }

    /// Adds a series with its samples: the times `of` the training and the test part. Every time must be at least `window`
    /// and at most the length.
    pub fn add(&mut self, series: Series, of: [std::ops::Range<usize>; 2]) {
        for (part, times) in of.into_iter().enumerate() {
            if !times.is_empty() {
                let span = Span { first: self.lens[part], series: self.series.len(), start: times.start };
                self.spans[part].push(span);
                self.lens[part] += times.len();
            }
        }
        let windows = series.raw.windows(self.window);
        self.units.push(if self.by_window { windows.map(window_unit).collect() } else { Vec::new() });
        self.series.push(series);
    }

    /// Number of samples of a part.
    pub fn len(&self, part: Part) -> usize {
        self.lens[part as usize]
    }

    /// Memory held.
    pub fn bytes(&self) -> usize {
        let units: usize = self.units.iter().map(|units| size_of_val(&units[..])).sum();
        let series = self.series.iter();
        units
            + series
                .map(|s| size_of_val(&s.dates[..]) + size_of_val(&s.raw[..]) + size_of_val(&s.scaled[..]))
                .sum::<usize>()
    }

    /// The series and time of a sample.
    fn locate(&self, part: Part, sample: usize) -> (&Series, usize) {
        let span = self.span(part, sample);
        (&self.series[span.series], span.start + sample - span.first)
    }

    fn span(&self, part: Part, sample: usize) -> Span {
        let spans = &self.spans[part as usize];
        spans[spans.partition_point(|span| span.first <= sample) - 1]
    }

    /// Writes one window (T, 1) and its target (NaN where the series ends before it).
    pub fn fill(&self, part: Part, sample: usize, y: &mut [f32], targets: &mut Targets) {
        let (series, t) = self.locate(part, sample);
        let target = t + self.horizon - 1;
        if self.by_window {
            let (window, unit) = (&series.raw[t - self.window..t], self.unit(part, sample));
            // A division for each would take as long as all the rest.
            let rate = 1.0 / unit.scale;
            for (y, &raw) in y.iter_mut().zip(window) {
                *y = ((raw - unit.offset) * rate) as f32;
            }
            targets.values.push(series.raw.get(target).map_or(f32::NAN, |&raw| unit.normalize(raw)));
        } else {
            y.copy_from_slice(&series.scaled[t - self.window..t]);
            targets.values.push(series.scaled.get(target).copied().unwrap_or(f32::NAN));
        }
    }

    /// From what the network gives to the data's unit.
    pub fn unit(&self, part: Part, sample: usize) -> Unit {
        let (series, t) = self.locate(part, sample);
        if self.by_window { self.units[self.span(part, sample).series][t - self.window] } else { series.unit }
    }

    /// The last raw value of the window.
    pub fn last_value(&self, part: Part, sample: usize) -> f64 {
        let (series, t) = self.locate(part, sample);
        series.raw[t - 1]
    }

    /// The raw values of the window.
    pub fn raw(&self, part: Part, sample: usize) -> &[f64] {
        let (series, t) = self.locate(part, sample);
        &series.raw[t - self.window..t]
    }

    /// The raw target.
    pub fn target_value(&self, part: Part, sample: usize) -> Option<f64> {
        let (series, t) = self.locate(part, sample);
        series.raw.get(t + self.horizon - 1).copied()
    }

    /// Ticker and date of the target; `+2` after the last date for the second row after the series' end.
    pub fn describe(&self, part: Part, sample: usize) -> String {
        let (series, t) = self.locate(part, sample);
        match series.dates.get(t + self.horizon - 1) {
            Some(date) => format!("{} {date}", series.name),
            None => format!(
                "{} {}+{}",
                series.name,
                series.dates[series.dates.len() - 1],
                t + self.horizon - series.dates.len()
            ),
        }
    }
}

/// The mean and population deviation of a window. One that is constant, but for rounding, is only shifted.
fn window_unit(window: &[f64]) -> Unit {
    let n = window.len() as f64;
    let mean = window.iter().sum::<f64>() / n;
    let std = (window.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt();
    let scale = if std > 1e-9 * mean.abs() { std } else { 1.0 };
    Unit { scale, offset: mean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_window_is_only_shifted() {
        assert_eq!(window_unit(&[0.0; 5]), Unit { scale: 1.0, offset: 0.0 });
        let unit = window_unit(&[0.1; 7]);
        assert_eq!(unit.scale, 1.0);
        assert!((unit.offset - 0.1).abs() < 1e-15);
        assert_eq!(window_unit(&[1.0, 3.0]), Unit { scale: 1.0, offset: 2.0 });
    }
}
