//! `mnist`: the four IDX files of MNIST, or of sets in its form such as Fashion-MNIST.
//!
//! The format, big-endian: two zero bytes, the element type (8 = u8), the number of dimensions, each dimension as u32,
//! then the elements (LeCun, Cortes and Burges, "The MNIST database of handwritten digits").

use super::Source;
use crate::config::{DataConfig, Normalize};
use crate::data::format::file;
use crate::data::sample::pixel::{Pixels, summaries};
use crate::data::transform::label::{Labels, numbered};
use crate::data::transform::normalize::Scaling;
use crate::data::transform::split::{Selection, learnt};
use crate::data::{Dataset, Input};
use crate::error::{Error, Result};
use crate::resource::memory;
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use std::io::Read;
use std::path::{Path, PathBuf};

pub(super) const SOURCE: Source = Source {
    name: "mnist",
    doc: "a folder with the four IDX files of MNIST or Fashion-MNIST, plain or .gz",
    keys: &[("classes", "names of the classes (default: 0 to 9)")],
    open,
    open_inputs,
    resolve: super::resolve_keys::<Keys>,
    normalize: |_| Normalize::Given { mean: vec![0.1307], std: vec![0.3081] },
};

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Keys {
    classes: Vec<String>,
}

fn open(config: &DataConfig, seed: u64) -> Result<Dataset> {
    let keys: Keys = config.source.parse()?;
    let folder = super::path(config)?;
    let names = if keys.classes.is_empty() { numbered(10) } else { keys.classes };
    let (train, train_labels) = read_part(folder, "train", names.len())?;
    let (test, test_labels) = read_part(folder, "t10k", names.len())?;
    if (train.h, train.w) != (test.h, test.w) {
        let what =
            format!("images of {}x{} where those of the training part are {}x{}", test.h, test.w, train.h, train.w);
        let place = find(folder, "t10k-images", "idx3-ubyte")?.display().to_string();
        return Err(Error::data(place, what, "take all four files from one set"));
    }
    let (h, w) = (train.h, train.w);
    let selection = Selection::drawn(config, seed, train_labels.len());
    let scaling = Scaling::new(config, &super::normalization(config)?, 1, || {
        Ok(summaries(&learnt(&selection, &train.pixels, h * w), 1))
    })?;
    let note = format!("{} training and {} test images of {h}x{w}", train_labels.len(), test_labels.len());
    let inputs = Box::new(Pixels::new([train.pixels, test.pixels], (h, w, 1), &scaling));
    let labels = Labels::Classes { names, of: [train_labels, test_labels] };
    let dataset = Dataset::new(config, Shape::Image { c: 1, h, w }, inputs, labels, scaling, vec![note])?;
    Ok(dataset.keep_back(selection))
}

fn open_inputs(trained: &Input, config: &DataConfig, path: &Path) -> Result<super::Pieces> {
    let mut idx = Idx::<3>::open(path)?;
    let (h, w) = images_of(&idx)?;
    let input = Shape::Image { c: 1, h, w };
    if input != trained.shape {
        let what = format!("images of {input} where the job's are {}", trained.shape);
        return Err(Error::data(path.display().to_string(), what, "give images of that size"));
    }
    let (trained, config) = (trained.clone(), config.clone());
    Ok(Box::new(move |images| {
        let pixels = idx.read(images)?;
        if pixels.is_empty() {
            return Ok(None);
        }
        let (labels, scaling) = (Labels::unknown(&trained), Scaling::of(&trained));
        let inputs = Pixels::new([Vec::new(), pixels], (h, w, 1), &scaling);
        Dataset::new(&config, input, Box::new(inputs), labels, scaling, Vec::new()).map(Some)
    }))
}

/// The images and labels of one part, as many of the one as of the other.
fn read_part(folder: &Path, part: &str, classes: usize) -> Result<(Images, Vec<u32>)> {
    let images = find(folder, &format!("{part}-images"), "idx3-ubyte")?;
    let labels = find(folder, &format!("{part}-labels"), "idx1-ubyte")?;
    let read = (read_images(&images)?, read_labels(&labels, classes)?);
    let count = read.0.pixels.len() / (read.0.h * read.0.w);
    if count != read.1.len() {
        let what = format!("{} labels for the {count} images of {}", read.1.len(), images.display());
        return Err(Error::data(labels.display().to_string(), what, "take both files from one set"));
    }
    Ok(read)
}

/// `train-images-idx3-ubyte` or `train-images.idx3-ubyte`, plain or .gz.
fn find(folder: &Path, start: &str, end: &str) -> Result<PathBuf> {
    for joint in ["-", "."] {
        for gz in ["", ".gz"] {
            let path = folder.join(format!("{start}{joint}{end}{gz}"));
            if path.is_file() {
                return Ok(path);
            }
        }
    }
    let what = "no such file, nor with .gz";
    Err(Error::io(&folder.join(format!("{start}-{end}")), what, "set data.path to the folder with the four IDX files"))
}

/// Images (N, H, W).
struct Images {
    h: usize,
    w: usize,
    pixels: Vec<u8>,
}

fn read_images(path: &Path) -> Result<Images> {
    let mut idx = Idx::<3>::open(path)?;
    let (h, w) = images_of(&idx)?;
    Ok(Images { h, w, pixels: idx.read(usize::MAX)? })
}

/// The height and width of images, of which there are some.
fn images_of(idx: &Idx<3>) -> Result<(usize, usize)> {
    let [n, h, w] = idx.dims;
    if n == 0 || h == 0 || w == 0 {
        let what = format!("{n} images of {h}x{w} pixels");
        return Err(Error::data(idx.path.display().to_string(), what, "get the file anew"));
    }
    Ok((h, w))
}

fn read_labels(path: &Path, classes: usize) -> Result<Vec<u32>> {
    let labels = Idx::<1>::open(path)?.read(usize::MAX)?;
    if let Some(i) = labels.iter().position(|&label| usize::from(label) >= classes) {
        let place = format!("{}, byte {}", path.display(), 8 + i);
        let what = format!("label {} of sample {i} is none of the {classes} classes", labels[i]);
        return Err(Error::data(place, what, "get the file anew, or name all classes in data.classes"));
    }
    memory::converted(labels, u32::from).map_err(|e| file::read_error(path, &e))
}

/// An IDX file of u8 with `D` dimensions, whose elements are read in order.
struct Idx<const D: usize> {
    path: PathBuf,
    dims: [usize; D],
    reader: Box<dyn Read>,
    /// Elements read, and all there shall be.
    read: usize,
    total: usize,
}

impl<const D: usize> Idx<D> {
    const HEADER: usize = 4 + 4 * D;

    fn open(path: &Path) -> Result<Self> {
        let error = |byte, what| damaged(path, byte, what);
        let mut reader = file::open(path)?;
        let header = file::read_up_to(&mut reader, path, Self::HEADER as u64)?;
        let magic = [0, 0, 8, D as u8];
        if header.len() >= 4 && header[..4] != magic {
            return Err(error(0, format!("it starts with {:02x?} where {magic:02x?} should stand", &header[..4])));
        }
        if header.len() < Self::HEADER {
            return Err(error(header.len(), "it ends within its header".into()));
        }
        let mut dims = [0; D];
        for (dim, bytes) in dims.iter_mut().zip(header[4..].chunks_exact(4)) {
            *dim = bytes.iter().fold(0, |value, &byte| value << 8 | usize::from(byte));
        }
        let total = dims.iter().try_fold(1usize, |n, &dim| n.checked_mul(dim)).filter(|&n| n < usize::MAX / 2);
        let Some(total) = total else {
            return Err(error(4, format!("dimensions {dims:?} are too large")));
        };
        Ok(Self { path: path.to_owned(), dims, reader, read: 0, total })
    }

    /// The elements of so many further samples, or of as many as are left.
    fn read(&mut self, samples: usize) -> Result<Vec<u8>> {
        let one = self.dims[1..].iter().product::<usize>();
        let wanted = samples.saturating_mul(one).min(self.total - self.read);
        // At the end nothing may follow.
        let more = u64::from(self.read + wanted == self.total);
        let elements = file::read_up_to(&mut self.reader, &self.path, wanted as u64 + more)?;
        self.read += elements.len();
        let (total, dims) = (self.total, self.dims);
        if elements.len() < wanted {
            let what = format!("it ends after {} of the {total} elements of {dims:?}", self.read);
            return Err(damaged(&self.path, Self::HEADER + self.read, what));
        }
        if elements.len() > wanted {
            let what = format!("bytes follow the {total} elements of {dims:?}");
            return Err(damaged(&self.path, Self::HEADER + total, what));
        }
        Ok(elements)
    }
}

fn damaged(path: &Path, byte: usize, what: String) -> Error {
    let mend = "the file is damaged or no such IDX file; get it anew";
    Error::data(format!("{}, byte {byte}", path.display()), what, mend)
}
