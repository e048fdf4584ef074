//! Where a run stands, and how it gets there from a checkpoint or from given weights.

use super::trainer::Trainer;
use crate::arena::Layout;
use crate::comm::{Comm, agree};
use crate::error::{Error, Result};
use crate::store::{Checkpoint, EpochSums, Tensor, checkpoint, weights};
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
}

/// Parameters, state, then each moment.
type Arenas = Vec<Vec<f32>>;

impl Trainer<'_> {
    /// Goes on from the newest good checkpoint in `dir`, if there is one. Rank 0 reads, everybody gets the same.
    ///
    /// # Errors
    /// The checkpoint is of another network or another job.
    pub fn resume(&mut self, dir: &Path, seed: u64) -> Result<Option<Position>> {
        let comm = self.comm;
        let found = if comm.rank() == 0 { newest(dir) } else { Ok(None) };
        let found = agree(comm, found)?;
        let mut position = Position::default();
        let mut arenas = self.arenas();
        let result = match &found {
            Some((path, checkpoint)) => {
                position = Position {
                    step: checkpoint.step,
                    epoch: checkpoint.epoch,
                    sample: checkpoint.sample,
                    sums: checkpoint.sums,
                };
                log::info!("resuming from {} at step {}", path.display(), checkpoint.step);
                self.load_checkpoint(&mut arenas, path, checkpoint, seed)
            }
            None => Ok(()),
        };
        agree(comm, result)?;
        let mut head = match &found {
            Some(_) => {
                let sums = position.sums.to_array().map(f64::to_bits);
                serde_json::to_vec(&(position.step, position.epoch, position.sample, sums))
                    .map_err(|e| Error::internal("resume", e))?
            }
            None => Vec::new(),
        };
        comm.broadcast(0, &mut head);
        if head.is_empty() {
            return Ok(None);
        }
        let (step, epoch, sample, sums): (u64, u64, u64, [u64; 4]) =
            serde_json::from_slice(&head).map_err(|e| Error::internal("resume", e))?;
        self.broadcast(arenas);
        Ok(Some(Position { step, epoch, sample, sums: sums.map(f64::from_bits).into() }))
    }

    fn load_checkpoint(&self, to: &mut Arenas, path: &Path, checkpoint: &Checkpoint, seed: u64) -> Result<()> {
        if checkpoint.seed != seed {
            let what = format!("it was made with seed {}, the job has {seed}", checkpoint.seed);
            return Err(Error::usage(path.display().to_string(), what, "set the seed back, or use another --out"));
        }
        self.load_weights(to, &checkpoint.model, path)?;
        for (slot, moment) in self.slots().iter().zip(&mut to[2..]) {
            let Some((_, tensors)) = checkpoint.optimizer.iter().find(|(name, _)| name == slot) else {
                let what = format!("it has no optimizer slot {slot}: it was made with another optimizer");
                let mend = "set the optimizer back, or start anew with --init from this checkpoint and another --out";
                return Err(Error::usage(path.display().to_string(), what, mend));
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

/// Everybody gets the weights of a checkpoint that rank 0 has read.
pub fn broadcast_checkpoint(trainer: &mut Trainer, path: &Path, checkpoint: Option<&Checkpoint>) -> Result<()> {
    let mut arenas = trainer.arenas();
    let load = |checkpoint: &Checkpoint| trainer.load_weights(&mut arenas, &checkpoint.model, path);
    agree(trainer.comm, checkpoint.map_or(Ok(()), load))?;
    trainer.broadcast(arenas);
    Ok(())
}

fn newest(dir: &Path) -> Result<Option<(std::path::PathBuf, Checkpoint)>> {
    let (found, damaged) = checkpoint::newest_good(dir)?;
    for name in damaged {
        log::warn!("damaged checkpoint skipped: {name}");
    }
    Ok(found)
}

/// Rank 0's word on which checkpoint an evaluation uses.
pub fn read_on_root(comm: &dyn Comm, path: &Path) -> Result<Option<Checkpoint>> {
    let result = if comm.rank() == 0 { checkpoint::read(path).map(Some) } else { Ok(None) };
    agree(comm, result)
}
