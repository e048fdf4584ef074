//! Arrays in an HDF5 file, read into plain memory.

use crate::error::{Error, Result};
use crate::resource::{memory, open_file};
use hdf5::types::TypeDescriptor;
use std::path::Path;

/// An n-dimensional array, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct Array {
    /// Its dimensions.
    pub shape: Vec<usize>,
    /// Its elements.
    pub values: Values,
}

/// The elements of an [`Array`], widened to one of a few types.
#[derive(Debug, Clone, PartialEq)]
pub enum Values {
    /// From u8.
    U8(Vec<u8>),
    /// From f32.
    F32(Vec<f32>),
    /// From f64.
    F64(Vec<f64>),
    /// From booleans and any other integer.
    I64(Vec<i64>),
}

impl Values {
    /// Number of elements.
    pub fn len(&self) -> usize {
        match self {
            Values::U8(values) => values.len(),
            Values::F32(values) => values.len(),
            Values::F64(values) => values.len(),
            Values::I64(values) => values.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// The paths of all datasets in a file, groups included, sorted.
pub fn list(path: &Path) -> Result<Vec<String>> {
    open_file(path, "check the path")?;
    super::probe::survives(path)?;
    names(path)
}

pub(super) fn names(path: &Path) -> Result<Vec<String>> {
    let file = open(path)?;
    let mut names = Vec::new();
    collect(&file, &mut names).map_err(|e| damaged(path, "its groups", &e))?;
    names.sort();
    names.dedup();
    Ok(names)
}

/// Reads one dataset whole. Errors: no such file (74), no HDF5, no such dataset, a type that is no number (65).
pub fn read(path: &Path, name: &str) -> Result<Array> {
    let file = open(path)?;
    let dataset = file.dataset(name).map_err(|_| {
        let known = names(path).unwrap_or_default().join(", ");
        Error::data(path.display().to_string(), format!("no dataset \"{name}\""), format!("there are: {known}"))
    })?;
    let place = || format!("{}, dataset {name}", path.display());
    let failed = |e: hdf5::Error| damaged(path, &format!("dataset {name}"), &e);
    let shape = dataset.shape();
    let kind = dataset.dtype().and_then(|t| t.to_descriptor()).map_err(failed)?;
    let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    let bytes = match kind {
        TypeDescriptor::Unsigned(size) if size as usize == 1 => 1.0,
        TypeDescriptor::Float(size) if size as usize <= 4 => 4.0,
        TypeDescriptor::Boolean => 9.0,
        _ => 8.0,
    };
    // A header may promise anything.
    let asked = memory::ask(elements.map_or(f64::INFINITY, |elements| elements as f64) * bytes);
    asked.map_err(|e| Error::data(place(), format!("{shape:?} elements: {e}"), "give less data, or more memory"))?;
    let values = match kind {
        TypeDescriptor::Unsigned(size) if size as usize == 1 => Values::U8(dataset.read_raw().map_err(failed)?),
        TypeDescriptor::Float(size) if size as usize == 4 => Values::F32(dataset.read_raw().map_err(failed)?),
        TypeDescriptor::Float(size) if size as usize == 8 => Values::F64(dataset.read_raw().map_err(failed)?),
        TypeDescriptor::Boolean => {
            let flags = dataset.read_raw::<bool>().map_err(failed)?;
            Values::I64(flags.into_iter().map(i64::from).collect())
        }
        TypeDescriptor::Integer(_) | TypeDescriptor::Unsigned(_) => Values::I64(dataset.read_raw().map_err(failed)?),
        other => {
            return Err(Error::data(
                place(),
                format!("elements of type {other} are no numbers"),
                "give u8, integers, f32 or f64",
            ));
        }
    };
    Ok(Array { shape, values })
}

fn open(path: &Path) -> Result<hdf5::File> {
    open_file(path, "check the path")?;
    hdf5::File::open(path).map_err(|_| {
        Error::data(path.display().to_string(), "not an HDF5 file, or a damaged one", "give a whole HDF5 file")
    })
}

fn damaged(path: &Path, part: &str, error: &hdf5::Error) -> Error {
    let text = error.to_string();
    let what = format!("{part} cannot be read: {}", text.lines().next().unwrap_or_default());
    Error::data(path.display().to_string(), what, "the file is damaged; get it anew")
}

/// Visits a bounded number of groups, since a group may hold itself.
fn collect(group: &hdf5::Group, names: &mut Vec<String>) -> hdf5::Result<()> {
    let mut budget = 1000;
    let mut waiting = vec![group.clone()];
    while let Some(group) = waiting.pop() {
        names.extend(group.datasets()?.iter().map(|dataset| dataset.name().trim_start_matches('/').to_owned()));
        if budget > 0 {
            budget -= 1;
            waiting.extend(group.groups()?);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_of_number_is_read_and_widened() -> Result<(), Box<dyn std::error::Error>> {
        let folder = tempfile::TempDir::new()?;
        let path = folder.path().join("t.h5");
        let file = hdf5::File::create(&path)?;
        file.new_dataset_builder().with_data(&ndarray::array![[1u8, 2, 3], [4, 5, 6]]).create("u8")?;
        file.new_dataset_builder().with_data(&[1.5f32]).create("group/inner/f32")?;
        file.new_dataset_builder().with_data(&[2.5f64]).create("group/f64")?;
        file.new_dataset_builder().with_data(&[-3i16, 4]).create("i16")?;
        file.new_dataset_builder().with_data(&[true, false]).create("bool")?;
        file.new_dataset_builder().with_data(&[hdf5::types::VarLenUnicode::new()]).create("text")?;
        file.link_soft("/group", "group/again")?;
        file.close()?;
        assert_eq!(read(&path, "u8")?, Array { shape: vec![2, 3], values: Values::U8(vec![1, 2, 3, 4, 5, 6]) });
        assert_eq!(read(&path, "group/inner/f32")?.values, Values::F32(vec![1.5]));
        assert_eq!(read(&path, "group/f64")?.values, Values::F64(vec![2.5]));
        assert_eq!(read(&path, "i16")?.values, Values::I64(vec![-3, 4]));
        assert_eq!(read(&path, "bool")?.values, Values::I64(vec![1, 0]));
        assert_eq!(read(&path, "text").map_err(|e| e.exit_code()), Err(65));
        assert_eq!(read(&path, "none").map_err(|e| e.exit_code()), Err(65));
        assert!(list(&path)?.contains(&"group/inner/f32".to_owned()));
        assert_eq!(list(&folder.path().join("none")).map_err(|e| e.exit_code()), Err(74));
        Ok(())
    }
}
