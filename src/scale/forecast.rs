//! From measurements to the cost model's assumptions.

use super::measure::Measurement;
use super::model::{Across, BARRIERS, Cluster, Link, Load, Prediction, predict, predictions};
use super::probe::Links;
use super::statistics::mean;
use crate::config::{Job, Reduction, Wire};
use serde::Serialize;

/// The network, as given on the command line; None for what is measured, or else assumed.
#[derive(Debug, Clone, Copy, Default)]
pub struct Network {
    /// Between hosts.
    pub between: Option<Link>,
    /// Between ranks of a host.
    pub inside: Option<Link>,
    /// Ranks on each host.
    pub ranks_per_host: Option<usize>,
}

/// A host's memory where nothing was measured: 1 µs and 80 Gbit/s.
const MEMORY: (f64, f64) = (1.0, 80.0);
/// A network where nothing was measured: 20 µs and 10 Gbit/s.
pub const ETHERNET: (f64, f64) = (20.0, 10.0);
/// Adding numbers that lie in the cache where nothing was measured: 10 GB/s.
pub const SECONDS_PER_SUM_BYTE: f64 = 1e-10;

/// What is known of the machine.
#[derive(Debug, Clone, Copy)]
pub struct Known {
    /// As the user gave it, which goes before all else.
    pub given: Network,
    /// As a probe found it.
    pub links: Option<Links>,
    /// Between ranks of a host, as a study has it.
    pub fitted: Option<Link>,
    /// Of this host.
    pub cores: usize,
    /// How many ranks there are to probe with.
    pub ranks: usize,
}

/// What the model says, and from what.
#[derive(Debug, Clone, Serialize)]
pub struct Outlook {
    /// The machine.
    pub cluster: Cluster,
    /// The work.
    pub load: Load,
    /// Where its seconds come from.
    pub fitted_from: &'static str,
    /// Where what is said of the network comes from.
    pub network_from: &'static str,
    /// 1, 2, 4, ... ranks.
    pub predictions: Vec<Prediction>,
    /// The ranks that the probe ran on, where there were several.
    pub here: Option<Prediction>,
}

impl Outlook {
    /// The model's word on `load`.
    pub fn new(load: Load, known: Known, fitted_from: &'static str) -> Self {
        let Known { given, links, fitted, cores, ranks } = known;
        let probed = links.and_then(|links| links.between);
        let network_from = match (given.between, probed) {
            (Some(_), _) => "given",
            (None, Some(_)) => "measured",
            (None, None) => "assumed",
        };
        let inside = given.inside.or(links.and_then(|links| links.inside)).or(fitted);
        let several = links.filter(|_| ranks > 1).map(|links| links.ranks_per_host);
        let cluster = Cluster {
            inside: inside.unwrap_or(Link::new(MEMORY.0, MEMORY.1)),
            between: given.between.or(probed).unwrap_or(Link::new(ETHERNET.0, ETHERNET.1)),
            ranks_per_host: given.ranks_per_host.or(several).unwrap_or(cores),
            seconds_per_sum_byte: links.map_or(SECONDS_PER_SUM_BYTE, |links| links.seconds_per_sum_byte),
        };
        let here = several.and_then(|_| predict(&load, &cluster, ranks));
        Self { cluster, load, fitted_from, network_from, predictions: predictions(&load, &cluster), here }
    }

    /// One sentence on what is assumed.
    pub fn assumptions(&self) -> String {
        let Self { cluster, load, .. } = self;
        format!(
            "prediction: {:.4} ms a sample and {:.3} ms a step (from {}), a gradient of {:.2} MB, batch {}{},\n\
             {} rank(s) a host, {} inside a host, {} between hosts ({});\n\
             best of ring, tree (recursive doubling) and hierarchical sums, of which the last is ddl's",
            1e3 * load.seconds_per_sample,
            1e3 * (load.seconds_per_step + load.update_seconds),
            self.fitted_from,
            1e-6 * load.gradient_bytes,
            load.batch,
            if load.weak { " a rank" } else { "" },
            cluster.ranks_per_host,
            cluster.inside,
            cluster.between,
            self.network_from,
        )
    }
}

/// What hosts exchange in `job`, whose optimizer has so many moments.
pub fn across(job: &Job, moments: usize) -> Across {
    let distributed = &job.distributed;
    match (distributed.reduction, distributed.wire, distributed.average_every) {
        (Reduction::Reproducible, ..) => Across::Parts { share: 1.0 },
        (_, Wire::Bf16, _) => Across::Parts { share: 0.5 },
        (_, _, 1) => Across::Allreduce,
        (_, _, every) => Across::Average { every: every as f64, copies: 1.0 + moments as f64 },
    }
}

/// A rank's own time in a step: `seconds_per_sample` for each of its samples, and the rest whatever their number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Compute {
    /// Of one rank.
    pub seconds_per_sample: f64,
    /// Of one rank; not shared with others: preparing the weights, the gradient's norm.
    pub seconds_per_step: f64,
    /// The update, which the ranks of a host share; 0 where it is not told from the rest.
    pub update_seconds: f64,
}

/// The least-squares line through the points' seconds a step over samples a step of a rank, sums and waiting left out.
/// Points that share cores say nothing. Where all have as many samples a rank, no part of a step is told from the samples.
pub fn compute(measurements: &[Measurement]) -> Option<Compute> {
    let alone = alone(measurements);
    let usable = measurements.iter().filter(|m| m.steps > 0 && m.ranks_per_core <= 1.0);
    let points: Vec<(f64, f64)> = usable
        .map(|m| {
            let others = m.split.communication + m.split.waiting;
            (m.samples / (m.ranks * m.steps) as f64, (m.seconds - others) / m.steps as f64 + alone)
        })
        .collect();
    let (x, y) = (mean(points.iter().map(|p| p.0))?, mean(points.iter().map(|p| p.1))?);
    let (xx, xy) = points.iter().fold((0.0, 0.0), |(xx, xy), p| (xx + (p.0 - x).powi(2), xy + (p.0 - x) * (p.1 - y)));
    let slope = if xx > 1e-9 * x * x { xy / xx } else { y / x };
    // A negative part would be noise.
    let seconds_per_sample = slope.clamp(0.0, y / x);
    Some(Compute { seconds_per_sample, seconds_per_step: y - seconds_per_sample * x, update_seconds: 0.0 })
}

/// What one rank spends a step where several have their sum: the gradient's norm.
fn alone(measurements: &[Measurement]) -> f64 {
    let one = measurements.iter().filter(|m| m.ranks == 1 && m.steps > 0);
    mean(one.map(|m| m.split.communication / m.steps as f64)).unwrap_or(0.0)
}

/// The bandwidth inside a host that explains the sums of the points on one host with a core for each rank; the latency is
/// the usual one. None without such a point.
pub fn memory_link(measurements: &[Measurement], gradient_bytes: f64) -> Option<Link> {
    let usable = |m: &&Measurement| m.ranks > 1 && m.hosts == 1 && m.ranks_per_core <= 1.0 && m.steps > 0;
    let alone = alone(measurements);
    let latency = MEMORY.0 * 1e-6;
    let each = measurements.iter().filter(usable).map(|m| {
        let seconds = m.split.communication / m.steps as f64 - alone;
        let (others, ranks) = (m.ranks as f64 - 1.0, m.ranks as f64);
        (seconds - BARRIERS * latency) / (others / ranks * gradient_bytes) - SECONDS_PER_SUM_BYTE
    });
    mean(each)
        .filter(|&seconds_per_byte| seconds_per_byte > 1e-12)
        .map(|seconds_per_byte| Link { latency, seconds_per_byte })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::measure::Split;
    use crate::scale::summary::tests::measurement;

    /// 10 steps of 100 samples at 2 ms each and 50 ms a step; sums take 4 ms on several ranks, the norm 1 ms on one.
    fn run(ranks: usize) -> Measurement {
        let (own, sums) = (10.0 * (0.2 / ranks as f64 + 0.049), if ranks == 1 { 0.01 } else { 0.04 });
        let split = Split { compute: own, communication: sums, ..Split::default() };
        Measurement { split, ..measurement(ranks, 1, own + sums, 1.0) }
    }

    #[test]
    fn work_is_told_from_what_each_step_costs() {
        let fitted = compute(&[run(1), run(2), run(4)]).unwrap();
        assert!((fitted.seconds_per_sample - 2e-3).abs() < 1e-12, "{fitted:?}");
        assert!((fitted.seconds_per_step - 0.05).abs() < 1e-12, "{fitted:?}");
        // One number of ranks cannot tell them apart; shared cores are left out.
        let shared = Measurement { ranks_per_core: 2.0, ..run(4) };
        let fitted = compute(&[run(1), shared.clone()]).unwrap();
        assert!(
            (fitted.seconds_per_sample - 2.5e-3).abs() < 1e-12 && fitted.seconds_per_step.abs() < 1e-12,
            "{fitted:?}"
        );
        assert_eq!(compute(&[shared]), None);
    }

    #[test]
    fn the_memory_link_gives_back_the_sums_it_was_fitted_to() {
        let mut run = measurement(2, 1, 6.0, 1.0);
        run.split = Split { communication: 10.0 * 0.5e-3, ..Split::default() };
        let link = memory_link(&[run.clone()], 4e6).unwrap();
        let again = super::super::model::shared_memory(2, 4e6, link, SECONDS_PER_SUM_BYTE);
        assert!((again - 0.5e-3).abs() < 1e-9, "{again}");
        // Shared cores, several hosts and one rank say nothing.
        let changes: [fn(&mut Measurement); 3] = [|m| m.ranks_per_core = 2.0, |m| m.hosts = 2, |m| m.ranks = 1];
        for change in changes {
            let mut other = run.clone();
            change(&mut other);
            assert_eq!(memory_link(&[other], 4e6), None);
        }
    }
}
