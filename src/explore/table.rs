//! Columns: each is one rank's, so that its figures are exact and the same at any number of ranks.

use super::distribution::{Distribution, Moments};
use super::gather::{gathered, shared};
use crate::comm::{Comm, agree};
use crate::data::{Dataset, Part, Raw, Task};
use crate::error::{Error, Result};
use crate::resource::memory;
use crate::shape::Shape;
use crate::shard::own;
use serde::{Deserialize, Serialize};

/// With more columns than this, correlations would be no table that anyone reads.
const MOST_CORRELATED: usize = 64;

/// One column of a part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Column {
    /// As in the file, or its number.
    pub name: String,
    /// Values that are not finite.
    pub not_finite: u64,
    /// Whether all values are whole numbers.
    pub whole: bool,
    /// The finite values; None where there are none.
    pub values: Option<Distribution>,
}

/// Pearson's correlation of each two columns of the training part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Correlations {
    /// Features, then targets.
    pub names: Vec<String>,
    /// Row by row; NaN (in JSON null) where a column is constant or holds a value that is not finite.
    pub rows: Vec<Vec<f64>>,
}

/// Where a column's values are.
#[derive(Clone, Copy)]
enum From {
    /// Feature `index` of `width`, at each time step.
    Feature { index: usize, width: usize },
    /// One of the values to predict.
    Target(usize),
}

struct Columns<'d> {
    data: &'d Dataset,
    part: Part,
    all: Vec<(String, From)>,
}

impl<'d> Columns<'d> {
    fn of(data: &'d Dataset, part: Part) -> Self {
        let input = data.description();
        let name = |names: &[String], index: usize, alone: &str| match names.get(index) {
            Some(name) => name.clone(),
            None if alone.is_empty() => index.to_string(),
            None => alone.to_owned(),
        };
        let width = match data.input() {
            Shape::Vector { n } => n,
            Shape::Sequence { f, .. } => f,
            Shape::Image { .. } => 0,
        };
        let features = (0..width).map(|index| (name(&input.features, index, ""), From::Feature { index, width }));
        let targets = match data.task() {
            Task::Values(1) => 0..1,
            Task::Values(n) => 0..*n,
            Task::Classes(_) => 0..0,
        };
        let alone = |index: usize| if targets.len() == 1 { "target".to_owned() } else { format!("target {index}") };
        let targets = targets.clone().map(|index| (name(&input.targets, index, &alone(index)), From::Target(index)));
        Self { data, part, all: features.chain(targets).collect() }
    }

    /// The values of a column that belong to a sample.
    fn values(&self, column: usize, sample: u32) -> impl Iterator<Item = f64> + Clone {
        let (index, width, floats): (usize, usize, &[f32]) =
            match (self.all[column].1, self.data.raw(self.part, sample)) {
                (From::Feature { index, width }, Raw::Floats(floats)) => (index, width, floats),
                _ => (0, 1, &[]),
            };
        let target = match self.all[column].1 {
            From::Target(output) => self.data.target_value(self.part, sample, output),
            From::Feature { .. } => None,
        };
        floats.iter().skip(index).step_by(width).map(|&value| f64::from(value)).chain(target)
    }

    fn samples(&self) -> std::ops::Range<u32> {
        0..self.data.len(self.part) as u32
    }

    fn column(&self, column: usize) -> Column {
        let values: Vec<f64> = self.samples().flat_map(|sample| self.values(column, sample)).collect();
        let not_finite = values.iter().filter(|value| !value.is_finite()).count() as u64;
        let whole = values.iter().all(|value| value.fract() == 0.0);
        Column { name: self.all[column].0.clone(), not_finite, whole, values: Distribution::of(values) }
    }
}

/// The columns of a part: features and values to predict, on rank 0. Collective.
pub(super) fn columns(data: &Dataset, part: Part, comm: &dyn Comm) -> Result<Vec<Column>> {
    let columns = Columns::of(data, part);
    let values = data.len(part) as f64 * data.input().len() as f64 / (columns.all.len().max(1) as f64);
    let asked = memory::ask(16.0 * values.max(data.len(part) as f64));
    agree(
        comm,
        asked.map_err(|e| Error::data("a column to be sorted", e.to_string(), "give less data, or more memory")),
    )?;
    let mine = own(columns.all.len(), comm.rank(), comm.size());
    gathered(comm, mine.map(|column| columns.column(column)).collect())
}

/// The correlations of the training part's columns, where a row has one value of each, on rank 0. Collective.
pub(super) fn correlations(data: &Dataset, comm: &dyn Comm) -> Result<Option<Correlations>> {
    let columns = Columns::of(data, Part::Train);
    let count = columns.all.len();
    if !matches!(data.input(), Shape::Vector { .. }) || !(2..=MOST_CORRELATED).contains(&count) {
        return Ok(None);
    }
    let mine = own(count, comm.rank(), comm.size());
    let moments = |column| Moments::of(columns.samples().flat_map(|sample| columns.values(column, sample)));
    let moments = shared(comm, gathered(comm, mine.clone().map(moments).collect())?)?;
    let (mut sums, mut away) = (vec![0.0; mine.len() * count], vec![0.0; count]);
    for sample in columns.samples() {
        for (column, away) in away.iter_mut().enumerate() {
            *away = columns.values(column, sample).map(|value| value - moments[column].mean).sum();
        }
        for (row, sums) in mine.clone().zip(sums.chunks_exact_mut(count)) {
            sums.iter_mut().zip(&away).for_each(|(sum, away_too)| *sum += away[row] * away_too);
        }
    }
    let of_row = |(row, sums): (usize, &[f64])| -> Vec<f64> {
        let scale = |column: usize| (moments[row].squares * moments[column].squares).sqrt();
        // 1 with itself, without rounding.
        let exact = |column: usize, value: f64| match column == row && value.is_finite() {
            true => 1.0,
            false => value.clamp(-1.0, 1.0),
        };
        sums.iter().enumerate().map(|(column, sum)| exact(column, sum / scale(column))).collect()
    };
    let rows = mine.zip(sums.chunks_exact(count)).map(of_row).collect();
    let rows = gathered(comm, rows)?;
    let names = columns.all.iter().map(|(name, _)| name.clone()).collect();
    Ok((comm.rank() == 0).then_some(Correlations { names, rows }))
}
