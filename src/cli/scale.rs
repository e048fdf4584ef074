//! `ddl scale`.

use super::agree_on_job;
use super::train::overrides;
use crate::comm::{Comm, agree};
use crate::config::Job;
use crate::data::Dataset;
use crate::error::{Error, Result};
use crate::resource::cpu;
use crate::scale::forecast::{ETHERNET, Network};
use crate::scale::launch::Choice;
use crate::scale::model::Link;
use crate::scale::plan::{Limits, Mode, parse_ranks};
use crate::scale::{self, Request};
use crate::train::{LocalData, settled};
use clap::Args;
use std::path::PathBuf;

/// Study how a job scales: real runs on several numbers of ranks, several times each
///
/// Run it alone: it starts `ddl train` on each number of ranks by mpirun or srun. Prints time, speedup, efficiency,
/// serial fraction, accuracy and where the time went; writes scale.json, scale.csv, scale.svg and scale.png. Points that
/// are done are kept, so a study that was cut off goes on. Repeat k has the job's seed + k - 1. More ranks than cores
/// are marked as oversubscribed; their times are no speedup.
#[derive(Args)]
#[command(after_help = "Examples:
  ddl scale jobs/cifar10-simplecnn.toml --ranks 1,2,4
  ddl scale jobs/sp500-lstm.toml --ranks 1,2 --steps 200 --repeats 5
  ddl scale jobs/mnist-cnn.toml --ranks 1,2,4 --mode weak --epochs 1
  mpirun -n 2 -host node1,node2 ddl scale jobs/mnist-cnn.toml --predict
  ddl scale jobs/cifar10-bncnn.toml --predict --latency-us 2 --bandwidth-gbit 100
  ddl scale jobs/cifar10-simplecnn.toml --ranks 16,64 --mode weak --slurm scripts/")]
pub(super) struct Scale {
    /// The job file
    job: PathBuf,
    /// Numbers of ranks, such as 1,2,4 [default: powers of two up to the cores here]
    #[arg(long, value_name = "LIST", allow_hyphen_values = true)]
    ranks: Option<String>,
    /// What stays fixed
    #[arg(long, value_enum, default_value_t = Mode::Strong)]
    mode: Mode,
    /// Runs on each number of ranks
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=1000))]
    repeats: u16,
    /// Set a key of the job (repeatable)
    #[arg(long = "set", value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Epochs of each run, instead of the job's
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1 << 30))]
    epochs: Option<u64>,
    /// Steps of each run, at most; in weak and fixed-batch mode exactly
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    steps: Option<u64>,
    /// Folder of the study [default: results/<name>-scale, or <name>-scale-weak, <name>-scale-fixed-batch]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// What starts the ranks
    #[arg(long, value_enum, default_value_t = Choice::Auto)]
    launcher: Choice,
    /// More arguments for it, in one text quoted as in a shell, such as "--hostfile hosts"
    #[arg(long, value_name = "ARGS", allow_hyphen_values = true, default_value = "")]
    launcher_args: String,
    /// Write Slurm scripts into DIR instead of running: one a point, one that collects, submit.sh
    #[arg(long, value_name = "DIR", conflicts_with = "collect")]
    slurm: Option<PathBuf>,
    /// Run nothing: report on the points that are done
    #[arg(long)]
    collect: bool,
    /// Predict 1 to 65,536 ranks by a cost model; without --ranks from a short probe, under mpirun of the network too
    #[arg(long)]
    predict: bool,
    /// Latency between hosts in microseconds, for the prediction [default: measured, or 20]
    #[arg(long, value_name = "US")]
    latency_us: Option<f64>,
    /// Bandwidth of a host's link in Gbit/s, for the prediction [default: measured, or 10]
    #[arg(long, value_name = "GBIT")]
    bandwidth_gbit: Option<f64>,
    /// Bandwidth between ranks of a host in Gbit/s [default: measured, fitted to the study, or 80]
    #[arg(long, value_name = "GBIT")]
    memory_gbit: Option<f64>,
    /// Ranks on each host, for the prediction [default: those of the probe, or the cores here]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=65_536))]
    ranks_per_host: Option<u32>,
    /// Print one JSON object instead of tables
    #[arg(long)]
    json: bool,
}

impl Scale {
    pub(super) fn run(self, comm: &dyn Comm) -> Result<()> {
        let job = agree_on_job(comm, overrides(&self.set).and_then(|overrides| Job::load(&self.job, &overrides)))?;
        let local = LocalData::stage(&job.data, comm)?;
        let data = Dataset::open_unread(&local.config, job.seed);
        let job = agree(comm, data.and_then(|data| settled(&job, &data)))?;
        let request = agree(comm, self.request(job))?;
        scale::run(&request, comm)
    }

    fn request(self, job: Job) -> Result<Request> {
        let most = match self.mode {
            Mode::Weak => usize::MAX,
            _ => job.train.global_batch(1).div_ceil(job.train.micro_batch()),
        };
        let ranks = match (&self.ranks, self.predict) {
            (Some(text), _) => parse_ranks(text)?,
            (None, true) => Vec::new(),
            (None, false) => (0..).map(|power| 1 << power).take_while(|&n| n <= most.min(cpu::cores())).collect(),
        };
        let positive = |flag: &str, value: f64, least: f64| {
            let good = value.is_finite() && value >= least;
            let error = || Error::usage(flag, format!("{value} is not at least {least}"), "give a larger number");
            good.then_some(value).ok_or_else(error)
        };
        let latency = self.latency_us.map(|us| positive("--latency-us", us, 0.0)).transpose()?;
        let bandwidth = self.bandwidth_gbit.map(|gbit| positive("--bandwidth-gbit", gbit, 1e-6)).transpose()?;
        let memory = self.memory_gbit.map(|gbit| positive("--memory-gbit", gbit, 1e-6)).transpose()?;
        let network = Network {
            between: (latency.is_some() || bandwidth.is_some())
                .then(|| Link::new(latency.unwrap_or(ETHERNET.0), bandwidth.unwrap_or(ETHERNET.1))),
            inside: memory.map(|gbit| Link::new(1.0, gbit)),
            ranks_per_host: self.ranks_per_host.map(|ranks| ranks as usize),
        };
        let Some(launcher_args) = shlex::split(&self.launcher_args) else {
            let what = format!("`{}` has a quotation mark or a backslash too many", self.launcher_args);
            let mend = "quote as in a shell: --launcher-args \"--hostfile 'my hosts'\"";
            return Err(Error::usage("--launcher-args", what, mend));
        };
        Ok(Request {
            job,
            repeats: usize::from(self.repeats),
            mode: self.mode,
            limits: Limits { epochs: self.epochs, steps: self.steps },
            collect_command: self.collect_command(&ranks),
            ranks,
            out: self.out,
            launcher: self.launcher,
            launcher_args,
            slurm: self.slurm,
            collect: self.collect,
            predict: self.predict,
            network,
            json: self.json,
        })
    }

    /// This command line, collecting.
    fn collect_command(&self, ranks: &[usize]) -> Vec<String> {
        let list: Vec<String> = ranks.iter().map(usize::to_string).collect();
        let mut words = vec!["scale".to_owned(), self.job.display().to_string(), "--collect".into()];
        let mut add = |flag: &str, value: Option<String>| {
            words.extend(value.into_iter().flat_map(|value| [flag.to_owned(), value]));
        };
        add("--ranks", Some(list.join(",")));
        add("--mode", Some(self.mode.to_string()));
        add("--repeats", Some(self.repeats.to_string()));
        add("--epochs", self.epochs.map(|epochs| epochs.to_string()));
        add("--steps", self.steps.map(|steps| steps.to_string()));
        add("--out", self.out.as_ref().map(|out| out.display().to_string()));
        self.set.iter().for_each(|assignment| add("--set", Some(assignment.clone())));
        if self.predict {
            add("--latency-us", self.latency_us.map(|us| us.to_string()));
            add("--bandwidth-gbit", self.bandwidth_gbit.map(|gbit| gbit.to_string()));
            add("--memory-gbit", self.memory_gbit.map(|gbit| gbit.to_string()));
            add("--ranks-per-host", self.ranks_per_host.map(|ranks| ranks.to_string()));
            words.push("--predict".into());
        }
        words
    }
}
