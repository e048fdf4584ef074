//! What a layer does, told to those that write it in other forms. Parameters have torch's names and layouts.

use super::{Plan, Stack};
use crate::kernel::{CellKind, Window};
use crate::layer::Element;
use crate::shape::Shape;

/// What a layer does to a sample in evaluation.
#[derive(Debug, Clone, PartialEq)]
pub enum Op {
    /// Not told: a layer that has no other form yet.
    Untold,
    /// y = x·Wᵀ + b on the last dimension.
    Linear,
    /// Cross-correlation.
    Conv2d(Window),
    /// By the running statistics of each channel or feature.
    BatchNorm {
        /// Added to the variance.
        eps: f64,
    },
    /// Within each sample, or each of its time steps.
    LayerNorm {
        /// Added to the variance.
        eps: f64,
    },
    /// max(x, 0).
    Relu,
    /// x, or below zero slope·x.
    LeakyRelu {
        /// The slope.
        slope: f64,
    },
    /// 1 / (1 + e^-x).
    Sigmoid,
    /// tanh x.
    Tanh,
    /// x·Φ(x).
    Gelu {
        /// Φ by its tanh form.
        tanh: bool,
    },
    /// The largest of each window.
    MaxPool2d(Window),
    /// The mean of each window.
    AvgPool2d {
        /// The windows.
        window: Window,
        /// Whether padding counts as zeros.
        count_include_pad: bool,
    },
    /// Means of an image cut evenly into (height, width) parts.
    AdaptiveAvgPool2d((usize, usize)),
    /// Nothing, in evaluation.
    Dropout,
    /// One vector a sample.
    Flatten,
    /// LSTM or GRU.
    Recurrent {
        /// Which.
        kind: CellKind,
        /// Hidden units of a direction.
        hidden: usize,
        /// One above the other.
        levels: usize,
        /// Whether both directions are taken.
        bidirectional: bool,
        /// Whether all time steps are given, or the last one of each direction.
        return_sequences: bool,
    },
    /// layers(x) + shortcut(x).
    Residual {
        /// One way.
        layers: Vec<Described>,
        /// The other; empty: x itself.
        shortcut: Vec<Described>,
    },
}

/// A layer in a network.
#[derive(Debug, Clone, PartialEq)]
pub struct Described {
    /// What its parameters' keys begin with: `3`, in a residual block `layers.0` behind the block's key.
    pub key: String,
    /// `conv2d`.
    pub kind: String,
    /// Of a sample.
    pub input: Shape,
    /// Likewise.
    pub output: Shape,
    /// What it does.
    pub op: Op,
}

impl<T: Element> Stack<T> {
    /// The layers, in order.
    pub fn described(&self) -> Vec<Described> {
        let describe = |(key, kind, input, plan): (&str, &str, Shape, &Plan)| Described {
            key: key.into(),
            kind: kind.into(),
            input,
            output: plan.output,
            op: plan.op.clone(),
        };
        self.plans().map(describe).collect()
    }
}
