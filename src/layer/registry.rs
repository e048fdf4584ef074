//! What layers there are. The registry drives parsing, the gradient checks, the golden cases and the documentation.

use super::{
    Layer, adaptive_avg_pool2d, avg_pool2d, batch_norm, conv2d, dropout, flatten, gelu, gru, layer_norm, leaky_relu,
    linear, lstm, max_pool2d, relu, residual, sigmoid, tanh,
};
use crate::config::Component;
use crate::error::{Error, Result};
use crate::kernel::{Precision, Real};
use crate::resource::require_memory;
use crate::rng::Numbers;
use crate::shape::Shape;

/// Where a layer is built: its input, the micro-batch size, the numbers of its random streams and the precision.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place<'a> {
    /// Shape of one input sample.
    pub input: Shape,
    /// Most samples a micro-batch has.
    pub m: usize,
    /// Its own random stream's number, which no other stream of the model has.
    pub number: u32,
    /// Where it gets more, if it has more streams or layers inside.
    pub numbers: &'a Numbers,
    /// What linear and recurrent layers multiply in.
    pub precision: Precision,
}

/// A case for the gradient check.
#[derive(Debug, Clone, Copy)]
pub struct Example {
    /// The layer's keys as TOML.
    pub keys: &'static str,
    /// Input shape.
    pub input: Shape,
}

/// Builds a layer from its table.
pub type Build<T> = fn(&Component, Place<'_>) -> Result<Box<dyn Layer<T>>>;

/// A kind of layer.
pub struct Entry {
    /// As in TOML.
    pub name: &'static str,
    /// One line: what it computes.
    pub about: &'static str,
    /// Its keys and defaults, as in torch.nn.
    pub keys: &'static str,
    /// Writes the defaults into the table.
    pub resolve: fn(&Component) -> Result<Component>,
    /// For training.
    pub build_f32: Build<f32>,
    /// For the gradient check.
    pub build_f64: Build<f64>,
    /// Cases for the gradient check.
    pub examples: &'static [Example],
}

/// All layers, by name.
pub const REGISTRY: &[Entry] = &[
    adaptive_avg_pool2d::ENTRY,
    avg_pool2d::ENTRY,
    batch_norm::ENTRY_1D,
    batch_norm::ENTRY_2D,
    conv2d::ENTRY,
    dropout::ENTRY,
    flatten::ENTRY,
    gelu::ENTRY,
    adaptive_avg_pool2d::ENTRY_GLOBAL,
    gru::ENTRY,
    layer_norm::ENTRY,
    leaky_relu::ENTRY,
    linear::ENTRY,
    lstm::ENTRY,
    max_pool2d::ENTRY,
    relu::ENTRY,
    residual::ENTRY,
    sigmoid::ENTRY,
    tanh::ENTRY,
];

/// The entry a component names.
pub fn find(component: &Component) -> Result<&'static Entry> {
    REGISTRY
        .iter()
        .find(|entry| entry.name == component.kind)
        .ok_or_else(|| component.unknown_kind("type", REGISTRY.iter().map(|entry| entry.name)))
}

/// A type that layers can be built for.
pub trait Element: Real {
    /// The entry's builder for this type.
    fn builder(entry: &Entry) -> Build<Self>;
}

impl Element for f32 {
    fn builder(entry: &Entry) -> Build<f32> {
        entry.build_f32
    }
}

impl Element for f64 {
    fn builder(entry: &Entry) -> Build<f64> {
        entry.build_f64
    }
}

/// Sizes and counts above this, and arenas and activations above its square, are taken for mistakes: they would not fit
/// into memory or an index.
const MOST: i64 = 1 << 18;

/// Builds the layer a component names.
///
/// # Errors
/// Besides the layer's own: sizes that no memory holds.
pub fn build<T: Element>(component: &Component, place: Place<'_>) -> Result<Box<dyn Layer<T>>> {
    let entry = find(component)?;
    for (key, value) in &component.table {
        let sizes = value.as_array().map_or(std::slice::from_ref(value), Vec::as_slice);
        if sizes.iter().any(|size| size.as_integer().is_some_and(|size| size > MOST)) {
            return Err(component.error(key, format!("is more than {MOST}"), "give a smaller size"));
        }
    }
    let layer = T::builder(entry)(component, place)?;
    // In floating point, since a product of sizes may not fit into an index.
    let product = |dimensions: &[usize]| dimensions.iter().map(|&d| d as f64).product::<f64>();
    let plan = layer.plan();
    let output = place.m as f64
        * match plan.output {
            Shape::Image { c, h, w } => product(&[c, h, w]),
            Shape::Sequence { t, f } => product(&[t, f]),
            Shape::Vector { n } => product(&[n]),
        };
    let parameters = plan.parameters.iter().map(|p| product(&p.shape)).sum::<f64>();
    let most = (MOST as f64).powi(2);
    for (what, elements) in [("activations of a micro-batch", output), ("parameters", parameters)] {
        if elements > most {
            let what = format!("its {what} are {elements:.1e} elements, more than {most:.1e}");
            return Err(component.error("", what, "use smaller sizes"));
        }
    }
    Ok(layer)
}

/// An error for a layer that got an input of the wrong kind.
pub fn wrong_input(component: &Component, input: Shape, wants: &str, mend: &str) -> Error {
    component.error("", format!("{} takes {wants}, but its input is {}", component.kind, describe(input)), mend)
}

/// Refuses sizes whose product is not in memory's reach, before anything is counted with them or allocated.
pub fn check_size<T>(component: &Component, key: &str, sizes: &[usize]) -> Result<()> {
    let elements: f64 = sizes.iter().map(|&size| size as f64).product();
    let place = match component.error(key, "", "") {
        Error::Usage { place, .. } => place,
        _ => component.place.clone(),
    };
    require_memory(&place, elements * size_of::<T>() as f64, "use a smaller layer, or a smaller train.micro_batch")
}

/// `an image 3x32x32 (channels x height x width)`.
fn describe(shape: Shape) -> String {
    match shape {
        Shape::Image { .. } => format!("an image {shape} (channels x height x width)"),
        Shape::Sequence { .. } => format!("a sequence {shape} (time x features)"),
        Shape::Vector { .. } => format!("a vector of {shape}"),
    }
}
