//! A data set prepared once: arrays of samples in one HDF5 file, written piece by piece in order, so that who made which piece
//! does not reach a byte.

use super::atomic;
use super::hdf;
use super::image::Image;
use super::rows::STATISTICS;
use crate::error::{Error, Result};
use bytemuck::Pod;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use hdf5::sync::sync;
use hdf5::{Dataset, File, H5Type, Hyperslab, SliceOrIndex};
use hdf5_sys::h5d::H5Dwrite_chunk;
use hdf5_sys::h5p::H5P_DEFAULT;
use ndarray::{ArrayViewD, IxDyn};
use sha2::{Digest, Sha256};
use std::io::Write;
use std::path::Path;

/// About so many bytes are a piece, and a chunk in the file.
const PIECE_BYTES: usize = 1 << 18;

/// What an array's elements are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Element {
    /// Pixels.
    U8,
    /// Classes.
    I32,
    /// Any other input.
    F32,
    /// Values to predict.
    F64,
}

impl Element {
    /// Bytes of one.
    pub fn size(self) -> usize {
        match self {
            Element::U8 => 1,
            Element::I32 | Element::F32 => 4,
            Element::F64 => 8,
        }
    }
}

/// How arrays lie in the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// In chunks of whole samples.
    Chunked,
    /// In chunks that are packed by deflate at a level of 1 to 9, the bytes of elements shuffled before.
    Packed(u8),
    /// In one piece.
    Contiguous,
}

/// An array of samples.
#[derive(Debug, Clone, PartialEq)]
pub struct Layout {
    /// Its name.
    pub name: &'static str,
    /// Of its elements.
    pub element: Element,
    /// Samples first. None of it is 0.
    pub shape: Vec<usize>,
    /// What normalisations are fitted on, where it is known: an attribute.
    pub statistics: Option<String>,
}

impl Layout {
    /// Bytes of a sample.
    fn row(&self) -> usize {
        self.shape[1..].iter().product::<usize>() * self.element.size()
    }

    /// Samples of a piece; the last one may have fewer.
    pub fn rows_per_piece(&self) -> usize {
        (PIECE_BYTES / self.row()).clamp(1, self.shape[0])
    }

    /// Bytes of all of it.
    pub fn bytes(&self) -> usize {
        self.shape[0] * self.row()
    }
}

/// Some consecutive samples of an array.
#[derive(Debug, Clone, PartialEq)]
pub struct Piece {
    /// As they are in memory, row-major.
    pub rows: Vec<u8>,
    /// The chunk as it will be in the file.
    pub packed: Vec<u8>,
}

impl Piece {
    /// Packs a piece, where that is asked for: the work that ranks share.
    pub fn pack(layout: &Layout, storage: Storage, rows: Vec<u8>) -> Self {
        let Storage::Packed(level) = storage else { return Self { rows, packed: Vec::new() } };
        let mut encoder = ZlibEncoder::new(Vec::new(), Compression::new(u32::from(level)));
        // Into memory nothing fails; and if it did, an empty chunk is refused below.
        let packed =
            encoder.write_all(&shuffled(&whole(layout, &rows), layout.element)).and_then(|()| encoder.finish());
        Self { rows, packed: packed.unwrap_or_default() }
    }
}

/// A chunk is as large at the end as elsewhere.
fn whole(layout: &Layout, rows: &[u8]) -> Vec<u8> {
    let mut chunk = rows.to_vec();
    chunk.resize(layout.rows_per_piece() * layout.row(), 0);
    chunk
}

/// The first bytes of all elements, then the second ones, and so on: HDF5's shuffle.
fn shuffled(chunk: &[u8], element: Element) -> Vec<u8> {
    let size = element.size();
    (0..size).flat_map(|byte| chunk.iter().skip(byte).step_by(size).copied()).collect()
}

/// What is told of the data, by name, each a text.
pub type Attributes = Vec<(&'static str, String)>;

/// Writes a file of arrays; `next` gives their pieces, array by array, from the first on. Each array gets the SHA-256 of its
/// elements as an attribute, and the file `about`. The file is whole or as it was.
///
/// # Errors
/// Those of `next`; `Io` if the file cannot be written.
pub fn write(
    path: &Path,
    layouts: &[Layout],
    storage: Storage,
    about: &Attributes,
    next: &mut dyn FnMut() -> Result<Piece>,
) -> Result<()> {
    let failed =
        |what: String| Error::io(path, format!("cannot be made: {what}"), "check the folder and its free space");
    let mut wrong = None;
    let mut piece =
        || next().inspect_err(|error| wrong = Some(error.clone())).map_err(|e| hdf5::Error::from(e.to_string()));
    let image = Image::make(0, |file| {
        about.iter().try_for_each(|(name, text)| hdf::set_text(file, name, text))?;
        layouts.iter().try_for_each(|layout| write_array(file, layout, storage, &mut piece))
    });
    if let Some(error) = wrong {
        return Err(error);
    }
    let image = image.map_err(|e| failed(hdf::cause(&e)))?;
    atomic::write(path, image.bytes().map_err(|e| failed(hdf::cause(&e)))?)
}

fn write_array(
    file: &File,
    layout: &Layout,
    storage: Storage,
    next: &mut dyn FnMut() -> hdf5::Result<Piece>,
) -> hdf5::Result<()> {
    let dataset = match layout.element {
        Element::U8 => create::<u8>(file, layout, storage)?,
        Element::I32 => create::<i32>(file, layout, storage)?,
        Element::F32 => create::<f32>(file, layout, storage)?,
        Element::F64 => create::<f64>(file, layout, storage)?,
    };
    let mut digest = Sha256::new();
    for start in (0..layout.shape[0]).step_by(layout.rows_per_piece()) {
        let piece = next()?;
        digest.update(&piece.rows);
        match (storage, layout.element) {
            (Storage::Packed(_), _) => write_chunk(&dataset, start, &piece.packed)?,
            (Storage::Chunked, _) => write_chunk(&dataset, start, &whole(layout, &piece.rows))?,
            (Storage::Contiguous, Element::U8) => write_rows::<u8>(&dataset, layout, start, &piece.rows)?,
            (Storage::Contiguous, Element::I32) => write_rows::<i32>(&dataset, layout, start, &piece.rows)?,
            (Storage::Contiguous, Element::F32) => write_rows::<f32>(&dataset, layout, start, &piece.rows)?,
            (Storage::Contiguous, Element::F64) => write_rows::<f64>(&dataset, layout, start, &piece.rows)?,
        }
    }
    let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    hdf::set_text(&dataset, "sha256", &digest)?;
    layout.statistics.iter().try_for_each(|text| hdf::set_text(&dataset, STATISTICS, text))
}

fn create<T: H5Type>(file: &File, layout: &Layout, storage: Storage) -> hdf5::Result<Dataset> {
    let mut chunk = layout.shape.clone();
    chunk[0] = layout.rows_per_piece();
    let builder = file.new_dataset::<T>();
    match storage {
        Storage::Contiguous => builder.no_chunk().shape(&layout.shape[..]).create(layout.name),
        Storage::Chunked => builder.chunk(&chunk[..]).shape(&layout.shape[..]).create(layout.name),
        Storage::Packed(level) => {
            let filtered = if size_of::<T>() > 1 { builder.shuffle() } else { builder };
            filtered.deflate(level).chunk(&chunk[..]).shape(&layout.shape[..]).create(layout.name)
        }
    }
}

/// Writes a chunk that is as it shall be in the file.
fn write_chunk(dataset: &Dataset, start: usize, chunk: &[u8]) -> hdf5::Result<()> {
    let mut offset = vec![0; dataset.ndim()];
    offset[0] = start as u64;
    // SAFETY: as many offsets as the data set has dimensions and as many bytes as are told live until the call returns.
    let code = sync(|| unsafe {
        H5Dwrite_chunk(dataset.id(), H5P_DEFAULT, 0, offset.as_ptr(), chunk.len(), chunk.as_ptr().cast())
    });
    if code < 0 { Err(format!("sample {start} of {} cannot be written", dataset.name()).into()) } else { Ok(()) }
}

fn write_rows<T: H5Type + Pod>(dataset: &Dataset, layout: &Layout, start: usize, rows: &[u8]) -> hdf5::Result<()> {
    let elements: Vec<T> = bytemuck::pod_collect_to_vec(rows);
    let mut shape = layout.shape.clone();
    shape[0] = rows.len() / layout.row();
    let place = |size: &usize| SliceOrIndex::from(0..*size);
    let mut slices: Vec<SliceOrIndex> = shape.iter().map(place).collect();
    slices[0] = SliceOrIndex::from(start..start + shape[0]);
    let view = ArrayViewD::from_shape(IxDyn(&shape), &elements).map_err(|e| hdf5::Error::from(e.to_string()))?;
    dataset.write_slice(view, Hyperslab::from(slices))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::table::{self, Values};

    #[test]
    fn every_storage_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p.h5");
        // Three pieces, the last of which is short.
        let values: Vec<f32> = (0..150_001 * 2).map(|i| (i as f32).sin()).collect();
        let labels: Vec<i32> = (0..150_001).map(|i| i % 7).collect();
        let layouts = [
            Layout { name: "x_train", element: Element::F32, shape: vec![150_001, 2], statistics: None },
            Layout { name: "y_train", element: Element::I32, shape: vec![150_001], statistics: None },
        ];
        let mut sizes = Vec::new();
        for storage in [Storage::Chunked, Storage::Packed(4), Storage::Contiguous] {
            let rows = |layout: &Layout, bytes: &[u8]| -> Vec<Piece> {
                let piece = layout.rows_per_piece() * layout.row();
                bytes.chunks(piece).map(|rows| Piece::pack(layout, storage, rows.to_vec())).collect()
            };
            let mut pieces = rows(&layouts[0], bytemuck::cast_slice(&values)).into_iter();
            pieces = [pieces.collect(), rows(&layouts[1], bytemuck::cast_slice(&labels))].concat().into_iter();
            let about = vec![("source", "made".to_owned())];
            write(&path, &layouts, storage, &about, &mut || Ok(pieces.next().unwrap())).unwrap();
            assert_eq!(pieces.next(), None);
            let found = table::read(&path, "x_train").unwrap();
            assert_eq!((found.shape, found.values), (vec![150_001, 2], Values::F32(values.clone())), "{storage:?}");
            let classes = labels.iter().map(|&class| i64::from(class)).collect();
            assert_eq!(table::read(&path, "y_train").unwrap().values, Values::I64(classes), "{storage:?}");
            let file = hdf::open(&path).unwrap();
            let digest = hdf::text(&file.dataset("y_train").unwrap(), "sha256").unwrap();
            let expected = Sha256::digest(bytemuck::cast_slice::<i32, u8>(&labels));
            assert_eq!(digest, expected.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
            sizes.push(std::fs::metadata(&path).unwrap().len());
        }
        assert!(sizes[1] < sizes[0], "{sizes:?}");
        // What cannot be made leaves the older file as it was.
        let before = std::fs::read(&path).unwrap();
        let none = || Err(Error::data("a", "b", "c"));
        assert_eq!(write(&path, &layouts, Storage::Chunked, &Vec::new(), &mut { none }).unwrap_err().exit_code(), 65);
        assert!(std::fs::read(&path).unwrap() == before);
    }
}
