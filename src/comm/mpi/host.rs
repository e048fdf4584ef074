//! Hosts under MPI: windows that ranks share, and communicators across hosts.

use crate::comm::barrier::{self, Barrier};
use crate::comm::segment::{Kind, Mapping, Segment};
use crate::comm::watch::waiting;
use crate::comm::{Atomics, Host, Shared};
use crate::error::{Error, Result};
use crate::resource::memory;
use crate::shard::own;
use mpi::collective::SystemOperation;
use mpi::ffi;
use mpi::topology::{Color, SimpleCommunicator};
use mpi::traits::*;
use rustix::process::{Resource, getrlimit};
use std::cell::RefCell;
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr::NonNull;

/// All messages of a lane go under one tag: they arrive in order.
const TAG: c_int = 0;
/// What a rank reserves begins at multiples of this.
const PAGE: usize = 4096;

/// The ranks of one host (or this rank alone, where the job wants MPI between all), and the lane across hosts.
pub(super) struct MpiHost {
    node: SimpleCommunicator,
    lane: Option<SimpleCommunicator>,
    members: Vec<Vec<usize>>,
    index: usize,
    lanes: usize,
    barrier: Option<Barrier>,
    /// What windows are made of.
    kind: Kind,
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
        let _waiting = waiting();
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
        let (barrier, kind, messages) = (None, Kind::Nameless, RefCell::default());
        Ok(Self { node, lane, members, index, lanes, barrier, kind, message, in_place, messages })
    }

    /// Makes ready to share memory.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn with_barrier(&mut self) -> Result<()> {
        if self.size() == 1 {
            return Ok(());
        }
        let numbers = self.open_window(Atomics::elements(barrier::NUMBERS) * size_of::<u32>())?;
        self.barrier = Some(Barrier::new(Atomics::within(numbers.cast()), self.size()));
        self.node.barrier();
        Ok(())
    }

    /// The first window, of the first kind that all ranks of the host can open.
    ///
    /// # Errors
    /// There is none.
    pub(super) fn open_window(&mut self, len: usize) -> Result<Shared<u8>> {
        self.window(len).or_else(|_| {
            self.kind = Kind::Named;
            self.window(len)
        })
    }

    /// Why this host cannot give `bytes` of shared memory, if so. Asked before, since a system that has no memory left ends
    /// processes.
    pub(super) fn cannot_share(&self, bytes: usize) -> Option<String> {
        if self.size() == 1 {
            return None;
        }
        if let Some(limit) = getrlimit(Resource::Fsize).current.filter(|limit| *limit < bytes as u64) {
            return Some(format!("files may have {limit} bytes (ulimit -f), {bytes} are needed"));
        }
        if let Some(free) = memory::available().filter(|free| *free < bytes as u64) {
            return Some(format!("{free} bytes of memory are free here, {bytes} are needed"));
        }
        let shm = rustix::fs::statvfs("/dev/shm").ok().filter(|_| self.kind == Kind::Named)?;
        let space = Some(shm.f_bavail * shm.f_frsize).filter(|space| *space < bytes as u64)?;
        Some(format!("/dev/shm has {space} bytes left, {bytes} are needed; enlarge it (docker run --shm-size)"))
    }

    /// Whether all ranks of the host have succeeded; otherwise why this one has not, or another.
    fn all<T, E: std::fmt::Display>(&self, result: std::result::Result<T, E>) -> std::result::Result<T, String> {
        let _waiting = waiting();
        let mut worst = 0;
        self.node.all_reduce_into(&i32::from(result.is_err()), &mut worst, SystemOperation::max());
        match result {
            Ok(value) if worst == 0 => Ok(value),
            Ok(_) => Err("another rank of the host cannot share memory".into()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// A window of `len` bytes.
    fn window(&self, len: usize) -> Result<Shared<u8>> {
        let failed = |what: String| {
            let mend = "start fewer ranks, free memory, or set distributed.exchange to \"mpi\"";
            Error::io(std::path::Path::new("shared memory"), what, mend)
        };
        let refused = self.cannot_share(len);
        self.all(refused.map_or(Ok(()), Err)).map_err(failed)?;
        let (mapping, start) = self.segment(len).map_err(failed)?;
        // Each rank touches its part first: its own page tables know it, and before it was reserved the pages were near.
        let part = own(len, self.rank(), self.size());
        // SAFETY: within the window; the ranks' parts are disjoint, and all wait below.
        unsafe { std::ptr::write_bytes(start.as_ptr().add(part.start), 0, part.len()) };
        let _waiting = waiting();
        self.node.barrier();
        // SAFETY: the window holds `len` bytes, at the start of a page.
        Ok(unsafe { Shared::new(start, len, Box::new(mapping)) })
    }

    /// Memory that the host's first rank makes and all of them map, each of which has reserved a part.
    fn segment(&self, len: usize) -> std::result::Result<(Mapping, NonNull<u8>), String> {
        let first = self.rank() == 0;
        let made = if first { Some(Segment::create(self.kind, len.max(1))) } else { None };
        let place = made.as_ref().and_then(|made| made.as_ref().ok()).map(|(_, place)| place.clone());
        let mut text = place.as_ref().and_then(|place| serde_json::to_vec(place).ok()).unwrap_or_default();
        let mut bytes = text.len() as u64;
        {
            let _waiting = waiting();
            self.node.process_at_rank(0).broadcast_into(&mut bytes);
            text.resize(bytes as usize, 0);
            self.node.process_at_rank(0).broadcast_into(&mut text[..]);
        }
        let opened = match made {
            Some(made) => made.map(|(segment, _)| segment).map_err(|e| e.to_string()),
            None => serde_json::from_slice(&text)
                .map_err(|_| "the host's first rank could not make it".to_owned())
                .and_then(|place| Segment::open(&place).map_err(|e| format!("it cannot be opened: {e}"))),
        };
        let opened = self.all(opened);
        if let Some(place) = place {
            place.forget();
        }
        let segment = opened?;
        let pages = own(len.div_ceil(PAGE), self.rank(), self.size());
        let part = pages.start * PAGE..(pages.end * PAGE).min(len);
        self.all(segment.reserve(part).map_err(|e| format!("{len} bytes were refused: {e}")))?;
        let mapping = self.all(segment.map())?;
        let start = mapping.start;
        Ok((mapping, start))
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
        let _waiting = waiting();
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
        let _waiting = waiting();
        let requests = &mut self.messages.borrow_mut()[messages];
        // SAFETY: the handles come from MPI_Isend and MPI_Irecv, or are null after an earlier wait.
        unsafe { ffi::MPI_Waitall(requests.len() as c_int, requests.as_mut_ptr(), ffi::RSMPI_STATUSES_IGNORE) };
    }

    fn finish_all(&self) {
        self.finish(0..self.started());
        self.messages.borrow_mut().clear();
    }
}
