//! What is made of columns before they are input: types of texts, missing values, categories.

pub(super) mod encode;
