//! A network as an ONNX graph: images (N, C, H, W), sequences (N, T, F), rows (N, F), any number of samples.

use super::proto::{self, Attribute, FLOAT, Graph, INT64, Node, Size, Tensor, Value};
use crate::error::{Error, Result};
use crate::kernel::{CellKind, Window};
use crate::layer::{Described, Op};
use crate::shape::Shape;
use crate::store;
use std::collections::HashMap;

/// LayerNormalization came with 17, Gelu with 20.
const OPSET: i64 = 20;
const IR_VERSION: i64 = 9;

/// What a graph is made of.
pub(super) struct Network<'a> {
    pub name: &'a str,
    pub layers: &'a [Described],
    pub tensors: &'a [store::Tensor],
    pub input: Shape,
    pub output: Shape,
    /// Of each channel or feature: what the graph takes away from its input, and what it divides by; none: nothing.
    pub scaling: Option<(Vec<f64>, Vec<f64>)>,
    /// Of each output: what the graph multiplies by, and what it adds; none: nothing.
    pub units: Option<(Vec<f64>, Vec<f64>)>,
}

/// The graph as a model of ONNX, without metadata.
///
/// # Errors
/// A layer that has no such form.
pub(super) fn model(network: &Network) -> Result<proto::Model> {
    let mut builder = Builder {
        graph: Graph { name: network.name.into(), ..Graph::default() },
        tensors: network.tensors.iter().map(|tensor| (tensor.key.as_str(), tensor)).collect(),
    };
    let free_time = matches!(network.input, Shape::Sequence { .. }) && !network.layers.iter().any(is_flatten);
    builder.graph.input.push(value("input", network.input, free_time));
    let mut x = "input".to_owned();
    if let Some((mean, std)) = &network.scaling {
        let dims = match network.input {
            Shape::Image { c, .. } => vec![1, c, 1, 1],
            Shape::Sequence { f, .. } => vec![f],
            Shape::Vector { n } => vec![n],
        };
        let (mean, std) = (builder.floats("input.mean", &dims, mean), builder.floats("input.std", &dims, std));
        x = builder.node("Sub", "input.centred", &[&x, &mean], vec![]);
        x = builder.node("Div", "input.scaled", &[&x, &std], vec![]);
    }
    for layer in network.layers {
        x = builder.layer(layer, "", &x)?;
    }
    if let Some((scale, offset)) = &network.units {
        let dims = [scale.len()];
        let (scale, offset) =
            (builder.floats("unit.scale", &dims, scale), builder.floats("unit.offset", &dims, offset));
        x = builder.node("Mul", "output.scaled", &[&x, &scale], vec![]);
        x = builder.node("Add", "output.shifted", &[&x, &offset], vec![]);
    }
    builder.push("Identity", "output", &[&x], &["output".into()], vec![]);
    builder.graph.output.push(value("output", network.output, free_time));
    Ok(proto::Model {
        ir_version: IR_VERSION,
        producer_name: "ddl".into(),
        producer_version: env!("CARGO_PKG_VERSION").into(),
        opset_import: vec![proto::Opset { domain: String::new(), version: OPSET }],
        graph: Some(builder.graph),
        metadata_props: Vec::new(),
    })
}

/// Whether it needs the length of its input, itself or inside.
fn is_flatten(layer: &Described) -> bool {
    match &layer.op {
        Op::Flatten => true,
        Op::Residual { layers, shortcut } => layers.iter().chain(shortcut).any(is_flatten),
        _ => false,
    }
}

fn value(name: &str, shape: Shape, free_time: bool) -> Value {
    let fixed = |size: usize| Size::Fixed(size as i64);
    let free = |name: &str| Size::Free(name.into());
    let dims = match shape {
        Shape::Image { c, h, w } => vec![free("N"), fixed(c), fixed(h), fixed(w)],
        Shape::Sequence { f, .. } if free_time => vec![free("N"), free("T"), fixed(f)],
        Shape::Sequence { t, f } => vec![free("N"), fixed(t), fixed(f)],
        Shape::Vector { n } => vec![free("N"), fixed(n)],
    };
    let dim = dims.into_iter().map(|size| proto::Dimension { size: Some(size) }).collect();
    let tensor = proto::TensorType { elem_type: FLOAT, shape: Some(proto::Shape { dim }) };
    Value { name: name.into(), kind: Some(proto::Type { tensor: Some(tensor) }) }
}

/// A graph that grows.
struct Builder<'a> {
    graph: Graph,
    tensors: HashMap<&'a str, &'a store::Tensor>,
}

impl Builder<'_> {
    fn push(&mut self, op: &str, name: &str, inputs: &[&str], outputs: &[String], attribute: Vec<Attribute>) {
        let input = inputs.iter().map(|&input| input.to_owned()).collect();
        let node = Node { input, output: outputs.into(), name: name.into(), op_type: op.into(), attribute };
        self.graph.node.push(node);
    }

    /// A node of one output, which is called as the node.
    fn node(&mut self, op: &str, name: &str, inputs: &[&str], attribute: Vec<Attribute>) -> String {
        self.push(op, name, inputs, &[name.to_owned()], attribute);
        name.to_owned()
    }

    fn constant(&mut self, name: &str, dims: &[usize], data_type: i32, raw_data: Vec<u8>) -> String {
        let dims = dims.iter().map(|&dim| dim as i64).collect();
        self.graph.initializer.push(Tensor { dims, data_type, name: name.into(), raw_data });
        name.to_owned()
    }

    fn f32s(&mut self, name: &str, dims: &[usize], values: &[f32]) -> String {
        self.constant(name, dims, FLOAT, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    fn floats(&mut self, name: &str, dims: &[usize], values: &[f64]) -> String {
        self.f32s(name, dims, &values.iter().map(|&value| value as f32).collect::<Vec<_>>())
    }

    fn integers(&mut self, name: &str, values: &[i64]) -> String {
        self.constant(name, &[values.len()], INT64, values.iter().flat_map(|value| value.to_le_bytes()).collect())
    }

    /// A parameter as the checkpoint has it.
    fn parameter(&self, key: &str) -> Option<(Vec<usize>, Vec<f32>)> {
        self.tensors.get(key).map(|tensor| (tensor.shape.clone(), tensor.data.clone()))
    }

    /// A parameter as a constant of its key, if the layer has it.
    fn given(&mut self, key: &str) -> Option<String> {
        let (dims, values) = self.parameter(key)?;
        Some(self.f32s(key, &dims, &values))
    }

    /// Likewise, or so many of one value.
    fn given_or(&mut self, key: &str, dims: &[usize], value: f32) -> String {
        self.given(key).unwrap_or_else(|| self.f32s(key, dims, &vec![value; dims.iter().product()]))
    }

    /// Appends a layer; gives the name of its output. `outer` goes before its key.
    fn layer(&mut self, layer: &Described, outer: &str, x: &str) -> Result<String> {
        let key = format!("{outer}{}", layer.key);
        let name = format!("{key}.{}", layer.kind);
        let mut simple = |op: &str, attributes| Ok(self.node(op, &name, &[x], attributes));
        match &layer.op {
            Op::Relu => simple("Relu", vec![]),
            Op::LeakyRelu { slope } => simple("LeakyRelu", vec![Attribute::float("alpha", *slope)]),
            Op::Sigmoid => simple("Sigmoid", vec![]),
            Op::Tanh => simple("Tanh", vec![]),
            Op::Gelu { tanh } => {
                simple("Gelu", vec![Attribute::text("approximate", if *tanh { "tanh" } else { "none" })])
            }
            Op::Dropout => simple("Identity", vec![]),
            Op::Flatten => simple("Flatten", vec![Attribute::int("axis", 1)]),
            Op::MaxPool2d(window) => simple("MaxPool", windowed(window)),
            Op::AvgPool2d { window, count_include_pad } => {
                let counts = Attribute::int("count_include_pad", usize::from(*count_include_pad));
                simple("AveragePool", [windowed(window), vec![counts]].concat())
            }
            Op::AdaptiveAvgPool2d((1, 1)) => simple("GlobalAveragePool", vec![]),
            Op::AdaptiveAvgPool2d(parts) => Ok(self.adaptive(&name, layer.input, *parts, x)),
            Op::Linear => Ok(self.linear(&key, &name, layer.input, x)),
            Op::Conv2d(window) => {
                let weight = self.given_or(&format!("{key}.weight"), &[0], 0.0);
                let bias = self.given(&format!("{key}.bias"));
                let inputs: Vec<&str> = [x, &weight].into_iter().chain(bias.as_deref()).collect();
                let sizes = [window.dilation.0, window.dilation.1];
                let own = vec![Attribute::ints("dilations", &sizes), Attribute::int("group", window.groups)];
                Ok(self.node("Conv", &name, &inputs, [windowed(window), own].concat()))
            }
            Op::BatchNorm { eps } => Ok(self.batch_norm(&key, &name, layer.input, *eps, x)),
            Op::LayerNorm { eps } => {
                let (axis, dims) = match layer.input {
                    Shape::Image { c, h, w } => (1, vec![c, h, w]),
                    Shape::Sequence { f, .. } => (2, vec![f]),
                    Shape::Vector { n } => (1, vec![n]),
                };
                let weight = self.given_or(&format!("{key}.weight"), &dims, 1.0);
                let bias = self.given_or(&format!("{key}.bias"), &dims, 0.0);
                let attributes = vec![Attribute::int("axis", axis), Attribute::float("epsilon", *eps)];
                Ok(self.node("LayerNormalization", &name, &[x, &weight, &bias], attributes))
            }
            Op::Recurrent { .. } => Ok(self.recurrent(&key, &name, &layer.op, x)),
            Op::Residual { layers, shortcut } => {
                let mut ends = [x.to_owned(), x.to_owned()];
                for (end, layers) in ends.iter_mut().zip([layers, shortcut]) {
                    for inner in layers {
                        *end = self.layer(inner, &format!("{key}."), end)?;
                    }
                }
                Ok(self.node("Add", &name, &[&ends[0], &ends[1]], vec![]))
            }
            Op::Untold => {
                let what = format!("layer {key} ({}) has no form in ONNX", layer.kind);
                Err(Error::usage("--to", what, "export the weights as .safetensors or .npz"))
            }
        }
    }

    /// Of a row by Gemm; at each time step by a product with the transpose.
    fn linear(&mut self, key: &str, name: &str, input: Shape, x: &str) -> String {
        let (weight_key, bias_key) = (format!("{key}.weight"), format!("{key}.bias"));
        if let Shape::Vector { .. } = input {
            let weight = self.given_or(&weight_key, &[0], 0.0);
            let bias = self.given(&bias_key);
            let inputs: Vec<&str> = [x, &weight].into_iter().chain(bias.as_deref()).collect();
            return self.node("Gemm", name, &inputs, vec![Attribute::int("transB", 1)]);
        }
        let (dims, values) = self.parameter(&weight_key).unwrap_or_default();
        let (outputs, inputs) = (dims.first().copied().unwrap_or(0), dims.get(1).copied().unwrap_or(0));
        let turned: Vec<f32> =
            (0..inputs).flat_map(|i| (0..outputs).map(move |o| o * inputs + i)).map(|at| values[at]).collect();
        let weight = self.f32s(&weight_key, &[inputs, outputs], &turned);
        let y = self.node("MatMul", name, &[x, &weight], vec![]);
        match self.given(&bias_key) {
            Some(bias) => self.node("Add", &format!("{name}.bias"), &[&y, &bias], vec![]),
            None => y,
        }
    }

    /// Channels stand behind the samples; of a sequence they stand last, and are moved.
    fn batch_norm(&mut self, key: &str, name: &str, input: Shape, eps: f64, x: &str) -> String {
        let channels = match input {
            Shape::Image { c, .. } => c,
            Shape::Sequence { f, .. } => f,
            Shape::Vector { n } => n,
        };
        let mut given = |part: &str, value| self.given_or(&format!("{key}.{part}"), &[channels], value);
        let constants =
            [given("weight", 1.0), given("bias", 0.0), given("running_mean", 0.0), given("running_var", 1.0)];
        let turn = || vec![Attribute::ints("perm", &[0, 2, 1])];
        let sequence = matches!(input, Shape::Sequence { .. });
        let x = match sequence {
            true => self.node("Transpose", &format!("{name}.turned"), &[x], turn()),
            false => x.to_owned(),
        };
        let inputs: Vec<&str> = [x.as_str()].into_iter().chain(constants.iter().map(String::as_str)).collect();
        let y = self.node("BatchNormalization", name, &inputs, vec![Attribute::float("epsilon", eps)]);
        if sequence { self.node("Transpose", &format!("{name}.back"), &[&y], turn()) } else { y }
    }

    /// Means of parts that may overlap, as products with the shares of rows and of columns.
    fn adaptive(&mut self, name: &str, input: Shape, parts: (usize, usize), x: &str) -> String {
        let Shape::Image { h, w, .. } = input else { return x.to_owned() };
        let share = |part: usize, parts: usize, size: usize, at: usize| {
            let range = part * size / parts..((part + 1) * size).div_ceil(parts);
            if range.contains(&at) { 1.0 / range.len() as f64 } else { 0.0 }
        };
        let rows: Vec<f64> = (0..parts.0 * h).map(|i| share(i / h, parts.0, h, i % h)).collect();
        let columns: Vec<f64> = (0..w * parts.1).map(|i| share(i % parts.1, parts.1, w, i / parts.1)).collect();
        let rows = self.floats(&format!("{name}.rows"), &[parts.0, h], &rows);
        let columns = self.floats(&format!("{name}.columns"), &[w, parts.1], &columns);
        let y = self.node("MatMul", &format!("{name}.of_rows"), &[&rows, x], vec![]);
        self.node("MatMul", name, &[&y, &columns], vec![])
    }

    /// ONNX has time first, gates in another order, and both biases of a direction in one row.
    fn recurrent(&mut self, key: &str, name: &str, op: &Op, x: &str) -> String {
        let Op::Recurrent { kind, hidden, levels, bidirectional, return_sequences } = *op else { return x.to_owned() };
        // i, f, g, o become i, o, f, g; r, z, n become z, r, n.
        let (node, order): (&str, &[usize]) = match kind {
            CellKind::Lstm => ("LSTM", &[0, 3, 1, 2]),
            CellKind::Gru => ("GRU", &[1, 0, 2]),
        };
        let directions = 1 + usize::from(bidirectional);
        let suffixes = ["", "_reverse"];
        let mut x =
            self.node("Transpose", &format!("{name}.time_first"), &[x], vec![Attribute::ints("perm", &[1, 0, 2])]);
        let mut last = String::new();
        for level in 0..levels {
            let mut gathered = |part: &str, parts: &[&str]| -> Option<String> {
                let (mut values, mut columns) = (Vec::new(), 0);
                for suffix in &suffixes[..directions] {
                    for part in parts {
                        let (dims, given) = self.parameter(&format!("{key}.{part}_l{level}{suffix}"))?;
                        columns = dims.get(1).copied().unwrap_or(1);
                        let gate = hidden * columns;
                        order.iter().for_each(|&from| values.extend(&given[from * gate..(from + 1) * gate]));
                    }
                }
                let dims: &[usize] = match parts.len() {
                    1 => &[directions, order.len() * hidden, columns],
                    _ => &[directions, 2 * order.len() * hidden],
                };
                Some(self.f32s(&format!("{key}.{part}_l{level}"), dims, &values))
            };
            let weight = gathered("weight_ih", &["weight_ih"]).unwrap_or_default();
            let recurrence = gathered("weight_hh", &["weight_hh"]).unwrap_or_default();
            let bias = gathered("bias", &["bias_ih", "bias_hh"]);
            let inputs: Vec<&str> = [x.as_str(), &weight, &recurrence].into_iter().chain(bias.as_deref()).collect();
            let mut attributes = vec![Attribute::int("hidden_size", hidden)];
            if bidirectional {
                attributes.push(Attribute::text("direction", "bidirectional"));
            }
            if kind == CellKind::Gru {
                attributes.push(Attribute::int("linear_before_reset", 1));
            }
            let name = format!("{name}.l{level}");
            let outputs = [format!("{name}.all"), format!("{name}.last")];
            self.push(node, &name, &inputs, &outputs, attributes);
            // (T, directions, N, H) to (T, N, directions·H).
            let turned = self.node(
                "Transpose",
                &format!("{name}.turned"),
                &[&outputs[0]],
                vec![Attribute::ints("perm", &[0, 2, 1, 3])],
            );
            let shape = self.integers(&format!("{name}.shape"), &[0, 0, (directions * hidden) as i64]);
            x = self.node("Reshape", &format!("{name}.joined"), &[&turned, &shape], vec![]);
            last = outputs[1].clone();
        }
        if return_sequences {
            return self.node("Transpose", name, &[&x], vec![Attribute::ints("perm", &[1, 0, 2])]);
        }
        let turned =
            self.node("Transpose", &format!("{name}.ends"), &[&last], vec![Attribute::ints("perm", &[1, 0, 2])]);
        let shape = self.integers(&format!("{name}.ends.shape"), &[0, (directions * hidden) as i64]);
        self.node("Reshape", name, &[&turned, &shape], vec![])
    }
}

/// What convolutions and poolings share.
fn windowed(window: &Window) -> Vec<Attribute> {
    let Window { kernel, stride, padding, extra, .. } = *window;
    vec![
        Attribute::ints("kernel_shape", &[kernel.0, kernel.1]),
        Attribute::ints("strides", &[stride.0, stride.1]),
        Attribute::ints("pads", &[padding.0, padding.1, padding.0 + extra.0, padding.1 + extra.1]),
    ]
}
