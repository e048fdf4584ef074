//! What a trained network must know of its input, beside its weights: with it a checkpoint predicts by itself.

use crate::shape::Shape;
use serde::{Deserialize, Serialize};

/// From a value the network gives to the data's own unit: `value * scale + offset`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Unit {
    /// Factor.
    pub scale: f64,
    /// Summand.
    pub offset: f64,
}

impl Unit {
    /// Values as they are.
    pub const IDENTITY: Unit = Unit { scale: 1.0, offset: 0.0 };

    /// From the data's own unit to what the network should give.
    pub fn normalize(self, value: f64) -> f32 {
        ((value - self.offset) / self.scale) as f32
    }
}

/// How a column of a table becomes numbers of a sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Encoded {
    /// A number, and what stands in for a missing one.
    Number {
        /// The column.
        name: String,
        /// None: a row without one is no sample.
        fill: Option<f64>,
    },
    /// One number for each of these texts, 1 where the row has it.
    Category {
        /// The column.
        name: String,
        /// Those of the training part.
        texts: Vec<String>,
        /// Whether a row may lack one.
        fill: bool,
    },
}

/// What the samples were made into, and what the outputs mean.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Input {
    /// Of one sample.
    pub shape: Shape,
    /// Each channel or feature is (raw − mean) / std, where that is the same for all samples.
    pub mean: Vec<f64>,
    /// Likewise.
    pub std: Vec<f64>,
    /// The columns that the features came from; empty where they have no names.
    pub features: Vec<String>,
    /// The classes; empty where the outputs are values.
    pub classes: Vec<String>,
    /// The columns that are predicted; empty where they have no names.
    pub targets: Vec<String>,
    /// What each output means in the data's unit; empty for classes and for series.
    pub units: Vec<Unit>,
    /// Of tables whose columns may hold texts: how each column became features; empty elsewhere.
    pub encoding: Vec<Encoded>,
    /// Of series: each one's name and what the values of its columns mean, inputs first.
    pub series: Vec<(String, Vec<Unit>)>,
}

impl Encoded {
    /// The column.
    pub fn name(&self) -> &str {
        let (Encoded::Number { name, .. } | Encoded::Category { name, .. }) = self;
        name
    }
}

impl Default for Input {
    fn default() -> Self {
        Self {
            shape: Shape::Vector { n: 0 },
            mean: Vec::new(),
            std: Vec::new(),
            features: Vec::new(),
            classes: Vec::new(),
            targets: Vec::new(),
            units: Vec::new(),
            encoding: Vec::new(),
            series: Vec::new(),
        }
    }
}
