//! Where a run stands, and how it gets there from a checkpoint or from given weights.

use super::step::Trainer;
use crate::comm::{Comm, agree};
use crate::error::{Error, Result};
use crate::store::{Checkpoint, Tensor, checkpoint, weights};
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
    /// Σ loss·samples of the epoch under way.
    pub epoch_loss: f64,
    /// Right answers in the epoch under way.
    pub epoch_correct: f64,
}

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
        let result = match &found {
            Some((path, checkpoint)) => {
                position = Position {
                    step: checkpoint.step,
                    epoch: checkpoint.epoch,
                    sample: checkpoint.sample,
                    epoch_loss: checkpoint.epoch_loss,
                    epoch_correct: checkpoint.epoch_correct,
                };
                log::info!("resuming from {} at step {}", path.display(), checkpoint.step);
                self.load_checkpoint(path, checkpoint, seed)
            }
            None => Ok(()),
        };
        agree(comm, result)?;
        let mut head = match &found {
            Some(_) => serde_json::to_vec(&(
                position.step,
                position.epoch,
                position.sample,
                position.epoch_loss.to_bits(),
                position.epoch_correct.to_bits(),
            ))
            .map_err(|e| Error::internal("resume", e))?,
            None => Vec::new(),
        };
        comm.broadcast(0, &mut head);
        if head.is_empty() {
            return Ok(None);
        }
        let (step, epoch, sample, loss, correct): (u64, u64, u64, u64, u64) =
            serde_json::from_slice(&head).map_err(|e| Error::internal("resume", e))?;
        self.broadcast_arenas();
        let (epoch_loss, epoch_correct) = (f64::from_bits(loss), f64::from_bits(correct));
        Ok(Some(Position { step, epoch, sample, epoch_loss, epoch_correct }))
    }

    fn load_checkpoint(&mut self, path: &Path, checkpoint: &Checkpoint, seed: u64) -> Result<()> {
        if checkpoint.seed != seed {
            let what = format!("it was made with seed {}, the job has {seed}", checkpoint.seed);
            return Err(Error::usage(path.display().to_string(), what, "set the seed back, or use another --out"));
        }
        self.load_weights(&checkpoint.model, path)?;
        let slots = self.slots();
        for (index, slot) in slots.iter().enumerate() {
            let Some((_, tensors)) = checkpoint.optimizer.iter().find(|(name, _)| name == slot) else {
                let what = format!("it has no optimizer slot {slot}: it was made with another optimizer");
                let mend = "set the optimizer back, or start anew with --init from this checkpoint and another --out";
                return Err(Error::usage(path.display().to_string(), what, mend));
            };
            let (layout, none) = (self.model.layout(), crate::arena::Layout::default());
            weights::load(tensors, path, layout, &mut self.moments[index], &none, &mut [])?;
        }
        Ok(())
    }

    fn load_weights(&mut self, tensors: &[Tensor], source: &Path) -> Result<()> {
        let (layout, state_layout) = (self.model.layout(), self.model.state_layout());
        weights::load(tensors, source, layout, &mut self.params, state_layout, &mut self.state)
    }

    /// Everybody gets rank 0's parameters, state and moments.
    fn broadcast_arenas(&mut self) {
        let comm = self.comm;
        let moments = self.moments.iter_mut().map(|moment| &mut **moment);
        for arena in [&mut *self.params, &mut *self.state].into_iter().chain(moments) {
            let mut bytes = if comm.rank() == 0 { bytemuck::cast_slice(arena).to_vec() } else { Vec::new() };
            comm.broadcast(0, &mut bytes);
            bytemuck::cast_slice_mut::<f32, u8>(arena).copy_from_slice(&bytes);
        }
    }
}

/// Starts the weights from a safetensors file or a checkpoint; rank 0 reads, everybody gets the same.
///
/// # Errors
/// The file cannot be read, is damaged, or is of another network.
pub fn load_weights(trainer: &mut Trainer, path: &Path) -> Result<()> {
    let comm = trainer.comm;
    let result = if comm.rank() == 0 {
        weights::read(path).and_then(|tensors| trainer.load_weights(&tensors, path))
    } else {
        Ok(())
    };
    agree(comm, result)?;
    trainer.broadcast_arenas();
    Ok(())
}

/// Everybody gets the weights of a checkpoint that rank 0 has read.
pub fn broadcast_checkpoint(trainer: &mut Trainer, path: &Path, checkpoint: Option<&Checkpoint>) -> Result<()> {
    let result = checkpoint.map_or(Ok(()), |checkpoint| trainer.load_weights(&checkpoint.model, path));
    agree(trainer.comm, result)?;
    trainer.broadcast_arenas();
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
