//! What is in a data set, found by all ranks together and the same at any number of them: integers are summed, floating-point
//! sums are taken by blocks of samples merged in order, and what must be sorted (a column, a series) is one rank's.

mod distribution;
mod gather;
mod image;
mod page;
mod picture;
mod sample;
mod series;
mod table;
mod text;

pub use distribution::{Distribution, Histogram, Moments};
pub use image::{Channel, Images};
pub use page::write;
pub use sample::{Found, Repeats};
pub use series::{Return, SeriesFigures, SeriesSurvey};
pub use table::{Column, Correlations};
pub use text::text;

use crate::comm::Comm;
use crate::data::{Dataset, Part, Task};
use crate::error::Result;
use crate::shape::Shape;
use serde::Serialize;

/// What is in a data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Survey {
    /// Where it was read: the source's name.
    pub source: String,
    /// The file or folder.
    pub path: Option<String>,
    /// `images`, `rows`, `sequences` or `series`.
    pub kind: &'static str,
    /// Of a sample, in torch's order: channels, height, width.
    pub shape: Vec<usize>,
    /// What the source says of it.
    pub notes: Vec<String>,
    /// The names of the classes; none where values are to be predicted.
    pub classes: Vec<String>,
    /// Rows of a table with an empty field, by column; they are no samples.
    pub missing: Vec<(String, u64)>,
    /// What is learnt from.
    pub train: PartSurvey,
    /// What is tested on.
    pub test: PartSurvey,
    /// Samples that are there twice; not for windows of series, which overlap.
    pub repeats: Option<Repeats>,
    /// Of rows.
    pub correlations: Option<Correlations>,
    /// Of series.
    pub series: Option<SeriesSurvey>,
}

/// One part.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartSurvey {
    /// How many there are.
    pub samples: u64,
    /// Of each class.
    pub of_class: Vec<u64>,
    /// Samples that are the same all over.
    pub constant: Found,
    /// Samples with a value that is not finite.
    pub not_finite: Found,
    /// What images look like.
    pub images: Option<Images>,
    /// Features of rows and sequences, and values to predict.
    pub columns: Vec<Column>,
}

/// Looks at a data set opened by [`Dataset::open_raw`], whose samples are in memory. On rank 0 the result, on the others None.
/// Collective.
///
/// # Errors
/// Too little memory to sort a column; on every rank.
pub fn survey(data: &Dataset, source: &str, path: Option<String>, comm: &dyn Comm) -> Result<Option<Survey>> {
    let series = series::series(data, comm)?;
    let is_series = data.is_series();
    let mut hashes: [Vec<_>; 2] = Default::default();
    let mut parts = Vec::new();
    for (part, hashes) in [Part::Train, Part::Test].into_iter().zip(&mut hashes) {
        let looks = if is_series { Vec::new() } else { sample::looks(data, part, comm)? };
        let found = |is: &dyn Fn(&sample::Look) -> bool| {
            Found::of(looks.iter().zip(0..).filter(|(look, _)| is(look)).map(|(_, sample)| sample))
        };
        let (constant, not_finite) = (found(&|look| look.constant), found(&|look| !look.finite));
        *hashes = looks.iter().zip(0..).map(|(look, sample)| (look.hash, data.class(part, sample))).collect();
        parts.push(PartSurvey {
            samples: data.len(part) as u64,
            of_class: of_class(data, part),
            constant,
            not_finite,
            images: image::images(data, part, comm)?,
            columns: if is_series { Vec::new() } else { table::columns(data, part, comm)? },
        });
    }
    let correlations = table::correlations(data, comm)?;
    let (Some(test), Some(train), true) = (parts.pop(), parts.pop(), comm.rank() == 0) else { return Ok(None) };
    let (kind, shape) = match data.input() {
        Shape::Image { c, h, w } => ("images", vec![c, h, w]),
        Shape::Sequence { t, f } => (if is_series { "series" } else { "sequences" }, vec![t, f]),
        Shape::Vector { n } => ("rows", vec![n]),
    };
    let classes = match data.task() {
        Task::Classes(names) => names.clone(),
        Task::Values(_) => Vec::new(),
    };
    Ok(Some(Survey {
        source: source.into(),
        path,
        kind,
        shape,
        notes: data.notes().to_vec(),
        classes,
        missing: data.missing().to_vec(),
        train,
        test,
        repeats: (!is_series).then(|| Repeats::of(hashes)),
        correlations,
        series,
    }))
}

/// How many samples of a part are of each class.
fn of_class(data: &Dataset, part: Part) -> Vec<u64> {
    let Task::Classes(names) = data.task() else { return Vec::new() };
    let mut counts = vec![0; names.len()];
    for sample in 0..data.len(part) as u32 {
        if let Some(count) = data.class(part, sample).and_then(|class| counts.get_mut(class as usize)) {
            *count += 1;
        }
    }
    counts
}
