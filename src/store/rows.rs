//! The rows of an array in an HDF5 file, read as they are needed: past the HDF5 library where they lie in one piece. Arrays of other
//! formats that lie so are read likewise.

use super::table::{Array, Values};
use super::{hdf, table};
use crate::error::{Error, Result};
use crate::resource::{memory, open_file, will_read};
use hdf5::types::TypeDescriptor;
use hdf5::{Dataset, Datatype, H5Type, Hyperslab, SliceOrIndex};
use ndarray::IxDyn;
use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// What elements are, widened as by [`table::read`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// u8.
    U8,
    /// f32 and f16.
    F32,
    /// f64.
    F64,
    /// Booleans.
    Bool,
    /// Any other integer.
    I64,
}

/// An array of at least two dimensions, of which rows are read.
pub struct Rows {
    path: PathBuf,
    /// The dataset; None where it is no HDF5 file.
    name: Option<String>,
    /// Rows first.
    pub shape: Vec<usize>,
    /// What elements are.
    pub kind: Kind,
    /// Rows of a chunk, where the library must read a whole one to give any of it.
    pub packed: Option<usize>,
    /// Rows of a chunk, packed or not.
    pub chunk: Option<usize>,
    /// What `ddl prepare` has found of the whole array.
    pub statistics: Option<String>,
    from: From,
}

enum From {
    /// Elements as they are in memory, from a byte of the file on.
    File(File, u64),
    Library(Dataset),
}

/// Where the library reads whole chunks, it keeps so many bytes of them, and at least a few: those among which a block shuffle
/// shuffles, and the next ones.
const KEPT_BYTES: usize = 3 << 24;

impl Rows {
    /// Opens an array. None where it has fewer than two dimensions, no elements, or some that are no numbers: [`table::read`]
    /// has words for it.
    ///
    /// # Errors
    /// As of [`table::read`], but for memory.
    pub fn open(path: &Path, name: &str) -> Result<Option<Self>> {
        let opened = table::find(path, name, None)?;
        let failed = |e: hdf5::Error| table::damaged(path, &format!("dataset {name}"), &e);
        let shape = opened.shape();
        let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d)).filter(|n| n.checked_mul(8).is_some());
        let kind = opened.dtype().and_then(|t| t.to_descriptor()).map_err(failed)?;
        let (Some(elements @ 1..), 2.., Some(kind)) = (elements, shape.len(), kind_of(&kind)) else { return Ok(None) };
        let packs = !opened.filters().is_empty();
        let chunk = opened.chunk().map(|chunk| chunk[0].max(1));
        let statistics = hdf::text(&opened, STATISTICS).ok();
        let place = opened.offset();
        let (own, size) = (native(&opened, kind).map_err(failed)?, size_of_kind(kind));
        let row = shape[1..].iter().product::<usize>() * size;
        let from = match chunk {
            None if own && let Some(first) = place => {
                let file = open_file(path, "check the path")?;
                let len = file.metadata().map_err(|e| Error::io(path, e, "check the path"))?.len();
                let last = first.checked_add((elements * size) as u64);
                if last.is_none_or(|last| last > len) {
                    let what = format!("{shape:?} elements do not end within the file");
                    let place = format!("{}, dataset {name}", path.display());
                    return Err(Error::data(place, what, "the file is damaged or cut off; get it anew"));
                }
                From::File(file, first)
            }
            None => From::Library(opened),
            Some(chunk) => {
                // Chunks that are not packed are not kept: of those the library reads just the rows it is asked for.
                let kept = if packs { (KEPT_BYTES * size.div_ceil(4)).max(3 * chunk.saturating_mul(row)) } else { 0 };
                // It is open once, or the first opening's setting stays.
                drop(opened);
                From::Library(table::find(path, name, Some(kept))?)
            }
        };
        let packed = chunk.filter(|_| packs);
        Ok(Some(Self {
            path: path.to_owned(),
            name: Some(name.to_owned()),
            shape,
            kind,
            packed,
            chunk,
            statistics,
            from,
        }))
    }

    /// Rows of numbers that lie in a file in one piece, as they are in memory, from a byte on: of an array of others' formats. None
    /// where that cannot be.
    pub fn direct(path: &Path, file: File, first: u64, kind: Kind, shape: Vec<usize>) -> Option<Self> {
        let elements = shape.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
        let last = first.checked_add(elements.checked_mul(size_of_kind(kind))? as u64)?;
        let whole = file.metadata().is_ok_and(|found| found.len() == last);
        (whole && elements > 0 && shape.len() > 1 && cfg!(target_endian = "little") && kind != Kind::Bool).then(|| {
            Self {
                path: path.to_owned(),
                name: None,
                shape,
                kind,
                packed: None,
                chunk: None,
                statistics: None,
                from: From::File(file, first),
            }
        })
    }

    fn place(&self) -> String {
        match &self.name {
            Some(name) => format!("{}, dataset {name}", self.path.display()),
            None => self.path.display().to_string(),
        }
    }

    /// Elements of a row.
    pub fn row(&self) -> usize {
        self.shape[1..].iter().product()
    }

    /// Whether the HDF5 library has no part in the reading.
    pub fn is_direct(&self) -> bool {
        matches!(self.from, From::File(..))
    }

    /// Tells the system that rows will be read soon.
    pub fn announce(&self, rows: Range<usize>) {
        if let From::File(file, first) = &self.from {
            let row = self.row() * size_of_kind(self.kind);
            will_read(file, first + (rows.start * row) as u64, rows.len() * row);
        }
    }

    /// Reads rows of u8. Panics if they are none, or `to` has another length.
    ///
    /// # Errors
    /// The file has become shorter, is damaged or cannot be read.
    pub fn bytes(&self, rows: Range<usize>, to: &mut [u8]) -> Result<()> {
        assert!(self.kind == Kind::U8 && to.len() == rows.len() * self.row());
        self.elements::<u8>(rows, |values| to.copy_from_slice(values), None)
    }

    /// Reads rows as f32: u8 spans 0 to 1, anything else is as it is. Panics if `to` has another length.
    ///
    /// # Errors
    /// As there.
    pub fn floats(&self, rows: Range<usize>, to: &mut [f32]) -> Result<()> {
        assert!(to.len() == rows.len() * self.row());
        fn each<T: Copy>(to: &mut [f32], convert: impl Fn(T) -> f32) -> impl FnMut(&[T]) {
            move |values| to.iter_mut().zip(values).for_each(|(to, value)| *to = convert(*value))
        }
        match self.kind {
            Kind::U8 => self.elements(rows, each(to, |v: u8| f32::from(v) / 255.0), None),
            Kind::F32 => match &self.from {
                From::File(..) => self.elements(rows, |_: &[f32]| (), Some(to)),
                From::Library(_) => self.elements(rows, |values| to.copy_from_slice(values), None),
            },
            Kind::F64 => self.elements(rows, each(to, |v: f64| v as f32), None),
            Kind::I64 => self.elements(rows, each(to, |v: i64| v as f32), None),
            Kind::Bool => self.elements(rows, each(to, |v: bool| f32::from(u8::from(v))), None),
        }
    }

    /// Reads rows as [`table::read`] reads all.
    ///
    /// # Errors
    /// As there.
    pub fn array(&self, rows: Range<usize>) -> Result<Array> {
        let shape = [&[rows.len()], &self.shape[1..]].concat();
        let bytes = rows.len() as f64 * self.row() as f64 * 2.0 * size_of_kind(self.kind).max(4) as f64;
        let room = |e| Error::data(self.place(), format!("{shape:?} elements: {e}"), "give less data, or more memory");
        memory::ask(bytes).map_err(room)?;
        fn kept<T: Copy>(to: &mut Vec<T>) -> impl FnOnce(&[T]) {
            move |values| to.extend_from_slice(values)
        }
        let (mut bytes, mut floats, mut doubles, mut integers) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let values = match self.kind {
            Kind::U8 => {
                self.elements(rows, kept(&mut bytes), None)?;
                Values::U8(bytes)
            }
            Kind::F32 => {
                self.elements(rows, kept(&mut floats), None)?;
                Values::F32(floats)
            }
            Kind::F64 => {
                self.elements(rows, kept(&mut doubles), None)?;
                Values::F64(doubles)
            }
            Kind::I64 => {
                self.elements(rows, kept(&mut integers), None)?;
                Values::I64(integers)
            }
            Kind::Bool => {
                self.elements(rows, |values| integers.extend(values.iter().map(|&v: &bool| i64::from(v))), None)?;
                Values::I64(integers)
            }
        };
        Ok(Array { shape, values })
    }

    /// Hands rows to `each`; or writes them to `into`, where they can be read right there.
    fn elements<T: Element>(&self, rows: Range<usize>, each: impl FnOnce(&[T]), into: Option<&mut [T]>) -> Result<()> {
        match &self.from {
            From::File(file, first) => {
                let len = rows.len() * self.row();
                let mut own = Vec::new();
                let values = match into {
                    Some(into) => into,
                    None => {
                        own.resize(len, T::zero());
                        &mut own
                    }
                };
                let at = first + (rows.start * self.row() * size_of::<T>()) as u64;
                file.read_exact_at(T::bytes(values), at).map_err(|e| self.failed(&e))?;
                each(values);
            }
            From::Library(dataset) => {
                let mut slices: Vec<SliceOrIndex> =
                    self.shape.iter().map(|&size| SliceOrIndex::from(0..size)).collect();
                slices[0] = SliceOrIndex::from(rows);
                let values = dataset.read_slice::<T, _, IxDyn>(Hyperslab::new(slices));
                let name = self.name.as_deref().unwrap_or_default();
                let values = values.map_err(|e| table::damaged(&self.path, &format!("dataset {name}"), &e))?;
                each(values.as_slice().unwrap_or_default());
            }
        }
        Ok(())
    }

    fn failed(&self, error: &std::io::Error) -> Error {
        match error.kind() {
            ErrorKind::UnexpectedEof => {
                let what = "it became shorter while it was read";
                Error::data(self.place(), what, "give the whole file again, and go on with --resume")
            }
            _ => Error::io(&self.path, format!("cannot be read: {error}"), "check the disk, and go on with --resume"),
        }
    }
}

/// The attribute of an array where `ddl prepare` keeps what normalisations are fitted on.
pub(super) const STATISTICS: &str = "statistics";

/// An element that is in files as it is in memory.
trait Element: H5Type + Copy {
    fn zero() -> Self;
    fn bytes(values: &mut [Self]) -> &mut [u8];
}

macro_rules! element {
    ($($type:ty)*) => {$(
        impl Element for $type {
            fn zero() -> Self {
                0 as $type
            }
            fn bytes(values: &mut [Self]) -> &mut [u8] {
                bytemuck::cast_slice_mut(values)
            }
        }
    )*};
}

element!(u8 f32 f64 i64);

/// Never read but by the library, which knows what is no boolean.
impl Element for bool {
    fn zero() -> Self {
        false
    }
    fn bytes(_: &mut [Self]) -> &mut [u8] {
        &mut []
    }
}

fn kind_of(kind: &TypeDescriptor) -> Option<Kind> {
    match kind {
        TypeDescriptor::Unsigned(size) if *size as usize == 1 => Some(Kind::U8),
        TypeDescriptor::Float(size) if *size as usize <= 4 => Some(Kind::F32),
        TypeDescriptor::Float(size) if *size as usize == 8 => Some(Kind::F64),
        TypeDescriptor::Boolean => Some(Kind::Bool),
        TypeDescriptor::Integer(_) | TypeDescriptor::Unsigned(_) => Some(Kind::I64),
        _ => None,
    }
}

fn size_of_kind(kind: Kind) -> usize {
    match kind {
        Kind::U8 | Kind::Bool => 1,
        Kind::F32 => 4,
        Kind::F64 | Kind::I64 => 8,
    }
}

/// Whether elements are in the file as they are in memory, order of bytes included.
fn native(dataset: &Dataset, kind: Kind) -> hdf5::Result<bool> {
    let own = match kind {
        Kind::U8 => Datatype::from_type::<u8>()?,
        Kind::F32 => Datatype::from_type::<f32>()?,
        Kind::F64 => Datatype::from_type::<f64>()?,
        Kind::Bool | Kind::I64 => return Ok(false),
    };
    Ok(dataset.dtype()? == own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(fill: impl FnOnce(&hdf5::File) -> hdf5::Result<()>) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.h5");
        let file = hdf5::File::create(&path).unwrap();
        fill(&file).unwrap();
        file.close().unwrap();
        (folder, path)
    }

    fn widened(values: Values) -> Vec<f32> {
        match values {
            Values::U8(values) => values.into_iter().map(|v| f32::from(v) / 255.0).collect(),
            Values::F32(values) => values,
            Values::F64(values) => values.into_iter().map(|v| v as f32).collect(),
            Values::I64(values) => values.into_iter().map(|v| v as f32).collect(),
        }
    }

    #[test]
    fn rows_are_those_of_the_whole_array_however_they_lie() -> Result<()> {
        let ramp = ndarray::Array2::from_shape_fn((50, 6), |(i, j)| (i * 6 + j) as f64 * 0.37 - 20.0);
        let (_folder, path) = made(|file| {
            let floats = ramp.mapv(|v| v as f32);
            file.new_dataset_builder().with_data(&ramp).create("f64")?;
            file.new_dataset_builder().with_data(&floats).create("f32")?;
            file.new_dataset_builder().with_data(&floats).chunk((7, 6)).create("chunked")?;
            file.new_dataset_builder().with_data(&floats).chunk((7, 4)).shuffle().deflate(3).create("packed")?;
            file.new_dataset_builder().with_data(&ramp.mapv(|v| v as u8)).create("u8")?;
            file.new_dataset_builder()
                .with_data(&ramp.mapv(|v| v as u8))
                .chunk((9, 6))
                .deflate(1)
                .create("u8 packed")?;
            file.new_dataset_builder().with_data(&ramp.mapv(|v| v as i16)).create("i16")?;
            file.new_dataset_builder().with_data(&ramp.mapv(|v| v > 0.0)).create("bool")?;
            file.new_dataset_builder().with_data(&ramp.mapv(half::f16::from_f64)).create("f16")?;
            file.new_dataset::<f32>().shape((50, 6)).create("unwritten").map(|_| ())
        });
        for (name, direct, packed) in [
            ("f64", true, None),
            ("f32", true, None),
            ("chunked", false, None),
            ("packed", false, Some(7)),
            ("u8", true, None),
            ("u8 packed", false, Some(9)),
            ("i16", false, None),
            ("bool", false, None),
            ("f16", false, None),
            ("unwritten", false, None),
        ] {
            let rows = Rows::open(&path, name)?.unwrap();
            assert_eq!((rows.is_direct(), rows.packed), (direct, packed), "{name}");
            let whole = widened(table::read(&path, name)?.values);
            for range in [0..50, 0..1, 49..50, 3..20, 6..8, 20..20] {
                let mut found = vec![9.0; range.len() * 6];
                rows.floats(range.clone(), &mut found)?;
                assert_eq!(found, whole[range.start * 6..range.end * 6], "{name} {range:?}");
                let array = rows.array(range.clone())?;
                assert_eq!((array.shape, widened(array.values)), (vec![range.len(), 6], found), "{name} {range:?}");
                if rows.kind == Kind::U8 {
                    let mut found = vec![0; range.len() * 6];
                    rows.bytes(range.clone(), &mut found)?;
                    let bytes: Vec<f32> = found.iter().map(|&v| f32::from(v) / 255.0).collect();
                    assert_eq!(bytes, whole[range.start * 6..range.end * 6], "{name} {range:?}");
                }
            }
        }
        Ok(())
    }

    #[test]
    fn what_is_no_table_of_numbers_is_left_to_others() -> Result<()> {
        let (_folder, path) = made(|file| {
            file.new_dataset_builder().with_data(&[1.0f32, 2.0]).create("one")?;
            file.new_dataset::<f32>().shape((0, 6)).create("empty")?;
            let texts = ndarray::Array2::from_elem((2, 2), hdf5::types::VarLenUnicode::new());
            file.new_dataset_builder().with_data(&texts).create("texts").map(|_| ())
        });
        for name in ["one", "empty", "texts"] {
            assert!(Rows::open(&path, name)?.is_none(), "{name}");
        }
        assert_eq!(Rows::open(&path, "none").map(|_| ()).map_err(|e| e.exit_code()), Err(65));
        Ok(())
    }

    #[test]
    fn a_file_that_is_cut_off_is_found_before_it_is_read_and_while() -> Result<()> {
        let (_folder, path) = made(|file| {
            file.new_dataset_builder().with_data(&ndarray::Array2::<f32>::ones((5000, 6))).create("x").map(|_| ())
        });
        let rows = Rows::open(&path, "x")?.unwrap();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        let len = file.metadata().unwrap().len();
        file.set_len(len - 50_000).unwrap();
        rows.floats(0..10, &mut [0.0; 60])?;
        let error = rows.floats(4990..5000, &mut [0.0; 60]).unwrap_err();
        assert!(error.exit_code() == 65 && error.to_string().contains("shorter"), "{error}");
        assert_eq!(Rows::open(&path, "x").map(|_| ()).map_err(|e| e.exit_code()), Err(65));
        Ok(())
    }
}
