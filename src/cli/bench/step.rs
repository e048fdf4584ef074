//! `ddl bench step`.

use crate::cli::agree_on_job;
use crate::cli::train::overrides;
use crate::comm::{Comm, agree};
use crate::config::Job;
use crate::data::{Dataset, Part};
use crate::error::Result;
use crate::model::Row;
use crate::rng;
use crate::scale::statistics::Spread;
use crate::train::clock::Phase;
use crate::train::terminal::{say, table};
use crate::train::{LocalData, Trainer};
use clap::Args;
use std::path::PathBuf;
use std::time::Instant;

/// Throughput of whole training steps of a job: data, forward, backward, sums, update
#[derive(Args)]
#[command(after_help = "Examples:
  ddl bench step jobs/cifar10-simplecnn.toml
  mpirun -n 2 ddl bench step jobs/sp500-lstm.toml --steps 100 --json")]
pub(super) struct Step {
    /// The job file
    job: PathBuf,
    /// Set a key of the job (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Steps of one repeat
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    steps: u64,
    /// Repeats; their median counts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    repeats: u64,
    /// Steps before the first repeat
    #[arg(long, default_value_t = 10)]
    warmup: u64,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

impl Step {
    pub(super) fn run(self, comm: &dyn Comm) -> Result<()> {
        let job = overrides(&self.set).and_then(|overrides| Job::load(&self.job, &overrides));
        let job = agree_on_job(comm, job)?;
        let local = LocalData::stage(&job.data, comm)?;
        let mut data = agree(comm, Dataset::open_unread(&local.config, job.seed))?;
        let mut trainer = Trainer::build(&job, &data, comm)?;
        trainer.share(&mut data)?;
        let batch = job.train.global_batch(comm.size()).min(data.len(Part::Train));
        let mut order = vec![0u32; data.len(Part::Train)];
        rng::shuffle(job.seed, 0, &mut order);
        let mut done = 0;
        let mut run = |trainer: &mut Trainer, steps: u64| -> Result<f64> {
            comm.barrier();
            let began = Instant::now();
            let last = done + steps;
            while done < last {
                let mut loader = trainer.loader(&data, &order[..order.len() / batch * batch], batch, done);
                while done < last
                    && let Some(samples) = trainer.next(&mut loader)
                {
                    trainer.step(&data, samples?, 0, done, false)?;
                    done += 1;
                }
            }
            comm.barrier();
            Ok((self.steps as usize * batch) as f64 / began.elapsed().as_secs_f64())
        };
        run(&mut trainer, self.warmup.max(1))?;
        trainer.clock.take();
        let mut rates = Vec::with_capacity(self.repeats as usize);
        for _ in 0..self.repeats {
            rates.push(run(&mut trainer, self.steps)?);
        }
        let rate = Spread::of(rates);
        let seconds = trainer.clock.take();
        let gflops = rate.median * trainer.model().train_flops() as f64 / 1e9;
        if comm.rank() == 0 {
            say(&if self.json {
                self.as_json(&job, comm.size(), batch, rate, gflops)
            } else {
                self.as_table(&job.name, comm.size(), batch, rate, gflops, &seconds) + &methods(&trainer.model().rows())
            });
        }
        Ok(())
    }

    fn as_json(&self, job: &Job, ranks: usize, batch: usize, rate: Spread, gflops: f64) -> String {
        serde_json::json!({
            "job": job.name, "precision": job.train.precision, "ranks": ranks, "batch": batch, "steps": self.steps,
            "samples_per_second": rate.median, "minimum": rate.minimum, "maximum": rate.maximum,
            "gflops": gflops, "instruction_set": crate::kernel::isa().name(),
        })
        .to_string()
    }

    fn as_table(&self, name: &str, ranks: usize, batch: usize, rate: Spread, gflops: f64, seconds: &[f64]) -> String {
        let mut text = format!(
            "{name}: {ranks} rank(s), batch {batch}, {} x {} steps, {}\n\
             samples/s  median {:.0}  (minimum {:.0}, maximum {:.0})  {gflops:.0} GFLOP/s\n\n",
            self.repeats,
            self.steps,
            crate::kernel::isa().name(),
            rate.median,
            rate.minimum,
            rate.maximum,
        );
        let steps = (self.steps * self.repeats) as f64;
        let mut rows = table(&["phase (rank 0)", "ms a step"], 1);
        for (phase, name) in Phase::ALL.into_iter().filter(|(phase, _)| seconds[*phase as usize] > 0.0) {
            rows.add_row([name.to_owned(), format!("{:.3}", 1e3 * seconds[phase as usize] / steps)]);
        }
        text += &rows.to_string();
        text
    }
}

/// How the products of each layer are made.
fn methods(rows: &[Row]) -> String {
    let mut text = table(&["layer", "type", "products"], 3);
    for row in rows {
        if let Some(method) = row.method {
            text.add_row([row.key.as_str(), row.kind.as_str(), method]);
        }
    }
    format!("\n\n{text}")
}
