//! `[distributed]`: how ranks work together.

use super::component::Component;
use crate::error::Result;
use serde::{Deserialize, Serialize};

/// How gradients are summed over ranks.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Reduction {
    /// Each rank's own micro-batches first, then ranks: the same to rounding at any number of ranks.
    #[default]
    Allreduce,
    /// Along one fixed tree of micro-batches: the same bits at any number of ranks.
    Reproducible,
}

/// How ranks of one host exchange gradients.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Exchange {
    /// In memory they share, with one copy of the weights a host.
    #[default]
    Shared,
    /// By MPI messages, as between hosts.
    Mpi,
}

/// What gradients are sent in between hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Wire {
    /// f32.
    #[default]
    F32,
    /// bfloat16, half as much; what rounding takes away is added to the next step's gradient.
    Bf16,
}

/// `[distributed]`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Distributed {
    /// How gradients are summed.
    pub reduction: Reduction,
    /// How ranks of one host exchange gradients.
    pub exchange: Exchange,
    /// Whether finished parts of the gradient are summed while the backward pass goes on (pays between hosts).
    pub overlap: bool,
    /// Bytes of a part when they overlap; 0 for 4 MiB.
    pub bucket_bytes: usize,
    /// What gradients are sent in between hosts.
    pub wire: Wire,
    /// Steps that each host makes on its own before weights and moments are averaged over hosts; 1: gradients are summed.
    pub average_every: u64,
    /// Steps between comparisons of the hosts' weights; they are also compared at each checkpoint. 0: only then.
    pub check_steps: u64,
    /// Seconds of a wait after which the ranks say who is waited for, and again after twice as many; 0: never.
    pub report_seconds: u64,
    /// Seconds of a wait after which the job ends; 0: never.
    pub timeout_seconds: u64,
}

impl Default for Distributed {
    fn default() -> Self {
        Self {
            reduction: Reduction::default(),
            exchange: Exchange::default(),
            overlap: false,
            bucket_bytes: 0,
            wire: Wire::default(),
            average_every: 1,
            check_steps: 100,
            report_seconds: 10,
            timeout_seconds: 0,
        }
    }
}

impl Distributed {
    /// Its keys: name, meaning with the default.
    pub const KEYS: [(&str, &str); 9] = [
        (
            "reduction",
            "\"allreduce\": each rank's micro-batches first, then ranks; \"reproducible\": along one fixed tree of \
             micro-batches, the same bits at any number of ranks (\"allreduce\")",
        ),
        (
            "exchange",
            "how ranks of a host sum gradients: \"shared\", in memory they share, with one copy of weights and moments, or \
             \"mpi\", by messages as between hosts (\"shared\")",
        ),
        (
            "overlap",
            "whether finished parts of the gradient are summed while the backward pass goes on, by MPI (false)",
        ),
        ("bucket_bytes", "size of such a part; 0: 4 MiB (0)"),
        (
            "wire",
            "what gradients are sent in between hosts: \"f32\", or \"bf16\", half the bytes, with what rounding takes away \
             added to the next step's (\"f32\")",
        ),
        (
            "average_every",
            "steps that each host makes on its share of the batches before weights and moments are averaged over hosts \
             (local SGD); 1: gradients are summed each step (1)",
        ),
        (
            "check_steps",
            "steps between comparisons of the hosts' weights, which a checkpoint makes too; 0: only then (100)",
        ),
        (
            "report_seconds",
            "seconds of a wait after which the ranks say who is waited for, again after twice as many and so on; 0: never (10)",
        ),
        (
            "timeout_seconds",
            "seconds of a wait after which the job ends, with exit code 75 where there is a checkpoint to go on from; more than \
             the longest checkpoint takes; 0: never (0)",
        ),
    ];

    /// Whether ranks of a host share memory. Sums that overlap the backward pass are MPI's.
    pub fn shares_memory(&self) -> bool {
        self.exchange == Exchange::Shared && !self.overlap
    }

    /// Elements of a bucket.
    pub fn bucket_len(&self) -> usize {
        (if self.bucket_bytes == 0 { 4 << 20 } else { self.bucket_bytes } / 4).max(1)
    }

    /// Refuses what does not go together.
    pub(super) fn check(&self, section: &Component) -> Result<()> {
        let reproducible = self.reduction == Reduction::Reproducible;
        if self.overlap && reproducible {
            let what = "does not go with reproducible sums, which start when all micro-batches are done";
            return Err(section.error("overlap", what, "keep one: overlap = false, or reduction = \"allreduce\""));
        }
        if self.wire != Wire::F32 && (reproducible || self.overlap) {
            let what = "does not go with reproducible or overlapping sums, which are f32";
            return Err(section.error("wire", what, "keep one: wire = \"f32\", or the other at its default"));
        }
        if self.average_every == 0 {
            return Err(section.error("average_every", "is 0", "give at least 1"));
        }
        if self.average_every > 1 && (reproducible || self.overlap || self.wire != Wire::F32) {
            let what = "above 1 sums no gradients over hosts, and so does not go with options of that sum";
            let mend = "keep one: average_every = 1, or reduction, overlap and wire at their defaults";
            return Err(section.error("average_every", what, mend));
        }
        Ok(())
    }
}
