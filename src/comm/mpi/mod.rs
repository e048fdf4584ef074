//! Ranks under MPI. The only room that names the MPI crate.

mod host;

use super::host::{MESSAGE, MESSAGE_INSIDE};
use super::watch::{self, Watch, waiting};
use super::{Comm, Host, Launcher, Shared, residue};
use crate::error::{Error, Result};
use crate::resource::host_name;
use mpi::collective::SystemOperation;
use mpi::environment::Universe;
use mpi::ffi;
use mpi::topology::SimpleCommunicator;
use mpi::traits::*;
use std::cell::RefCell;
use std::ffi::c_void;

/// Chunks of at most this many elements, since MPI counts in i32.
const CHUNK: usize = 1 << 28;
/// Bytes of a process's number and its host's name.
const PLACE: usize = 68;

/// `MPI_IN_PLACE`, which the bindings leave out: Open MPI has (void*) 1, MPICH (void*) -1.
fn in_place() -> *const c_void {
    let open_mpi = mpi::environment::library_version().is_ok_and(|version| version.starts_with("Open MPI"));
    std::ptr::without_provenance(if open_mpi { 1 } else { usize::MAX })
}

/// MPI_COMM_WORLD.
pub(super) struct Mpi {
    world: SimpleCommunicator,
    /// Bytes of a message, at most.
    message: usize,
    in_place: *const c_void,
    /// Sums under way; its capacity is kept.
    requests: RefCell<Vec<ffi::MPI_Request>>,
    // Dropped last: finalises.
    _universe: Universe,
}

impl Mpi {
    /// Initialises MPI. A panic of any rank from here on aborts the job instead of leaving the others waiting.
    pub(super) fn start(launcher: &Launcher) -> Result<Self> {
        let Some((universe, _)) = mpi::initialize_with_threading(mpi::Threading::Funneled) else {
            return Err(Error::internal("MPI", "MPI was initialised twice"));
        };
        let world = universe.world();
        let default_hook = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |info| {
            default_hook(info);
            // SAFETY: MPI is initialised; MPI_Abort may be called at any time after that.
            unsafe { ffi::MPI_Abort(ffi::RSMPI_COMM_WORLD, 70) };
        }));
        let size = world.size() as usize;
        if let Some(expected) = launcher.size
            && expected != size
        {
            let what = format!(
                "{} started {expected} processes, but this program's MPI library sees {size}: it was built for another MPI",
                launcher.name
            );
            return Err(Error::usage(
                "MPI",
                what,
                "build and start with the same MPI (see `mpicc --version`, `which mpirun`)",
            ));
        }
        let mut node = host::MpiHost::split(&world, MESSAGE, in_place(), true)?;
        if node.rank() == 0 {
            residue::remove();
        }
        let apart = node.size() < size;
        let message = if apart { MESSAGE } else { MESSAGE_INSIDE };
        if size > 1 {
            watch(&world, &mut node)?;
        }
        Ok(Self {
            world,
            message,
            in_place: in_place(),
            requests: RefCell::new(Vec::with_capacity(64)),
            _universe: universe,
        })
    }

    /// In-place sum of `len` elements of an MPI type.
    ///
    /// # Safety
    /// `data` points to `len` elements of that type.
    unsafe fn sum(&self, data: *mut c_void, len: usize, element: usize, datatype: ffi::MPI_Datatype) {
        let _waiting = waiting();
        for start in (0..len).step_by(CHUNK) {
            let count = CHUNK.min(len - start) as i32;
            // SAFETY: within the caller's buffer; errors abort the job (MPI's default handler).
            unsafe {
                let at = data.byte_add(start * element);
                ffi::MPI_Allreduce(self.in_place, at, count, datatype, ffi::RSMPI_SUM, self.world.as_raw());
            }
        }
    }
}

/// Watches this rank from now on. Where ranks of a host cannot share memory, each counts as a host of its own. Collective.
fn watch(world: &SimpleCommunicator, node: &mut host::MpiHost) -> Result<()> {
    let mut mine = [0u8; PLACE];
    mine[..4].copy_from_slice(&std::process::id().to_le_bytes());
    mine[4..].iter_mut().zip(host_name().bytes()).for_each(|(to, byte)| *to = byte);
    let mut all = vec![0u8; PLACE * world.size() as usize];
    world.all_gather_into(&mine[..], &mut all[..]);
    let place = |bytes: &[u8]| {
        let (process, name) = bytes.split_at(4);
        let name = String::from_utf8_lossy(name).trim_end_matches('\0').to_owned();
        (name, process.try_into().map_or(0, u32::from_le_bytes))
    };
    let places = all.chunks_exact(PLACE).map(place).collect();
    let (memory, here, me) = match node.open_window(watch::bytes(node.size())) {
        Ok(memory) => (memory, node.members()[node.index()].clone(), node.rank()),
        Err(_) => (Shared::private(watch::bytes(1)), vec![world.rank() as usize], 0),
    };
    Watch { places, here, me }.start(memory);
    Ok(())
}

impl Drop for Mpi {
    fn drop(&mut self) {
        // MPI ends when all ranks have come to its end.
        std::mem::forget(waiting());
    }
}

impl Comm for Mpi {
    fn rank(&self) -> usize {
        self.world.rank() as usize
    }

    fn size(&self) -> usize {
        self.world.size() as usize
    }

    fn sum_f32(&self, values: &mut [f32]) {
        // SAFETY: a slice of f32 is MPI_FLOATs.
        unsafe { self.sum(values.as_mut_ptr().cast(), values.len(), 4, ffi::RSMPI_FLOAT) }
    }

    fn sum_f64(&self, values: &mut [f64]) {
        // SAFETY: a slice of f64 is MPI_DOUBLEs.
        unsafe { self.sum(values.as_mut_ptr().cast(), values.len(), 8, ffi::RSMPI_DOUBLE) }
    }

    fn max(&self, value: i64) -> i64 {
        let _waiting = waiting();
        let mut largest = value;
        self.world.all_reduce_into(&value, &mut largest, SystemOperation::max());
        largest
    }

    fn gather_f64(&self, values: &[f64]) -> Vec<f64> {
        let _waiting = waiting();
        let root = self.world.process_at_rank(0);
        if self.rank() > 0 {
            root.gather_into(values);
            return Vec::new();
        }
        let mut all = vec![0.0; values.len() * self.size()];
        root.gather_into_root(values, &mut all[..]);
        all
    }

    fn gather_bytes(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        let _waiting = waiting();
        // Point to point in rank order: only used outside the training loop.
        let mut all = Vec::new();
        if self.rank() > 0 {
            self.world.process_at_rank(0).send(bytes);
            return all;
        }
        all.push(bytes.to_vec());
        for rank in 1..self.size() {
            all.push(self.world.process_at_rank(rank as i32).receive_vec::<u8>().0);
        }
        all
    }

    fn broadcast(&self, root: usize, bytes: &mut Vec<u8>) {
        let _waiting = waiting();
        let process = self.world.process_at_rank(root as i32);
        let mut len = bytes.len() as u64;
        process.broadcast_into(&mut len);
        bytes.resize(len as usize, 0);
        for chunk in bytes.chunks_mut(CHUNK) {
            process.broadcast_into(chunk);
        }
    }

    fn barrier(&self) {
        let _waiting = waiting();
        self.world.barrier();
    }

    fn host(&self, bytes: Option<usize>) -> Result<Box<dyn Host>> {
        let mut host = host::MpiHost::split(&self.world, self.message, self.in_place, bytes.is_some())?;
        let refused = match host.with_barrier() {
            Ok(()) => bytes.and_then(|bytes| host.cannot_share(bytes * host.size())),
            Err(error) => Some(error.to_string()),
        };
        if self.max(i64::from(refused.is_some())) == 0 {
            return Ok(Box::new(host));
        }
        if let (Some(why), 0) = (refused, host.rank()) {
            log::warn!("ranks do not share memory but send messages, which is slower: {why}");
        }
        Ok(Box::new(host::MpiHost::split(&self.world, self.message, self.in_place, false)?))
    }

    fn library(&self) -> String {
        let version = mpi::environment::library_version().unwrap_or_default();
        version.lines().next().unwrap_or_default().split(", package").next().unwrap_or_default().trim().to_owned()
    }

    unsafe fn start_sum(&self, data: *mut f32, len: usize) {
        let mut requests = self.requests.borrow_mut();
        // Each rank's share of a piece is one message.
        let most = self.size() * (self.message / size_of::<f32>());
        for start in (0..len).step_by(most) {
            // SAFETY: the caller keeps the buffer for us until `finish_sums`; a request handle is plain data.
            unsafe {
                let mut request: ffi::MPI_Request = std::mem::zeroed();
                ffi::MPI_Iallreduce(
                    self.in_place,
                    data.add(start).cast(),
                    most.min(len - start) as i32,
                    ffi::RSMPI_FLOAT,
                    ffi::RSMPI_SUM,
                    self.world.as_raw(),
                    &mut request,
                );
                requests.push(request);
            }
        }
    }

    fn finish_sums(&self) {
        let _waiting = waiting();
        let mut requests = self.requests.borrow_mut();
        // SAFETY: the handles come from MPI_Iallreduce.
        unsafe { ffi::MPI_Waitall(requests.len() as i32, requests.as_mut_ptr(), ffi::RSMPI_STATUSES_IGNORE) };
        requests.clear();
    }
}
