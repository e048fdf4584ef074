//! Whether all hosts still hold the same weights: a host with bad memory, another instruction set or another program must
//! not go on unseen.

use super::trainer::Trainer;
use crate::comm::agree;
use crate::error::{Error, Result};
use std::hash::{DefaultHasher, Hasher};

impl Trainer<'_> {
    /// Compares parameters, state and moments over hosts, after `step` steps. Costs a pass over them.
    ///
    /// # Errors
    /// The first tensor that differs, and a rank that has it so; on every rank.
    pub fn compare_hosts(&self, step: u64) -> Result<()> {
        if self.exchange.host().members().len() < 2 {
            return Ok(());
        }
        let hashes = self.hashes();
        let mut whole = DefaultHasher::new();
        hashes.iter().for_each(|hash| whole.write_u64(*hash));
        let whole = whole.finish() as i64;
        if self.comm.max(whole) == !self.comm.max(!whole) {
            return Ok(());
        }
        let all = self.comm.gather_bytes(bytemuck::cast_slice(&hashes));
        let name = |at: usize| self.names().nth(at).unwrap_or_default();
        let differs = |hashes: &Vec<u8>| hashes.chunks(8).zip(all[0].chunks(8)).position(|(a, b)| a != b);
        let first = all.iter().enumerate().filter_map(|(rank, hashes)| Some((differs(hashes)?, rank))).min();
        agree(
            self.comm,
            first.map_or(Ok(()), |(at, rank)| {
                let what = format!("{} on rank {rank} is no longer what it is on rank 0", name(at));
                let mend =
                    "its host may have bad memory or another program or CPU; --resume goes on from the last checkpoint";
                Err(Error::Failed { place: format!("step {step}"), what, mend: mend.into() })
            }),
        )?;
        Err(Error::internal("the comparison of hosts", "hashes differ, but no tensor"))
    }

    /// A hash of each tensor's bits.
    fn hashes(&self) -> Vec<u64> {
        let of = |values: &[f32]| {
            let mut hasher = DefaultHasher::new();
            hasher.write(bytemuck::cast_slice(values));
            hasher.finish()
        };
        let (replica, layout) = (&self.replica, self.model.layout());
        let params = layout.slots().iter().map(|slot| of(&replica.params[slot.range.clone()]));
        let states = self.model.state_layout().slots().iter().map(|slot| of(&replica.state[slot.range.clone()]));
        let moments = replica.moments.iter();
        let moments = moments.flat_map(|moment| layout.slots().iter().map(|slot| of(&moment[slot.range.clone()])));
        params.chain(states).chain(moments).collect()
    }

    /// What the hashes are of, in their order.
    fn names(&self) -> impl Iterator<Item = String> {
        let layout = self.model.layout();
        let params = layout.slots().iter().map(|slot| slot.key());
        let states = self.model.state_layout().slots().iter().map(|slot| slot.key());
        let moments = self
            .slots()
            .iter()
            .flat_map(|name| layout.slots().iter().map(move |slot| format!("{name} of {}", slot.key())));
        params.chain(states).chain(moments)
    }
}
