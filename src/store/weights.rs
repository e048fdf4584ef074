//! Weights from elsewhere and to elsewhere, by the file's ending.

use super::{Tensor, checkpoint, safetensors, shape_text};
use crate::arena::{Layout, Slot};
use crate::error::{Error, Result};
use std::collections::{HashMap, HashSet};
use std::path::Path;

/// Reads the tensors of a safetensors file, or the model of a ddl checkpoint, by layer number and name.
///
/// # Errors
/// `Usage` for an unknown ending, `Io` if the file cannot be read, `Data` if it is damaged or a weight is not finite.
pub fn read(path: &Path) -> Result<Vec<Tensor>> {
    let tensors = match path.extension().and_then(|e| e.to_str()).unwrap_or_default() {
        "safetensors" => safetensors::read(path),
        "h5" | "hdf5" => checkpoint::read_network(path).map(|checkpoint| checkpoint.model),
        ending => {
            let what = format!("cannot read weights from a file ending in .{ending}");
            Err(Error::usage(path.display().to_string(), what, "known are .safetensors, and .h5 for a ddl checkpoint"))
        }
    }?;
    for Tensor { key, data, .. } in &tensors {
        if let Some(i) = data.iter().position(|value| !value.is_finite()) {
            let what = format!("element {i} of tensor {key} is {}", data[i]);
            return Err(Error::data(path.display().to_string(), what, "nothing follows from it: use other weights"));
        }
    }
    Ok(tensors)
}

/// Fills the parameters and the state buffers, each slot from the tensor of its key. Nothing is written unless all
/// fits.
///
/// # Errors
/// `Usage`, naming the first key that is missing, unexpected or of another shape.
pub fn load(
    tensors: &[Tensor],
    source: &Path,
    layout: &Layout,
    params: &mut [f32],
    state_layout: &Layout,
    state: &mut [f32],
) -> Result<()> {
    let slots: Vec<&Slot> = layout.slots().iter().chain(state_layout.slots()).collect();
    check(tensors, source, &slots)?;
    fill(tensors, layout, params)?;
    fill(tensors, state_layout, state)
}

/// As [`load`], of tensors that nobody needs any more: each goes as soon as it is in its place, so that weights are not in memory
/// twice.
///
/// # Errors
/// As [`load`].
pub fn place(
    tensors: Vec<Tensor>,
    source: &Path,
    layout: &Layout,
    params: &mut [f32],
    state_layout: &Layout,
    state: &mut [f32],
) -> Result<()> {
    check(&tensors, source, &layout.slots().iter().chain(state_layout.slots()).collect::<Vec<_>>())?;
    for tensor in tensors {
        let one = std::slice::from_ref(&tensor);
        fill(one, layout, params)?;
        fill(one, state_layout, state)?;
    }
    Ok(())
}

/// Fills one optimizer slot of a checkpoint, laid out as the parameters.
///
/// # Errors
/// As [`load`].
pub fn load_slot(tensors: &[Tensor], source: &Path, layout: &Layout, arena: &mut [f32]) -> Result<()> {
    check(tensors, source, &layout.slots().iter().collect::<Vec<_>>())?;
    fill(tensors, layout, arena)
}

fn check(tensors: &[Tensor], source: &Path, slots: &[&Slot]) -> Result<()> {
    let refuse = |what: String| {
        let mend = "this file is of another network: check the layers of the job, or use another file";
        Err(Error::usage(source.display().to_string(), what, mend))
    };
    let mut by_key = HashMap::new();
    for tensor in tensors {
        if by_key.insert(tensor.key.as_str(), tensor).is_some() {
            return refuse(format!("tensor {} is there twice", tensor.key));
        }
    }
    let wanted: HashSet<String> = slots.iter().map(|slot| slot.key()).collect();
    for slot in slots {
        let (key, shape) = (slot.key(), shape_text(&slot.shape));
        match by_key.get(key.as_str()) {
            None => {
                let layer: Vec<&str> =
                    tensors.iter().map(|t| t.key.as_str()).filter(|k| !wanted.contains(*k)).take(4).collect();
                let instead = match layer.as_slice() {
                    [] => "the file has nothing in its place".to_string(),
                    some => format!("the file has {} instead", some.join(", ")),
                };
                return refuse(format!("no tensor {key} of shape {shape}; {instead}"));
            }
            Some(tensor) if tensor.shape != slot.shape || tensor.data.len() != slot.len() => {
                let found = shape_text(&tensor.shape);
                return refuse(format!("tensor {key} has shape {found}, but the network needs {shape}"));
            }
            Some(_) => {}
        }
    }
    match tensors.iter().find(|tensor| !wanted.contains(&tensor.key)) {
        Some(extra) => {
            let shape = shape_text(&extra.shape);
            refuse(format!("tensor {} of shape {shape} has no place in the network", extra.key))
        }
        None => Ok(()),
    }
}

fn fill(tensors: &[Tensor], layout: &Layout, arena: &mut [f32]) -> Result<()> {
    if arena.len() != layout.len() {
        let what = format!("an arena of {} elements for a layout of {}", arena.len(), layout.len());
        return Err(Error::internal("store::weights", what));
    }
    let by_key: HashMap<&str, &Tensor> = tensors.iter().map(|t| (t.key.as_str(), t)).collect();
    for slot in layout.slots() {
        if let Some(tensor) = by_key.get(slot.key().as_str()) {
            slot.write(&tensor.data, arena);
        }
    }
    Ok(())
}

/// Writes the tensors as safetensors for torch: the keys as they are, and for each `<layer>.running_mean` also
/// `<layer>.num_batches_tracked` with the number of steps, so that a strict `load_state_dict` takes the file.
///
/// # Errors
/// `Io` if the file cannot be written; an older one is untouched then.
pub fn export_safetensors(path: &Path, tensors: &[Tensor], steps: u64) -> Result<()> {
    safetensors::write(path, tensors, steps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Storage;

    fn layouts() -> (Layout, Layout) {
        let (mut params, mut state) = (Layout::default(), Layout::default());
        params.push("0", "weight", &[3, 2], Storage::Panels);
        params.push("1", "bias", &[3], Storage::Plain);
        state.push("1", "running_mean", &[3], Storage::Plain);
        (params, state)
    }

    fn tensor(key: &str, shape: &[usize]) -> Tensor {
        let data = (0..shape.iter().product::<usize>()).map(|v| v as f32 + 1.0).collect();
        Tensor { key: key.into(), shape: shape.into(), data }
    }

    fn tensors() -> Vec<Tensor> {
        vec![tensor("0.weight", &[3, 2]), tensor("1.bias", &[3]), tensor("1.running_mean", &[3])]
    }

    #[test]
    fn what_is_exported_can_be_loaded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        export_safetensors(&path, &tensors(), 7).unwrap();
        assert_eq!(read(&path).unwrap(), tensors());
        let ((layout, state_layout), text) =
            (layouts(), String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned());
        assert!(text.contains("1.num_batches_tracked"));
        let (mut params, mut state) = (vec![9.0; layout.len()], vec![9.0; state_layout.len()]);
        load(&read(&path).unwrap(), &path, &layout, &mut params, &state_layout, &mut state).unwrap();
        assert_eq!(layout.slots()[0].read(&params), tensors()[0].data);
        assert_eq!(state_layout.slots()[0].read(&state), tensors()[2].data);
        let slot = [tensor("0.weight", &[3, 2]), tensor("1.bias", &[3])];
        load_slot(&slot, &path, &layout, &mut params).unwrap();
        assert_eq!(load_slot(&tensors(), &path, &layout, &mut params).unwrap_err().exit_code(), 2);
    }

    #[test]
    fn another_network_is_refused_before_anything_is_written() {
        let (layout, state_layout) = layouts();
        let change = |edit: &dyn Fn(&mut Vec<Tensor>)| {
            let mut tensors = tensors();
            edit(&mut tensors);
            let (mut params, mut state) = (vec![9.0; layout.len()], vec![9.0; state_layout.len()]);
            let source = Path::new("x.safetensors");
            let error = load(&tensors, source, &layout, &mut params, &state_layout, &mut state).unwrap_err();
            assert!(params.iter().chain(&state).all(|&v| v == 9.0));
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        };
        let missing = change(&|t| t[2].key = "1.mean".into());
        assert!(missing.contains("x.safetensors: no tensor 1.running_mean of shape (3)"), "{missing}");
        assert!(missing.contains("the file has 1.mean instead"), "{missing}");
        let shape = change(&|t| t[0] = tensor("0.weight", &[2, 3]));
        assert!(shape.contains("0.weight has shape (2, 3), but the network needs (3, 2)"), "{shape}");
        let extra = change(&|t| t.push(tensor("4.weight", &[1])));
        assert!(extra.contains("4.weight of shape (1) has no place"), "{extra}");
        assert!(change(&|t| t.push(tensor("1.bias", &[3]))).contains("1.bias is there twice"));
        assert!(change(&|t| t.clear()).contains("nothing in its place"));
    }

    #[test]
    fn the_ending_decides() {
        for name in ["w.pt", "w", "w.onnx"] {
            let error = read(Path::new(name)).unwrap_err();
            assert_eq!(error.exit_code(), 2);
            assert!(error.to_string().contains(".safetensors"), "{error}");
        }
        assert_eq!(read(Path::new("missing.h5")).unwrap_err().exit_code(), 74);
    }
}
