//! `ddl predict`.

use super::evaluate::{alone, job_of};
use crate::comm::{Comm, agree, on_root};
use crate::data::{Dataset, Part, Task, open_inputs};
use crate::error::{Error, Result};
use crate::loss::largest;
use crate::store::predictions::{Column, write_csv, write_hdf5};
use crate::store::protect;
use crate::train::terminal::{say, thousands};
use crate::train::{LocalData, Trainer, broadcast_checkpoint};
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
        let local = LocalData::stage(&job.data, comm)?;
        let trained_on = agree(comm, Dataset::open(&local.config, job.seed))?;
        let input = LocalData::stage_inputs(&job.data, &self.input, comm)?;
        let input = input.config.path.as_deref().unwrap_or(&self.input);
        let inputs = agree(comm, open_inputs(&trained_on, &local.config, input))?;
        let mut trainer = Trainer::build(&alone(&job, comm.size()), &trained_on, comm)?;
        broadcast_checkpoint(&mut trainer, &self.checkpoint, checkpoint.as_ref())?;
        let mut outputs: Vec<f32> = Vec::new();
        trainer.for_each_output(&inputs, Part::Test, false, |_, y, _, _| outputs.extend(y));
        // Ranks own consecutive samples, so their outputs in rank order are in sample order.
        let all: Vec<u8> = comm.gather_bytes(bytemuck::cast_slice(&outputs)).concat();
        on_root(comm, || {
            let outputs: Vec<f32> =
                all.chunks_exact(4).map(|bytes| f32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]])).collect();
            let columns = match inputs.task() {
                Task::Classes(names) => classes(&outputs, names),
                Task::Values(n) => values(&outputs, *n, &inputs),
            };
            self.write(&columns, ending == "csv")?;
            let samples = inputs.len(Part::Test) as u64;
            say(&format!("wrote {} predictions to {}", thousands(samples), self.out.display()));
            Ok(())
        })
    }

    fn write(&self, columns: &[(String, Column)], csv: bool) -> Result<()> {
        if !csv {
            return write_hdf5(&self.out, columns);
        }
        let header: Vec<&str> = columns.iter().map(|(name, _)| name.as_str()).collect();
        let len = columns.first().map_or(0, |(_, column)| column.len());
        write_csv(&self.out, &header, (0..len).map(|row| columns.iter().map(|(_, column)| column.text(row)).collect()))
    }
}

/// Sample, class, its probability, and the probability of every class.
fn classes(outputs: &[f32], names: &[String]) -> Vec<(String, Column)> {
    let rows: Vec<Vec<f64>> = outputs.chunks_exact(names.len()).map(softmax).collect();
    let best: Vec<usize> = outputs.chunks_exact(names.len()).map(largest).collect();
    let mut columns = vec![
        ("sample".to_owned(), Column::I64((0..rows.len() as i64).collect())),
        ("class".to_owned(), Column::Text(best.iter().map(|&class| names[class].clone()).collect())),
        ("probability".to_owned(), Column::F64(rows.iter().zip(&best).map(|(row, &class)| row[class]).collect())),
    ];
    for (class, name) in names.iter().enumerate() {
        columns.push((format!("p_{name}"), Column::F64(rows.iter().map(|row| row[class]).collect())));
    }
    columns
}

fn softmax(logits: &[f32]) -> Vec<f64> {
    let highest = logits.iter().fold(f64::NEG_INFINITY, |high, &v| high.max(f64::from(v)));
    let exps: Vec<f64> = logits.iter().map(|&v| (f64::from(v) - highest).exp()).collect();
    let sum: f64 = exps.iter().sum();
    exps.into_iter().map(|v| v / sum).collect()
}

/// Sample, what it is (series), the prediction, and the truth where the file has it.
fn values(outputs: &[f32], n: usize, inputs: &Dataset) -> Vec<(String, Column)> {
    let samples = 0..inputs.len(Part::Test) as u32;
    let mut columns = vec![("sample".to_owned(), Column::I64(samples.clone().map(i64::from).collect()))];
    let described: Option<Vec<String>> = samples.clone().map(|sample| inputs.describe(Part::Test, sample)).collect();
    columns.extend(described.filter(|texts| !texts.is_empty()).map(|texts| ("of".to_owned(), Column::Text(texts))));
    for output in 0..n {
        let name = if n == 1 { "prediction".to_owned() } else { format!("prediction_{output}") };
        let in_units = samples.clone().map(|sample| {
            let unit = inputs.unit(Part::Test, sample);
            f64::from(outputs[sample as usize * n + output]) * unit.scale + unit.offset
        });
        columns.push((name, Column::F64(in_units.collect())));
    }
    let truths: Vec<f64> =
        samples.clone().map(|sample| inputs.target_value(Part::Test, sample).unwrap_or(f64::NAN)).collect();
    if truths.iter().any(|truth| !truth.is_nan()) {
        columns.push(("actual".to_owned(), Column::F64(truths)));
    }
    columns
}
