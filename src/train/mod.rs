//! Training: from a job to results on disk. [`step`] is the life of one mini-batch.

mod answers;
pub mod clock;
mod deadline;
mod destination;
mod environment;
mod epoch;
pub mod evaluate;
mod folder;
mod local;
mod micro_batch;
mod mixing;
mod noise;
pub mod precision;
mod predictor;
mod progress;
pub mod rehearsal;
mod replica;
mod sentinel;
mod session;
pub mod signal;
mod stage;
pub mod step;
pub mod terminal;
mod together;
mod trainer;

pub use micro_batch::{MicroBatch, settled};
pub use noise::Noise;
pub use predictor::{Predictor, input_of};
pub use progress::{Position, load_weights, read_on_root};
pub use session::{COMMIT, Options, forecast_table, train};
pub use stage::LocalData;
pub use trainer::{Trainer, share};
