//! Which samples are whose: pure index arithmetic.

use std::ops::Range;

/// The half-open range of 0..n that `rank` of `ranks` owns: contiguous, in order of rank, sizes differing by at most
/// one, every index owned once. `ranks` must not be 0 and `rank` must be below it.
pub fn own(n: usize, rank: usize, ranks: usize) -> Range<usize> {
    let (base, extra) = (n / ranks, n % ranks);
    let start = rank * base + rank.min(extra);
    start..start + base + usize::from(rank < extra)
}

/// The micro-batches of a batch of `len` samples: ceil(len / micro) ranges, of which the last may be short.
/// `micro` must not be 0.
pub fn micro_batches(len: usize, micro: usize) -> impl Iterator<Item = Range<usize>> {
    (0..len).step_by(micro).map(move |start| start..len.min(start + micro))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranks_share_everything_evenly_and_in_order() {
        for n in 0..100 {
            for ranks in 1..20 {
                let shares: Vec<_> = (0..ranks).map(|rank| own(n, rank, ranks)).collect();
                assert_eq!(shares[0].start, 0);
                assert_eq!(shares[ranks - 1].end, n);
                assert!(shares.windows(2).all(|pair| pair[0].end == pair[1].start));
                let sizes = || shares.iter().map(Range::len);
                assert!(sizes().max().zip(sizes().min()).is_some_and(|(max, min)| max - min <= 1), "{n} on {ranks}");
            }
        }
    }

    #[test]
    fn huge_counts_do_not_overflow() {
        assert_eq!(own(usize::MAX, 7, 8).end, usize::MAX);
        assert_eq!(own(usize::MAX, 0, 1), 0..usize::MAX);
    }

    #[test]
    fn micro_batches_cut_a_batch_without_gap() {
        for len in 0..60 {
            for micro in 1..70 {
                let pieces: Vec<_> = micro_batches(len, micro).collect();
                assert_eq!(pieces.len(), len.div_ceil(micro));
                let mut next = 0;
                for (i, piece) in pieces.iter().enumerate() {
                    assert_eq!(piece.start, next);
                    assert!(piece.len() == micro || (i + 1 == pieces.len() && !piece.is_empty()));
                    next = piece.end;
                }
                assert_eq!(next, len);
            }
        }
    }
}
