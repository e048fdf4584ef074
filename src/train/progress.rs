//! Where a run stands, and how it gets there from a checkpoint or from given weights.

use super::trainer::Trainer;
use crate::arena::Layout;
use crate::comm::{Comm, agree};
use crate::config::{Change, Meaning, changes};
use crate::error::{Error, Result};
use crate::store::{Best, Checkpoint, EpochSums, Tensor, checkpoint, weights};
use std::path::Path;

/// How far a run is.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Position {
    /// Optimizer steps done.
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    /// Samples done in the epoch under way.
    pub sample: u64,
    /// Of the epoch under way.
    pub sums: EpochSums,
    /// So far.
    pub best: Best,
}

/// Parameters, state, then each moment.
type Arenas = Vec<Vec<f32>>;

/// What a run goes on from.
pub struct Resumed {
    /// Where it stands.
    pub position: Position,
    /// On rank 0: what is another from here on, a line each.
    pub changes: Vec<String>,
}

impl Trainer<'_> {
    /// Goes on from the newest good checkpoint in `dir`, if there is one. Rank 0 reads, everybody gets the same. `config` is
    /// the resolved job.
    ///
    /// # Errors
    /// The checkpoint is of another network or another job, or there are checkpoints and none is good.
    pub fn resume(&mut self, dir: &Path, config: &str) -> Result<Option<Resumed>> {
        let comm = self.comm;
        let found = if comm.rank() == 0 { newest(dir) } else { Ok(None) };
        let found = agree(comm, found)?;
        let (mut position, mut changes) = (Position::default(), Vec::new());
        let mut arenas = self.arenas();
        let result = match &found {
            Some((path, checkpoint)) => {
                position = Position {
                    step: checkpoint.step,
                    epoch: checkpoint.epoch,
                    sample: checkpoint.sample,
                    sums: checkpoint.sums,
                    best: checkpoint.best,
                };
                log::info!("resuming from {} at step {}", path.display(), checkpoint.step);
                same_job(path, checkpoint, config).and_then(|told| {
                    changes = told;
                    changes.extend(other_products(&checkpoint.products, self.precision.name()));
                    self.load_checkpoint(&mut arenas, path, checkpoint)
                })
            }
            None => Ok(()),
        };
        agree(comm, result)?;
        let mut head = match &found {
            Some(_) => {
                let Position { step, epoch, sample, sums, best } = position;
                let sums = sums.to_array().map(f64::to_bits);
                serde_json::to_vec(&(step, epoch, sample, sums, best.loss.to_bits(), best.epoch))
                    .map_err(|e| Error::internal("resume", e))?
            }
            None => Vec::new(),
        };
        comm.broadcast(0, &mut head);
        if head.is_empty() {
            return Ok(None);
        }
        let (step, epoch, sample, sums, best_loss, best_epoch): (u64, u64, u64, [u64; 4], u64, u64) =
            serde_json::from_slice(&head).map_err(|e| Error::internal("resume", e))?;
        self.broadcast(arenas);
        let best = Best { loss: f64::from_bits(best_loss), epoch: best_epoch };
        let position = Position { step, epoch, sample, sums: sums.map(f64::from_bits).into(), best };
        Ok(Some(Resumed { position, changes }))
    }

    fn load_checkpoint(&self, to: &mut Arenas, path: &Path, checkpoint: &Checkpoint) -> Result<()> {
        self.load_weights(to, &checkpoint.model, path)?;
        for (slot, moment) in self.slots().iter().zip(&mut to[2..]) {
            let Some((_, tensors)) = checkpoint.optimizer.iter().find(|(name, _)| name == slot) else {
                let what = format!("it has no optimizer slot {slot}: it was made with other keys of the optimizer");
                return Err(Error::usage(path.display().to_string(), what, another(path)));
            };
            weights::load(tensors, path, self.model.layout(), moment, &Layout::default(), &mut [])?;
        }
        Ok(())
    }

    fn load_weights(&self, to: &mut Arenas, tensors: &[Tensor], source: &Path) -> Result<()> {
        let (layout, state_layout) = (self.model.layout(), self.model.state_layout());
        let [params, state, ..] = &mut to[..] else { return Ok(()) };
        weights::load(tensors, source, layout, params, state_layout, state)
    }

    /// A copy on rank 0, to be loaded into; nothing elsewhere.
    fn arenas(&self) -> Arenas {
        let replica = &self.replica;
        let arenas = [&replica.params, &replica.state].into_iter().chain(&replica.moments);
        arenas.map(|arena| if self.comm.rank() == 0 { arena.to_vec() } else { Vec::new() }).collect()
    }

    /// Every host gets rank 0's arenas.
    fn broadcast(&mut self, arenas: Arenas) {
        let arenas = arenas.into_iter().map(|arena| {
            let mut bytes = bytemuck::cast_slice(&arena).to_vec();
            self.comm.broadcast(0, &mut bytes);
            bytes
        });
        let arenas: Vec<Vec<u8>> = arenas.collect();
        self.replica.write(self.exchange.host(), |replica| {
            for (to, from) in replica.iter_mut().zip(&arenas) {
                bytemuck::cast_slice_mut::<f32, u8>(to).copy_from_slice(from);
            }
        });
    }
}

/// Starts the weights from a safetensors file or a checkpoint; rank 0 reads, everybody gets the same.
///
/// # Errors
/// The file cannot be read, is damaged, or is of another network.
pub fn load_weights(trainer: &mut Trainer, path: &Path) -> Result<()> {
    let mut arenas = trainer.arenas();
    let result = match trainer.comm.rank() {
        0 => weights::read(path).and_then(|tensors| trainer.load_weights(&mut arenas, &tensors, path)),
        _ => Ok(()),
    };
    agree(trainer.comm, result)?;
    trainer.broadcast(arenas);
    Ok(())
}

/// The ways out where a checkpoint does not go with the job.
fn another(checkpoint: &Path) -> String {
    format!("set it back, or start anew from these weights: --init {} with another --out", checkpoint.display())
}

/// What the job has that the checkpoint's had not, as far as it may.
fn same_job(path: &Path, checkpoint: &Checkpoint, config: &str) -> Result<Vec<String>> {
    let found = changes(&checkpoint.config, config);
    let of = |meaning: Meaning| found.iter().filter(move |change| change.meaning() == meaning).map(Change::to_string);
    let mut refused = of(Meaning::Refuse);
    match refused.next() {
        None => Ok(of(Meaning::Tell).collect()),
        Some(first) => {
            let more = match refused.count() {
                0 => String::new(),
                more => format!(" (and {more} more)"),
            };
            let what = format!("the job has changed since: {first}{more}");
            Err(Error::usage(path.display().to_string(), what, another(path)))
        }
    }
}

/// A word where products are multiplied in another precision than so far, as on other CPUs.
fn other_products(before: &str, now: &str) -> Option<String> {
    let way = if before == "bf16" { "pairs" } else { "f32" };
    (!before.is_empty() && before != now).then(|| {
        format!(
            "products are {now} from here on, they were {before}: DDL_BF16={way} goes on with the bits as they were"
        )
    })
}

fn newest(dir: &Path) -> Result<Option<(std::path::PathBuf, Checkpoint)>> {
    let (found, damaged) = checkpoint::newest_good(dir)?;
    for name in &damaged {
        log::warn!("damaged checkpoint skipped: {name}");
    }
    if let (None, [.., first]) = (&found, &damaged[..]) {
        let what = format!("all {} checkpoints are damaged, the oldest one: {first}", damaged.len());
        let mend = "bring one back from a copy, or start anew without --resume: what is here is then kept as earlier-1";
        return Err(Error::data(dir.display().to_string(), what, mend));
    }
    Ok(found)
}

/// Rank 0's word on which checkpoint an evaluation uses.
pub fn read_on_root(comm: &dyn Comm, path: &Path) -> Result<Option<Checkpoint>> {
    let result = if comm.rank() == 0 { checkpoint::read_network(path).map(Some) } else { Ok(None) };
    agree(comm, result)
}
