//! A cost model of data-parallel training: seconds of compute for the slowest rank, then one sum of the gradient over
//! ranks at a latency α and a time β for each byte.
//!
//! The costs of MPI's sums are those of Thakur, Rabenseifner and Gropp, "Optimization of Collective Communication
//! Operations in MPICH", Int. J. High Performance Computing Applications 19(1), 2005, with γ for adding two bytes. What
//! is left out: overlap of sums with the backward pass, reading data, contention in the network beyond each host's own link,
//! and links that hold more than ddl has under way.

use crate::comm::MESSAGE;
use serde::Serialize;

/// What a message between two ranks costs: `latency + bytes * seconds_per_byte`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Link {
    /// α, seconds.
    pub latency: f64,
    /// β, seconds a byte.
    pub seconds_per_byte: f64,
}

impl Link {
    /// From microseconds and Gbit/s.
    pub fn new(latency_us: f64, bandwidth_gbit: f64) -> Self {
        Self { latency: latency_us * 1e-6, seconds_per_byte: 8e-9 / bandwidth_gbit }
    }
}

/// Beyond so many Gbit/s bytes take no time that a probe can tell from noise and additions.
const NO_BOUND_GBIT: f64 = 1e5;

impl std::fmt::Display for Link {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:.1} µs and ", 1e6 * self.latency)?;
        match 8e-9 / self.seconds_per_byte {
            gbit if gbit < NO_BOUND_GBIT => write!(f, "{gbit:.1} Gbit/s"),
            _ => write!(f, "a bandwidth too high to be measured"),
        }
    }
}

/// Hosts of several ranks each, joined by a network of one link a host.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Cluster {
    /// Between ranks of one host.
    pub inside: Link,
    /// Between hosts; all ranks of a host share it.
    pub between: Link,
    /// Ranks on each host.
    pub ranks_per_host: usize,
    /// γ, seconds for adding one byte's worth of numbers to another.
    pub seconds_per_sum_byte: f64,
}

/// How a gradient is summed over ranks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// A ring through all ranks: reduce-scatter, then all-gather.
    Ring,
    /// Recursive doubling: whole gradients between partners at distance 1, 2, 4, ...
    Tree,
    /// What ddl does: a host's ranks each add up a slice in memory they share, then exchange it with the other hosts.
    Hierarchical,
}

/// What hosts exchange in [`Algorithm::Hierarchical`]: `distributed.reduction`, `wire` and `average_every`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Across {
    /// Parts of slices to their owners and back; MPI_Allreduce of what one message carries, taken to be recursive doubling.
    Allreduce,
    /// Such parts always, of `share` of a gradient's bytes: reproducible sums, and bf16 in half of it.
    Parts {
        /// 1 for f32.
        share: f64,
    },
    /// Every so many steps all of `copies` arenas of the gradient's size.
    Average {
        /// Steps from one to the next.
        every: f64,
        /// Weights and moments.
        copies: f64,
    },
}

impl Algorithm {
    /// All of them.
    pub const ALL: [Algorithm; 3] = [Algorithm::Ring, Algorithm::Tree, Algorithm::Hierarchical];
}

impl std::fmt::Display for Algorithm {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.serialize(f)
    }
}

/// Ring: `2 (p−1) α + 2 (p−1)/p n β + (p−1)/p n γ` for `p` ranks and `n` bytes.
pub fn ring(ranks: usize, bytes: f64, link: Link, gamma: f64) -> f64 {
    let (p, others) = (ranks as f64, ranks as f64 - 1.0);
    2.0 * others * link.latency + others / p * bytes * (2.0 * link.seconds_per_byte + gamma)
}

/// Recursive doubling: `⌈lg p⌉ (α + n β + n γ)`; with `p` no power of two two more messages, to fold the rest in and back.
pub fn recursive_doubling(ranks: usize, bytes: f64, link: Link, gamma: f64) -> f64 {
    let exchange = link.latency + bytes * link.seconds_per_byte;
    let folded = if ranks.is_power_of_two() { 0.0 } else { 2.0 * exchange + bytes * gamma };
    f64::from(ranks.max(1).ilog2()) * (exchange + bytes * gamma) + folded
}

/// Gradients added up in shared memory: the barriers, which are the latency, and `(p−1)/p n (β + γ)`. The sum is
/// not gathered: whoever has summed a block updates the one copy of the weights.
pub fn shared_memory(ranks: usize, bytes: f64, link: Link, gamma: f64) -> f64 {
    let (p, others) = (ranks as f64, ranks as f64 - 1.0);
    let barriers = if ranks > 1 { BARRIERS } else { 0.0 };
    barriers * link.latency + others / p * bytes * (link.seconds_per_byte + gamma)
}

/// Barriers of a host's ranks in a step; two more where there are several hosts.
pub const BARRIERS: f64 = 3.0;
/// What rides behind the gradient, in bytes; alone between averages.
const RIDERS: f64 = 64.0;

/// What a message costs a rank beside its latency and its bytes, about.
const SECONDS_PER_MESSAGE: f64 = 1e-6;

/// What ddl does between hosts, `lanes` ranks of each at once: parts of pieces to their owners, and sums from them to all, in
/// short messages ([`MESSAGE`]) of which so many are under way that two latencies are seen: `2 α + 2 (p−1)/p n β + (p−1)/p n γ`.
fn direct(hosts: usize, bytes: f64, lanes: usize, link: Link, gamma: f64) -> f64 {
    if hosts == 1 {
        return 0.0;
    }
    let (p, others) = (hosts as f64, hosts as f64 - 1.0);
    let messages = 2.0 * others * (bytes / (lanes * hosts * MESSAGE) as f64).ceil();
    2.0 * link.latency + messages * SECONDS_PER_MESSAGE + others / p * bytes * (2.0 * link.seconds_per_byte + gamma)
}

/// What one message of each lane carries is left to MPI: recursive doubling. Where it folds ranks in, one of the two more
/// messages comes while others are busy with their next step.
fn short(hosts: usize, bytes: f64, link: Link, gamma: f64) -> f64 {
    let hidden = if hosts.is_power_of_two() { 0.0 } else { link.latency + bytes * link.seconds_per_byte };
    recursive_doubling(hosts, bytes, link, gamma) - hidden
}

impl Across {
    /// Seconds a step between `hosts` hosts, `lanes` ranks of each at once.
    pub fn seconds(self, hosts: usize, bytes: f64, lanes: usize, link: Link, gamma: f64) -> f64 {
        match self {
            Self::Allreduce if bytes <= (lanes * MESSAGE) as f64 => short(hosts, bytes, link, gamma),
            Self::Allreduce => direct(hosts, bytes, lanes, link, gamma),
            Self::Parts { share } => direct(hosts, share * bytes, lanes, link, gamma),
            Self::Average { every, copies } => {
                let whole = Self::Allreduce.seconds(hosts, bytes, lanes, link, gamma);
                copies / every * whole + short(hosts, RIDERS, link, gamma)
            }
        }
    }
}

impl Cluster {
    /// Hosts that `ranks` ranks fill.
    pub fn hosts(&self, ranks: usize) -> usize {
        ranks.div_ceil(self.ranks_per_host.max(1))
    }

    /// Ranks on the fullest host.
    fn local(&self, ranks: usize) -> usize {
        ranks.min(self.ranks_per_host.max(1))
    }

    /// Seconds of one sum of `bytes` over `ranks` ranks.
    pub fn sum_seconds(&self, algorithm: Algorithm, ranks: usize, bytes: f64, across: Across) -> f64 {
        let (hosts, gamma) = (self.hosts(ranks), self.seconds_per_sum_byte);
        let local = self.local(ranks);
        if ranks <= 1 {
            return 0.0;
        }
        match algorithm {
            // In order of hosts, one message at a time enters and leaves each: the slowest link sets the pace.
            Algorithm::Ring => ring(ranks, bytes, if hosts > 1 { self.between } else { self.inside }, gamma),
            // In the far rounds all ranks of a host send whole gradients at once through its link.
            Algorithm::Tree => {
                let seconds_per_byte = self.between.seconds_per_byte * local as f64;
                recursive_doubling(local, bytes, self.inside, gamma)
                    + recursive_doubling(hosts, bytes, Link { seconds_per_byte, ..self.between }, gamma)
            }
            // Each of the local ranks sums its share of the gradient between hosts: together as many bytes as one whole.
            Algorithm::Hierarchical => {
                shared_memory(local, bytes, self.inside, gamma)
                    + across.seconds(hosts, bytes, local, self.between, gamma)
            }
        }
    }
}

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Load {
    /// Compute of one rank for one training sample.
    pub seconds_per_sample: f64,
    /// Compute of every rank in every step, however few its samples: packing weights.
    pub seconds_per_step: f64,
    /// The update, which the ranks of a host share.
    pub update_seconds: f64,
    /// What hosts exchange.
    pub across: Across,
    /// Bytes of a gradient.
    pub gradient_bytes: f64,
    /// Samples of an epoch.
    pub samples: usize,
    /// Samples of a batch on one rank.
    pub batch: usize,
    /// Samples of a micro-batch.
    pub micro_batch: usize,
    /// Whether the batch grows with the ranks.
    pub weak: bool,
}

impl Load {
    /// Samples of a batch, and of the slowest rank's part. None where a rank would have no sample. Where there are fewer
    /// micro-batches than ranks, they are taken to be made smaller.
    fn shares(&self, ranks: usize) -> Option<(usize, usize)> {
        if self.weak {
            return Some((self.batch * ranks, self.batch));
        }
        let parts = self.batch.div_ceil(self.micro_batch);
        match ranks {
            _ if ranks <= parts => Some((self.batch, (parts.div_ceil(ranks) * self.micro_batch).min(self.batch))),
            _ if ranks <= self.batch => Some((self.batch, self.batch.div_ceil(ranks))),
            _ => None,
        }
    }

    /// Seconds that the slowest of `ranks` ranks computes in a step, the update left out. None as for its samples.
    pub fn compute_seconds(&self, ranks: usize) -> Option<f64> {
        let (_, largest) = self.shares(ranks)?;
        Some(largest as f64 * self.seconds_per_sample + self.seconds_per_step)
    }

    /// Whether `ranks` ranks need smaller micro-batches than the job has.
    pub fn needs_smaller_micro_batch(&self, ranks: usize) -> bool {
        !self.weak && ranks > self.batch.div_ceil(self.micro_batch)
    }
}

/// What the model says for one way of summing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Forecast {
    /// How gradients are summed.
    pub algorithm: Algorithm,
    /// Seconds of the sum in a step.
    pub sum_seconds: f64,
    /// Seconds of a step.
    pub step_seconds: f64,
    /// Seconds of an epoch.
    pub epoch_seconds: f64,
    /// Samples a second against one rank's.
    pub speedup: f64,
    /// Speedup a rank.
    pub efficiency: f64,
}

/// What the model says for a number of ranks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// How many ranks.
    pub ranks: usize,
    /// On how many hosts.
    pub hosts: usize,
    /// Compute of the slowest rank in a step.
    pub compute_seconds: f64,
    /// Whether train.micro_batch must be lowered for so many ranks.
    pub smaller_micro_batch: bool,
    /// For each [`Algorithm`].
    pub by_algorithm: [Forecast; 3],
}

impl Prediction {
    /// Under one way of summing.
    pub fn by(&self, algorithm: Algorithm) -> &Forecast {
        self.by_algorithm.iter().find(|forecast| forecast.algorithm == algorithm).unwrap_or(&self.by_algorithm[0])
    }

    /// The fastest way of summing.
    pub fn best(&self) -> &Forecast {
        let faster = |a: &&Forecast, b: &&Forecast| a.epoch_seconds.total_cmp(&b.epoch_seconds);
        self.by_algorithm.iter().min_by(faster).unwrap_or(&self.by_algorithm[0])
    }
}

/// The model's word on `ranks` ranks; None where a batch has fewer samples than there are ranks.
pub fn predict(load: &Load, cluster: &Cluster, ranks: usize) -> Option<Prediction> {
    let (batch, _) = load.shares(ranks)?;
    let compute_seconds = load.compute_seconds(ranks)? + load.update_seconds / cluster.local(ranks) as f64;
    let alone = load.seconds_per_sample + (load.seconds_per_step + load.update_seconds) / load.batch as f64;
    let by_algorithm = Algorithm::ALL.map(|algorithm| {
        let sum_seconds = cluster.sum_seconds(algorithm, ranks, load.gradient_bytes, load.across);
        let step_seconds = compute_seconds + sum_seconds;
        let seconds_a_sample = step_seconds / batch as f64;
        let speedup = alone / seconds_a_sample;
        Forecast {
            algorithm,
            sum_seconds,
            step_seconds,
            epoch_seconds: seconds_a_sample * load.samples as f64,
            speedup,
            efficiency: speedup / ranks as f64,
        }
    });
    let smaller_micro_batch = load.needs_smaller_micro_batch(ranks);
    Some(Prediction { ranks, hosts: cluster.hosts(ranks), compute_seconds, smaller_micro_batch, by_algorithm })
}

/// 1, 2, 4, ... 65,536 ranks, as far as the batch goes.
pub fn predictions(load: &Load, cluster: &Cluster) -> Vec<Prediction> {
    (0..=16).filter_map(|power| predict(load, cluster, 1 << power)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINK: Link = Link { latency: 1.0, seconds_per_byte: 0.01 };
    const CLUSTER: Cluster = Cluster { inside: LINK, between: LINK, ranks_per_host: 4, seconds_per_sum_byte: 0.001 };

    fn close(a: f64, b: f64) {
        assert!((a - b).abs() <= 1e-9 * b.abs().max(1.0), "{a} is not {b}");
    }

    #[test]
    fn sums_cost_what_the_paper_says() {
        // p = 4, n = 100: 6 and 2 rounds; 1.5 and 2 gradients sent; 0.75 and 2 added.
        close(ring(4, 100.0, LINK, 0.001), 6.0 + 1.5 + 0.075);
        close(recursive_doubling(4, 100.0, LINK, 0.001), 2.0 * (1.0 + 1.0 + 0.1));
        // One rank says nothing; 5 ranks fold one in and send it the sum.
        for cost in [ring, recursive_doubling] {
            close(cost(1, 100.0, LINK, 0.001), 0.0);
        }
        close(recursive_doubling(5, 100.0, LINK, 0.001), 2.0 * 2.1 + 2.0 * 2.0 + 0.1);
    }

    /// A probe whose bytes take less time than adding them leaves nothing for the link.
    #[test]
    fn links_are_told_in_numbers_that_are_finite() {
        assert_eq!(Link::new(20.0, 10.0).to_string(), "20.0 µs and 10.0 Gbit/s");
        for seconds_per_byte in [0.0, 1e-300] {
            let text = Link { latency: 1e-6, seconds_per_byte }.to_string();
            assert_eq!(text, "1.0 µs and a bandwidth too high to be measured");
        }
    }

    #[test]
    fn hosts_share_their_link() {
        let sum = |cluster: Cluster, algorithm, ranks| cluster.sum_seconds(algorithm, ranks, 100.0, Across::Allreduce);
        for algorithm in Algorithm::ALL {
            close(sum(CLUSTER, algorithm, 1), 0.0);
        }
        // 8 ranks on 2 hosts: 2 rounds inside; one between, whose bytes are fourfold.
        close(sum(CLUSTER, Algorithm::Tree, 8), 4.2 + 1.0 + 4.0 + 0.1);
        // In memory: 3 barriers, three quarters of a gradient loaded and added; then a short sum between 2 hosts.
        close(sum(CLUSTER, Algorithm::Hierarchical, 8), 3.0 + 0.75 + 0.075 + 1.0 + 1.0 + 0.1);
        close(sum(CLUSTER, Algorithm::Ring, 8), ring(8, 100.0, LINK, 0.001));
        let slow = Cluster { between: Link { latency: 10.0, ..LINK }, ..CLUSTER };
        close(sum(slow, Algorithm::Ring, 4), ring(4, 100.0, LINK, 0.001));
        assert!(sum(slow, Algorithm::Ring, 8) > 140.0);
    }

    #[test]
    fn hosts_exchange_what_the_job_says() {
        let seconds = |across: Across, hosts, bytes| across.seconds(hosts, bytes, 2, LINK, 0.0);
        // 4 hosts: two latencies, and 6 messages of a quarter; in bf16 of half that.
        close(seconds(Across::Parts { share: 1.0 }, 4, 100.0), 2.0 + 6e-6 + 1.5);
        close(seconds(Across::Parts { share: 0.5 }, 4, 100.0), 2.0 + 6e-6 + 0.75);
        // Every 8th step 3 arenas, each in 2 rounds, and as many for what rides.
        close(seconds(Across::Average { every: 8.0, copies: 3.0 }, 4, 100.0), 3.0 / 8.0 * 4.0 + 2.0 + 2.0 * 0.64);
        for across in [Across::Allreduce, Across::Parts { share: 0.5 }, Across::Average { every: 2.0, copies: 2.0 }] {
            close(seconds(across, 1, 100.0), 0.0);
            close(seconds(across, 1, 1e9), 0.0);
        }
        // A longer gradient goes in pieces, here 10 of each of 2 lanes, and still sees two latencies.
        let long = (40 * MESSAGE) as f64;
        close(seconds(Across::Allreduce, 2, long), 2.0 + 20e-6 + 0.01 * long);
    }

    fn load(weak: bool) -> Load {
        Load {
            seconds_per_sample: 1.0,
            seconds_per_step: 0.0,
            update_seconds: 0.0,
            across: Across::Allreduce,
            gradient_bytes: 100.0,
            samples: 1000,
            batch: 100,
            micro_batch: 10,
            weak,
        }
    }

    #[test]
    fn strong_scaling_ends_with_the_batch() {
        let free = Cluster {
            inside: Link { latency: 0.0, seconds_per_byte: 0.0 },
            between: Link { latency: 0.0, seconds_per_byte: 0.0 },
            ranks_per_host: 4,
            seconds_per_sum_byte: 0.0,
        };
        let speedup = |ranks| predict(&load(false), &free, ranks).map(|prediction| prediction.best().speedup);
        // 10 micro-batches: 4 ranks do 3, 3, 2, 2; beyond 10 ranks they get smaller; beyond 100 there are none.
        for (ranks, expected) in [(1, 1.0), (2, 2.0), (4, 10.0 / 3.0), (10, 10.0), (16, 100.0 / 7.0), (100, 100.0)] {
            close(speedup(ranks).unwrap(), expected);
        }
        assert_eq!(speedup(101), None);
        assert!(!load(false).needs_smaller_micro_batch(10) && load(false).needs_smaller_micro_batch(16));
        let epoch = predict(&load(false), &free, 10).unwrap().best().epoch_seconds;
        close(epoch, 100.0);
        // What each step costs is not shared: Amdahl's law.
        let serial = Load { seconds_per_step: 25.0, ..load(false) };
        close(predict(&serial, &free, 10).unwrap().best().speedup, 125.0 / 35.0);
        // The update is, by the 4 ranks of a host.
        let updated = Load { update_seconds: 20.0, ..load(false) };
        close(predict(&updated, &free, 10).unwrap().best().speedup, 120.0 / 15.0);
    }

    #[test]
    fn weak_scaling_goes_on_and_communication_costs() {
        let all = predictions(&load(true), &CLUSTER);
        assert_eq!(all.last().map(|prediction| prediction.ranks), Some(65_536));
        let first = all[0].best();
        close(first.speedup, 1.0);
        close(first.epoch_seconds, 1000.0);
        for pair in all.windows(2) {
            assert!(pair[1].best().efficiency <= pair[0].best().efficiency + 1e-12, "{pair:?}");
        }
        let two = all[1].by_algorithm[0];
        close(two.speedup, 2.0 * 100.0 / (100.0 + two.sum_seconds));
        // A ring's latency grows with the ranks, the other two's with their logarithm.
        assert_eq!(all[16].best().algorithm, Algorithm::Hierarchical);
    }
}
