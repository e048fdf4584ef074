//! A trained network in the forms of others: weights as safetensors or NPZ, all of it as ONNX.

mod onnx;
mod proto;

use crate::config::Job;
use crate::error::{Error, Result};
use crate::input::Input;
use crate::model::Model;
use crate::shape::Shape;
use crate::store::{self, Checkpoint, weights};
use ndarray::ArrayD;
use ndarray_npy::NpzWriter;
use prost::Message;
use proto::Property;
use std::io::Cursor;
use std::path::Path;

/// A form, by the ending of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Weights, with torch's keys and layouts.
    Safetensors,
    /// Likewise, an array each.
    Npz,
    /// Layers and weights.
    Onnx,
}

impl Form {
    /// That of a file's ending.
    ///
    /// # Errors
    /// Another ending.
    pub fn of(path: &Path) -> Result<Self> {
        let ending = path.extension().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
        match ending.as_str() {
            "safetensors" => Ok(Form::Safetensors),
            "npz" => Ok(Form::Npz),
            "onnx" => Ok(Form::Onnx),
            _ => {
                let what = match ending.is_empty() {
                    true => "it has no ending that says the form".to_owned(),
                    false => format!("cannot write a .{ending} file"),
                };
                let mend = "use the ending .safetensors, .npz or .onnx";
                Err(Error::usage(format!("--to {}", path.display()), what, mend))
            }
        }
    }
}

/// Writes a checkpoint in another form; gives what was written, in words. With `whole` an ONNX graph takes inputs and gives values
/// in the data's own units.
///
/// # Errors
/// A job that no network can be built from, or whose units differ by series; a folder that cannot be written to.
pub fn write(checkpoint: &Checkpoint, path: &Path, form: Form, whole: bool) -> Result<String> {
    let tensors = format!("{} tensors", checkpoint.model.len());
    match form {
        Form::Safetensors => weights::export_safetensors(path, &checkpoint.model, checkpoint.step)?,
        Form::Npz => npz(checkpoint, path)?,
        Form::Onnx => {
            store::write_file(path, &graph(checkpoint, whole)?)?;
            return Ok(format!("the network with {tensors}"));
        }
    }
    Ok(tensors)
}

fn npz(checkpoint: &Checkpoint, path: &Path) -> Result<()> {
    let failed = |e: &dyn std::fmt::Display| Error::internal("an .npz file in memory", e);
    let mut writer = NpzWriter::new(Cursor::new(Vec::new()));
    for tensor in &checkpoint.model {
        let array = ArrayD::from_shape_vec(tensor.shape.clone(), tensor.data.clone()).map_err(|e| failed(&e))?;
        writer.add_array(tensor.key.as_str(), &array).map_err(|e| failed(&e))?;
    }
    let bytes = writer.finish().map_err(|e| failed(&e))?.into_inner();
    store::write_file(path, &bytes)
}

/// The network as an ONNX file's bytes.
fn graph(checkpoint: &Checkpoint, whole: bool) -> Result<Vec<u8>> {
    let Some(input) = &checkpoint.input else {
        let mend = "go on with it by --resume and this ddl, and export the new checkpoint";
        return Err(Error::usage("the checkpoint", "made by an older ddl, it does not hold what its input was", mend));
    };
    let job = Job::parse(&checkpoint.config, "the checkpoint's job", &[])?;
    let model = Model::<f32>::build(&job.layers, input.shape, 1)?;
    if whole && !input.series.is_empty() {
        let what = "the checkpoint's samples are windows, scaled by series or by window";
        let mend = "leave it out, and scale before the graph as the file's metadata say (`series`)";
        return Err(Error::usage("--with-normalization", what, mend));
    }
    if whole && input.mean.is_empty() {
        let what = "the checkpoint's samples are taken as they are, there is nothing to normalise by";
        return Err(Error::usage("--with-normalization", what, "leave it out"));
    }
    let units = input.units.iter().map(|unit| (unit.scale, unit.offset)).unzip();
    let network = onnx::Network {
        name: &job.name,
        layers: &model.stack.described(),
        tensors: &checkpoint.model,
        input: input.shape,
        output: model.stack.output(),
        scaling: whole.then(|| (input.mean.clone(), input.std.clone())),
        units: (whole && !input.units.is_empty()).then_some(units),
    };
    let mut file = onnx::model(&network)?;
    file.metadata_props = metadata(checkpoint, input, whole);
    Ok(file.encode_to_vec())
}

/// What a reader of the file wants to know, as JSON where it is a list.
fn metadata(checkpoint: &Checkpoint, input: &Input, whole: bool) -> Vec<Property> {
    fn list(of: &impl serde::Serialize) -> String {
        serde_json::to_string(of).unwrap_or_default()
    }
    let mut found = vec![
        ("job", checkpoint.config.clone()),
        ("step", checkpoint.step.to_string()),
        ("epoch", checkpoint.epoch.to_string()),
        ("products", checkpoint.products.clone()),
        ("input", layout(input.shape).to_owned()),
        ("normalization", if whole { "in the graph" } else { "before the graph: (x - mean) / std" }.to_owned()),
        ("mean", list(&input.mean)),
        ("std", list(&input.std)),
    ];
    let lists = [("classes", &input.classes), ("features", &input.features), ("targets", &input.targets)];
    found.extend(lists.into_iter().filter(|(_, names)| !names.is_empty()).map(|(name, names)| (name, list(names))));
    if !input.units.is_empty() {
        found.push(("units", list(&input.units)));
    }
    if !input.series.is_empty() {
        found.push(("series", list(&input.series)));
    }
    found.into_iter().map(|(key, value)| Property { key: key.into(), value }).collect()
}

fn layout(shape: Shape) -> &'static str {
    match shape {
        Shape::Image { .. } => "(N, channels, height, width), u8 pixels divided by 255",
        Shape::Sequence { .. } => "(N, time, features)",
        Shape::Vector { .. } => "(N, features)",
    }
}
