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
        let mut network = Predictor::load(&job, &input, checkpoint.as_ref(), &self.checkpoint, comm)?;
        let mut written = Written::default();
        let mut writer = None;
        on_root(comm, || {
            writer = Some(Writer::create(&self.out, ending == "csv")?);
            Ok(())
        })?;
        while let Some(data) = piece {
            let outputs = network.outputs(&data, Part::Test)?;
            // Ranks own consecutive samples, so their outputs in rank order are in sample order.
            let all: Vec<u8> = comm.gather_bytes(bytemuck::cast_slice(&outputs)).concat();
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
const PIECE_ELEMENTS: usize = 1 << 22;
const FEWEST_ROWS: usize = 256;
const MOST_ROWS: usize = 1 << 16;

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
    /// Writes what the network gives for a piece.
    fn append(&mut self, outputs: &[u8], data: &Dataset, writer: &mut Writer) -> Result<()> {
        let outputs: Vec<f32> =
            outputs.chunks_exact(4).map(|bytes| f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
        let first = self.pieces == 0;
        let columns = match data.task() {
            Task::Classes(names) => classes(&outputs, names, data, self.rows),
            Task::Values(n) => {
                if first {
                    let known = |output| truth(data, output).any(|value| !value.is_nan());
                    self.truths = (0..*n).map(known).collect();
                }
                values(&outputs, &self.truths, data, self.rows)
            }
        };
        writer.append(columns, first)?;
        self.pieces += 1;
        self.rows += data.rows() as u64;
        self.samples += data.len(Part::Test) as u64;
        if first {
            self.notes = data.notes().to_vec();
        }
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

/// One value a row of the input, from one a sample: a row with a hole has none, which `empty` stands for.
fn by_row<T: Clone>(inputs: &Dataset, empty: T, samples: impl IntoIterator<Item = T>) -> Vec<T> {
    let mut rows = vec![empty; inputs.rows()];
    for (value, sample) in samples.into_iter().zip(0..) {
        rows[inputs.row(sample) as usize] = value;
    }
    rows
}

/// The rows' numbers, from `first` on.
fn numbers(inputs: &Dataset, first: u64) -> (String, Column) {
    ("sample".to_owned(), Column::I64((first as i64..).take(inputs.rows()).collect()))
}

/// Sample, class, its probability, and the probability of every class.
fn classes(outputs: &[f32], names: &[String], inputs: &Dataset, first: u64) -> Vec<(String, Column)> {
    let rows: Vec<Vec<f64>> = outputs.chunks_exact(names.len()).map(softmax).collect();
    let best: Vec<usize> = outputs.chunks_exact(names.len()).map(largest).collect();
    let figures = |of: &dyn Fn(usize) -> f64| Column::F64(by_row(inputs, f64::NAN, (0..rows.len()).map(of)));
    let texts = by_row(inputs, String::new(), best.iter().map(|&class| names[class].clone()));
    let mut columns = vec![
        numbers(inputs, first),
        ("class".to_owned(), Column::Text(texts)),
        ("probability".to_owned(), figures(&|sample| rows[sample][best[sample]])),
    ];
    for (class, name) in names.iter().enumerate() {
        columns.push((format!("p_{name}"), figures(&|sample| rows[sample][class])));
    }
    columns
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let highest = logits.iter().fold(f64::NEG_INFINITY, |high, &v| high.max(f64::from(v)));
    let exps: Vec<f64> = logits.iter().map(|&v| (f64::from(v) - highest).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.into_iter().map(|v| v / sum).collect()
}

/// Sample, what it is (series), the predictions, and the truths where the file has them.
fn values(outputs: &[f32], truths: &[bool], inputs: &Dataset, first: u64) -> Vec<(String, Column)> {
    let (n, samples) = (truths.len(), 0..inputs.len(Part::Test) as u32);
    let mut columns = vec![numbers(inputs, first)];
    let described: Option<Vec<String>> = samples.clone().map(|sample| inputs.describe(Part::Test, sample)).collect();
    columns.extend(described.filter(|texts| !texts.is_empty()).map(|texts| ("of".to_owned(), Column::Text(texts))));
    let name = |what: &str, output| if n == 1 { what.to_owned() } else { format!("{what}_{output}") };
    for output in 0..n {
        let in_units = samples.clone().map(|sample| {
            let unit = inputs.unit(Part::Test, sample, output);
            f64::from(outputs[sample as usize * n + output]) * unit.scale + unit.offset
        });
        columns.push((name("prediction", output), Column::F64(by_row(inputs, f64::NAN, in_units))));
    }
    for output in (0..n).filter(|&output| truths[output]) {
        columns.push((name("actual", output), Column::F64(by_row(inputs, f64::NAN, truth(inputs, output)))));
    }
    columns
}

/// The true values of one output, as far as they are known.
fn truth(inputs: &Dataset, output: usize) -> impl Iterator<Item = f64> {
    let value = move |sample| inputs.target_value(Part::Test, sample, output).unwrap_or(f64::NAN);
    (0..inputs.len(Part::Test) as u32).map(value)
}
