//! What a short measurement says of the machine: compute of a rank, and the links of the ranks that are there.

use super::forecast::{Compute, SECONDS_PER_SUM_BYTE};
use super::model::{Across, Link};
use super::statistics::Spread;
use crate::comm::{Comm, Host, Solo, agree};
use crate::config::Job;
use crate::data::{Dataset, Part};
use crate::error::Result;
use crate::kernel::sum;
use crate::reduction::Crossing;
use crate::rng;
use crate::train::Trainer;
use crate::train::clock::Phase;
use crate::train::rehearsal::{Rehearsal, Way};
use serde::Serialize;
use std::hint::black_box;
use std::time::{Duration, Instant};

/// How long compute is measured, and about how long each size of a sum.
const COMPUTE: Duration = Duration::from_millis(2000);
const SIZE: Duration = Duration::from_millis(500);
/// The least and the most repeats of a size.
const REPEATS: [usize; 2] = [5, 100];
/// Elements of a short sum.
const SHORT: f64 = 16.0;
/// Elements of two slices that lie in a core's cache, and how often one is added to the other in a row.
const IN_CACHE: usize = 8192;
const ADDITIONS: u32 = 200;
/// Sums between hosts that are measured as one.
const IN_A_ROW: u32 = 4;
/// Links give credit to those that were quiet (token buckets); so many bytes use it up before anything counts.
const CREDIT: f64 = 2e6;

/// The links of a job's ranks.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Links {
    /// Between ranks of one host, where there are several.
    pub inside: Option<Link>,
    /// Between hosts, where there are several.
    pub between: Option<Link>,
    /// Ranks of the fullest host.
    pub ranks_per_host: usize,
    /// γ: seconds for adding one byte's worth of numbers to another, in cache.
    pub seconds_per_sum_byte: f64,
}

/// Trains on this one rank, as all others do at the same time: median steps of a whole batch and of a quarter of it, whose
/// difference is the samples'. The slowest rank's. Collective.
///
/// # Errors
/// The loss diverged.
pub fn compute(job: &Job, data: &Dataset, comm: &dyn Comm) -> Result<Compute> {
    comm.barrier();
    let own = agree(comm, compute_alone(job, data))?;
    // In picoseconds, since ranks agree on whole numbers.
    let slowest = |seconds: f64| comm.max((1e12 * seconds) as i64) as f64 * 1e-12;
    Ok(Compute {
        seconds_per_sample: slowest(own.seconds_per_sample),
        seconds_per_step: slowest(own.seconds_per_step),
        update_seconds: slowest(own.update_seconds),
    })
}

fn compute_alone(job: &Job, data: &Dataset) -> Result<Compute> {
    let mut trainer = Trainer::build(job, data, &Solo)?;
    let samples = data.len(Part::Train);
    let batch = job.train.global_batch(1).min(samples);
    let micro = job.train.micro_batch();
    let few = (batch / 4).next_multiple_of(micro).min(batch);
    let mut order = vec![0u32; samples];
    rng::shuffle(job.seed, 0, &mut order);
    let mut seconds = [Vec::new(), Vec::new()];
    let (mut step, began) = (0, Instant::now());
    // The first steps warm caches up and touch memory.
    while step < 16 || (began.elapsed() < COMPUTE && step < 20_000) {
        for (samples, seconds) in [batch, few].into_iter().zip(&mut seconds) {
            let first = (step * batch) % (order.len() - batch + 1);
            let start = Instant::now();
            trainer.step(data, &order[first..first + samples], 0, step as u64, false)?;
            seconds.push(start.elapsed().as_secs_f64());
            step += 1;
        }
    }
    let update = trainer.clock.take()[Phase::Optimizer as usize] / step as f64;
    let [whole, part] = seconds.map(|mut seconds| Spread::of(seconds.split_off(3)).median);
    let seconds_per_sample = match batch - few {
        0 => (whole - update) / batch as f64,
        more => (whole - part) / more as f64,
    };
    // A negative part would be noise.
    let seconds_per_sample = seconds_per_sample.clamp(0.0, (whole - update).max(0.0) / batch as f64);
    let seconds_per_step = whole - update - seconds_per_sample * batch as f64;
    Ok(Compute { seconds_per_sample, seconds_per_step, update_seconds: update })
}

/// Measures sums of `bytes` between hosts and inside them, `pause` of compute before each of the former. With `shared` false
/// each rank counts as a host. Collective.
///
/// # Errors
/// A host has no memory to share.
pub fn links(comm: &dyn Comm, bytes: f64, pause: Duration, shared: bool) -> Result<Links> {
    let host = agree(comm, comm.host(shared.then_some(0)))?;
    let ranks_per_host = host.members().iter().map(Vec::len).max().unwrap_or(1);
    // First, since what additions take is taken off the sums.
    let gamma = if comm.size() > 1 { additions(comm) } else { SECONDS_PER_SUM_BYTE };
    let between = (host.members().len() > 1).then(|| messages(comm, &*host, bytes, pause, gamma));
    let inside = if ranks_per_host > 1 { Some(memory(comm, bytes, ranks_per_host, gamma)?) } else { None };
    Ok(Links { inside, between, ranks_per_host, seconds_per_sum_byte: gamma })
}

/// Seconds for adding one byte's worth of numbers, as all ranks do at the same time; on rank 0. Collective.
fn additions(comm: &dyn Comm) -> f64 {
    let (mut to, from) = (vec![0f32; IN_CACHE], vec![1f32; IN_CACHE]);
    let seconds = repeated(comm, || {
        let began = Instant::now();
        for _ in 0..ADDITIONS {
            sum::add(black_box(&mut to[..]), black_box(&from[..]));
        }
        began.elapsed().as_secs_f64()
    });
    seconds / (f64::from(ADDITIONS) * 4.0 * IN_CACHE as f64)
}

/// The link by which the model's sums over the hosts that there are take as long as they do: a short one is all latency, one
/// of `bytes` comes after `pause` of compute, as in training. Each lane sums its slice.
fn messages(comm: &dyn Comm, host: &dyn Host, bytes: f64, pause: Duration, gamma: f64) -> Link {
    let measure = |elements: f64, pause: Duration| {
        let mut crossing = Crossing::default();
        let mut slice = vec![0f32; (elements / host.lanes() as f64).ceil() as usize];
        let mut sums = |count: u32| {
            let began = Instant::now();
            for _ in 0..count {
                spin(pause);
                crossing.sum(host, &mut slice);
            }
            began.elapsed().saturating_sub(count * pause).as_secs_f64() / f64::from(count)
        };
        let mut once = || {
            comm.barrier();
            if host.rank() >= host.lanes() {
                return 0.0;
            }
            // In training too hosts only wait for each other's numbers.
            sums(1);
            sums(IN_A_ROW)
        };
        for _ in 0..(CREDIT / (4.0 * elements * f64::from(1 + IN_A_ROW))).ceil().clamp(1.0, 8.0) as usize {
            once();
        }
        let seconds = repeated(comm, once);
        log::info!("a sum of {elements} numbers over hosts takes {:.1} µs", 1e6 * seconds);
        seconds
    };
    let hosts = host.members().len();
    let [few, many] = [(4.0 * SHORT, measure(SHORT, Duration::ZERO)), (bytes, measure(bytes / 4.0, pause))];
    fit((hosts, host.lanes()), few, many, gamma)
}

/// From the bytes and seconds of a short sum over so many hosts and lanes, which is all latency, and of a long one, of which
/// additions take `gamma` seconds a byte.
fn fit((hosts, lanes): (usize, usize), (few, short): (f64, f64), (bytes, long): (f64, f64), gamma: f64) -> Link {
    // The model is linear in both.
    let seconds = |bytes, latency, seconds_per_byte| {
        Across::Allreduce.seconds(hosts, bytes, lanes, Link { latency, seconds_per_byte }, gamma)
    };
    let fixed = seconds(bytes, 0.0, 0.0);
    let [rounds, more] = [few, bytes].map(|bytes| seconds(bytes, 1.0, 0.0) - seconds(bytes, 0.0, 0.0));
    let latency = (short / rounds).min(long / more);
    let rest = long - latency * more - fixed;
    Link { latency, seconds_per_byte: (rest / (seconds(bytes, 0.0, 1.0) - fixed)).max(0.0) }
}

/// Sums in the memory of hosts that have `ranks` ranks: two barriers and the additions.
fn memory(comm: &dyn Comm, bytes: f64, ranks: usize, gamma: f64) -> Result<Link> {
    let measure = |elements: f64| -> Result<f64> {
        let mut rehearsal = Rehearsal::build(comm, Way::Shared, elements as usize, 1)?;
        for _ in 0..3 {
            rehearsal.sum_on_host();
        }
        Ok(repeated(comm, || rehearsal.sum_on_host()))
    };
    let (few, many) = (1024.0, (bytes / 4.0).max(65_536.0));
    let (short, long) = (measure(few)?, measure(many)?);
    Ok(fit_memory(ranks, (4.0 * few, short), (4.0 * many, long), gamma))
}

/// From the bytes and seconds of a short sum in a host's memory and of a long one, of which additions take `gamma` seconds a
/// byte.
fn fit_memory(ranks: usize, (few, short): (f64, f64), (many, long): (f64, f64), gamma: f64) -> Link {
    let slope = ((long - short) / (many - few)).max(0.0);
    let others = (ranks as f64 - 1.0) / ranks as f64;
    Link { latency: (short - slope * few).max(0.0) / 2.0, seconds_per_byte: (slope / others - gamma).max(0.0) }
}

/// The median over repeats of the slowest rank's seconds; on rank 0. As many repeats as fit the time for a size.
fn repeated(comm: &dyn Comm, mut once: impl FnMut() -> f64) -> f64 {
    let began = Instant::now();
    let mut seconds: Vec<f64> = (0..REPEATS[0]).map(|_| once()).collect();
    let each = comm.max(began.elapsed().as_nanos() as i64) as f64 / REPEATS[0] as f64;
    let more = (SIZE.as_nanos() as f64 / each) as usize;
    seconds.extend((REPEATS[0]..more.min(REPEATS[1])).map(|_| once()));
    let (all, repeats) = (comm.gather_f64(&seconds), seconds.len());
    let slowest = |repeat: usize| all.iter().skip(repeat).step_by(repeats).copied().fold(0.0, f64::max);
    Spread::of((0..repeats).map(slowest).collect()).median
}

/// Computes, as far as others can tell.
fn spin(pause: Duration) {
    let began = Instant::now();
    while began.elapsed() < pause {
        std::hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_gives_back_the_sums_it_was_fitted_to() {
        let link = Link { latency: 3e-5, seconds_per_byte: 8e-9 };
        for hosts in [2, 3, 4, 7] {
            let seconds = |bytes| Across::Allreduce.seconds(hosts, bytes, 2, link, SECONDS_PER_SUM_BYTE);
            let found = fit((hosts, 2), (0.0, seconds(0.0)), (4e6, seconds(4e6)), SECONDS_PER_SUM_BYTE);
            assert!((found.latency / link.latency - 1.0).abs() < 1e-9, "{found:?}");
            assert!((found.seconds_per_byte / link.seconds_per_byte - 1.0).abs() < 1e-9, "{found:?}");
        }
        // Noise gives no negative costs.
        let found = fit((2, 1), (0.0, 2.0), (100.0, 1.0), SECONDS_PER_SUM_BYTE);
        assert!((found.latency - 1.0).abs() < 1e-9 && found.seconds_per_byte < 1e-9, "{found:?}");
    }

    /// Additions in the cache are faster than is assumed where nothing is measured: with that number taken off, nothing was
    /// left for the link, and its bandwidth was infinite.
    #[test]
    fn what_additions_take_is_measured_and_the_rest_is_the_links() {
        let (gamma, link) = (2e-11, Link { latency: 1e-6, seconds_per_byte: 5e-11 });
        let seconds = |bytes: f64| 2.0 * link.latency + 0.5 * bytes * (link.seconds_per_byte + gamma);
        let (few, many) = ((4096.0, seconds(4096.0)), (4e6, seconds(4e6)));
        let found = fit_memory(2, few, many, gamma);
        assert!((found.latency / link.latency - 1.0).abs() < 1e-9, "{found:?}");
        assert_eq!(found.to_string(), "1.0 µs and 160.0 Gbit/s");
        assert_eq!(fit_memory(2, few, many, SECONDS_PER_SUM_BYTE).seconds_per_byte, 0.0);
        // What is measured here is a number of seconds.
        let here = additions(&Solo);
        assert!(here > 0.0 && here.is_finite(), "{here}");
    }

    #[test]
    fn one_rank_has_compute_and_no_links() {
        assert_eq!(
            links(&Solo, 1e6, Duration::ZERO, true).unwrap(),
            Links { inside: None, between: None, ranks_per_host: 1, seconds_per_sum_byte: SECONDS_PER_SUM_BYTE }
        );
    }
}
