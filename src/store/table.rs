//! Arrays in an HDF5 file, read into plain memory.

use super::hdf;
use crate::error::{Error, Result};
use crate::resource::{memory, open_file};
use hdf5::types::{FixedAscii, FixedUnicode, TypeDescriptor, VarLenAscii, VarLenUnicode};
use hdf5::{LinkType, LocationType};
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
    /// From f32 and f16.
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

/// What is in a file, by path, sorted.
#[derive(Debug, Default)]
pub struct Contents {
    /// All datasets, groups included.
    pub datasets: Vec<String>,
    /// Links to other files, which are not followed.
    pub outside: Vec<String>,
    /// The names of classes, where `ddl prepare` has left them.
    pub classes: Vec<String>,
}

/// The contents of a file. A link to nowhere is none of them.
pub fn list(path: &Path) -> Result<Contents> {
    open_file(path, "check the path")?;
    super::probe::survives(path)?;
    contents(path)
}

pub(super) fn contents(path: &Path) -> Result<Contents> {
    let file = open(path)?;
    let classes = hdf::text(&file, "classes").ok().and_then(|text| serde_json::from_str(&text).ok());
    let mut found = Contents { classes: classes.unwrap_or_default(), ..Contents::default() };
    collect(&file, &mut found).map_err(|e| damaged(path, "its groups", &e))?;
    for names in [&mut found.datasets, &mut found.outside] {
        names.sort();
        names.dedup();
    }
    Ok(found)
}

/// A dataset whose elements are in this file. `kept` bytes of its chunks are kept as they are read, or as many as HDF5 thinks fit.
pub(super) fn find(path: &Path, name: &str, kept: Option<usize>) -> Result<hdf5::Dataset> {
    let file = open(path)?;
    let dataset = match kept {
        None => file.dataset(name),
        Some(bytes) => hdf::keeping_chunks(&file, name, bytes),
    };
    let dataset = dataset.map_err(|_| {
        let known = contents(path).unwrap_or_default().datasets.join(", ");
        Error::data(path.display().to_string(), format!("no dataset \"{name}\""), format!("there are: {known}"))
    })?;
    let failed = |e: hdf5::Error| damaged(path, &format!("dataset {name}"), &e);
    if let Some(other) = hdf::elsewhere(&dataset).map_err(failed)? {
        let what = format!("its elements are in another file, \"{other}\", which is not followed");
        let place = format!("{}, dataset {name}", path.display());
        return Err(Error::data(place, what, "copy them into this file, as h5repack does"));
    }
    Ok(dataset)
}

/// Reads one dataset whole. Errors: no such file (74), no HDF5, no such dataset, a type that is no number (65).
pub fn read(path: &Path, name: &str) -> Result<Array> {
    let dataset = find(path, name, None)?;
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
        TypeDescriptor::Float(size) if size as usize <= 4 => Values::F32(dataset.read_raw().map_err(failed)?),
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
                "give u8, integers, f16, f32 or f64",
            ));
        }
    };
    Ok(Array { shape, values })
}

/// How many rows a dataset of numbers or texts has; none of one of other things, or that cannot be read.
pub fn length(path: &Path, name: &str) -> Option<usize> {
    use TypeDescriptor::{Compound, Enum, FixedArray, Reference, VarLenArray};
    let dataset = find(path, name, None).ok()?;
    let kind = dataset.dtype().and_then(|t| t.to_descriptor()).ok()?;
    let other = matches!(kind, Compound(_) | Enum(_) | Reference(_) | FixedArray(..) | VarLenArray(_));
    dataset.shape().first().copied().filter(|_| !other)
}

/// Reads a dataset (N) of texts; none of one that holds other things.
///
/// # Errors
/// As of [`read`], and texts of a fixed length over 256 bytes.
pub fn texts(path: &Path, name: &str) -> Result<Option<Vec<String>>> {
    let dataset = find(path, name, None)?;
    let failed = |e: hdf5::Error| damaged(path, &format!("dataset {name}"), &e);
    let kind = dataset.dtype().and_then(|t| t.to_descriptor()).map_err(failed)?;
    let (TypeDescriptor::VarLenUnicode
    | TypeDescriptor::VarLenAscii
    | TypeDescriptor::FixedAscii(_)
    | TypeDescriptor::FixedUnicode(_)) = kind
    else {
        return Ok(None);
    };
    let [count] = dataset.shape()[..] else { return Ok(None) };
    let place = || format!("{}, dataset {name}", path.display());
    let error = |what: String, mend: &str| Err(Error::data(place(), what, mend));
    if let Err(e) = memory::ask(count as f64 * 512.0) {
        return error(format!("{count} texts: {e}"), "give less data, or more memory");
    }
    let lossy = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok(Some(match kind {
        TypeDescriptor::VarLenUnicode => {
            dataset.read_raw::<VarLenUnicode>().map_err(failed)?.iter().map(|text| lossy(text.as_bytes())).collect()
        }
        TypeDescriptor::VarLenAscii => {
            dataset.read_raw::<VarLenAscii>().map_err(failed)?.iter().map(|text| lossy(text.as_bytes())).collect()
        }
        TypeDescriptor::FixedAscii(1..=256) => {
            let texts = dataset.read_raw::<FixedAscii<256>>().map_err(failed)?;
            texts.iter().map(|text| lossy(text.as_bytes())).collect()
        }
        TypeDescriptor::FixedUnicode(1..=256) => {
            let texts = dataset.read_raw::<FixedUnicode<256>>().map_err(failed)?;
            texts.iter().map(|text| lossy(text.as_bytes())).collect()
        }
        other => return error(format!("texts of type {other}"), "write them with at most 256 bytes, or of any length"),
    }))
}

fn open(path: &Path) -> Result<hdf5::File> {
    open_file(path, "check the path")?;
    hdf::stay_inside();
    hdf5::File::open(path).map_err(|_| {
        Error::data(path.display().to_string(), "not an HDF5 file, or a damaged one", "give a whole HDF5 file")
    })
}

pub(super) fn damaged(path: &Path, part: &str, error: &hdf5::Error) -> Error {
    let text = error.to_string();
    let what = format!("{part} cannot be read: {}", text.lines().next().unwrap_or_default());
    Error::data(path.display().to_string(), what, "the file is damaged; get it anew")
}

/// Visits a bounded number of groups, and behind a link to a group no further one: a group may hold itself.
fn collect(root: &hdf5::Group, found: &mut Contents) -> hdf5::Result<()> {
    let mut budget = 1000;
    let mut waiting = vec![(String::new(), root.clone(), false)];
    while let Some((path, group, linked)) = waiting.pop() {
        for (name, link) in hdf::links(&group)? {
            let path = format!("{path}{name}");
            match (link, group.loc_type_by_name(&name)) {
                (LinkType::External, _) => found.outside.push(path),
                (_, Ok(LocationType::Dataset)) => found.datasets.push(path),
                (link, Ok(LocationType::Group)) if budget > 0 && !(linked && link == LinkType::Soft) => {
                    budget -= 1;
                    waiting.push((format!("{path}/"), group.group(&name)?, linked || link == LinkType::Soft));
                }
                _ => {}
            }
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
        file.new_dataset_builder().with_data(&[half::f16::from_f32(0.25)]).create("f16")?;
        file.link_soft("/nowhere", "dangling")?;
        file.new_dataset_builder().with_data(&[hdf5::types::VarLenUnicode::new()]).create("text")?;
        file.link_soft("/group", "group/again")?;
        file.close()?;
        assert_eq!(read(&path, "u8")?, Array { shape: vec![2, 3], values: Values::U8(vec![1, 2, 3, 4, 5, 6]) });
        assert_eq!(read(&path, "group/inner/f32")?.values, Values::F32(vec![1.5]));
        assert_eq!(read(&path, "group/f64")?.values, Values::F64(vec![2.5]));
        assert_eq!(read(&path, "i16")?.values, Values::I64(vec![-3, 4]));
        assert_eq!(read(&path, "bool")?.values, Values::I64(vec![1, 0]));
        assert_eq!(read(&path, "f16")?.values, Values::F32(vec![0.25]));
        assert_eq!(read(&path, "group/again/f64")?.values, Values::F64(vec![2.5]));
        assert_eq!(read(&path, "text").map_err(|e| e.exit_code()), Err(65));
        assert_eq!(read(&path, "none").map_err(|e| e.exit_code()), Err(65));
        let found = list(&path)?;
        let groups = ["group/again/f64", "group/again/inner/f32", "group/f64", "group/inner/f32"];
        assert_eq!(found.datasets, [&["bool", "f16"][..], &groups, &["i16", "text", "u8"]].concat());
        assert!(found.outside.is_empty());
        assert_eq!(list(&folder.path().join("none")).map(|_| ()).map_err(|e| e.exit_code()), Err(74));
        Ok(())
    }
}
