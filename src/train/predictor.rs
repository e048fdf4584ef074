//! A trained network by itself: its weights and what it knows of its input, and nothing that only training needs.

use super::evaluate::{Evaluation, Metrics};
use super::precision::agreed;
use super::stage::LocalData;
use super::trainer::Goal;
use crate::arena::Slot;
use crate::comm::{Comm, agree};
use crate::config::Job;
use crate::data::{Dataset, Input, Part, Targets, Task};
use crate::error::{Error, Result};
use crate::loss;
use crate::model::Model;
use crate::resource::require_memory;
use crate::store::{Checkpoint, weights};
use std::path::Path;

/// Samples of a pass where the checkpoint's job does not say.
const SAMPLES: usize = 64;
/// Weights that go to the other ranks at a time.
const SENT: usize = 1 << 20;

/// A network that predicts and is measured, the ranks sharing the samples.
pub struct Predictor<'c> {
    comm: &'c dyn Comm,
    model: Model<f32>,
    params: Vec<f32>,
    state: Vec<f32>,
    goal: Goal,
    targets: Targets,
    micro: usize,
}

impl<'c> Predictor<'c> {
    /// The network of `job` with the weights of a checkpoint, which rank 0 has read from `path`. Collective.
    ///
    /// # Errors
    /// Layers or a loss that do not fit `input`, or weights that do not fit the layers; on every rank.
    pub fn load(
        job: &Job,
        input: &Input,
        checkpoint: Option<Checkpoint>,
        path: &Path,
        comm: &'c dyn Comm,
    ) -> Result<Self> {
        let micro = job.train.micro_batch.unwrap_or(SAMPLES);
        let precision = agreed(job.train.precision, comm);
        let build = || {
            let model = Model::<f32>::with_precision(precision, &job.layers, input.shape, micro)?;
            let outputs = model.stack.output().len();
            let loss = loss::build(&job.loss, &Task::of(input), outputs)?;
            let largest = model.layout().slots().iter().map(Slot::len).max().unwrap_or(0);
            let elements = model.layout().len() + largest + model.state_layout().len() + model.stack.workspace_len();
            require_memory(&format!("{}, model.layers", job.file), 4.0 * elements as f64, "start fewer ranks")?;
            Ok((model, Goal { loss, outputs, classes: !input.classes.is_empty() }))
        };
        let (model, goal) = agree(comm, build())?;
        let (mut params, mut state) = (vec![0.0; model.layout().len()], vec![0.0; model.state_layout().len()]);
        let load = |checkpoint: Checkpoint| {
            let tensors = checkpoint.model;
            weights::place(tensors, path, model.layout(), &mut params, model.state_layout(), &mut state)
        };
        agree(comm, checkpoint.map_or(Ok(()), load))?;
        if comm.size() > 1 {
            // Piece by piece: none of it is in memory twice.
            for piece in [&mut params, &mut state].into_iter().flat_map(|arena| arena.chunks_mut(SENT)) {
                let mut bytes = if comm.rank() == 0 { bytemuck::cast_slice(piece).to_vec() } else { Vec::new() };
                comm.broadcast(0, &mut bytes);
                bytemuck::cast_slice_mut(piece).copy_from_slice(&bytes);
            }
        }
        Ok(Self { comm, model, params, state, goal, targets: Targets::default(), micro })
    }

    fn evaluation(&mut self) -> Evaluation<'_> {
        Evaluation {
            comm: self.comm,
            model: &mut self.model,
            params: &self.params,
            state: &self.state,
            goal: &self.goal,
            targets: &mut self.targets,
            micro: self.micro,
        }
    }

    /// The outputs for this rank's share of `part`, (samples, outputs); ranks own consecutive samples, in their order.
    ///
    /// # Errors
    /// Samples in files that cannot be read any more; on every rank.
    pub fn outputs(&mut self, data: &Dataset, part: Part) -> Result<Vec<f32>> {
        let mut outputs = Vec::new();
        self.evaluation().for_each_output(data, part, false, |_, y, _, _| outputs.extend(y))?;
        Ok(outputs)
    }

    /// The metrics of the whole of `part`, the same on every rank. Errors: as of [`Predictor::outputs`].
    pub fn evaluate(&mut self, data: &Dataset, part: Part) -> Result<Metrics> {
        self.evaluation().evaluate(data, part)
    }
}

/// What a checkpoint that rank 0 has read knows of its input; every rank gets it. One of an older format knows nothing, and
/// then the data set it was trained on must tell.
///
/// # Errors
/// That data set cannot be read.
pub fn input_of(job: &Job, checkpoint: Option<&Checkpoint>, path: &Path, comm: &dyn Comm) -> Result<Input> {
    let known = checkpoint.and_then(|checkpoint| checkpoint.input.as_ref());
    let mut bytes = known.and_then(|input| postcard::to_stdvec(input).ok()).unwrap_or_default();
    comm.broadcast(0, &mut bytes);
    if !bytes.is_empty() {
        return postcard::from_bytes(&bytes).map_err(|e| Error::internal("/input of a checkpoint", e));
    }
    if comm.rank() == 0 {
        log::warn!(
            "{}: made by an older ddl, it does not hold what its input was; the data set it was trained on is read",
            path.display()
        );
    }
    let local = LocalData::stage(&job.data, comm)?;
    agree(comm, Dataset::open_unread(&local.config, job.seed).map(|data| data.description()))
}
