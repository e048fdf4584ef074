//! Sums over hosts that send each other bf16, with error feedback (Seide et al., 2014; Karimireddy et al., 2019).

use crate::comm::{Host, Parts};
use crate::shard::own;
use half::bf16;
use std::ops::Range;

/// A lane's sum of its slice: each host gathers a part of it from all, adds it up in f32 and sends the sum to all, which
/// costs half the bytes of a ring all-reduce in f32.
pub(super) struct Bf16Wire {
    /// What rounding has taken away, to be added to the next values sent: of the sum where this host makes it, of this
    /// host's gradient elsewhere.
    lost: Vec<f32>,
    whole: Vec<bf16>,
    inbox: Vec<bf16>,
    parts: Parts,
    arriving: Parts,
}

impl Bf16Wire {
    /// For so many hosts.
    pub fn with_capacity(hosts: usize) -> Self {
        let [parts, arriving] = [(); 2].map(|()| Parts::with_capacity(hosts));
        Self { lost: Vec::new(), whole: Vec::new(), inbox: Vec::new(), parts, arriving }
    }

    /// Sums `slice` over the lane, to the same bits on all hosts.
    pub fn sum(&mut self, host: &dyn Host, slice: &mut [f32]) {
        self.lost.resize(slice.len(), 0.0);
        for piece in host.pieces(0..slice.len(), size_of::<bf16>()) {
            self.sum_piece(host, &mut slice[piece.clone()], piece);
        }
    }

    /// Sums `slice`, the lane's `piece`.
    fn sum_piece(&mut self, host: &dyn Host, slice: &mut [f32], piece: Range<usize>) {
        let (hosts, me) = (host.members().len(), host.index());
        let part = |host: usize| own(slice.len(), host, hosts);
        let mine = part(me);
        let lost = &mut self.lost[piece];
        self.whole.resize(slice.len(), bf16::ZERO);
        self.inbox.resize(mine.len() * hosts, bf16::ZERO);
        self.parts.set((0..hosts).map(|host| part(host).len()));
        self.arriving.set((0..hosts).map(|_| mine.len()));
        for others in [0..mine.start, mine.end..slice.len()] {
            round(&slice[others.clone()], &mut lost[others.clone()], &mut self.whole[others]);
        }
        host.exchange(&self.whole, &self.parts, &mut self.inbox, &self.arriving);
        let own_part = &mut slice[mine.clone()];
        for arrived in (0..hosts).filter(|host| *host != me) {
            let arrived = &self.inbox[arrived * mine.len()..][..mine.len()];
            own_part.iter_mut().zip(arrived).for_each(|(sum, value)| *sum += value.to_f32());
        }
        round(own_part, &mut lost[mine.clone()], &mut self.whole[mine]);
        host.gather(&mut self.whole, &self.parts);
        slice.iter_mut().zip(&self.whole).for_each(|(sum, value)| *sum = value.to_f32());
    }
}

/// Rounds to bf16 what is there and what was lost before; what is lost now stays for the next time.
fn round(values: &[f32], lost: &mut [f32], rounded: &mut [bf16]) {
    for ((value, lost), rounded) in values.iter().zip(lost).zip(rounded) {
        let whole = *value + *lost;
        *rounded = bf16::from_f32(whole);
        *lost = whole - rounded.to_f32();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lost_comes_later() {
        let value = 1.0f32 + 1.0 / 1024.0;
        let (mut lost, mut sent, mut sum) = ([0.0], [bf16::ZERO], 0.0);
        for _ in 0..1024 {
            round(&[value], &mut lost, &mut sent);
            sum += f64::from(sent[0].to_f32());
        }
        assert_eq!(bf16::from_f32(value).to_f32(), 1.0, "too small to be sent at once");
        assert!((sum - 1025.0).abs() < 0.01, "{sum}");
    }

    #[test]
    fn what_is_no_number_stays_none() {
        let mut sent = [bf16::ZERO; 2];
        round(&[f32::NAN, f32::INFINITY], &mut [0.0; 2], &mut sent);
        assert!(sent[0].is_nan() && sent[1].is_infinite());
    }
}
