//! Hosts under MPI: windows that ranks share, and communicators across hosts.

use crate::comm::barrier::{self, Barrier};
use crate::comm::{Atomics, Host, Shared};
use crate::error::{Error, Result};
use crate::shard::own;
use mpi::collective::SystemOperation;
use mpi::ffi;
use mpi::topology::{Color, SimpleCommunicator};
use mpi::traits::*;
use rustix::process::{Resource, getrlimit};
use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr::{NonNull, null_mut};

/// All messages of a lane go under one tag: they arrive in order.
const TAG: c_int = 0;
/// Elements start at multiples of this within a window.
const CACHE_LINE: usize = 64;

/// The ranks of one host (or this rank alone, where the job wants MPI between all), and the lane across hosts.
pub(super) struct MpiHost {
    node: SimpleCommunicator,
    lane: Option<SimpleCommunicator>,
    members: Vec<Vec<usize>>,
    index: usize,
    lanes: usize,
    barrier: Option<Barrier>,
    message: usize,
    in_place: *const c_void,
    /// Messages of the lane under way; its capacity is kept.
    messages: RefCell<Vec<ffi::MPI_Request>>,
}

impl MpiHost {
    /// Collective over `world`, which sends messages of up to `message` bytes. With `shared` false each rank counts as a host.
    pub(super) fn split(
        world: &SimpleCommunicator,
        message: usize,
        in_place: *const c_void,
        shared: bool,
    ) -> Result<Self> {
        let rank = world.rank();
        let node = match shared {
            true => world.split_shared(rank),
            false => world
                .split_by_color_with_key(Color::with_value(rank), 0)
                .ok_or_else(|| Error::internal("MPI", "a communicator could not be split"))?,
        };
        // A host goes by the lowest rank on it.
        let mut leader = rank;
        node.process_at_rank(0).broadcast_into(&mut leader);
        let mut leaders = vec![0i32; world.size() as usize];
        world.all_gather_into(&leader, &mut leaders[..]);
        let mut hosts = leaders.clone();
        hosts.sort_unstable();
        hosts.dedup();
        let members: Vec<Vec<usize>> =
            hosts.iter().map(|host| (0..leaders.len()).filter(|&r| leaders[r] == *host).collect()).collect();
        let index = hosts.binary_search(&leader).unwrap_or(0);
        let lanes = members.iter().map(Vec::len).min().unwrap_or(1);
        let color = if (node.rank() as usize) < lanes { Color::with_value(node.rank()) } else { Color::undefined() };
        let lane = world.split_by_color_with_key(color, index as i32);
        Ok(Self { node, lane, members, index, lanes, barrier: None, message, in_place, messages: RefCell::default() })
    }

    /// Ready to share memory.
    pub(super) fn with_barrier(mut self) -> Result<Self> {
        if self.size() > 1 {
            let numbers = self.window(Atomics::elements(barrier::NUMBERS) * size_of::<u32>())?.cast();
            self.barrier = Some(Barrier::new(Atomics::within(numbers), self.size()));
            self.node.barrier();
        }
        Ok(self)
    }

    /// Why this host cannot give `bytes` of shared memory, if so. Asked before, since an MPI library that fails to make a
    /// window may leave the other ranks waiting.
    pub(super) fn cannot_share(&self, bytes: usize) -> Option<String> {
        if self.size() == 1 {
            return None;
        }
        if let Some(limit) = getrlimit(Resource::Fsize).current.filter(|limit| *limit < bytes as u64) {
            return Some(format!("files may have {limit} bytes (ulimit -f), {bytes} are needed"));
        }
        let shm = rustix::fs::statvfs("/dev/shm").ok()?;
        let space = Some(shm.f_bavail * shm.f_frsize).filter(|space| *space < bytes as u64)?;
        Some(format!("/dev/shm has {space} bytes left, {bytes} are needed; enlarge it (docker run --shm-size)"))
    }

    /// A window of `len` bytes, all at the host's first rank.
    fn window(&self, len: usize) -> Result<Shared<u8>> {
        let bytes = len + CACHE_LINE;
        let (refused, mut worst) = (self.cannot_share(bytes), 0);
        self.node.all_reduce_into(&i32::from(refused.is_some()), &mut worst, SystemOperation::max());
        if worst > 0 {
            let what = refused.unwrap_or_else(|| "another rank of the host cannot share memory".into());
            return Err(Error::io(
                std::path::Path::new("shared memory"),
                what,
                "or set distributed.exchange to \"mpi\"",
            ));
        }
        let (mut base, mut there) = (null_mut::<c_void>(), null_mut::<c_void>());
        // SAFETY: plain handles; the out-pointers are live for the calls. With ERRORS_RETURN a failure comes back.
        let (window, code) = unsafe {
            let mut window: ffi::MPI_Win = ffi::RSMPI_WIN_NULL;
            let own = if self.node.rank() == 0 { bytes } else { 0 };
            ffi::MPI_Comm_set_errhandler(self.node.as_raw(), ffi::RSMPI_ERRORS_RETURN);
            let base = (&raw mut base).cast();
            let mut code = ffi::MPI_Win_allocate_shared(
                own as ffi::MPI_Aint,
                1,
                ffi::RSMPI_INFO_NULL,
                self.node.as_raw(),
                base,
                &mut window,
            );
            if code == 0 {
                let (mut size, mut unit) = (0 as ffi::MPI_Aint, 0 as c_int);
                code = ffi::MPI_Win_shared_query(window, 0, &mut size, &mut unit, (&raw mut there).cast());
            }
            ffi::MPI_Comm_set_errhandler(self.node.as_raw(), ffi::RSMPI_ERRORS_ARE_FATAL);
            (window, code)
        };
        // Mapped at a multiple of a page plus the same offset everywhere, so all ranks round up alike.
        let data = there.map_addr(|address| address.next_multiple_of(CACHE_LINE));
        let (0, Some(data)) = (code, NonNull::new(data.cast::<u8>())) else {
            let what = format!("{bytes} bytes of shared memory were refused");
            return Err(Error::io(
                std::path::Path::new("/dev/shm"),
                what,
                "free or enlarge it, or set distributed.exchange to \"mpi\"",
            ));
        };
        // Each rank touches its part first, so that the pages lie in its own memory.
        let part = own(len, self.rank(), self.size());
        // SAFETY: within the window; the ranks' parts are disjoint, and all wait below.
        unsafe { std::ptr::write_bytes(data.as_ptr().add(part.start), 0, part.len()) };
        self.node.barrier();
        // SAFETY: the window holds `len` bytes from the rounded address.
        Ok(unsafe { Shared::new(data, len, Box::new(Window(window))) })
    }
}

/// Frees a window; collective, as its making was.
struct Window(ffi::MPI_Win);

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: the handle came from MPI_Win_allocate_shared and is freed once.
        unsafe { ffi::MPI_Win_free(&mut self.0) };
    }
}

impl Host for MpiHost {
    fn rank(&self) -> usize {
        self.node.rank() as usize
    }

    fn size(&self) -> usize {
        self.node.size() as usize
    }

    fn index(&self) -> usize {
        self.index
    }

    fn members(&self) -> &[Vec<usize>] {
        &self.members
    }

    fn share_bytes(&self, len: usize) -> Result<Shared<u8>> {
        let shared = if self.size() > 1 { self.window(len)? } else { Shared::private(len) };
        self.barrier();
        Ok(shared)
    }

    fn barrier(&self) {
        if let Some(barrier) = &self.barrier {
            barrier.wait();
        }
    }

    fn lanes(&self) -> usize {
        self.lanes
    }

    fn message(&self) -> usize {
        self.message
    }

    fn sum_lane(&self, values: &mut [f32]) {
        let Some(lane) = &self.lane else { return };
        let (data, count) = (values.as_mut_ptr().cast(), values.len() as c_int);
        // SAFETY: a slice of f32 is MPI_FLOATs; errors abort the job.
        unsafe { ffi::MPI_Allreduce(self.in_place, data, count, ffi::RSMPI_FLOAT, ffi::RSMPI_SUM, lane.as_raw()) };
    }

    unsafe fn send(&self, to: usize, bytes: *const u8, len: usize) {
        let Some(lane) = &self.lane else { return };
        // SAFETY: the caller's contract; a request handle is plain data.
        self.messages.borrow_mut().push(unsafe {
            let mut request: ffi::MPI_Request = std::mem::zeroed();
            let (to, bytes) = (to as c_int, bytes.cast());
            ffi::MPI_Isend(bytes, len as c_int, ffi::RSMPI_UINT8_T, to, TAG, lane.as_raw(), &mut request);
            request
        });
    }

    unsafe fn receive(&self, from: usize, bytes: *mut u8, len: usize) {
        let Some(lane) = &self.lane else { return };
        // SAFETY: as above.
        self.messages.borrow_mut().push(unsafe {
            let mut request: ffi::MPI_Request = std::mem::zeroed();
            let (from, bytes) = (from as c_int, bytes.cast());
            ffi::MPI_Irecv(bytes, len as c_int, ffi::RSMPI_UINT8_T, from, TAG, lane.as_raw(), &mut request);
            request
        });
    }

    fn started(&self) -> usize {
        self.messages.borrow().len()
    }

    fn finish(&self, messages: Range<usize>) {
        let requests = &mut self.messages.borrow_mut()[messages];
        // SAFETY: the handles come from MPI_Isend and MPI_Irecv, or are null after an earlier wait.
        unsafe { ffi::MPI_Waitall(requests.len() as c_int, requests.as_mut_ptr(), ffi::RSMPI_STATUSES_IGNORE) };
    }

    fn finish_all(&self) {
        self.finish(0..self.started());
        self.messages.borrow_mut().clear();
    }
}
