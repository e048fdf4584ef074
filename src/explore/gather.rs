//! What ranks found, brought to rank 0 in the order of ranks.

use crate::comm::{Comm, agree};
use crate::error::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};

/// Longer messages are cut: MPI counts bytes in 31 bits.
const PIECE: usize = 1 << 28;

/// All ranks' items, rank by rank, on rank 0; the others get none. Collective.
pub(super) fn gathered<T: Serialize + DeserializeOwned>(comm: &dyn Comm, items: Vec<T>) -> Result<Vec<T>> {
    if comm.size() == 1 {
        return Ok(items);
    }
    let failed = |e| Error::internal("what ranks found", e);
    let bytes = agree(comm, postcard::to_stdvec(&items).map_err(failed))?;
    let rounds = comm.max(bytes.len().div_ceil(PIECE) as i64);
    let mut of_ranks = vec![Vec::new(); comm.size()];
    for round in 0..rounds as usize {
        let piece = &bytes[bytes.len().min(round * PIECE)..bytes.len().min((round + 1) * PIECE)];
        for (all, piece) in of_ranks.iter_mut().zip(comm.gather_bytes(piece)) {
            all.extend(piece);
        }
    }
    let mut all = Vec::new();
    let mut read = || {
        for bytes in of_ranks.iter().filter(|_| comm.rank() == 0) {
            all.extend(postcard::from_bytes::<Vec<T>>(bytes).map_err(failed)?);
        }
        Ok(())
    };
    agree(comm, read())?;
    Ok(all)
}

/// Rank 0's value on every rank. Collective.
pub(super) fn shared<T: Serialize + DeserializeOwned>(comm: &dyn Comm, value: T) -> Result<T> {
    let failed = |e| Error::internal("what rank 0 found", e);
    let mut bytes = agree(comm, postcard::to_stdvec(&value).map_err(failed))?;
    comm.broadcast(0, &mut bytes);
    agree(comm, postcard::from_bytes(&bytes).map_err(failed))
}
