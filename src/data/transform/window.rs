//! Windows over series of rows: each series is kept once, a sample is a place in it.

use crate::data::sample::Samples;
use crate::data::transform::augment::Change;
use crate::data::{Part, Raw, Targets, Unit};
use jiff::civil::{DateTime, Time};
use std::rc::Rc;

/// When the rows of a series are.
#[derive(Debug, Clone, PartialEq)]
pub enum Times {
    /// One after the other.
    Rows,
    /// Ascending numbers, none twice.
    Numbers(Vec<f64>),
    /// Ascending, none twice.
    Dates(Vec<DateTime>),
}

impl Times {
    /// That of a row.
    pub fn text(&self, row: usize) -> String {
        match self {
            Times::Rows => row.to_string(),
            Times::Numbers(numbers) => numbers[row].to_string(),
            Times::Dates(dates) => display(dates[row]),
        }
    }

    /// The dates of the rows; none where they are not known by one.
    pub fn dates(&self) -> &[DateTime] {
        if let Times::Dates(dates) = self { dates } else { &[] }
    }

    fn bytes(&self) -> usize {
        match self {
            Times::Rows => 0,
            Times::Numbers(numbers) => size_of_val(&numbers[..]),
            Times::Dates(dates) => size_of_val(&dates[..]),
        }
    }
}

/// One series: rows of the same columns, ascending in time.
pub struct Series {
    /// What it is called.
    pub name: String,
    /// Of the rows.
    pub times: Times,
    /// (rows, columns) in the data's unit.
    pub raw: Vec<f64>,
    /// As the network sees them; empty where each window is normalised by itself.
    pub(in crate::data) scaled: Vec<f32>,
    /// From scaled to raw, of each column.
    pub(in crate::data) units: Vec<Unit>,
}

impl Series {
    /// Number of rows.
    pub fn rows(&self) -> usize {
        self.raw.len() / self.units.len()
    }

    /// The raw values of a column.
    pub fn column(&self, column: usize) -> impl Iterator<Item = f64> + Clone {
        self.raw.iter().skip(column).step_by(self.units.len()).copied()
    }
}

/// Which columns of a row are what.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::data) struct Columns {
    /// How many there are; the first are the inputs.
    pub all: usize,
    /// How many of them are inputs.
    pub inputs: usize,
    /// Which are predicted; they may be inputs, too.
    pub targets: Vec<usize>,
    /// Which are 1 for one text and else 0, and stay so.
    pub categories: Vec<bool>,
}

/// A run of samples of one series: sample `first` is the window that ends before row `start`, the next one `start` + 1.
#[derive(Debug, Clone, Copy)]
struct Span {
    first: usize,
    series: usize,
    start: usize,
}

/// All windows of the training and the test part. Sample with time t: inputs rows t - window .. t, targets row
/// t + horizon - 1.
pub(in crate::data) struct Windows {
    pub window: usize,
    pub horizon: usize,
    /// Whether each column of a window is normalised by its own mean and deviation.
    pub by_window: bool,
    pub columns: Columns,
    pub series: Vec<Series>,
    /// Of each series with such windows: (windows, columns) units, from the window before row `window` on.
    units: Vec<Vec<Unit>>,
    spans: [Vec<Span>; 2],
    lens: [usize; 2],
}

impl Windows {
    /// No series yet.
    pub fn new(window: usize, horizon: usize, by_window: bool, columns: Columns) -> Self {
        Self {
            window,
            horizon,
            by_window,
            columns,
            series: Vec::new(),
            units: Vec::new(),
            spans: Default::default(),
            lens: [0; 2],
        }
    }

    /// Adds a series with its samples: the times `of` the training and the test part. Every time must be at least `window`
    /// and at most the number of rows.
    pub fn add(&mut self, series: Series, of: [std::ops::Range<usize>; 2]) {
        for (part, times) in of.into_iter().enumerate() {
            if !times.is_empty() {
                let span = Span { first: self.lens[part], series: self.series.len(), start: times.start };
                self.spans[part].push(span);
                self.lens[part] += times.len();
            }
        }
        let mut units = Vec::new();
        if self.by_window {
            for t in self.window..=series.rows() {
                let window = &series.raw[(t - self.window) * self.columns.all..t * self.columns.all];
                let unit = |(column, &category)| match category {
                    true => Unit::IDENTITY,
                    false => window_unit(window, column, self.columns.all),
                };
                units.extend(self.columns.categories.iter().enumerate().map(unit));
            }
        }
        self.units.push(units);
        self.series.push(series);
    }

    /// Number of samples of a part.
    pub fn count(&self, part: Part) -> usize {
        self.lens[part as usize]
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

    /// A row of a series; None after its end.
    fn row<'a, T>(&self, values: &'a [T], row: usize) -> Option<&'a [T]> {
        values.get(row * self.columns.all..(row + 1) * self.columns.all)
    }

    /// Appends a window's targets, normalised as its inputs are; NaN where the series ends before them.
    pub fn fill_targets(&self, part: Part, sample: usize, targets: &mut Targets) {
        let (series, t) = self.locate(part, sample);
        let row = t + self.horizon - 1;
        let of = self.columns.targets.iter();
        match (self.row(&series.raw, row), self.row(&series.scaled, row)) {
            (Some(raw), None) => {
                targets.values.extend(of.map(|&column| self.unit(part, sample, column).normalize(raw[column])));
            }
            (_, Some(scaled)) => targets.values.extend(of.map(|&column| scaled[column])),
            (None, None) => targets.values.extend(of.map(|_| f32::NAN)),
        }
    }

    /// From what the network gives for a column to the data's unit.
    pub fn unit(&self, part: Part, sample: usize, column: usize) -> Unit {
        let (series, t) = self.locate(part, sample);
        if self.by_window {
            self.units[self.span(part, sample).series][(t - self.window) * self.columns.all + column]
        } else {
            series.units[column]
        }
    }

    /// The last raw value of a target in the window.
    pub fn last_value(&self, part: Part, sample: usize, output: usize) -> f64 {
        let (series, t) = self.locate(part, sample);
        series.raw[(t - 1) * self.columns.all + self.columns.targets[output]]
    }

    /// The raw value of a target, where the series reaches so far.
    pub fn target_value(&self, part: Part, sample: usize, output: usize) -> Option<f64> {
        let (series, t) = self.locate(part, sample);
        let row = self.row(&series.raw, t + self.horizon - 1)?;
        Some(row[self.columns.targets[output]]).filter(|value| !value.is_nan())
    }

    /// The series' name, and the time of the target; `+2` after the last time for the second row after the series' end.
    pub fn place(&self, part: Part, sample: usize) -> (String, String) {
        let (series, t) = self.locate(part, sample);
        let (row, rows) = (t + self.horizon - 1, series.rows());
        let time = |row| series.times.text(row);
        let when = if row < rows { time(row) } else { format!("{}+{}", time(rows - 1), row + 1 - rows) };
        (series.name.clone(), when)
    }
}

impl Samples for Rc<Windows> {
    fn len(&self, part: Part) -> usize {
        self.count(part)
    }

    fn fill(&self, part: Part, sample: usize, _: Option<&[u8]>, _: Option<Change>, y: &mut [f32]) {
        let (series, t) = self.locate(part, sample);
        let (all, inputs) = (self.columns.all, self.columns.inputs);
        let rows = (t - self.window) * all..t * all;
        if self.by_window {
            let units = &self.units[self.span(part, sample).series][(t - self.window) * all..];
            for (column, unit) in units[..inputs].iter().enumerate() {
                // A division for each would take as long as all the rest.
                let rate = 1.0 / unit.scale;
                let raw = &series.raw[rows.clone()];
                let scaled = |raw: f64| ((raw - unit.offset) * rate) as f32;
                if all == 1 {
                    // One column, the common case, lies in one piece.
                    y.iter_mut().zip(raw).for_each(|(y, &raw)| *y = scaled(raw));
                    continue;
                }
                let raw = raw.iter().skip(column).step_by(all);
                y[column..].iter_mut().step_by(inputs).zip(raw).for_each(|(y, &raw)| *y = scaled(raw));
            }
        } else if all == inputs {
            y.copy_from_slice(&series.scaled[rows]);
        } else {
            for (y, row) in y.chunks_exact_mut(inputs).zip(series.scaled[rows].chunks_exact(all)) {
                y.copy_from_slice(&row[..inputs]);
            }
        }
    }

    fn raw(&self, part: Part, sample: usize) -> Raw<'_> {
        let (series, t) = self.locate(part, sample);
        Raw::Window(&series.raw[(t - self.window) * self.columns.all..t * self.columns.all])
    }

    fn bytes(&self) -> usize {
        let units: usize = self.units.iter().map(|units| size_of_val(&units[..])).sum();
        let of = |s: &Series| s.times.bytes() + size_of_val(&s.raw[..]) + size_of_val(&s.scaled[..]);
        units + self.series.iter().map(of).sum::<usize>()
    }

    fn size(&self) -> usize {
        self.window * self.columns.inputs * size_of::<f32>()
    }
}

/// A date, with the time of day if that is not midnight.
fn display(time: DateTime) -> String {
    if time.time() == Time::midnight() { time.date().to_string() } else { time.to_string() }
}

/// The mean and population deviation of a column of a window. One that is constant, but for rounding, is only shifted.
fn window_unit(window: &[f64], column: usize, columns: usize) -> Unit {
    let n = (window.len() / columns) as f64;
    let values = window.iter().skip(column).step_by(columns);
    let mean = values.clone().sum::<f64>() / n;
    let std = (values.map(|v| (v - mean) * (v - mean)).sum::<f64>() / n).sqrt();
    let scale = if std > 1e-9 * mean.abs() { std } else { 1.0 };
    Unit { scale, offset: mean }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_constant_window_is_only_shifted() {
        assert_eq!(window_unit(&[0.0; 5], 0, 1), Unit { scale: 1.0, offset: 0.0 });
        let unit = window_unit(&[0.1; 7], 0, 1);
        assert_eq!(unit.scale, 1.0);
        assert!((unit.offset - 0.1).abs() < 1e-15);
        assert_eq!(window_unit(&[1.0, 3.0], 0, 1), Unit { scale: 1.0, offset: 2.0 });
    }
}
