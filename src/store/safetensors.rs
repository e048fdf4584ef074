//! The safetensors format, which Python's `safetensors` and `torch` read and write.

use super::{Tensor, atomic, key_order};
use crate::error::{Error, Result};
use crate::resource::{memory, open_file};
use safetensors::tensor::{Dtype, SafeTensors, TensorView};
use std::collections::HashMap;
use std::path::Path;

/// Reads all float tensors as f32. I64 scalars, which are counters such as `num_batches_tracked`, are left out.
pub(super) fn read(path: &Path) -> Result<Vec<Tensor>> {
    let place = || path.display().to_string();
    let mend = "check that the file is complete and was saved by safetensors";
    let mut bytes = Vec::new();
    memory::read_to_end(&mut open_file(path, "check the path")?, u64::MAX, &mut bytes)
        .and_then(|bytes_read| memory::ask(2.0 * bytes_read as f64))
        .map_err(|e| Error::io(path, format!("cannot read: {e}"), "check the path"))?;
    let file = SafeTensors::deserialize(&bytes)
        .map_err(|e| Error::data(place(), format!("not a whole safetensors file: {e}"), mend))?;
    let mut tensors = Vec::new();
    for (key, view) in file.iter() {
        let data = match view.dtype() {
            Dtype::I64 if view.shape().iter().product::<usize>() == 1 => continue,
            Dtype::F32 => elements(view.data(), f32::from_le_bytes),
            Dtype::F64 => elements(view.data(), |bytes| f64::from_le_bytes(bytes) as f32),
            Dtype::F16 => elements(view.data(), |bytes| from_half(u16::from_le_bytes(bytes))),
            Dtype::BF16 => elements(view.data(), |bytes| f32::from_bits(u32::from(u16::from_le_bytes(bytes)) << 16)),
            other => {
                let what = format!("tensor {key} is of type {other:?}, not F32, F64, F16 or BF16");
                return Err(Error::data(place(), what, "save the weights as floats"));
            }
        };
        tensors.push(Tensor { key: key.to_string(), shape: view.shape().to_vec(), data });
    }
    tensors.sort_by(|a, b| key_order(&a.key).cmp(&key_order(&b.key)));
    Ok(tensors)
}

fn elements<const N: usize>(bytes: &[u8], value: impl Fn([u8; N]) -> f32) -> Vec<f32> {
    bytes.as_chunks::<N>().0.iter().map(|&chunk| value(chunk)).collect()
}

/// IEEE 754 binary16: 1 sign bit, 5 of exponent (bias 15), 10 of fraction.
fn from_half(bits: u16) -> f32 {
    let (exponent, fraction) = ((bits >> 10) & 0x1f, f32::from(bits & 0x3ff));
    let magnitude = match exponent {
        0 => fraction * 2f32.powi(-24),
        31 if fraction == 0.0 => f32::INFINITY,
        31 => f32::NAN,
        e => (1.0 + fraction / 1024.0) * 2f32.powi(i32::from(e) - 15),
    };
    if bits >> 15 == 1 { -magnitude } else { magnitude }
}

/// Writes the tensors, and beside each `<layer>.running_mean` the counter `<layer>.num_batches_tracked`, without
/// which torch's strict `load_state_dict` refuses a batch norm.
pub(super) fn write(path: &Path, tensors: &[Tensor], steps: u64) -> Result<()> {
    let invalid = |e: safetensors::SafeTensorError| Error::internal("store::weights::export_safetensors", e);
    let bytes: Vec<Vec<u8>> = tensors.iter().map(|t| t.data.iter().flat_map(|v| v.to_le_bytes()).collect()).collect();
    let counter = (steps as i64).to_le_bytes();
    let mut views = Vec::new();
    for (tensor, bytes) in tensors.iter().zip(&bytes) {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes).map_err(invalid)?;
        views.push((tensor.key.clone(), view));
        if let Some(layer) = tensor.key.strip_suffix(".running_mean") {
            let view = TensorView::new(Dtype::I64, Vec::new(), &counter).map_err(invalid)?;
            views.push((format!("{layer}.num_batches_tracked"), view));
        }
    }
    // The mark by which Python libraries know tensors in torch's layout.
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    let file = safetensors::serialize(views, Some(metadata)).map_err(invalid)?;
    atomic::write(path, &file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_exact() {
        let cases =
            [(0x3c00, 1.0), (0xc000, -2.0), (0x7bff, 65504.0), (0x0001, 2f32.powi(-24)), (0x3555, 0.333_251_95)];
        for (bits, value) in cases {
            assert_eq!(from_half(bits), value);
        }
        assert_eq!(from_half(0xfc00), f32::NEG_INFINITY);
        assert!(from_half(0x7e00).is_nan());
        assert_eq!(from_half(0x8000).to_bits(), (-0.0f32).to_bits());
    }

    #[test]
    fn floats_of_all_widths_become_f32_and_counters_are_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        let save = |dtype, shape: Vec<usize>, bytes: &[u8]| {
            let view = TensorView::new(dtype, shape, bytes).unwrap();
            let counter = TensorView::new(Dtype::I64, vec![], &[1, 0, 0, 0, 0, 0, 0, 0]).unwrap();
            std::fs::write(&path, safetensors::serialize([("0.w", view), ("0.n", counter)], None).unwrap()).unwrap();
            read(&path)
        };
        for (dtype, bytes) in [
            (Dtype::F64, [1.5f64.to_le_bytes(), (-2f64).to_le_bytes()].concat()),
            (Dtype::F32, [1.5f32.to_le_bytes(), (-2f32).to_le_bytes()].concat()),
            (Dtype::F16, vec![0x00, 0x3e, 0x00, 0xc0]),
            (Dtype::BF16, vec![0xc0, 0x3f, 0x00, 0xc0]),
        ] {
            let expected = Tensor { key: "0.w".into(), shape: vec![2, 1], data: vec![1.5, -2.0] };
            assert_eq!(save(dtype, vec![2, 1], &bytes).unwrap(), [expected], "{dtype:?}");
        }
        let error = save(Dtype::I32, vec![1], &[0; 4]).unwrap_err();
        assert_eq!(error.exit_code(), 65);
        assert!(error.to_string().contains("0.w"), "{error}");
    }

    #[test]
    fn broken_files_are_data_errors() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("w.safetensors");
        write(&path, &[Tensor { key: "0.w".into(), shape: vec![3], data: vec![1.0; 3] }], 0).unwrap();
        let good = std::fs::read(&path).unwrap();
        let mut broken: Vec<Vec<u8>> = (0..good.len()).map(|n| good[..n].to_vec()).collect();
        for length in [u64::MAX, u64::MAX - 7, 1 << 62, 99_000_000, 1] {
            broken.push([&length.to_le_bytes(), &good[8..]].concat());
        }
        for header in [
            r#"{"a":{"dtype":"F32","shape":[18446744073709551615,9],"data_offsets":[0,12]}}"#,
            r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[12,0]}}"#,
            r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,99]}}"#,
            r#"[[[["#,
        ] {
            broken.push([&(header.len() as u64).to_le_bytes(), header.as_bytes(), &[0; 12]].concat());
        }
        for bytes in broken {
            std::fs::write(&path, &bytes).unwrap();
            assert_eq!(read(&path).unwrap_err().exit_code(), 65, "{bytes:?}");
        }
        assert_eq!(read(&dir.path().join("missing")).unwrap_err().exit_code(), 74);
    }
}
