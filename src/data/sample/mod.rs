//! Samples by number, as formats and transforms left them: images of u8 ([`pixel`]), anything of f32 ([`float`]), windows over
//! series (`transform::window`). A new kind is one file here.

pub(in crate::data) mod float;
pub(in crate::data) mod kept;
pub(in crate::data) mod pixel;

use super::transform::augment::Change;
use super::transform::normalize::Summary;
use super::{Kept, Part, Raw};
use crate::error::Result;
use kept::{Bulk, Unread};
use std::sync::Arc;

/// The inputs of the training and the test part.
pub(in crate::data) trait Samples {
    /// How many a part has.
    fn len(&self, part: Part) -> usize;

    /// Writes one as the network sees it, (H, W, C), (T, F) or (N), changed if it is to be. One that is still in its file is
    /// made of its bytes `held`. Panics if it is not below [`Samples::len`].
    fn fill(&self, part: Part, sample: usize, held: Option<&[u8]>, change: Option<Change>, y: &mut [f32]);

    /// One as it was in its file, where it was not normalised yet.
    fn raw(&self, part: Part, sample: usize) -> Raw<'_>;

    /// Memory held, in bytes.
    fn bytes(&self) -> usize;

    /// Bytes of one that is kept in memory.
    fn size(&self) -> usize;

    /// The samples of a part that are still in files.
    fn unread(&self, part: Part) -> Option<&Arc<Unread>> {
        let _ = part;
        None
    }

    /// See [`Dataset::keep_samples`](super::Dataset::keep_samples).
    fn keep(&mut self, unread: bool, keep: &mut dyn FnMut(&Bulk) -> Result<Kept<u8>>) -> Result<()> {
        let _ = (unread, keep);
        Ok(())
    }

    /// What each channel of the training part is like, of samples in memory; none where they have none in common.
    fn summaries(&self) -> Vec<Summary> {
        Vec::new()
    }

    /// # Errors
    /// A value that is not finite.
    fn require_finite(&self) -> Result<()> {
        Ok(())
    }
}
