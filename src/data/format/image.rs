//! PNG and JPEG pictures, decoded once and at once to u8, and folders of them, one class a folder.

use super::files::{ends, list};
use super::reserve;
use crate::error::{Error, Result};
use crate::resource::contain::contain;
use crate::resource::open_file;
use image::imageops::FilterType;
use image::{DynamicImage, ImageError, ImageReader, Limits};
use std::io::{Cursor, Read};
use std::path::{Path, PathBuf};

/// Endings of the files that are pictures.
const ENDINGS: &[&str] = &[".png", ".jpg", ".jpeg"];

/// More than any picture to learn from: a header may promise anything.
const MOST_PIXELS_A_SIDE: u32 = 1 << 14;
const MOST_BYTES: u64 = 1 << 28;

/// How pictures become arrays (height, width, channels). What is not given is as the first one has it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Picture {
    /// Height and width.
    pub size: Option<(usize, usize)>,
    /// Whether others are resized to that size, or an error.
    pub resize: bool,
    /// 1: grey, 3: red, green and blue.
    pub channels: Option<usize>,
}

/// Decodes a picture and appends its pixels (height, width, channels). Afterwards size and channels are known.
pub fn append(
    bytes: &[u8],
    picture: &mut Picture,
    pixels: &mut Vec<u8>,
    path: &Path,
    place: &dyn Fn() -> String,
) -> Result<()> {
    let broken = |what: String| Error::data(place(), what, "give a whole PNG or JPEG file");
    let decoded = contain(|| decode(bytes)).ok_or_else(|| broken("the picture cannot be read".into()))?;
    let mut image = decoded.map_err(|e| broken(format!("the picture cannot be read: {e}")))?;
    let found = (image.height() as usize, image.width() as usize);
    let size = *picture.size.get_or_insert(found);
    if size != found && picture.resize {
        image = image.resize_exact(size.1 as u32, size.0 as u32, FilterType::Triangle);
    } else if size != found {
        let what = format!("a picture of {}x{} where others have {}x{}", found.0, found.1, size.0, size.1);
        return Err(Error::data(place(), what, "set data.size = [height, width] to have all resized"));
    }
    let grey = !image.color().has_color();
    let channels = *picture.channels.get_or_insert(if grey { 1 } else { 3 });
    let decoded = if channels == 1 { image.into_luma8().into_raw() } else { image.into_rgb8().into_raw() };
    if decoded.is_empty() {
        return Err(broken("it has no pixels".into()));
    }
    reserve(pixels, decoded.len(), path)?;
    pixels.extend_from_slice(&decoded);
    Ok(())
}

fn decode(bytes: &[u8]) -> Result<DynamicImage, ImageError> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format()?;
    let mut limits = Limits::default();
    limits.max_image_width = Some(MOST_PIXELS_A_SIDE);
    limits.max_image_height = Some(MOST_PIXELS_A_SIDE);
    limits.max_alloc = Some(MOST_BYTES);
    reader.limits(limits);
    reader.decode()
}

/// Reads a picture's file.
pub fn append_file(path: &Path, picture: &mut Picture, pixels: &mut Vec<u8>) -> Result<()> {
    let mend = "check data.path";
    let mut bytes = Vec::new();
    let file = open_file(path, mend)?;
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(|e| Error::io(path, e, mend))?;
    if bytes.len() as u64 > MOST_BYTES {
        return Err(Error::data(path.display().to_string(), "over 256 MiB", "give pictures of a smaller size"));
    }
    append(&bytes, picture, pixels, path, &|| path.display().to_string())
}

/// Pictures of named classes, by class and then by name.
#[derive(Debug, Default, PartialEq)]
pub struct Folder {
    /// The classes.
    pub classes: Vec<String>,
    /// Each picture and its class.
    pub files: Vec<(PathBuf, u32)>,
}

/// The classes in a folder: its folders, sorted by name.
pub fn classes(folder: &Path) -> Result<Vec<String>> {
    let name = |path: &PathBuf| path.file_name().map(|name| name.to_string_lossy().into_owned());
    Ok(list(folder)?.iter().filter(|path| path.is_dir()).filter_map(name).collect())
}

/// The pictures in a folder with a folder for each of `classes`. Errors: a folder that is no class, no picture at all.
pub fn scan(folder: &Path, classes: Vec<String>) -> Result<Folder> {
    for other in self::classes(folder)? {
        if !classes.contains(&other) {
            let what = format!("the training part has no class \"{other}\"");
            return Err(Error::data(
                folder.join(&other).display().to_string(),
                what,
                "give both parts the same classes",
            ));
        }
    }
    let mut files = Vec::new();
    for (class, name) in (0..).zip(&classes) {
        let inner = folder.join(name);
        if !inner.is_dir() {
            continue;
        }
        for file in list(&inner)?.into_iter().filter(|file| ends(file, ENDINGS)) {
            reserve(&mut files, 1, folder)?;
            files.push((file, class));
        }
    }
    if files.is_empty() {
        let mend = "set data.path to a folder with one folder a class, in it PNG or JPEG files";
        return Err(Error::data(folder.display().to_string(), "no pictures in folders of classes", mend));
    }
    Ok(Folder { classes, files })
}

/// Pictures that a path means without classes: one file, or those in a folder.
pub fn loose(path: &Path) -> Result<Vec<PathBuf>> {
    super::files::files(path, ENDINGS)
}
