//! What can be said of each sample by itself, and which are there twice.

use super::gather::gathered;
use crate::comm::Comm;
use crate::data::{Dataset, Part, Raw};
use crate::error::Result;
use crate::shape::Shape;
use crate::shard::{micro_batches, own};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::ops::Range;

/// Samples of a block: what is summed in floating point is summed by blocks, so that ranks add alike.
const BLOCK: usize = 256;

/// How many samples a list names.
const NAMED: usize = 8;

/// The blocks of a part that are this rank's.
pub(super) fn own_blocks(data: &Dataset, part: Part, comm: &dyn Comm) -> Vec<Range<u32>> {
    let len = data.len(part);
    let mine = own(len.div_ceil(BLOCK), comm.rank(), comm.size());
    let blocks = micro_batches(len, BLOCK).skip(mine.start).take(mine.len());
    blocks.map(|block| block.start as u32..block.end as u32).collect()
}

/// One sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Look {
    /// The first half of its SHA-256.
    pub hash: [u8; 16],
    /// Whether all its values are finite.
    pub finite: bool,
    /// Whether all its pixels, time steps or features are alike.
    pub constant: bool,
}

impl Look {
    fn at(raw: Raw, shape: Shape) -> Self {
        match raw {
            Raw::Pixels(pixels) => Self::of(pixels, pixels, shape, true),
            Raw::Floats(values) => {
                let finite = values.iter().all(|value| value.is_finite());
                Self::of(values, bytemuck::cast_slice(values), shape, finite)
            }
            Raw::Window(values) => Self::of(values, bytemuck::cast_slice(values), shape, true),
        }
    }

    fn of<T: PartialEq>(values: &[T], bytes: &[u8], shape: Shape, finite: bool) -> Self {
        let width = match shape {
            Shape::Image { c, .. } => c,
            Shape::Sequence { f, .. } => f,
            Shape::Vector { .. } => 1,
        };
        let constant = values.len() > width && values.chunks_exact(width).all(|piece| *piece == values[..width]);
        let mut hash = [0; 16];
        hash.copy_from_slice(&Sha256::digest(bytes)[..16]);
        Self { hash, finite, constant }
    }
}

/// A look at every sample of a part, in order; on rank 0. Collective.
pub(super) fn looks(data: &Dataset, part: Part, comm: &dyn Comm) -> Result<Vec<Look>> {
    let samples = own_blocks(data, part, comm).into_iter().flatten();
    gathered(comm, samples.map(|sample| Look::at(data.raw(part, sample), data.input())).collect())
}

/// Some samples, by number.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Found {
    /// How many there are.
    pub count: u64,
    /// The first of them.
    pub first: Vec<u32>,
}

impl Found {
    pub(super) fn of(samples: impl Iterator<Item = u32>) -> Self {
        let mut found = Self::default();
        samples.for_each(|sample| {
            found.count += 1;
            if found.first.len() < NAMED {
                found.first.push(sample);
            }
        });
        found
    }
}

/// Samples that are alike to the last bit.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Repeats {
    /// Training samples that an earlier training sample equals.
    pub in_train: Found,
    /// Test samples that an earlier test sample equals.
    pub in_test: Found,
    /// Test samples that a training sample equals: the test does not measure what is new.
    pub of_train_in_test: Found,
    /// Samples whose twin, in either part, has another class.
    pub of_other_class: u64,
}

/// A sample to be compared: hash, part (0: training), number, class.
type Key = ([u8; 16], u8, u32, Option<u32>);

impl Repeats {
    /// Of the hashes and classes of both parts, in order.
    pub(super) fn of(parts: [Vec<([u8; 16], Option<u32>)>; 2]) -> Self {
        let mut keys: Vec<Key> = Vec::with_capacity(parts[0].len() + parts[1].len());
        for (part, samples) in parts.into_iter().enumerate() {
            keys.extend(samples.into_iter().zip(0..).map(|((hash, class), number)| (hash, part as u8, number, class)));
        }
        keys.sort_unstable();
        let (mut later, mut across): ([Vec<u32>; 2], Vec<u32>) = Default::default();
        let mut of_other_class = 0;
        for twins in keys.chunk_by(|a, b| a.0 == b.0).filter(|twins| twins.len() > 1) {
            let numbers = |part: u8| twins.iter().filter(move |key| key.1 == part).map(|key| key.2);
            (0..2).for_each(|part| later[usize::from(part)].extend(numbers(part).skip(1)));
            if twins[0].1 == 0 {
                across.extend(numbers(1));
            }
            if twins.iter().any(|key| key.3 != twins[0].3) {
                of_other_class += twins.len() as u64;
            }
        }
        let [in_train, in_test, of_train_in_test] =
            [&mut later[0].clone(), &mut later[1].clone(), &mut across].map(|numbers| {
                numbers.sort_unstable();
                Found::of(numbers.iter().copied())
            });
        Self { in_train, in_test, of_train_in_test, of_other_class }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twins_are_found_within_parts_and_across() {
        let key = |n: u8, class| ([n; 16], Some(class));
        let train = vec![key(1, 0), key(2, 0), key(1, 1), key(1, 0)];
        let found = Repeats::of([train, vec![key(3, 0), key(2, 0), key(3, 0), key(2, 0)]]);
        assert_eq!(found.in_train, Found { count: 2, first: vec![2, 3] });
        assert_eq!(found.in_test, Found { count: 2, first: vec![2, 3] });
        assert_eq!(found.of_train_in_test, Found { count: 2, first: vec![1, 3] });
        assert_eq!(found.of_other_class, 3);
        assert_eq!(Repeats::of([vec![key(1, 0)], Vec::new()]), Repeats::default());
    }

    #[test]
    fn a_constant_image_may_have_a_colour() {
        let shape = Shape::Image { c: 3, h: 1, w: 2 };
        let constant = |pixels: [u8; 6]| Look::at(Raw::Pixels(&pixels), shape).constant;
        assert!(constant([1, 2, 3, 1, 2, 3]) && !constant([1, 2, 3, 1, 2, 4]));
        let row = Shape::Vector { n: 2 };
        assert!(Look::at(Raw::Floats(&[1.0, 1.0]), row).constant);
        assert!(!Look::at(Raw::Floats(&[1.0]), Shape::Vector { n: 1 }).constant);
        assert!(!Look::at(Raw::Floats(&[1.0, f32::NAN]), row).finite);
    }
}
