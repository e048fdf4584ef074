//! `cifar10`: the binary version of CIFAR-10 (Krizhevsky, "Learning multiple layers of features from tiny images", 2009).
//!
//! A record is one label byte, then the red, green and blue planes of a 32x32 image, 1024 bytes each.

use super::Source;
use super::cifar100::{is_cifar10_python, open_cifar10_python, open_cifar10_python_inputs};
use crate::config::{DataConfig, Normalize};
use crate::data::format::file;
use crate::data::inputs::one_piece;
use crate::data::sample::kept::Unread;
use crate::data::sample::pixel::{Images, Pixels, append_planar, interleave, summaries, unread_summaries};
use crate::data::transform::label::Labels;
use crate::data::transform::normalize::Scaling;
use crate::data::transform::split::{Selection, learnt};
use crate::data::{Dataset, Input};
use crate::error::{Error, Result};
use crate::resource::{memory, open_file, will_read};
use crate::shape::Shape;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

pub(super) const SOURCE: Source = Source {
    name: "cifar10",
    doc: "CIFAR-10's binary or python version: its folder, or cifar-10-binary.tar.gz or cifar-10-python.tar.gz",
    keys: &[],
    open,
    open_inputs,
    resolve: super::resolve_keys::<Keys>,
    normalize: |_| Normalize::Given { mean: vec![0.4914, 0.4822, 0.4465], std: vec![0.2470, 0.2435, 0.2616] },
};

const CLASSES: [&str; 10] = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"];
const FILES: [&str; 6] = [
    "data_batch_1.bin",
    "data_batch_2.bin",
    "data_batch_3.bin",
    "data_batch_4.bin",
    "data_batch_5.bin",
    "test_batch.bin",
];
const TEST: usize = 5;
const RECORD_BYTES: usize = 3073;
/// Records read at a time.
const CHUNK: usize = 64;
const IMAGE_BYTES: usize = RECORD_BYTES - 1;
const INPUT: Shape = Shape::Image { c: 3, h: 32, w: 32 };

#[derive(Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Keys {}

/// The images (N, 32, 32, 3) of both parts, and their labels.
type Parts = ([Images; 2], [Vec<u32>; 2]);

fn open(config: &DataConfig, seed: u64) -> Result<Dataset> {
    let Keys {} = config.source.parse()?;
    let path = super::path(config)?;
    if is_cifar10_python(path) {
        return open_cifar10_python(config, seed, path, &CLASSES);
    }
    let (images, labels) = if path.is_dir() { scan_folder(path)? } else { read_archive(path)? };
    let [train, test] = &labels;
    let note = format!("{} training and {} test images of 32x32", train.len(), test.len());
    let normalize = super::normalization(config)?;
    let selection = Selection::drawn(config, seed, train.len());
    let scaling = Scaling::new(config, &normalize, 3, || match &images[0] {
        Images::Kept(pixels) => Ok(summaries(&learnt(&selection, pixels, IMAGE_BYTES), 3)),
        Images::Unread(unread) => unread_summaries(unread, &selection, 3),
    })?;
    let inputs = Box::new(Pixels::new(images, (32, 32, 3), &scaling));
    let labels = Labels::Classes { names: CLASSES.map(str::to_owned).to_vec(), of: labels };
    Ok(Dataset::new(config, INPUT, inputs, labels, scaling, vec![note])?.keep_back(selection))
}

fn open_inputs(trained: &Input, config: &DataConfig, path: &Path) -> Result<super::Pieces> {
    if let Some(inputs) = open_cifar10_python_inputs(trained, config, path) {
        return inputs.map(one_piece);
    }
    let mut file = open_file(path, MEND)?;
    let (scaling, config, path, mut first) = (Scaling::of(trained), config.clone(), path.to_owned(), 0);
    Ok(Box::new(move |images| {
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        let failed = |e: io::Error| file::read_error(&path, &e);
        let each = &mut |record: &[u8]| append(record, &mut pixels, &mut labels);
        read_records(&mut file, &path.display().to_string(), (first, images), &failed, each)?;
        if labels.is_empty() {
            return Ok(None);
        }
        first += labels.len();
        let inputs = Box::new(Pixels::new([Vec::new(), pixels], (32, 32, 3), &scaling));
        let labels = Labels::Classes { names: CLASSES.map(str::to_owned).to_vec(), of: [Vec::new(), labels] };
        Dataset::new(&config, INPUT, inputs, labels, scaling.clone(), Vec::new()).map(Some)
    }))
}

fn append(record: &[u8], pixels: &mut Vec<u8>, labels: &mut Vec<u32>) -> io::Result<()> {
    memory::reserve(labels, 1)?;
    memory::reserve(pixels, IMAGE_BYTES)?;
    labels.push(u32::from(record[0]));
    append_planar(&record[1..], 3, pixels);
    Ok(())
}

/// The labels in a folder's six files, all records checked. The images stay there.
fn scan_folder(path: &Path) -> Result<Parts> {
    let inner = path.join("cifar-10-batches-bin");
    let folder = if path.join(FILES[0]).is_file() || !inner.is_dir() { path } else { &inner };
    let mut labels = [Vec::new(), Vec::new()];
    let mut files = [Vec::new(), Vec::new()];
    for (i, name) in FILES.iter().enumerate() {
        let (file, part) = (folder.join(name), usize::from(i == TEST));
        let before = labels[part].len();
        read_file(&file, &mut |record| {
            memory::reserve(&mut labels[part], 1)?;
            labels[part].push(u32::from(record[0]));
            Ok(())
        })?;
        let open = open_file(&file, "check data.path")?;
        files[part].push((file, open, labels[part].len() - before));
    }
    Ok((files.map(unread), labels))
}

/// Images that stay in files with so many records each, which stay open: what happens to their names is no matter.
fn unread(files: Vec<(PathBuf, File, usize)>) -> Images {
    let count = files.iter().map(|(.., records)| records).sum();
    let files = Arc::new(files);
    let readers = files.clone();
    let read = Box::new(move |images: Range<usize>, to: &mut [u8]| read_images(&readers, images, to));
    let announce = Box::new(move |images: Range<usize>| {
        each_file(&files, images, |_, file, records| {
            will_read(file, (records.start * RECORD_BYTES) as u64, records.len() * RECORD_BYTES);
            Ok(())
        })
        .unwrap_or_default();
    });
    Images::from(Unread { announce, ..Unread::new(count, IMAGE_BYTES, read) })
}

/// Calls `each` for the files with images of a range, in order, with the records in them.
fn each_file(
    files: &[(PathBuf, File, usize)],
    images: Range<usize>,
    mut each: impl FnMut(&Path, &File, Range<usize>) -> Result<()>,
) -> Result<()> {
    let mut first = 0;
    for (path, file, records) in files {
        let wanted = images.start.max(first)..images.end.min(first + records);
        if !wanted.is_empty() {
            each(path, file, wanted.start - first..wanted.end - first)?;
        }
        first += records;
    }
    Ok(())
}

/// Images of a range.
fn read_images(files: &[(PathBuf, File, usize)], images: Range<usize>, to: &mut [u8]) -> Result<()> {
    let mut to = to.chunks_exact_mut(IMAGE_BYTES);
    let mut bytes = [0; 16 * RECORD_BYTES];
    each_file(files, images, |path, file, wanted| {
        for first in wanted.clone().step_by(16) {
            let some = &mut bytes[..(wanted.end - first).min(16) * RECORD_BYTES];
            file.read_exact_at(some, (first * RECORD_BYTES) as u64).map_err(|e| file::shrunk(path, &e))?;
            for (record, image) in some.chunks_exact(RECORD_BYTES).zip(&mut to) {
                interleave(&record[1..], 3, image);
            }
        }
        Ok(())
    })
}

/// Hands all records of a file to `each`.
fn read_file(path: &Path, each: &mut dyn FnMut(&[u8]) -> io::Result<()>) -> Result<()> {
    let failed = |e: io::Error| file::read_error(path, &e);
    read_records(&mut open_file(path, MEND)?, &path.display().to_string(), ALL, &failed, each)
}

const MEND: &str = "set data.path to the folder with the six .bin files, or to cifar-10-binary.tar.gz";
/// From the first record on, all of them.
const ALL: (usize, usize) = (0, usize::MAX);

/// The six files in a .tar.gz, in whatever order they stand there.
fn read_archive(path: &Path) -> Result<Parts> {
    let broken = |e: io::Error| {
        if e.kind() == io::ErrorKind::OutOfMemory {
            return file::read_error(path, &e);
        }
        let what = format!("it cannot be unpacked: {e}");
        Error::data(path.display().to_string(), what, "give a whole cifar-10-binary.tar.gz, or the folder in it")
    };
    let mut archive = tar::Archive::new(file::open(path)?);
    let mut files: [Option<Vec<u8>>; 6] = Default::default();
    for entry in archive.entries().map_err(broken)? {
        let mut entry = entry.map_err(broken)?;
        let name = entry.path().map_err(broken)?;
        let Some(i) = FILES.iter().position(|file| name.file_name().is_some_and(|name| name == *file)) else {
            continue;
        };
        let mut bytes = Vec::new();
        memory::read_to_end(&mut entry, u64::MAX, &mut bytes).map_err(broken)?;
        files[i] = Some(bytes);
    }
    let (mut pixels, mut labels): ([Vec<u8>; 2], [Vec<u32>; 2]) = Default::default();
    for (i, bytes) in files.iter().enumerate() {
        let (place, part) = (format!("{}, {}", path.display(), FILES[i]), usize::from(i == TEST));
        let Some(bytes) = bytes else {
            return Err(Error::data(place, "no such file in the archive", "give a whole cifar-10-binary.tar.gz"));
        };
        let each = &mut |record: &[u8]| append(record, &mut pixels[part], &mut labels[part]);
        read_records(&mut &bytes[..], &place, ALL, &broken, each)?;
    }
    Ok((pixels.map(Images::from), labels))
}

/// Checks the records of one file, read some at a time, and hands them to `each`: at most so many, of which `first` is the first.
fn read_records(
    reader: &mut dyn Read,
    place: &str,
    (first, mut most): (usize, usize),
    failed: &dyn Fn(io::Error) -> Error,
    each: &mut dyn FnMut(&[u8]) -> io::Result<()>,
) -> Result<()> {
    let (mut records, mut at) = (Vec::with_capacity(CHUNK * RECORD_BYTES + 1), first * RECORD_BYTES);
    while most > 0 {
        records.clear();
        let wanted = CHUNK.min(most);
        reader.take((wanted * RECORD_BYTES) as u64).read_to_end(&mut records).map_err(failed)?;
        if (records.is_empty() && at == 0) || !records.len().is_multiple_of(RECORD_BYTES) {
            let what = format!("{} bytes are no whole number of records of {RECORD_BYTES}", at + records.len());
            return Err(Error::data(place, what, "the file is damaged or no CIFAR-10 binary; get it anew"));
        }
        for record in records.chunks_exact(RECORD_BYTES) {
            if usize::from(record[0]) >= CLASSES.len() {
                let place = format!("{place}, byte {at}");
                return Err(Error::data(place, format!("label {} is above 9", record[0]), "get the file anew"));
            }
            each(record).map_err(failed)?;
            at += RECORD_BYTES;
        }
        if records.len() < wanted * RECORD_BYTES {
            break;
        }
        most -= wanted;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file's bytes: labels 0 to 9 in turn, pixels that tell their place.
    fn records(count: usize) -> Vec<u8> {
        let byte = |i: usize| if i.is_multiple_of(RECORD_BYTES) { i / RECORD_BYTES % 10 } else { i % 251 };
        (0..count * RECORD_BYTES).map(|i| byte(i) as u8).collect()
    }

    fn images_of(records: &[u8]) -> Vec<u8> {
        let mut pixels = Vec::new();
        records.chunks_exact(RECORD_BYTES).for_each(|record| append_planar(&record[1..], 3, &mut pixels));
        pixels
    }

    #[test]
    fn records_are_the_same_however_many_are_read_at_a_time() -> Result<()> {
        for count in [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 3] {
            let bytes = records(count);
            let (mut pixels, mut labels) = (Vec::new(), Vec::new());
            let failed = |e: io::Error| Error::internal("a file", e);
            let each = &mut |record: &[u8]| append(record, &mut pixels, &mut labels);
            read_records(&mut &bytes[..], "a file", ALL, &failed, each)?;
            assert!(pixels == images_of(&bytes), "{count} records");
            assert_eq!(labels, (0..count as u32).map(|i| i % 10).collect::<Vec<_>>());
        }
        Ok(())
    }

    #[test]
    fn any_range_of_images_is_read_from_its_files() -> Result<()> {
        let folder = tempfile::tempdir().map_err(|e| Error::internal("a folder", e))?;
        let (mut all, mut files) = (Vec::new(), Vec::new());
        for (i, count) in [3, CHUNK + 2, 1, 70].into_iter().enumerate() {
            let path = folder.path().join(i.to_string());
            std::fs::write(&path, records(count)).map_err(|e| Error::internal("a file", e))?;
            all.extend(images_of(&records(count)));
            let file = open_file(&path, "")?;
            files.push((path, file, count));
        }
        let total = all.len() / IMAGE_BYTES;
        for range in [0..total, 0..0, 0..3, 2..4, 3..CHUNK + 5, 5..6, CHUNK + 4..total, total..total] {
            let mut images = vec![0; range.len() * IMAGE_BYTES];
            read_images(&files, range.clone(), &mut images)?;
            assert!(images == all[range.start * IMAGE_BYTES..range.end * IMAGE_BYTES], "{range:?}");
        }
        std::fs::write(&files[3].0, records(69)).map_err(|e| Error::internal("a file", e))?;
        let error = read_images(&files, 0..total, &mut vec![0; all.len()]).unwrap_err();
        assert!(error.exit_code() == 65 && error.to_string().contains("shorter"), "{error}");
        Ok(())
    }
}
