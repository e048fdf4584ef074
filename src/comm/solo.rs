//! One rank, no MPI.

use super::{Alone, Comm, Host};
use crate::error::Result;

/// A job of one rank.
pub struct Solo;

impl Comm for Solo {
    fn rank(&self) -> usize {
        0
    }
    fn size(&self) -> usize {
        1
    }
    fn sum_f32(&self, _values: &mut [f32]) {}
    fn sum_f64(&self, _values: &mut [f64]) {}
    fn max(&self, value: i64) -> i64 {
        value
    }
    fn gather_f64(&self, values: &[f64]) -> Vec<f64> {
        values.to_vec()
    }
    fn gather_bytes(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        vec![bytes.to_vec()]
    }
    fn broadcast(&self, _root: usize, _bytes: &mut Vec<u8>) {}
    fn barrier(&self) {}
    fn host(&self, _bytes: Option<usize>) -> Result<Box<dyn Host>> {
        Ok(Box::new(Alone::new()))
    }
    fn library(&self) -> String {
        "none (one rank)".into()
    }
    unsafe fn start_sum(&self, _data: *mut f32, _len: usize) {}
    fn finish_sums(&self) {}
}
