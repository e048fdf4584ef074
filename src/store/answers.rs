//! What a network answered on the test part at the end of its run: `/evaluation` of a run file.

use super::hdf;
use hdf5::types::VarLenUnicode;
use hdf5::{File, Group};
use serde::{Deserialize, Serialize};

/// See the head of this file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Answers {
    /// The classes; empty where the outputs are values.
    pub classes: Vec<String>,
    /// For classes: (true, given) counts, row by row.
    pub confusion: Vec<u64>,
    /// For values: some series, or some samples where there are none.
    pub forecasts: Vec<Forecast>,
    /// Of each series and target.
    pub errors: Vec<SeriesError>,
}

/// What was predicted for a target of a series, beside what came.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Forecast {
    /// The series; empty where there is one without a name.
    pub series: String,
    /// The column, or its number.
    pub target: String,
    /// When; empty where samples are no series.
    pub times: Vec<String>,
    /// In the data's unit.
    pub actual: Vec<f64>,
    /// Likewise.
    pub predicted: Vec<f64>,
    /// That the last known value stays; empty where there is none.
    pub naive: Vec<f64>,
}

/// The errors of a target of one series.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesError {
    /// The series.
    pub series: String,
    /// The column, or its number.
    pub target: String,
    /// Samples.
    pub samples: u64,
    /// Mean of |e / true| in percent.
    pub mape: f64,
    /// √ of the mean of e².
    pub rmse: f64,
    /// The same of the forecast that the last value stays.
    pub naive_rmse: f64,
}

/// How well a class is told from the others, in percent; NaN where that is of none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassFigures {
    /// Samples of the class.
    pub samples: u64,
    /// Of those that were taken for it, how many are of it.
    pub precision: f64,
    /// Of those of it, how many were taken for it.
    pub recall: f64,
    /// The harmonic mean of both.
    pub f1: f64,
}

impl ClassFigures {
    /// Of each class, from the (true, given) counts.
    pub fn of(confusion: &[u64]) -> Vec<Self> {
        let n = confusion.len().isqrt();
        let figures = |class: usize| {
            let right = confusion[class * n + class] as f64;
            let samples: u64 = confusion[class * n..][..n].iter().sum();
            let given: u64 = (0..n).map(|truth| confusion[truth * n + class]).sum();
            let percent = |part: f64, whole: u64| if whole > 0 { 100.0 * part / whole as f64 } else { f64::NAN };
            let (precision, recall) = (percent(right, given), percent(right, samples));
            Self { samples, precision, recall, f1: percent(2.0 * right, given + samples) }
        };
        (0..n).map(figures).collect()
    }

    /// Precision, recall and F1 as text.
    pub fn texts(self) -> [String; 3] {
        let text = |percent: f64| if percent.is_nan() { "-".to_owned() } else { format!("{percent:.2}") };
        [self.precision, self.recall, self.f1].map(text)
    }
}

impl Answers {
    /// Whether there is nothing.
    pub fn is_empty(&self) -> bool {
        self.confusion.is_empty() && self.forecasts.is_empty()
    }

    /// Whether all fits together.
    pub(super) fn is_sound(&self) -> bool {
        let pairs = |of: &Forecast| {
            let n = of.actual.len();
            of.predicted.len() == n && [of.naive.len(), of.times.len()].iter().all(|len| [0, n].contains(len))
        };
        self.confusion.len() == self.classes.len() * self.classes.len() && self.forecasts.iter().all(pairs)
    }
}

/// Writes `/evaluation`: `classes` and `confusion` (true, given); `forecast/<number>/` with `time`, `actual`, `predicted` and
/// `naive`; `errors/` with a column each.
pub(super) fn write(file: &File, answers: &Answers) -> hdf5::Result<()> {
    if answers.is_empty() {
        return Ok(());
    }
    let root = file.create_group("evaluation")?;
    let classes = answers.classes.len();
    if classes > 0 {
        texts(&root, "classes", answers.classes.iter())?;
        let confusion = root.new_dataset::<u64>().shape((classes, classes)).create("confusion")?;
        confusion.write_raw(&answers.confusion)?;
    }
    for (number, of) in answers.forecasts.iter().enumerate() {
        let group = root.create_group(&format!("forecast/{number}"))?;
        hdf::set_text(&group, "series", &of.series)?;
        hdf::set_text(&group, "target", &of.target)?;
        texts(&group, "time", of.times.iter())?;
        for (name, values) in [("actual", &of.actual), ("predicted", &of.predicted), ("naive", &of.naive)] {
            group.new_dataset_builder().with_data(&values[..]).create(name)?;
        }
    }
    let errors = root.create_group("errors")?;
    texts(&errors, "series", answers.errors.iter().map(|of| &of.series))?;
    texts(&errors, "target", answers.errors.iter().map(|of| &of.target))?;
    let column = |name: &str, value: &dyn Fn(&SeriesError) -> f64| {
        let values: Vec<f64> = answers.errors.iter().map(value).collect();
        errors.new_dataset_builder().with_data(&values[..]).create(name).map(|_| ())
    };
    column("samples", &|of| of.samples as f64)?;
    column("mape", &|of| of.mape)?;
    column("rmse", &|of| of.rmse)?;
    column("naive_rmse", &|of| of.naive_rmse)
}

fn texts<'t>(group: &Group, name: &str, texts: impl Iterator<Item = &'t String>) -> hdf5::Result<()> {
    let texts = texts.map(|text| hdf::text_value(text)).collect::<hdf5::Result<Vec<_>>>()?;
    let dataset = group.new_dataset::<VarLenUnicode>().shape(texts.len()).create(name)?;
    if texts.is_empty() { Ok(()) } else { hdf::write_texts(&dataset, &texts) }
}

/// Reads `/evaluation`; nothing where there is none, as in a run that did not end, or of an older ddl.
pub(super) fn read(file: &File) -> hdf5::Result<Answers> {
    let mut answers = Answers::default();
    if !file.member_names()?.iter().any(|name| name == "evaluation") {
        return Ok(answers);
    }
    let root = file.group("evaluation")?;
    let names = root.member_names()?;
    let has = |name: &str| names.iter().any(|known| known == name);
    let texts = |group: &Group, name: &str| -> hdf5::Result<Vec<String>> {
        Ok(hdf::read::<VarLenUnicode>(file, &group.dataset(name)?)?.iter().map(hdf::utf8).collect())
    };
    let numbers = |group: &Group, name: &str| hdf::read::<f64>(file, &group.dataset(name)?);
    if has("confusion") {
        answers.classes = texts(&root, "classes")?;
        answers.confusion = hdf::read::<u64>(file, &root.dataset("confusion")?)?;
    }
    if has("forecast") {
        let forecasts = root.group("forecast")?;
        for number in 0..forecasts.len() {
            let group = forecasts.group(&number.to_string())?;
            answers.forecasts.push(Forecast {
                series: hdf::text(&group, "series")?,
                target: hdf::text(&group, "target")?,
                times: texts(&group, "time")?,
                actual: numbers(&group, "actual")?,
                predicted: numbers(&group, "predicted")?,
                naive: numbers(&group, "naive")?,
            });
        }
    }
    let errors = root.group("errors")?;
    let (series, targets) = (texts(&errors, "series")?, texts(&errors, "target")?);
    let [samples, mape, rmse, naive] = [
        numbers(&errors, "samples")?,
        numbers(&errors, "mape")?,
        numbers(&errors, "rmse")?,
        numbers(&errors, "naive_rmse")?,
    ];
    let at = |values: &[f64], row: usize| values.get(row).copied().unwrap_or(f64::NAN);
    for (row, (series, target)) in series.into_iter().zip(targets).enumerate() {
        let [mape, rmse, naive_rmse] = [&mape, &rmse, &naive].map(|values| at(values, row));
        answers.errors.push(SeriesError { series, target, samples: at(&samples, row) as u64, mape, rmse, naive_rmse });
    }
    if answers.is_sound() { Ok(answers) } else { Err("the parts of /evaluation do not fit together".into()) }
}
