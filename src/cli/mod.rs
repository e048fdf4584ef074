//! The command line: one file a command, no logic of its own. Only rank 0 speaks, and every rank ends with the same
//! exit code.

mod bench;
mod compare;
mod doctor;
mod evaluate;
mod explore;
mod export;
mod fetch;
mod inspect;
mod predict;
mod prepare;
mod report;
mod scale;
mod supervise;
mod train;
mod verify;

use crate::comm::{self, Comm, Solo, accord, agree, on_root};
use crate::config::Job;
use crate::error::{Error, Result};
use crate::store::probe;
use crate::train::{COMMIT, signal, terminal};
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

Exit codes: 0 done, 1 what ddl compare compared differs, 2 wrong usage or job file, 65 bad data, 70 internal error or
diverged loss, 74 input or output failed, 75 stopped early with a good checkpoint (run again with --resume).";

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
    Compare(compare::Compare),
    Report(report::Report),
    Verify(verify::Verify),
    Supervise(supervise::Supervise),
    Explore(explore::Explore),
    Prepare(prepare::Prepare),
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
    signal::remember_warnings();
    let args: Vec<OsString> = args.collect();
    let parsed = Cli::try_parse_from(&args);
    if let Ok(Cli { command: Some(Command::Probe { file }), .. }) = &parsed {
        probe::run(file);
        return 0;
    }
    probe::enable();
    signal::survive_file_limits();
    let speaks = comm::launched().is_none_or(|launcher| launcher.rank == 0);
    if let Ok(cli) = &parsed {
        log_to_stderr(&cli.verbosity, speaks);
        if cli.verbosity.quiet {
            terminal::be_quiet();
        }
    }
    let ended = |result: Result<()>| match result {
        Ok(()) => 0,
        Err(error) => {
            if speaks && error != Error::Differs {
                let text = error.to_string().replace(|c: char| c.is_control(), " ");
                // In one piece: mpirun's own words would come between several.
                let _ = std::io::stderr().write_all(format!("error: {text}\n").as_bytes());
            }
            error.exit_code()
        }
    };
    // It starts ranks, and is none.
    let parsed = match parsed {
        Ok(Cli { command: Some(Command::Supervise(command)), .. }) => return ended(command.run()),
        parsed => parsed,
    };
    let comm = match (comm::connect(), &parsed) {
        (Ok(comm), _) => comm,
        // Ranks that are no job are what the doctor is there for.
        (Err(trouble), Ok(Cli { command: Some(Command::Doctor(doctor)), .. })) => {
            return ended(doctor.run(&Solo, Some(&trouble)));
        }
        (Err(trouble), Ok(_)) => return ended(Err(trouble)),
        (Err(_), Err(error)) => return explain(error, speaks),
    };
    // Also with arguments that cannot be understood: the other ranks may have better ones, and would wait.
    if let Err(error) = alike(&*comm, &args) {
        return ended(Err(error));
    }
    match parsed {
        Err(error) => explain(&error, speaks),
        Ok(cli) => {
            // A panic is a mistake of ours. Under MPI its hook has ended all ranks by now; alone it ends like any error.
            let run = || dispatch(cli.command, &*comm).and_then(|()| on_root(&*comm, terminal::printed));
            let command = AssertUnwindSafe(run);
            let result = std::panic::catch_unwind(command)
                .unwrap_or_else(|_| Err(Error::internal("ddl", "the program panicked")));
            // Before MPI ends: mpirun stops all ranks as soon as one has ended with an error, even one about to tell it.
            ended(result)
        }
    }
}

/// Help, the version, or what is wrong with the arguments; and the exit code.
fn explain(error: &clap::Error, speaks: bool) -> i32 {
    if speaks {
        let _ = error.print();
    }
    error.exit_code()
}

/// Makes sure that all ranks are the same program with the same arguments.
fn alike(comm: &dyn Comm, args: &[OsString]) -> Result<()> {
    let words = args.iter().skip(1).map(|word| match word.to_string_lossy() {
        word if word.is_empty() || word.contains(char::is_whitespace) => format!("{word:?}"),
        word => word.into_owned(),
    });
    let line = words.collect::<Vec<_>>().join(" ");
    let program = format!("{} {COMMIT}", env!("CARGO_PKG_VERSION"));
    accord(comm, &[("arguments", &line), ("version of ddl", program.trim())])
}

/// The same job on every rank.
fn agree_on_job(comm: &dyn Comm, job: Result<Job>) -> Result<Job> {
    let resolved = job.and_then(|job| Ok((job.resolved()?, job)));
    let (text, job) = agree(comm, resolved)?;
    accord(comm, &[("job", &text)])?;
    Ok(job)
}

fn dispatch(command: Option<Command>, comm: &dyn Comm) -> Result<()> {
    match command {
        None | Some(Command::Probe { .. }) => train::Train::default().run(comm),
        Some(Command::Supervise(command)) => command.run(),
        Some(Command::Train(command)) => command.run(comm),
        Some(Command::Evaluate(command)) => command.run(comm),
        Some(Command::Predict(command)) => command.run(comm),
        Some(Command::Export(command)) => command.run(comm),
        Some(Command::Fetch(command)) => command.run(comm),
        Some(Command::Inspect(command)) => command.run(comm),
        Some(Command::Compare(command)) => command.run(comm),
        Some(Command::Report(command)) => command.run(comm),
        Some(Command::Verify(command)) => command.run(comm),
        Some(Command::Explore(command)) => command.run(comm),
        Some(Command::Prepare(command)) => command.run(comm),
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
