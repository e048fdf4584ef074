//! Samples by number, as formats and transforms left them: images of u8 ([`pixel`]), anything of f32 ([`float`]), windows over
//! series (`transform::window`). A new kind is one file here.

pub(in crate::data) mod float;
pub(in crate::data) mod kept;
pub(in crate::data) mod pixel;

use super::transform::augment::Change;
use super::{Kept, Part, Raw};
use crate::error::Result;
use kept::Bulk;

/// The inputs of the training and the test part.
pub(in crate::data) trait Samples {
    /// How many a part has.
    fn len(&self, part: Part) -> usize;

    /// Writes one as the network sees it, (H, W, C), (T, F) or (N), changed if it is to be. Panics if it is not below
    /// [`Samples::len`].
    fn fill(&self, part: Part, sample: usize, change: Option<Change>, y: &mut [f32]);

    /// One as it was in its file, where it was not normalised yet.
    fn raw(&self, part: Part, sample: usize) -> Raw<'_>;

    /// Memory held, in bytes.
    fn bytes(&self) -> usize;

    /// See [`Dataset::keep_samples`](super::Dataset::keep_samples).
    fn keep(&mut self, unread: bool, keep: &mut dyn FnMut(&Bulk) -> Result<Kept<u8>>) -> Result<()> {
        let _ = (unread, keep);
        Ok(())
    }

    /// # Errors
    /// A value that is not finite.
    fn require_finite(&self) -> Result<()> {
        Ok(())
    }
}
