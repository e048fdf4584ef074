//! Shapes of one sample, as layers see them.

use serde::{Deserialize, Serialize};
use std::fmt;

/// The shape of one sample. In memory a micro-batch of M samples is one dense slice:
/// images as (M, H, W, C), sequences as (M, T, F), vectors as (M, N), all row-major.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Shape {
    /// An image of `c` channels, `h` rows and `w` columns; in memory (H, W, C).
    Image {
        /// Channels.
        c: usize,
        /// Height.
        h: usize,
        /// Width.
        w: usize,
    },
    /// `t` time steps of `f` features; in memory (T, F).
    Sequence {
        /// Time steps.
        t: usize,
        /// Features a step.
        f: usize,
    },
    /// `n` features.
    Vector {
        /// Features.
        n: usize,
    },
}

impl Shape {
    /// Elements of one sample.
    pub fn len(&self) -> usize {
        match *self {
            Shape::Image { c, h, w } => c * h * w,
            Shape::Sequence { t, f } => t * f,
            Shape::Vector { n } => n,
        }
    }

    /// Whether a sample has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// In torch's order: `3x32x32` (C, H, W), `60x1` (T, F), `10`.
impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Image { c, h, w } => write!(f, "{c}x{h}x{w}"),
            Shape::Sequence { t, f: features } => write!(f, "{t}x{features}"),
            Shape::Vector { n } => write!(f, "{n}"),
        }
    }
}
