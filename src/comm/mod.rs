//! What ranks say to each other. [`mpi`] is the only file that names the MPI crate; [`solo`] is a job of one rank.

mod accord;
mod barrier;
mod host;
mod launcher;
mod mpi;
mod residue;
mod segment;
mod shared;
mod solo;
pub mod watch;

pub use accord::accord;
pub use host::{Alone, Host, MESSAGE};
pub use launcher::{Family, Launcher, launched, version};
pub use shared::{Atomics, Shared};
pub use solo::Solo;
pub use watch::Phase;

use crate::error::{Error, Result};

/// A group of ranks. All ranks call each collective, in the same order.
pub trait Comm {
    /// This process's number, from 0.
    fn rank(&self) -> usize;
    /// How many processes there are.
    fn size(&self) -> usize;
    /// Sums element by element over ranks, in place.
    fn sum_f32(&self, values: &mut [f32]);
    /// Sums element by element over ranks, in place.
    fn sum_f64(&self, values: &mut [f64]);
    /// The largest over ranks.
    fn max(&self, value: i64) -> i64;
    /// Rank 0 gets every rank's `values` (all of one length), rank by rank; the others get nothing.
    fn gather_f64(&self, values: &[f64]) -> Vec<f64>;
    /// Rank 0 gets every rank's bytes (of any length), rank by rank; the others get nothing.
    fn gather_bytes(&self, bytes: &[u8]) -> Vec<Vec<u8>>;
    /// Everybody gets `root`'s bytes.
    fn broadcast(&self, root: usize, bytes: &mut Vec<u8>);
    /// Waits for all.
    fn barrier(&self);
    /// The ranks that share this host's memory, of which they will ask for about `bytes` a rank. With None each rank counts
    /// as a host of its own, and also, with a warning, where some host cannot give so much.
    ///
    /// # Errors
    /// A host refuses memory; on all its ranks.
    fn host(&self, bytes: Option<usize>) -> Result<Box<dyn Host>>;
    /// Which MPI runs, for the record.
    fn library(&self) -> String;
    /// Starts a sum over ranks in place.
    ///
    /// # Safety
    /// `data` must stay valid, and untouched by anyone else, until [`Comm::finish_sums`] has returned.
    unsafe fn start_sum(&self, data: *mut f32, len: usize);
    /// Waits for all sums started.
    fn finish_sums(&self);
}

/// Runs `work` with a sink for finished stretches of a gradient; each is summed over ranks while `work` goes on, and all
/// are summed when this returns.
pub fn overlapped<'g, R>(comm: &dyn Comm, work: impl FnOnce(&mut dyn FnMut(&'g mut [f32])) -> R) -> R {
    struct Finish<'c>(&'c dyn Comm);
    impl Drop for Finish<'_> {
        fn drop(&mut self) {
            self.0.finish_sums();
        }
    }
    let _finish = Finish(comm);
    work(&mut |slice: &'g mut [f32]| {
        // SAFETY: the slice is given up for 'g, which outlives this call, and `finish` waits before it returns.
        unsafe { comm.start_sum(slice.as_mut_ptr(), slice.len()) }
    })
}

/// The same result on every rank: all values, or the error of the lowest rank that has one.
pub fn agree<T>(comm: &dyn Comm, result: Result<T>) -> Result<T> {
    let size = comm.size() as i64;
    // The lowest failing rank has the largest number; 0 says none.
    let mine = if result.is_err() { size - comm.rank() as i64 } else { 0 };
    let worst = comm.max(mine);
    if worst == 0 {
        return result;
    }
    let root = (size - worst) as usize;
    let mut bytes = match &result {
        Err(error) if comm.rank() == root => serde_json::to_vec(error).unwrap_or_default(),
        _ => Vec::new(),
    };
    comm.broadcast(root, &mut bytes);
    match result {
        Err(error) if comm.rank() == root => Err(error),
        _ => Err(serde_json::from_slice(&bytes).unwrap_or_else(|e| Error::internal(format!("rank {root}"), e))),
    }
}

/// Everybody gets rank 0's result of `work`, which the others do not run.
pub fn on_root(comm: &dyn Comm, work: impl FnOnce() -> Result<()>) -> Result<()> {
    agree(comm, if comm.rank() == 0 { work() } else { Ok(()) })
}

/// The ranks of this job: under a launcher MPI's, alone one.
///
/// # Errors
/// The launcher started processes that are no job, or it and the MPI library disagree on the number of ranks.
pub fn connect() -> Result<Box<dyn Comm>> {
    let launcher = launched();
    if let Some(trouble) = launcher.as_ref().and_then(Launcher::trouble) {
        return Err(trouble);
    }
    match launcher {
        Some(launcher) => Ok(Box::new(self::mpi::Mpi::start(&launcher)?)),
        None => Ok(Box::new(Solo)),
    }
}
