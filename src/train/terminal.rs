//! What rank 0 says while training: the model table, the plan, progress, one line an epoch, and where the time went.

use super::clock::Phase;
use super::evaluate::{Errors, Metrics};
use super::trainer::Trainer;
use crate::data::{Dataset, Part};
use crate::error::{Error, Result};
use crate::model::Row;
use comfy_table::{CellAlignment, Table, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::path::Path;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often a plain line tells of a long epoch where there is no terminal, and when the first one does.
const PLAIN_EVERY: Duration = Duration::from_secs(15);
const PLAIN_FIRST: Duration = Duration::from_secs(3);

/// Whether only results are printed.
static QUIET: AtomicBool = AtomicBool::new(false);
/// The first line that could not be printed.
static UNSAID: OnceLock<std::io::Error> = OnceLock::new();

/// From here on only results are printed, no plans and no progress.
pub fn be_quiet() {
    QUIET.store(true, Ordering::Relaxed);
}

/// Whether only results are printed.
pub fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Prints a line of results. A failure is no reason to stop training; [`printed`] tells of it in the end.
pub fn say(line: &str) {
    if let Err(error) = writeln!(std::io::stdout(), "{line}") {
        let _ = UNSAID.set(error);
    }
}

/// Prints a line on what is going on, unless it was asked to be quiet.
pub fn tell(line: &str) {
    if !QUIET.load(Ordering::Relaxed) {
        say(line);
    }
}

/// Whether all lines were printed. A reader that has seen enough and closed the pipe is no failure.
///
/// # Errors
/// `Io`: the output is on a full disk, for example.
pub fn printed() -> Result<()> {
    match UNSAID.get() {
        Some(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Error::io(Path::new("standard output"), format!("cannot be written: {error}"), "check where it goes"))
        }
        _ => Ok(()),
    }
}

/// 1234567 as `1,234,567`.
pub fn thousands(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::with_capacity(digits.len() * 4 / 3);
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `1.5 GiB`.
pub fn bytes(n: usize) -> String {
    indicatif::HumanBytes(n as u64).to_string()
}

/// `66.5 M`.
fn flops(n: u64) -> String {
    match n {
        0 => String::new(),
        1..1_000_000 => format!("{:.1} k", n as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} M", n as f64 / 1e6),
        _ => format!("{:.2} G", n as f64 / 1e9),
    }
}

/// A table in the house style; the columns from `right` on are numbers.
pub fn table(header: &[&str], right: usize) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
        if column.index >= right {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// The layers with shapes, parameters and forward FLOPs a sample; with -v also how their products are made.
pub fn model_table(rows: &[Row]) -> String {
    let methods = log::log_enabled!(log::Level::Info);
    let header = ["layer", "type", "input", "output", "parameters", "FLOPs", "products"];
    let mut table = table(&header[..if methods { 7 } else { 6 }], 2);
    for row in rows {
        let parameters = if row.parameters == 0 { String::new() } else { thousands(row.parameters as u64) };
        let shapes = (row.input.to_string(), row.output.to_string());
        let mut cells = vec![row.key.clone(), row.kind.clone(), shapes.0, shapes.1, parameters, flops(row.flops)];
        cells.extend(methods.then(|| row.method.unwrap_or_default().to_owned()));
        table.add_row(cells);
    }
    let parameters: usize = rows.iter().map(|row| row.parameters).sum();
    let total: u64 = rows.iter().map(|row| row.flops).sum();
    table.add_row(["", "total", "", "", &thousands(parameters as u64), &flops(total)]);
    table.to_string()
}

/// Ranks, batches and memory.
pub fn plan(trainer: &Trainer, data: &Dataset, batch: usize, epochs: u64) -> String {
    let ranks = trainer.comm.size();
    let parts = batch.div_ceil(trainer.micro);
    let (train, test) = (data.len(Part::Train), data.len(Part::Test));
    let steps = train.div_ceil(batch);
    let most = parts.div_ceil(ranks);
    let uneven = if parts.is_multiple_of(ranks) {
        String::new()
    } else {
        format!(" (uneven: {most} on some ranks, {} on others)", parts / ranks)
    };
    let mut text = format!(
        "data   {} training and {} test samples, {} in memory\n\
         plan   {ranks} {}, {epochs} epochs of {} steps, batch {batch} = {parts} micro-batches of {}{uneven}\n\
         memory {} a rank for gradients and activations, {} a host for parameters and optimizer",
        thousands(train as u64),
        thousands(test as u64),
        bytes(data.bytes()),
        if ranks == 1 { "rank" } else { "ranks" },
        thousands(steps as u64),
        trainer.micro,
        bytes(trainer.memory()),
        bytes(trainer.shared_memory()),
    );
    if let Some(reason) = &trainer.micro_reason {
        text += &format!("\nmicro-batch {} (chosen: {reason})", trainer.micro);
    }
    for (sync, of) in
        [(false, format!("of {} samples, a micro-batch", trainer.micro)), (true, "of the global batch (sync)".into())]
    {
        if trainer.model.statistics().any(|statistics| statistics.sync == sync) {
            text += &format!("\nbatch norm  statistics {of}");
        }
    }
    text
}

/// Progress inside an epoch: a bar on a terminal, else a plain line now and then.
pub struct Progress {
    bar: Option<ProgressBar>,
    label: String,
    len: u64,
    started: Instant,
    spoken: Option<Instant>,
}

impl Progress {
    /// For an epoch of `len` samples.
    pub fn start(label: String, len: u64, visible: bool) -> Self {
        let visible = visible && !QUIET.load(Ordering::Relaxed);
        let terminal = visible && std::io::stdout().is_terminal() && is_watched();
        let bar = terminal.then(|| {
            let bar = ProgressBar::with_draw_target(Some(len), ProgressDrawTarget::stdout());
            let style = ProgressStyle::with_template("{prefix}  {wide_bar}  {percent:>3} %  {msg}  {eta} left");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_prefix(label.clone());
            bar
        });
        let label = if visible { label } else { String::new() };
        Self { bar, label, len, started: Instant::now(), spoken: None }
    }

    /// After a step: `done` samples of the epoch, and the step's loss.
    pub fn update(&mut self, done: u64, loss: f64) {
        if let Some(bar) = &self.bar {
            bar.set_position(done);
            // The message costs time to draw; a bar redraws a few times a second.
            if self.is_silent_for(Duration::from_millis(100)) {
                self.spoken = Some(Instant::now());
                let rate = done as f64 / self.started.elapsed().as_secs_f64();
                bar.set_message(format!("loss {loss:.4}  {rate:.0} samples/s"));
            }
        } else if !self.label.is_empty() && self.is_silent_for(self.spoken.map_or(PLAIN_FIRST, |_| PLAIN_EVERY)) {
            self.spoken = Some(Instant::now());
            let rate = done as f64 / self.started.elapsed().as_secs_f64();
            let left = (self.len - done) as f64 / rate;
            tell(&format!(
                "{}  {:.0} %  loss {loss:.4}  {rate:.0} samples/s  {left:.0} s left",
                self.label,
                100.0 * done as f64 / self.len as f64
            ));
        }
    }

    fn is_silent_for(&self, time: Duration) -> bool {
        self.spoken.unwrap_or(self.started).elapsed() > time
    }

    /// Takes the bar away.
    pub fn finish(self) {
        if let Some(bar) = self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Whether a person may be looking at this process's terminal. A launcher gives each rank one of its own; then it is the
/// launcher's output that counts, where the launcher is this process's parent.
fn is_watched() -> bool {
    let parent = format!("/proc/{}", std::os::unix::process::parent_id());
    let read = |name: &str| std::fs::read_to_string(format!("{parent}/{name}")).unwrap_or_default();
    let launches =
        ["mpirun", "mpiexec", "orterun", "prterun", "hydra_pmi_proxy", "srun"].contains(&read("comm").trim());
    let output = || std::fs::read_link(format!("{parent}/fd/1")).unwrap_or_default();
    crate::comm::launched().is_none()
        || (launches && ["/dev/pts", "/dev/tty", "/dev/console"].iter().any(|tty| starts_with(&output(), tty)))
}

fn starts_with(path: &Path, start: &str) -> bool {
    path.to_string_lossy().starts_with(start)
}

/// What an epoch's line tells.
pub struct EpochLine<'a> {
    /// From 1.
    pub epoch: u64,
    /// Of how many.
    pub epochs: u64,
    /// Mean training loss.
    pub loss: f64,
    /// Training accuracy, for classes.
    pub accuracy: Option<f64>,
    /// On the part that is kept back to validate on, where there is one.
    pub validation: Option<&'a Metrics>,
    /// On the test part, where evaluated.
    pub test: Option<&'a Metrics>,
    /// Seconds of training.
    pub seconds: f64,
    /// Over all ranks.
    pub samples_per_second: f64,
}

/// `0.412`, `0.0412`, `4.12e-5`.
fn figure(v: f64) -> String {
    match v.abs() {
        size if size >= 0.1 || size == 0.0 => format!("{v:.3}"),
        size if size >= 0.001 => format!("{v:.4}"),
        _ => format!("{v:.2e}"),
    }
}

impl EpochLine<'_> {
    /// `epoch 3/10  loss 0.412  accuracy 86.1 %  test loss 0.455  test accuracy 85.0 %  12.3 s  4065 samples/s`.
    pub fn text(&self) -> String {
        let width = self.epochs.to_string().len();
        let mut text = format!("epoch {:>width$}/{}  loss {}", self.epoch, self.epochs, figure(self.loss));
        if let Some(accuracy) = self.accuracy {
            text += &format!("  accuracy {:.1} %", 100.0 * accuracy);
        }
        for (part, of) in [("validation", self.validation), ("test", self.test)] {
            let Some(of) = of else { continue };
            text += &format!("  {part} loss {}", figure(of.loss));
            if let Some(accuracy) = of.accuracy() {
                text += &format!("  {part} accuracy {:.1} %", 100.0 * accuracy);
            }
            if let Some(errors) = &of.errors {
                text += &format!("  {part} {}", errors_text(errors));
            }
        }
        text + &format!("  {:.1} s  {:.0} samples/s", self.seconds, self.samples_per_second)
    }
}

/// `MAPE 1.23 %  RMSE 2.34  R² 0.987`.
pub fn errors_text(errors: &Errors) -> String {
    format!("MAPE {:.2} %  RMSE {:.4}  R² {:.4}", errors.mape, errors.rmse, errors.r2)
}

/// What the gradient noise scale says of a batch size.
pub fn noise_text(scale: f64, batch: usize) -> String {
    if scale.is_infinite() {
        return format!("not to be measured: far above the batch of {batch}; a larger one may need fewer steps");
    }
    let advice = if scale > batch as f64 {
        "a larger one needs fewer steps, so more ranks may help"
    } else {
        "a larger one needs hardly fewer steps"
    };
    format!("{} samples, the batch has {}: {advice}", thousands(scale.round() as u64), thousands(batch as u64))
}

/// Seconds by phase over ranks: `rows[rank]` holds a total for each phase.
pub fn timing_table(rows: &[Vec<f64>]) -> String {
    let mut table = table(&["seconds", "minimum", "mean", "maximum", "share"], 1);
    let sum: f64 = rows.iter().flatten().sum();
    for (phase, name) in Phase::ALL {
        let seconds = || rows.iter().map(|row| row[phase as usize]);
        let total: f64 = seconds().sum();
        let lowest = seconds().fold(f64::INFINITY, f64::min);
        let highest = seconds().fold(0.0, f64::max);
        table.add_row([
            name.to_owned(),
            format!("{lowest:.2}"),
            format!("{:.2}", total / rows.len() as f64),
            format!("{highest:.2}"),
            format!("{:.1} %", 100.0 * total / sum.max(f64::MIN_POSITIVE)),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        for (n, text) in [(0, "0"), (999, "999"), (1000, "1,000"), (1_147_466, "1,147,466")] {
            assert_eq!(thousands(n), text);
        }
    }

    #[test]
    fn an_epoch_reads_as_promised() {
        let test = Metrics { loss: 0.455, confusion: vec![17, 1, 2, 0], samples: 20, ..Metrics::default() };
        let line = EpochLine {
            epoch: 3,
            epochs: 10,
            loss: 0.412,
            accuracy: Some(0.861),
            validation: None,
            test: Some(&test),
            seconds: 12.3,
            samples_per_second: 4065.0,
        };
        let expected =
            "epoch  3/10  loss 0.412  accuracy 86.1 %  test loss 0.455  test accuracy 85.0 %  12.3 s  4065 samples/s";
        assert_eq!(line.text(), expected);
    }
}
