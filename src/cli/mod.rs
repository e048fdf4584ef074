//! The command line: one file a command, no logic of its own. Only rank 0 speaks, and every rank ends with the same
//! exit code.

mod bench;
mod doctor;
mod evaluate;
mod export;
mod fetch;
mod inspect;
mod predict;
mod scale;
mod train;

use crate::comm::{self, Comm, Solo, on_root};
use crate::error::{Error, Result};
use crate::store::probe;
use crate::train::{signal, terminal};
use clap::{Args, Parser, Subcommand};
use std::ffi::OsString;
use std::io::Write;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;

/// Trains neural networks data-parallel on CPU clusters: one MPI rank per core, one TOML file per job.
///
/// With no command: trains the built-in example on the digits in data/mnist.
#[derive(Parser)]
#[command(name = "ddl", version, about, max_term_width = 110, after_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    verbosity: Verbosity,
}

const EXAMPLES: &str = "Examples:
  mpirun -n 4 ddl                                     the built-in example on 4 ranks
  mpirun -n 4 ddl train jobs/mnist-cnn.toml           a job of your own
  ddl train jobs/sp500-mlp.toml --set train.epochs=3  with one key changed
  ddl evaluate results/mnist-cnn/checkpoints/step-00001876.h5

Exit codes: 0 done, 2 wrong usage or job file, 65 bad data, 70 internal error or diverged loss,
74 input or output failed, 75 stopped early with a good checkpoint (run again with --resume).";

#[derive(Args)]
struct Verbosity {
    /// Say more (twice: everything); RUST_LOG does the same in detail
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// Print only results: no plan, no progress, no warnings
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    quiet: bool,
}

#[derive(Subcommand)]
enum Command {
    Train(train::Train),
    Evaluate(evaluate::Evaluate),
    Predict(predict::Predict),
    Export(export::Export),
    Fetch(fetch::Fetch),
    Inspect(inspect::Inspect),
    Scale(scale::Scale),
    Doctor(doctor::Doctor),
    Bench(bench::Bench),
    /// Read a file and say nothing (ddl starts this itself)
    #[command(name = probe::COMMAND, hide = true)]
    Probe {
        file: PathBuf,
    },
}

/// Runs the command line and returns the exit code, the same on every rank.
pub fn run(args: impl Iterator<Item = OsString>) -> i32 {
    let speaks = comm::launched().is_none_or(|launcher| launcher.rank == 0);
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            if speaks {
                let _ = error.print();
            }
            return error.exit_code();
        }
    };
    if let Some(Command::Probe { file }) = &cli.command {
        probe::run(file);
        return 0;
    }
    probe::enable();
    signal::survive_file_limits();
    log_to_stderr(&cli.verbosity, speaks);
    if cli.verbosity.quiet {
        terminal::be_quiet();
    }
    let ended = |result: Result<()>| match result {
        Ok(()) => 0,
        Err(error) => {
            if speaks {
                let text = error.to_string().replace(|c: char| c.is_control(), " ");
                // In one piece: mpirun's own words would come between several.
                let _ = std::io::stderr().write_all(format!("error: {text}\n").as_bytes());
            }
            error.exit_code()
        }
    };
    match (comm::connect(), cli.command) {
        // Ranks that are no job are what the doctor is there for.
        (Err(trouble), Some(Command::Doctor(doctor))) => ended(doctor.run(&Solo, Some(&trouble))),
        (Err(error), _) => ended(Err(error)),
        (Ok(comm), command) => {
            // A panic is a mistake of ours. Under MPI its hook has ended all ranks by now; alone it ends like any error.
            let command =
                AssertUnwindSafe(|| dispatch(command, &*comm).and_then(|()| on_root(&*comm, terminal::printed)));
            let result = std::panic::catch_unwind(command)
                .unwrap_or_else(|_| Err(Error::internal("ddl", "the program panicked")));
            // Before MPI ends: mpirun stops all ranks as soon as one has ended with an error, even one about to tell it.
            ended(result)
        }
    }
}

fn dispatch(command: Option<Command>, comm: &dyn Comm) -> Result<()> {
    match command {
        None | Some(Command::Probe { .. }) => train::Train::default().run(comm),
        Some(Command::Train(command)) => command.run(comm),
        Some(Command::Evaluate(command)) => command.run(comm),
        Some(Command::Predict(command)) => command.run(comm),
        Some(Command::Export(command)) => command.run(comm),
        Some(Command::Fetch(command)) => command.run(comm),
        Some(Command::Inspect(command)) => command.run(comm),
        Some(Command::Scale(command)) => command.run(comm),
        Some(Command::Doctor(command)) => command.run(comm, None),
        Some(Command::Bench(command)) => command.run(comm),
    }
}

fn log_to_stderr(verbosity: &Verbosity, speaks: bool) {
    let default = match (verbosity.quiet, verbosity.verbose) {
        (true, _) => "error",
        (false, 0) => "warn",
        (false, 1) => "info",
        (false, _) => "debug",
    };
    let mut logger = env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(default));
    logger.format_target(false).format_timestamp(None);
    if !speaks {
        logger.filter_level(log::LevelFilter::Off);
    }
    let _ = logger.try_init();
}
