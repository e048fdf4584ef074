//! Where two tensors of one shape differ.

use crate::store::Tensor;
use serde::Serialize;

/// How two tensors differ.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorDifference {
    /// `0.weight`, or `momentum 0.weight`.
    pub tensor: String,
    /// Of the first element that differs, in the tensor's shape.
    pub index: Vec<usize>,
    /// That element of the first.
    pub a: f32,
    /// Of the second.
    pub b: f32,
    /// Elements with other bits.
    pub differing: usize,
    /// All elements.
    pub elements: usize,
    /// Largest |a − b|.
    pub largest: f64,
    /// Largest |a − b| / max(|a|, |b|).
    pub largest_relative: f64,
    /// √Σ (a − b)².
    pub norm: f64,
}

impl TensorDifference {
    /// None where all bits are the same.
    pub(super) fn between(name: &str, a: &Tensor, b: &Tensor) -> Option<Self> {
        let differs = |(a, b): (&f32, &f32)| a.to_bits() != b.to_bits();
        let first = a.data.iter().zip(&b.data).position(differs)?;
        let mut found = Self {
            tensor: name.to_owned(),
            index: index(first, &a.shape),
            a: a.data[first],
            b: b.data[first],
            differing: 0,
            elements: a.data.len(),
            largest: 0.0,
            largest_relative: 0.0,
            norm: 0.0,
        };
        for (a, b) in a.data.iter().zip(&b.data).filter(|both| differs(*both)) {
            let (a, b) = (f64::from(*a), f64::from(*b));
            let difference = (a - b).abs();
            found.differing += 1;
            // A NaN stays one.
            found.largest = if difference > found.largest || difference.is_nan() { difference } else { found.largest };
            let scale = a.abs().max(b.abs());
            if scale > 0.0 {
                found.largest_relative = found.largest_relative.max(difference / scale);
            }
            found.norm += difference * difference;
        }
        found.norm = found.norm.sqrt();
        Some(found)
    }
}

/// The place in a tensor of `shape` of its element number `at`, row-major.
fn index(mut at: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (place, size) in index.iter_mut().zip(shape).rev() {
        (*place, at) = (at % size, at / size);
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_element_is_named_by_its_place() {
        let tensor = |data: Vec<f32>| Tensor { key: "0.weight".into(), shape: vec![2, 3, 2], data };
        let a = tensor((0..12).map(|v| v as f32).collect());
        assert_eq!(TensorDifference::between("0.weight", &a, &a), None);
        let mut b = a.clone();
        (b.data[7], b.data[9]) = (7.5, f32::NAN);
        let found = TensorDifference::between("0.weight", &a, &b).unwrap();
        assert_eq!((found.index, found.a, found.b), (vec![1, 0, 1], 7.0, 7.5));
        assert_eq!((found.differing, found.elements), (2, 12));
        assert!(found.largest.is_nan() && found.norm.is_nan());
        let zero = tensor(vec![0.0; 12]);
        let minus = tensor(vec![-0.0; 12]);
        let found = TensorDifference::between("0.weight", &zero, &minus).unwrap();
        assert_eq!((found.differing, found.largest, found.largest_relative), (12, 0.0, 0.0));
    }
}
