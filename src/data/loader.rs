//! From an epoch's order and a rank's share of it to batches. Samples in memory are only numbered; those that stay in their files
//! are read some batches ahead, by a thread of their own, into buffers that are used again and again.

use super::sample::kept::{Aligned, Unread};
use super::{Dataset, Part};
use crate::error::{Error, Result};
use crate::resource::memory;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

/// About so many bytes are read ahead.
const AHEAD_BYTES: usize = 1 << 25;

/// But at least and at most so many batches.
const AHEAD: (usize, usize) = (2, 16);

/// Samples to be filled in, with their bytes, one after the other, where they are not in memory.
#[derive(Clone, Copy)]
pub struct Picked<'a> {
    /// Their numbers.
    pub samples: &'a [u32],
    /// Whole samples.
    pub bytes: Option<&'a [u8]>,
}

impl<'a, S: AsRef<[u32]> + ?Sized> From<&'a S> for Picked<'a> {
    fn from(samples: &'a S) -> Self {
        Self { samples: samples.as_ref(), bytes: None }
    }
}

/// A batch of all ranks, with what this rank needs of it.
#[derive(Clone, Copy)]
pub struct Batch<'a> {
    /// Its samples, in order.
    pub samples: &'a [u32],
    held: Option<Held<'a>>,
}

/// The bytes of samples that are not in memory.
#[derive(Clone, Copy)]
struct Held<'a> {
    /// Where in the batch the first one stands, and how many follow one another from there.
    first: usize,
    own: usize,
    /// Bytes of one.
    size: usize,
    /// Those, and then what they are mixed with.
    bytes: &'a [u8],
}

impl<'a, S: AsRef<[u32]> + ?Sized> From<&'a S> for Batch<'a> {
    fn from(samples: &'a S) -> Self {
        Self { samples: samples.as_ref(), held: None }
    }
}

impl<'a> Batch<'a> {
    /// A range of the batch. Panics if the samples are not in memory and this rank did not ask for them.
    pub fn pick(&self, range: Range<usize>) -> Picked<'a> {
        let bytes = |held: Held<'a>| &held.bytes[(range.start - held.first) * held.size..][..range.len() * held.size];
        Picked { bytes: self.held.map(bytes), samples: &self.samples[range.clone()] }
    }

    /// What the samples from `first` on are mixed with. Panics likewise.
    pub fn pick_others<'o>(&'o self, first: usize, others: &'o [u32]) -> Picked<'o> {
        let bytes =
            |held: Held<'a>| &held.bytes[(held.own + first - held.first) * held.size..][..others.len() * held.size];
        Picked { bytes: self.held.map(bytes), samples: others }
    }
}

/// What a rank needs of a batch.
#[derive(Default)]
pub struct Needed {
    first: usize,
    own: usize,
    /// Numbers; then, once they are looked up, places in the file.
    samples: Vec<u32>,
}

impl Needed {
    /// A range of the batch's `samples`.
    pub fn own(&mut self, range: Range<usize>, samples: &[u32]) {
        (self.first, self.own) = (range.start, range.len());
        self.samples.extend(&samples[range]);
    }

    /// What they are mixed with, as many.
    pub fn others(&mut self, others: &[u32]) {
        self.samples.extend(others);
    }
}

/// Tells what a rank needs: of a batch's number, counted from 0, and its samples.
pub type Need<'a> = Box<dyn FnMut(u64, &[u32], &mut Needed) + 'a>;

/// Batches of one part, in order.
pub struct Loader<'a> {
    order: &'a [u32],
    batch: usize,
    /// Samples handed out.
    at: usize,
    ahead: Option<Ahead<'a>>,
}

impl<'a> Loader<'a> {
    /// Batches of `batch` samples (the last one may have fewer) of `order`; `need` tells which of them this rank fills in, at
    /// most `most` a batch. Reading begins at once.
    pub fn new(
        data: &'a Dataset,
        part: Part,
        (order, batch): (&'a [u32], usize),
        most: usize,
        need: impl FnMut(u64, &[u32], &mut Needed) + 'a,
    ) -> Self {
        let unread = data.unread(part).filter(|_| !order.is_empty());
        let ahead = unread.map(|unread| {
            let mut ahead = Ahead::start(data, part, unread, most, Box::new(need));
            ahead.ask(order, batch);
            ahead
        });
        Self { order, batch, at: 0, ahead }
    }

    /// Whether samples are read as they are needed, so that [`Loader::next`] may fail on one rank and not on others.
    pub fn streams(&self) -> bool {
        self.ahead.is_some()
    }

    /// The next batch; None at the end. After an error there is nothing more to be had.
    #[allow(clippy::should_implement_trait)]
    pub fn next(&mut self) -> Option<Result<Batch<'_>>> {
        if self.at >= self.order.len() {
            return None;
        }
        let last = self.order.len().min(self.at + self.batch);
        let samples = &self.order[self.at..last];
        self.at = last;
        let held = self.ahead.as_mut().map(|ahead| ahead.next(self.order, self.batch)).transpose();
        Some(held.map(|held| Batch { samples, held }))
    }
}

/// A buffer on its way: asked for, read, used, asked for again.
struct Slot {
    needed: Needed,
    bytes: Aligned,
    read: Result<()>,
}

impl Slot {
    fn read(&mut self, unread: &Unread, stop: &AtomicBool) -> Result<()> {
        let (size, places) = (unread.size, &self.needed.samples);
        if self.bytes.len() < places.len() * size {
            self.bytes = Aligned::new(places.len() * size)?;
        }
        let mut bytes = self.bytes.bytes_mut();
        for places in runs(places) {
            let now;
            (now, bytes) = bytes.split_at_mut(places.len() * size);
            if !stop.load(Ordering::Relaxed) {
                unread.take(places, now)?;
            }
        }
        Ok(())
    }
}

/// Consecutive places as ranges.
fn runs(places: &[u32]) -> impl Iterator<Item = Range<usize>> {
    let runs = places.chunk_by(|before, after| before.checked_add(1) == Some(*after));
    runs.map(|run| run[0] as usize..run[0] as usize + run.len())
}

/// A rank's reading ahead.
struct Ahead<'a> {
    data: &'a Dataset,
    part: Part,
    size: usize,
    need: Need<'a>,
    /// Samples of the order that are asked for, and how many batches they are.
    asked: usize,
    number: u64,
    /// Slots that wait for a batch to read.
    spare: Vec<Slot>,
    /// The one in use.
    current: Option<Slot>,
    requests: Arc<Queue>,
    done: Arc<Queue>,
    stop: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
    /// Why nothing can be read.
    failed: Option<Error>,
}

impl<'a> Ahead<'a> {
    fn start(data: &'a Dataset, part: Part, unread: &Arc<Unread>, most: usize, need: Need<'a>) -> Self {
        let bytes = most * unread.size;
        let slots = 1 + (AHEAD_BYTES / bytes.max(1)).clamp(AHEAD.0, AHEAD.1);
        let [requests, done] = [(); 2].map(|()| Arc::new(Queue::new(slots)));
        let (stop, unread) = (Arc::new(AtomicBool::new(false)), unread.clone());
        let size = unread.size;
        let place = "reading samples ahead of training";
        let room = memory::ask((slots * bytes) as f64).map_err(|e| {
            let what = format!("{slots} times what a rank needs of a batch: {e}");
            Error::data(place, what, "use a smaller train.batch_size, or more ranks on other hosts")
        });
        let stopped = stop.clone();
        let reader = room.and_then(|()| {
            let (incoming, outgoing) = (requests.clone(), Closing(done.clone()));
            let reader = Builder::new().name("samples".into());
            let reader = reader.spawn(move || read_ahead(&unread, &incoming, &outgoing.0, &stopped, slots));
            reader.map_err(|e| Error::data(place, format!("no thread can be started: {e}"), "allow more threads"))
        });
        let (reader, failed) = match reader {
            Ok(reader) => (Some(reader), None),
            Err(error) => (None, Some(error)),
        };
        let mut spare = Vec::with_capacity(slots);
        spare.extend((0..slots).map(|_| Slot {
            needed: Needed { samples: Vec::with_capacity(most), ..Needed::default() },
            bytes: Aligned::default(),
            read: Ok(()),
        }));
        Self { data, part, size, need, asked: 0, number: 0, spare, current: None, requests, done, stop, reader, failed }
    }

    /// Asks for as many batches as there is room for.
    fn ask(&mut self, order: &[u32], batch: usize) {
        while self.asked < order.len()
            && let Some(mut slot) = self.spare.pop()
        {
            let last = order.len().min(self.asked + batch);
            slot.needed.samples.clear();
            (self.need)(self.number, &order[self.asked..last], &mut slot.needed);
            slot.needed.samples.iter_mut().for_each(|sample| *sample = self.data.place(self.part, *sample).1 as u32);
            (self.asked, self.number) = (last, self.number + 1);
            self.requests.push(slot);
        }
    }

    /// Waits for the next batch, the one before it being done with.
    fn next(&mut self, order: &[u32], batch: usize) -> Result<Held<'_>> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        self.spare.extend(self.current.take());
        self.ask(order, batch);
        let gone = || Error::internal("reading samples ahead of training", "its thread is gone");
        let slot = self.done.pop().ok_or_else(gone)?;
        let slot = self.current.insert(slot);
        slot.read.clone()?;
        Ok(Held { first: slot.needed.first, own: slot.needed.own, size: self.size, bytes: &slot.bytes })
    }
}

impl Drop for Ahead<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.requests.close();
        if let Some(reader) = self.reader.take() {
            // Had it panicked, its answers would have been missed before.
            let _ = reader.join();
        }
    }
}

/// Reads what is asked for, in order. All that waits is announced first.
fn read_ahead(unread: &Unread, requests: &Queue, done: &Queue, stop: &AtomicBool, slots: usize) {
    let mut waiting: VecDeque<Slot> = VecDeque::with_capacity(slots);
    loop {
        let first = if waiting.is_empty() { requests.pop() } else { None };
        for slot in first.into_iter().chain(std::iter::from_fn(|| requests.pop_if_there())) {
            runs(&slot.needed.samples).for_each(|places| (unread.announce)(places));
            waiting.push_back(slot);
        }
        let Some(mut slot) = waiting.pop_front() else { return };
        slot.read = slot.read(unread, stop);
        if stop.load(Ordering::Relaxed) {
            return;
        }
        done.push(slot);
    }
}

/// Slots on their way to another thread. Unlike a channel, whose first wait does, it allocates nothing once it is made.
struct Queue {
    waiting: Mutex<(VecDeque<Slot>, bool)>,
    came: Condvar,
}

impl Queue {
    /// With room for so many.
    fn new(slots: usize) -> Self {
        Self { waiting: Mutex::new((VecDeque::with_capacity(slots), false)), came: Condvar::new() }
    }

    /// The slots, and whether there will be no more.
    fn lock(&self) -> MutexGuard<'_, (VecDeque<Slot>, bool)> {
        // Nothing that panics runs while it is held.
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, slot: Slot) {
        self.lock().0.push_back(slot);
        self.came.notify_one();
    }

    /// Waits for the next one; None once there will be no more.
    fn pop(&self) -> Option<Slot> {
        let mut waiting = self.lock();
        while waiting.0.is_empty() && !waiting.1 {
            waiting = self.came.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.0.pop_front()
    }

    fn pop_if_there(&self) -> Option<Slot> {
        self.lock().0.pop_front()
    }

    /// Says that there will be no more.
    fn close(&self) {
        self.lock().1 = true;
        self.came.notify_one();
    }
}

/// Closes a queue when its thread ends, however it does.
struct Closing(Arc<Queue>);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}
