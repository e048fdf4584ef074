//! Our conventions on top of HDF5: no file locks, text as variable-length UTF-8, one line for an error.

use crate::error::{Error, Result};
use crate::resource::open_file;
use hdf5::plist::DatasetAccess;
use hdf5::types::{TypeDescriptor, VarLenUnicode};
use hdf5::{Dataset, Datatype, File, FileBuilder, Group, H5Type, LinkType, Location};
use hdf5_sys::h5d::{H5Dopen2, H5Dwrite};
use hdf5_sys::h5p::{H5P_CLS_DATASET_XFER, H5Pclose, H5Pcreate, H5Pset_buffer};
use hdf5_sys::h5s::H5S_ALL;
use std::ffi::CString;
use std::path::Path;
use std::str::FromStr;
use std::sync::Once;

/// A file of others may lead to any file of this machine, a pipe among them, on which opening waits for ever. So no link to
/// another file is followed: HDF5 forgets how, once and for all, since a link within the file may lead to one as well.
pub(super) fn stay_inside() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        hdf5::sync::sync(|| {
            // SAFETY: a call without pointers, under the lock that all calls of the library take.
            let _ = unsafe { hdf5_sys::h5l::H5Lunregister(hdf5_sys::h5l::H5L_type_t::H5L_TYPE_EXTERNAL) };
        });
    });
}

/// The other file in which a dataset's elements are, if it has them elsewhere; asked before its shape, which may open it.
pub(super) fn elsewhere(dataset: &Dataset) -> hdf5::Result<Option<String>> {
    let how = dataset.create_plist()?;
    let sources = how.get_virtual_map().unwrap_or_default().into_iter().map(|map| map.src_filename);
    let mut files = how.get_external()?.into_iter().map(|file| file.name).chain(sources);
    Ok(files.find(|name| name != "."))
}

/// HDF5's default lock would shut readers out of a run file while the run goes on, and fails on file systems
/// without locks. The default library version stays: after a kill it reopens with what was flushed.
pub(super) fn options() -> FileBuilder {
    let mut builder = File::with_options();
    builder.with_fapl(|fapl| fapl.file_locking(false));
    builder
}

/// Opens a dataset of whose chunks so many bytes are kept as they are read. The file's own setting would not do: it is that of
/// whoever opened the file first.
pub(super) fn keeping_chunks(file: &File, name: &str, bytes: usize) -> hdf5::Result<Dataset> {
    /// Chunks are told apart well enough that none takes another's place.
    const PLACES: usize = 100_003;
    let how = DatasetAccess::build().chunk_cache(PLACES, bytes, 1.0).finish()?;
    let name = CString::new(name).map_err(|e| e.to_string())?;
    hdf5::sync::sync(|| {
        // SAFETY: the file, the list and the name live until the call returns.
        let id = unsafe { H5Dopen2(file.id(), name.as_ptr(), how.id()) };
        // SAFETY: the identifier is of a dataset that was just opened, or none, which is refused.
        unsafe { hdf5::from_id(id) }
    })
}

/// Opens a file for reading.
///
/// # Errors
/// `Io` if the file cannot be read, `Data` if it is no whole HDF5 file.
pub(super) fn open(path: &Path) -> Result<File> {
    open_file(path, "check the path")?;
    stay_inside();
    options().open(path).map_err(|e| damaged(path, &format!("not a whole HDF5 file ({})", cause(&e))))
}

/// A `Data` error about a file.
pub(super) fn damaged(path: &Path, what: &str) -> Error {
    Error::data(path.display().to_string(), what, "it is damaged or of another kind: use another file")
}

/// The operating system's message where there is one, or HDF5's outermost one.
pub(super) fn cause(error: &hdf5::Error) -> String {
    if let Some(stack) = error.stack() {
        for frame in stack.iter() {
            if let Some((_, rest)) = frame.desc().split_once("error message = '")
                && let Some((message, _)) = rest.split_once('\'')
            {
                return message.to_string();
            }
        }
    }
    error.to_string()
}

/// Text as HDF5 keeps it; it cannot hold NUL.
pub(super) fn text_value(text: &str) -> hdf5::Result<VarLenUnicode> {
    VarLenUnicode::from_str(&text.replace('\0', "\u{fffd}")).map_err(|e| e.to_string().into())
}

/// Writes all texts of a data set. The library would take 2 MiB and clear them for each call, to convert a few pointers.
///
/// # Errors
/// If there are more or fewer texts than elements, or a call of the library fails.
pub(super) fn write_texts(dataset: &Dataset, texts: &[VarLenUnicode]) -> hdf5::Result<()> {
    const BUFFER_BYTES: usize = 1 << 12;
    if dataset.size() != texts.len() {
        return Err(format!("{} texts for {} elements of {}", texts.len(), dataset.size(), dataset.name()).into());
    }
    let kind = Datatype::from_type::<VarLenUnicode>()?;
    let written = hdf5::sync::sync(|| {
        // SAFETY: the list is closed after its last use; as many texts as the data set has elements live until the call returns;
        // without a buffer of ours the library takes its own.
        unsafe {
            let how = H5Pcreate(*H5P_CLS_DATASET_XFER);
            let sized = H5Pset_buffer(how, BUFFER_BYTES, std::ptr::null_mut(), std::ptr::null_mut());
            let written = H5Dwrite(dataset.id(), kind.id(), H5S_ALL, H5S_ALL, how, texts.as_ptr().cast());
            H5Pclose(how);
            sized.min(written)
        }
    });
    if written < 0 { Err(format!("texts of {} cannot be written", dataset.name()).into()) } else { Ok(()) }
}

/// Sets a text attribute; its length is not limited, since the text itself lies in the file's global heap.
pub(super) fn set_text(at: &Location, name: &str, text: &str) -> hdf5::Result<()> {
    set(at, name, &text_value(text)?)
}

/// Sets a scalar attribute, replacing an older one.
pub(super) fn set<T: H5Type>(at: &Location, name: &str, value: &T) -> hdf5::Result<()> {
    if at.attr_names()?.iter().any(|n| n == name) {
        at.delete_attr(name)?;
    }
    at.new_attr::<T>().create(name)?.write_scalar(value)
}

/// A scalar attribute of a number type.
pub(super) fn get<T: H5Type>(at: &Location, name: &str) -> hdf5::Result<T> {
    at.attr(name)?.read_scalar::<T>()
}

/// A text attribute.
pub(super) fn text(at: &Location, name: &str) -> hdf5::Result<String> {
    Ok(utf8(&at.attr(name)?.read_scalar::<VarLenUnicode>()?))
}

/// A damaged file's text may not be UTF-8, whatever its type says.
pub(super) fn utf8(text: &VarLenUnicode) -> String {
    String::from_utf8_lossy(text.as_bytes()).into_owned()
}

/// All attributes that are one number, by name.
pub(super) fn numbers(at: &Location) -> hdf5::Result<Vec<(String, f64)>> {
    at.attr_names()?.into_iter().map(|name| get(at, &name).map(|value| (name, value))).collect()
}

/// All attributes as text, by name: texts as they are, numbers as numbers, anything else as its type.
pub(super) fn attributes(at: &Location) -> hdf5::Result<Vec<(String, String)>> {
    at.attr_names()?.into_iter().map(|name| attribute_text(at, &name).map(|text| (name, text))).collect()
}

fn attribute_text(at: &Location, name: &str) -> hdf5::Result<String> {
    let attribute = at.attr(name)?;
    let Ok(kind) = attribute.dtype()?.to_descriptor() else { return Ok("(unknown type)".into()) };
    let shape = attribute.get_shape()?;
    Ok(match kind {
        TypeDescriptor::VarLenUnicode | TypeDescriptor::VarLenAscii if shape.is_empty() => text(at, name)?,
        TypeDescriptor::Integer(_) if shape.is_empty() => get::<i64>(at, name)?.to_string(),
        TypeDescriptor::Unsigned(_) if shape.is_empty() => get::<u64>(at, name)?.to_string(),
        TypeDescriptor::Float(_) if shape.is_empty() => get::<f64>(at, name)?.to_string(),
        kind => format!("({kind} {})", super::shape_text(&shape)),
    })
}

/// A whole data set. Its size is held against the file's before memory is taken: a damaged one may claim any.
pub(super) fn read<T: H5Type>(file: &File, dataset: &Dataset) -> hdf5::Result<Vec<T>> {
    let elements = dataset.get_shape()?.iter().try_fold(1usize, |n, &d| n.checked_mul(d));
    // Extended but unwritten rows take no space, hence the allowance.
    let limit = file.size().max(1 << 20) as usize / size_of::<T>();
    match elements {
        Some(n) if n <= limit => dataset.read_raw::<T>(),
        _ => Err(format!("{}: larger than the file", dataset.name()).into()),
    }
}

/// The links of a group, whether they lead somewhere or not.
pub(super) fn links(group: &Group) -> hdf5::Result<Vec<(String, LinkType)>> {
    let mut links = Vec::new();
    group.iter_visit_default(|name, link| {
        links.push((name.to_owned(), link.link_type));
        Ok(())
    })?;
    Ok(links)
}

/// The group `name`, made if it is not there.
pub(super) fn group(parent: &Group, name: &str) -> hdf5::Result<Group> {
    if parent.link_exists(name) { parent.group(name) } else { parent.create_group(name) }
}
