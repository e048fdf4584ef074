//! Who waits for whom. Each rank notes what it is at where the ranks of its host can read it, and a thread of each looks on:
//! a wait that takes long is told, with who is waited for, and may be ended.

use super::Shared;
use std::io::Write;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// What a rank can be busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Gathering and normalising samples.
    Data,
    /// The layers forward, and the loss.
    Forward,
    /// The layers backward.
    Backward,
    /// Sums over ranks, waiting for the slowest included.
    Communication,
    /// The update; where blocks are updated as they are summed, estimated from some of them.
    Optimizer,
    /// Writing checkpoints.
    Checkpoint,
    /// Metrics on the test part.
    Evaluation,
}

impl Phase {
    /// All phases with their names in `/timing`.
    pub const ALL: [(Phase, &'static str); 7] = [
        (Phase::Data, "data"),
        (Phase::Forward, "forward"),
        (Phase::Backward, "backward"),
        (Phase::Communication, "communication"),
        (Phase::Optimizer, "optimizer"),
        (Phase::Checkpoint, "checkpoint"),
        (Phase::Evaluation, "evaluation"),
    ];
}

/// How often the thread looks.
const TICK: Duration = Duration::from_millis(500);
/// A process whose thread has not looked for so long does not run.
const LIFELESS: Duration = Duration::from_secs(4);
/// Ranks that do not speak end so much later, so that the one that does has spoken.
const LAST_WORDS: Duration = Duration::from_secs(2);
/// So many ranks are named.
const NAMED: usize = 8;

static REPORT: AtomicU64 = AtomicU64::new(10);
static TIMEOUT: AtomicU64 = AtomicU64::new(0);
static RESUMABLE: AtomicBool = AtomicBool::new(false);

/// What a rank is at, on a cache line of its own.
#[derive(Debug)]
#[repr(C, align(64))]
struct Record {
    process: AtomicU64,
    /// 0 for nothing that has a name, 1 for start-up, then phases.
    doing: AtomicU64,
    /// The step under way, or the last one; from 1.
    step: AtomicU64,
    /// How often it has begun or ended to wait: odd while it waits.
    turns: AtomicU64,
    /// How often its thread has looked.
    looks: AtomicU64,
    /// In the first record of a host: its last word is said, and the job ends.
    said: AtomicBool,
}

impl Record {
    const fn new() -> Self {
        let [process, doing, step, turns, looks] = [const { AtomicU64::new(0) }; 5];
        Self { process, doing, step, turns, looks, said: AtomicBool::new(false) }
    }
}

/// Bytes of the records of `ranks` ranks.
pub(super) const fn bytes(ranks: usize) -> usize {
    ranks * size_of::<Record>()
}

/// The record of a process that nobody watches.
static UNWATCHED: Record = Record::new();
static MINE: OnceLock<&'static Record> = OnceLock::new();

fn mine() -> &'static Record {
    MINE.get().copied().unwrap_or(&UNWATCHED)
}

/// After how many seconds of a wait it is told who is waited for, and after how many the job ends; 0: never.
pub fn configure(report: u64, timeout: u64) {
    REPORT.store(report, Relaxed);
    TIMEOUT.store(timeout, Relaxed);
}

/// From now on there is a checkpoint to go on from.
pub fn resumable() {
    RESUMABLE.store(true, Relaxed);
}

/// This rank starts a run.
pub fn starting() {
    mine().doing.store(1, Relaxed);
}

/// This rank is in a phase from now on, or in none.
pub fn enter(phase: Option<Phase>) {
    mine().doing.store(phase.map_or(0, |phase| 2 + phase as u64), Relaxed);
}

/// The step under way, or the last one; from 1.
pub fn step(step: u64) {
    mine().step.store(step, Relaxed);
}

/// While it lives this rank waits for others.
pub(super) struct Waiting {
    outermost: bool,
}

pub(super) fn waiting() -> Waiting {
    let turns = &mine().turns;
    let before = turns.load(Relaxed);
    let outermost = !is_wait(before);
    if outermost {
        turns.store(before.wrapping_add(1), Relaxed);
    }
    Waiting { outermost }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.outermost {
            let turns = &mine().turns;
            turns.store(turns.load(Relaxed).wrapping_add(1), Relaxed);
        }
    }
}

const fn is_wait(turns: u64) -> bool {
    turns % 2 == 1
}

/// The ranks of a job, seen from one of them.
pub(super) struct Watch {
    /// Of each rank its host and its process.
    pub places: Vec<(String, u32)>,
    /// The ranks of this host.
    pub here: Vec<usize>,
    /// Which of those is this one.
    pub me: usize,
}

impl Watch {
    /// Watches this rank from now on, in `memory` of [`bytes`] that the host's ranks share and give to nothing else.
    pub fn start(self, mut memory: Shared<u8>) {
        let len = self.here.len();
        assert!(memory.len() >= bytes(len));
        // SAFETY: all ranks of the host use this memory as these atomic numbers only; zeros are such numbers. It starts at
        // a page, and is never freed.
        let records: &'static [Record] = unsafe {
            let start = memory.part_mut(0..bytes(len)).as_mut_ptr().cast();
            std::slice::from_raw_parts(start, len)
        };
        std::mem::forget(memory);
        records[self.me].process.store(u64::from(std::process::id()), Relaxed);
        let _ = MINE.set(&records[self.me]);
        // Signals are the main thread's.
        // SAFETY: zeros are a valid set of signals, which the calls overwrite.
        let before = unsafe {
            let [mut all, mut before]: [libc::sigset_t; 2] = std::mem::zeroed();
            libc::sigfillset(&mut all);
            libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
            before
        };
        let thread = std::thread::Builder::new().name("ddl-watch".into()).stack_size(256 << 10);
        if let Err(error) = thread.spawn(move || self.watch(records)) {
            log::info!("nobody tells who is waited for: {error}");
        }
        // SAFETY: the set from above.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &before, std::ptr::null_mut()) };
    }

    fn watch(self, records: &'static [Record]) {
        let mine = &records[self.me];
        // For how long each has not looked.
        let mut still = vec![(0, Duration::ZERO); records.len()];
        let (mut wait, mut waited, mut told, mut doubted) = (0, Duration::ZERO, 0, false);
        loop {
            let began = Instant::now();
            std::thread::sleep(TICK);
            // Time in which this process was stopped itself, perhaps with all others, is no wait.
            let passed = began.elapsed().min(2 * TICK);
            mine.looks.fetch_add(1, Relaxed);
            for (record, still) in records.iter().zip(&mut still) {
                let looks = record.looks.load(Relaxed);
                *still = if looks == still.0 { (looks, still.1 + passed) } else { (looks, Duration::ZERO) };
            }
            let turns = mine.turns.load(Relaxed);
            if !is_wait(turns) || turns != wait {
                (wait, waited, told, doubted) = (turns, Duration::ZERO, 0, false);
                continue;
            }
            waited += passed;
            let seconds = waited.as_secs();
            let (report, timeout) = (REPORT.load(Relaxed), TIMEOUT.load(Relaxed));
            let over = timeout > 0 && seconds >= timeout;
            if !over && (report == 0 || seconds < report.saturating_mul(1 << told)) {
                continue;
            }
            let looks: Vec<Look> =
                records.iter().zip(&still).map(|(record, still)| Look::at(record, still.1)).collect();
            let missing = self.missing(&looks);
            // It may have come at this very moment.
            if missing.is_empty() && !std::mem::replace(&mut doubted, true) {
                continue;
            }
            let speaks = looks.iter().position(Look::waits) == Some(self.me);
            let whom = self.sentence(seconds, &missing);
            let resumable = RESUMABLE.load(Relaxed);
            match (over, speaks) {
                (false, true) => say(&format!("warning: {whom}\n")),
                // A rank that spoke may be dead by now, and another the first to wait.
                (true, true) if !records[0].said.swap(true, Relaxed) => {
                    let mend = if resumable { "run again with --resume" } else { "see what holds it, and start again" };
                    say(&format!("error: {whom}, and distributed.timeout_seconds is {timeout}; {mend}\n"));
                }
                (true, _) if seconds < timeout + LAST_WORDS.as_secs() => continue,
                _ => {}
            }
            if over {
                // SAFETY: ends the process at once, whatever its other thread is in.
                unsafe { libc::_exit(if resumable { 75 } else { 70 }) };
            }
            (told, doubted) = ((told + 1).min(40), false);
        }
    }

    /// The ranks of this host that are waited for, and if there are none those of others, each with what is known of it.
    fn missing(&self, looks: &[Look]) -> Vec<String> {
        let missing = self.here.iter().zip(looks).filter(|(_, look)| !look.waits());
        let mut named: Vec<String> = missing.map(|(rank, look)| format!("rank {rank} ({})", look.text())).collect();
        if named.is_empty() {
            let others = (0..self.places.len()).filter(|rank| !self.here.contains(rank));
            named.extend(others.map(|rank| {
                let (host, process) = &self.places[rank];
                format!("rank {rank} (process {process} on {host})")
            }));
        }
        if named.len() > NAMED {
            let more = named.len() - NAMED;
            named.truncate(NAMED);
            named.push(format!("{more} more"));
        }
        named
    }

    fn sentence(&self, seconds: u64, missing: &[String]) -> String {
        let host = &self.places[self.here[self.me]].0;
        let whom = if missing.is_empty() { "each other".to_owned() } else { missing.join(", ") };
        format!("ranks on {host} have waited {seconds} s for {whom}")
    }
}

/// What one sees of a rank of the same host.
struct Look {
    process: u64,
    doing: u64,
    step: u64,
    has_come: bool,
    runs: bool,
    state: &'static str,
}

impl Look {
    fn at(record: &Record, still: Duration) -> Self {
        let process = record.process.load(Relaxed);
        let (stands, state) = state(process);
        Self {
            process,
            doing: record.doing.load(Relaxed),
            step: record.step.load(Relaxed),
            has_come: is_wait(record.turns.load(Relaxed)),
            runs: !stands && still < LIFELESS,
            state,
        }
    }

    /// A process that does not run may stand still in a wait that is over.
    fn waits(&self) -> bool {
        self.has_come && self.runs
    }

    fn text(&self) -> String {
        let step = self.step;
        let doing = match (self.doing.checked_sub(2).and_then(|phase| Phase::ALL.get(phase as usize)), step) {
            (Some((Phase::Checkpoint | Phase::Evaluation, name)), _) => format!("; in {name} after step {step}"),
            (Some((_, name)), _) => format!("; in {name} of step {step}"),
            (None, _) if self.doing == 1 => "; in start-up".into(),
            (None, 0) => String::new(),
            (None, _) => format!("; after step {step}"),
        };
        format!("process {}, {}{doing}", self.process, self.state)
    }
}

fn say(line: &str) {
    let _ = std::io::stderr().write_all(line.as_bytes());
}

/// Whether a process stands still for good, and what it is at, as the system sees it.
fn state(process: u64) -> (bool, &'static str) {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    match stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next()) {
        Some('T' | 't') => (true, "stopped; kill -CONT lets it go on"),
        Some('D') => (false, "waiting for a disk"),
        Some('Z' | 'X') => (true, "dead"),
        Some('R') => (false, "at work"),
        Some(_) => (false, "asleep"),
        // Gone, or in another container.
        None => (false, "not to be seen"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(doing: u64, step: u64, has_come: bool, runs: bool) -> Look {
        Look { process: 7, doing, step, has_come, runs, state: "at work" }
    }

    fn watch(ranks: usize, here: std::ops::Range<usize>) -> Watch {
        let places = (0..ranks).map(|rank| (format!("h{}", rank / 3), 100 + rank as u32)).collect();
        Watch { places, here: here.collect(), me: 0 }
    }

    #[test]
    fn phases_lie_where_their_number_says() {
        for (index, (phase, _)) in Phase::ALL.iter().enumerate() {
            assert_eq!(*phase as usize, index);
        }
    }

    #[test]
    fn who_has_not_come_or_does_not_run_is_named_with_what_it_is_at() {
        let watch = watch(6, 3..6);
        let forward = 2 + Phase::Forward as u64;
        let (waits, works) = (look(0, 4, true, true), look(forward, 4, false, true));
        let stands = look(2 + Phase::Checkpoint as u64, 3, true, false);
        assert_eq!(
            watch.sentence(10, &watch.missing(&[waits, works, stands])),
            "ranks on h1 have waited 10 s for rank 4 (process 7, at work; in forward of step 4), \
             rank 5 (process 7, at work; in checkpoint after step 3)"
        );
        for (doing, step, text) in
            [(1, 0, "; in start-up"), (0, 0, ""), (0, 9, "; after step 9"), (99, 9, "; after step 9")]
        {
            assert_eq!(look(doing, step, false, true).text(), format!("process 7, at work{text}"));
        }
    }

    #[test]
    fn where_a_whole_host_waits_others_are_named_but_not_without_end() {
        let all = |ranks| (0..ranks).map(|_| look(0, 1, true, true)).collect::<Vec<_>>();
        let few = watch(5, 0..3);
        let named = few.missing(&all(3));
        assert_eq!(named, ["rank 3 (process 103 on h1)", "rank 4 (process 104 on h1)"]);
        let many = watch(30, 0..3).missing(&all(3));
        assert_eq!((many.len(), many[NAMED].as_str()), (NAMED + 1, "19 more"));
        let alone = watch(3, 0..3);
        assert_eq!(alone.sentence(20, &alone.missing(&all(3))), "ranks on h0 have waited 20 s for each other");
    }
}
