//! What is made of what a format gave, whatever the format: categories and missing values as numbers, windows over series,
//! labels, normalisation, parts, random changes.

pub(super) mod augment;
pub(super) mod encode;
pub(super) mod label;
pub(super) mod normalize;
pub(super) mod split;
pub(super) mod window;
