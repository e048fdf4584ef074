//! Everything that is kept on disk: the run file, checkpoints, weights from and to elsewhere, predictions.
//! The only place that names `hdf5::`. It knows the base (error, arena), and neither layers nor data nor MPI.
//!
//! Whatever replaces an older file is written beside it and renamed, so that a file is whole or absent. Runs and
//! checkpoints begin with a seal, a checksum of all bytes, which HDF5's readers skip.

mod answers;
mod atomic;
pub mod checkpoint;
mod hdf;
mod image;
mod input;
pub mod inspect;
mod journal;
mod lock;
pub mod predictions;
pub mod prepared;
pub mod probe;
mod progress;
pub mod rows;
pub mod run;
mod safetensors;
mod seal;
mod summary;
pub mod table;
mod verify;
pub mod weights;

pub use answers::{Answers, ClassFigures, Forecast, SeriesError};
pub use atomic::{make_folder, sync_folder};
pub use checkpoint::Checkpoint;
pub use lock::{FolderLock, protect, remove_abandoned};
pub use progress::{Best, EpochSums, Progress};
pub use run::{RunFile, RunInfo, StepRow};
pub use summary::{RunSummary, read_run};
pub use verify::{Verified, files_in, is_checkpoint, verify};

/// A named tensor in torch's shape and row-major order.
#[derive(Debug, Clone, PartialEq)]
pub struct Tensor {
    /// As in a `torch.nn.Sequential`'s state dict: `0.weight`, `3.layers.0.bias`.
    pub key: String,
    /// As in torch; empty for a scalar.
    pub shape: Vec<usize>,
    /// Row-major.
    pub data: Vec<f32>,
}

/// Replaces a file by `bytes`: it is whole or as it was.
///
/// # Errors
/// `Io` when its folder cannot be written to.
pub fn write_file(path: &std::path::Path, bytes: &[u8]) -> crate::error::Result<()> {
    atomic::write(path, bytes)
}

/// The HDF5 library in use: `1.10.8`.
pub fn hdf5_version() -> String {
    let (major, minor, patch) = hdf5::library_version();
    format!("{major}.{minor}.{patch}")
}

/// Orders keys by layer number, then by name: `2.weight` before `10.bias`.
fn key_order(key: &str) -> (Vec<(u64, &str)>, &str) {
    let (layer, name) = key.rsplit_once('.').unwrap_or(("", key));
    (layer.split('.').map(|part| (part.parse().unwrap_or(u64::MAX), part)).collect(), name)
}

/// `(10, 3, 5, 5)`; `()` for a scalar.
fn shape_text(shape: &[usize]) -> String {
    let dims: Vec<String> = shape.iter().map(usize::to_string).collect();
    format!("({})", dims.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_number_then_name() {
        let mut keys = ["10.bias", "2.weight", "3.layers.10.a", "3.layers.9.a", "2.bias", "x.bias", "scalar"];
        keys.sort_by(|a, b| key_order(a).cmp(&key_order(b)));
        assert_eq!(keys, ["2.bias", "2.weight", "3.layers.9.a", "3.layers.10.a", "10.bias", "scalar", "x.bias"]);
    }
}
