//! Sums over hosts that send each other bf16, with error feedback (Seide et al., 2014; Karimireddy et al., 2019).

use super::crossing::{Crossing, Load};
use crate::comm::Host;
use half::bf16;
use std::ops::Range;

/// A lane's sum of its slice: each host gathers a part of it from all, adds it up in f32 and sends the sum to all, which
/// costs half the bytes of a ring all-reduce in f32.
#[derive(Default)]
pub(super) struct Bf16Wire {
    /// What rounding has taken away, to be added to the next values sent: of the sum where this host makes it, of this
    /// host's gradient elsewhere.
    lost: Vec<f32>,
    rounded: Vec<bf16>,
    crossing: Crossing<bf16>,
}

impl Bf16Wire {
    /// Sums `slice` over the lane, to the same bits on all hosts.
    pub fn sum(&mut self, host: &dyn Host, slice: &mut [f32]) {
        self.lost.resize(slice.len(), 0.0);
        self.rounded.resize(slice.len(), bf16::ZERO);
        let (lost, rounded) = (&mut self.lost[..], &mut self.rounded[..]);
        self.crossing.run(host, slice.len(), |_| 1, &mut Rounded { me: host.index(), slice, lost, rounded });
        slice.iter_mut().zip(&self.rounded).for_each(|(sum, value)| *sum = value.to_f32());
    }
}

/// A slice as it travels.
struct Rounded<'a> {
    me: usize,
    slice: &'a mut [f32],
    lost: &'a mut [f32],
    rounded: &'a mut [bf16],
}

impl Rounded<'_> {
    fn round(&mut self, range: Range<usize>) {
        round(&self.slice[range.clone()], &mut self.lost[range.clone()], &mut self.rounded[range]);
    }
}

impl Load<bf16> for Rounded<'_> {
    fn ready(&mut self, piece: Range<usize>, mine: Range<usize>) {
        self.round(piece.start..mine.start);
        self.round(mine.end..piece.end);
    }

    fn node(&self, _which: usize) -> &[bf16] {
        self.rounded
    }

    fn sum(&mut self, mine: Range<usize>, arrived: &mut [bf16]) {
        let own = &mut self.slice[mine.clone()];
        for (host, values) in arrived.chunks_exact(mine.len().max(1)).enumerate() {
            if host != self.me {
                own.iter_mut().zip(values).for_each(|(sum, value)| *sum += value.to_f32());
            }
        }
        self.round(mine);
    }

    fn total(&mut self, range: Range<usize>) -> &mut [bf16] {
        &mut self.rounded[range]
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
