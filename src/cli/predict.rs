//! `ddl predict`.

use super::evaluate::job_of;
use crate::comm::{Comm, agree, on_root};
use crate::data::{Dataset, Inputs, Part, Task};
use crate::error::{Error, Result};
use crate::loss::largest;
use crate::store::predictions::{Column, Writer};
use crate::store::protect;
use crate::train::terminal::{say, thousands};
use crate::train::{LocalData, Predictor, input_of};
use clap::Args;
use std::ops::Range;
use std::path::PathBuf;

/// Predict with a checkpoint: classes with probabilities, or values in the data's own units
#[derive(Args)]
#[command(after_help = "Examples:
  ddl predict results/mnist-cnn/checkpoints/step-00001876.h5 --input digits-idx3-ubyte --out digits.csv
  mpirun -n 4 ddl predict results/sp500-mlp/checkpoints/step-00000930.h5 --input prices.csv --out forecast.h5")]
pub(super) struct Predict {
    /// The checkpoint
    checkpoint: PathBuf,
    /// Inputs in the format of the job's source, such as a CSV series, an NPZ or an IDX file
    #[arg(long, value_name = "FILE")]
    input: PathBuf,
    /// The file to write, .csv or .h5
    #[arg(long, value_name = "FILE", default_value = "predictions.csv")]
    out: PathBuf,
    /// Set a key of the checkpoint's job (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
}

impl Predict {
    pub(super) fn run(self, comm: &dyn Comm) -> Result<()> {
        let ending = self.out.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        if !["csv", "h5", "hdf5"].contains(&ending.as_str()) {
            let what = format!("cannot write a .{ending} file");
            return Err(Error::usage(format!("--out {}", self.out.display()), what, "use the ending .csv or .h5"));
        }
        let (job, checkpoint) = job_of(comm, &self.checkpoint, &self.set)?;
        let inputs = [Some(self.checkpoint.as_path()), Some(&self.input), job.data.path.as_deref()];
        agree(comm, protect("--out", &self.out, inputs.into_iter().flatten()))?;
        let input = input_of(&job, checkpoint.as_ref(), &self.checkpoint, comm)?;
        let local = LocalData::stage_inputs(&job.data, &self.input, comm)?;
        let file = local.config.path.as_deref().unwrap_or(&self.input);
        let mut inputs = agree(comm, Inputs::open(&input, &job.data, file))?;
        let rows = (PIECE_ELEMENTS / input.shape.len().max(1)).clamp(FEWEST_ROWS, MOST_ROWS);
        let mut piece = agree(comm, inputs.next(rows))?;
        let mut network = Predictor::load(&job, &input, checkpoint, &self.checkpoint, comm)?;
        let mut written = Written::default();
        let mut writer = None;
        on_root(comm, || {
            writer = Some(Writer::create(&self.out, ending == "csv")?);
            Ok(())
        })?;
        while let Some(data) = piece {
            let outputs = network.outputs(&data, Part::Test)?;
            // Ranks own consecutive samples, so their outputs in rank order are in sample order.
            let all = numbers_of(comm.gather_bytes(bytemuck::cast_slice(&outputs)));
            on_root(comm, || match &mut writer {
                Some(writer) => written.append(&all, &data, writer),
                None => Ok(()),
            })?;
            piece = agree(comm, inputs.next(rows))?;
        }
        on_root(comm, || {
            writer.take().map_or(Ok(()), Writer::commit)?;
            written.told().iter().for_each(|note| say(note));
            say(&format!("wrote {} predictions to {}", thousands(written.samples), self.out.display()));
            Ok(())
        })?;
        Ok(())
    }
}

/// A piece of the input holds about so many numbers, and so many rows.
const PIECE_ELEMENTS: usize = 1 << 20;
const FEWEST_ROWS: usize = 64;
const MOST_ROWS: usize = 1 << 14;

/// The numbers in what the ranks sent.
fn numbers_of(sent: Vec<Vec<u8>>) -> Vec<f32> {
    let mut numbers = Vec::with_capacity(sent.iter().map(|bytes| bytes.len() / 4).sum());
    for bytes in sent {
        numbers.extend(bytes.as_chunks().0.iter().map(|&bytes| f32::from_ne_bytes(bytes)));
    }
    numbers
}

/// What has been written so far.
#[derive(Default)]
struct Written {
    pieces: u64,
    rows: u64,
    samples: u64,
    /// Whether the truth of each output is a column, which the first piece says.
    truths: Vec<bool>,
    notes: Vec<String>,
}

impl Written {
    /// Writes what the network gives for a piece. One that had to come whole is written some rows at a time.
    fn append(&mut self, outputs: &[f32], data: &Dataset, writer: &mut Writer) -> Result<()> {
        let (rows, samples) = (data.rows(), data.len(Part::Test));
        if let (0, Task::Values(n)) = (self.pieces, data.task()) {
            let known = |output| (0..samples as u32).any(|sample| !truth(data, sample, output).is_nan());
            self.truths = (0..*n).map(known).collect();
        }
        let mut sample = 0;
        for first in (0..rows.max(1)).step_by(MOST_ROWS) {
            let rows = first..rows.min(first + MOST_ROWS);
            let start = sample;
            while (sample as usize) < samples && (data.row(sample) as usize) < rows.end {
                sample += 1;
            }
            let some = Stretch { data, before: self.rows, rows, samples: start..sample };
            let columns = match data.task() {
                Task::Classes(names) => some.classes(outputs, names),
                Task::Values(_) => some.values(outputs, &self.truths),
            };
            writer.append(columns, self.pieces == 0 && first == 0)?;
        }
        if self.pieces == 0 {
            self.notes = data.notes().to_vec();
        }
        self.pieces += 1;
        self.rows += rows as u64;
        self.samples += samples as u64;
        Ok(())
    }

    /// What the user should know of the input.
    fn told(&self) -> Vec<String> {
        match self.pieces {
            0 | 1 => self.notes.clone(),
            _ if self.samples < self.rows => {
                vec![format!(
                    "{} of {} rows have missing values, and no prediction",
                    self.rows - self.samples,
                    self.rows
                )]
            }
            _ => Vec::new(),
        }
    }
}

/// Some rows of a piece, and the samples in them.
struct Stretch<'a> {
    data: &'a Dataset,
    /// Rows before the piece.
    before: u64,
    rows: Range<usize>,
    samples: Range<u32>,
}

impl Stretch<'_> {
    /// One value a row, from one a sample: a row with a hole has none, which `empty` stands for.
    fn by_row<T: Clone>(&self, empty: T, value: impl Fn(u32) -> T) -> Vec<T> {
        let mut rows = vec![empty; self.rows.len()];
        for sample in self.samples.clone() {
            rows[self.data.row(sample) as usize - self.rows.start] = value(sample);
        }
        rows
    }

    /// The rows' numbers in the whole input.
    fn numbers(&self) -> (String, Column) {
        let first = self.before as i64 + self.rows.start as i64;
        ("sample".to_owned(), Column::I64((first..).take(self.rows.len()).collect()))
    }

    /// Sample, class, its probability, and the probability of every class.
    fn classes(&self, outputs: &[f32], names: &[String]) -> Vec<(String, Column)> {
        let n = names.len();
        let start = self.samples.start as usize * n;
        let outputs = &outputs[start..start + self.samples.len() * n];
        let rows: Vec<Vec<f64>> = outputs.chunks_exact(n).map(softmax).collect();
        let best: Vec<usize> = outputs.chunks_exact(n).map(largest).collect();
        let at = |sample: u32| (sample - self.samples.start) as usize;
        let figures = |of: &dyn Fn(usize) -> f64| Column::F64(self.by_row(f64::NAN, |sample| of(at(sample))));
        let texts = self.by_row(String::new(), |sample| names[best[at(sample)]].clone());
        let mut columns = vec![
            self.numbers(),
            ("class".to_owned(), Column::Text(texts)),
            ("probability".to_owned(), figures(&|i| rows[i][best[i]])),
        ];
        for (class, name) in names.iter().enumerate() {
            columns.push((format!("p_{name}"), figures(&|i| rows[i][class])));
        }
        columns
    }

    /// Sample, what it is (series), the predictions, and the truths where the file has them.
    fn values(&self, outputs: &[f32], truths: &[bool]) -> Vec<(String, Column)> {
        let (n, data) = (truths.len(), self.data);
        let mut columns = vec![self.numbers()];
        let described: Option<Vec<String>> =
            self.samples.clone().map(|sample| data.describe(Part::Test, sample)).collect();
        columns.extend(described.filter(|texts| !texts.is_empty()).map(|texts| ("of".to_owned(), Column::Text(texts))));
        let name = |what: &str, output| if n == 1 { what.to_owned() } else { format!("{what}_{output}") };
        for output in 0..n {
            let in_units = |sample: u32| {
                let unit = data.unit(Part::Test, sample, output);
                f64::from(outputs[sample as usize * n + output]) * unit.scale + unit.offset
            };
            columns.push((name("prediction", output), Column::F64(self.by_row(f64::NAN, in_units))));
        }
        for output in (0..n).filter(|&output| truths[output]) {
            columns.push((
                name("actual", output),
                Column::F64(self.by_row(f64::NAN, |sample| truth(data, sample, output))),
            ));
        }
        columns
    }
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let highest = logits.iter().fold(f64::NEG_INFINITY, |high, &v| high.max(f64::from(v)));
    let exps: Vec<f64> = logits.iter().map(|&v| (f64::from(v) - highest).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.into_iter().map(|v| v / sum).collect()
}

/// The true value of an output; NaN where it is not known.
fn truth(inputs: &Dataset, sample: u32, output: usize) -> f64 {
    inputs.target_value(Part::Test, sample, output).unwrap_or(f64::NAN)
}
