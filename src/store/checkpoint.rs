//! Checkpoints: `step-<8 digits>.h5`, whole or absent, the same at any number of ranks.
//!
//! Root attributes say where the run stands; `/model/<layer>/<parameter>` and `/optimizer/<slot>/<layer>/<parameter>`
//! hold the tensors in torch's shapes. Two checksums guard them: the attribute `checksum` is over the content (see
//! [`Content::new`]), and the seal in front of the HDF5 part is over all bytes of the file.

use super::atomic::{TEMPORARY, folder_of, sync_folder};
use super::hdf;
use super::image::Image;
use super::progress::{Best, EpochSums, Progress};
use super::seal::{self, Kind, SEAL_BYTES};
use super::{Tensor, input, key_order};
use crate::arena::{Layout, Slot};
use crate::error::{Error, Result};
use crate::input::Input;
use hdf5::{File, Group};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};

const FORMAT_VERSION: u64 = 2;
/// Without `/input` and the best epoch so far.
const FORMAT_1: u64 = 1;

/// The checkpoint of the best epoch.
pub const BEST: &str = "best.h5";

/// All that is needed to go on with a run.
#[derive(Debug, Clone, PartialEq)]
pub struct Checkpoint {
    /// Optimizer steps done over the whole run.
    pub step: u64,
    /// Epochs done.
    pub epoch: u64,
    /// Samples done in the current epoch.
    pub sample: u64,
    /// Of the current epoch.
    pub sums: EpochSums,
    /// So far.
    pub best: Best,
    /// The job's seed.
    pub seed: u64,
    /// Ranks of the run that wrote it; it may go on at any other number.
    pub ranks: u64,
    /// The resolved job as TOML.
    pub config: String,
    /// What products were multiplied in, "f32" or "bf16"; empty in older files.
    pub products: String,
    /// What its input is; None in files of format 1.
    pub input: Option<Input>,
    /// Parameters and state buffers, by layer number and name.
    pub model: Vec<Tensor>,
    /// The optimizer's slots by name, each with a tensor a parameter.
    pub optimizer: Vec<(String, Vec<Tensor>)>,
}

/// The checksum over everything, in the order of writing and reading.
struct Content(Sha256);

impl Content {
    /// Starts with format_version, best_epoch, step, epoch, sample, seed, ranks (each u64, little-endian), the bits of the best
    /// loss and of the epoch's sums, and the config (its length as u64, then its bytes). Format 1 has no best epoch and loss, and
    /// no `/input`, which follows as `store::input` says. Tensors follow, `/model` first, then the slots by name: the path
    /// (`model/0/weight`) as the config, the number of dimensions, the dimensions, then the elements as f32, little-endian.
    fn new(version: u64, progress: &Progress) -> Self {
        let mut content = Self(Sha256::new());
        content.number(version);
        let from = usize::from(version == FORMAT_1);
        progress.counters()[from..].iter().for_each(|&(_, value)| content.number(value));
        progress.sums().skip(from).for_each(|(_, value)| content.number(value.to_bits()));
        content.text(progress.config);
        content
    }

    fn number(&mut self, value: u64) {
        self.0.update(value.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(text.len() as u64);
        self.0.update(text);
    }

    fn tensor(&mut self, path: &str, shape: &[usize], data: &[f32]) {
        self.text(path);
        self.number(shape.len() as u64);
        shape.iter().for_each(|&d| self.number(d as u64));
        if cfg!(target_endian = "little") {
            self.0.update(bytemuck::cast_slice::<f32, u8>(data));
        } else {
            data.iter().for_each(|v| self.0.update(v.to_le_bytes()));
        }
    }

    fn finish(self) -> String {
        seal::hex(&self.0.finalize())
    }
}

/// Writes `dir/step-<8 digits>.h5` from the parameters, the state buffers and the optimizer's slots, which are laid
/// out as the parameters. Returns its path.
///
/// # Errors
/// `Io` when the disk is full or the folder cannot be written to: no trace of the new file stays, and older
/// checkpoints are untouched.
pub fn write(
    dir: &Path,
    progress: &Progress,
    params: (&Layout, &[f32]),
    state: (&Layout, &[f32]),
    slots: &[(&str, &[f32])],
) -> Result<PathBuf> {
    let arenas = [params, state].into_iter().chain(slots.iter().map(|&(_, arena)| (params.0, arena)));
    if let Some((layout, arena)) = arenas.into_iter().find(|(layout, arena)| arena.len() != layout.len()) {
        let what = format!("an arena of {} elements for a layout of {}", arena.len(), layout.len());
        return Err(Error::internal("store::checkpoint::write", what));
    }
    let path = dir.join(format!("step-{:08}.h5", progress.step));
    let unmade = |e: hdf5::Error| Error::internal("store::checkpoint::write", hdf::cause(&e));
    let fill = |file: &File| write_content(file, progress, params, state, slots);
    let image = Image::make(SEAL_BYTES, fill).map_err(unmade)?;
    seal::write(&path, Kind::Checkpoint, image.bytes().map_err(unmade)?).map_err(|e| match e {
        Error::Io { place, what, .. } => {
            let mend = "free some space or choose another folder with --out; older checkpoints are untouched";
            Error::io(Path::new(&place), format!("cannot write the checkpoint: {what}"), mend)
        }
        other => other,
    })?;
    Ok(path)
}

fn write_content(
    file: &File,
    progress: &Progress,
    params: (&Layout, &[f32]),
    state: (&Layout, &[f32]),
    slots: &[(&str, &[f32])],
) -> hdf5::Result<()> {
    hdf::set(file, "format_version", &FORMAT_VERSION)?;
    for (name, value) in progress.counters() {
        hdf::set(file, name, &value)?;
    }
    for (name, value) in progress.sums() {
        hdf::set(file, name, &value)?;
    }
    // HDF5 keeps no NUL in text; the checksum is over what can be read back.
    let config = progress.config.replace('\0', "\u{fffd}");
    hdf::set_text(file, "config", &config)?;
    // Under the seal, but not the checksum: it is a word on how the content came about.
    hdf::set_text(file, "products", progress.products)?;
    let mut content = Content::new(FORMAT_VERSION, &Progress { config: &config, ..*progress });
    input::write(file, progress.input, |bytes| content.0.update(bytes))?;

    let model: Vec<_> = of_layout(params).chain(of_layout(state)).collect();
    write_tensors(&file.create_group("model")?, "model", model, &mut content)?;
    let optimizer = file.create_group("optimizer")?;
    let mut slots = slots.to_vec();
    slots.sort_by_key(|&(name, _)| name);
    for (name, arena) in slots {
        let tensors = of_layout((params.0, arena)).collect();
        write_tensors(&optimizer.create_group(name)?, &format!("optimizer/{name}"), tensors, &mut content)?;
    }
    hdf::set_text(file, "checksum", &content.finish())
}

fn of_layout<'a>((layout, arena): (&'a Layout, &'a [f32])) -> impl Iterator<Item = (&'a Slot, &'a [f32])> {
    layout.slots().iter().map(move |slot| (slot, arena))
}

fn write_tensors(
    parent: &Group,
    path: &str,
    mut tensors: Vec<(&Slot, &[f32])>,
    content: &mut Content,
) -> hdf5::Result<()> {
    let key = |slot: &Slot| slot.key();
    tensors.sort_by(|(a, _), (b, _)| key_order(&key(a)).cmp(&key_order(&key(b))));
    for (slot, arena) in tensors {
        let data = slot.read(arena);
        let layer = hdf::group(parent, &slot.layer)?;
        layer.new_dataset::<f32>().shape(slot.shape.as_slice()).create(slot.name.as_str())?.write_raw(&data)?;
        content.tensor(&format!("{path}/{}/{}", slot.layer, slot.name), &slot.shape, &data);
    }
    Ok(())
}

/// Reads a checkpoint and verifies both checksums.
///
/// # Errors
/// `Io` if the file cannot be read; `Data`, with what is wrong, if it is damaged, cut off, or no checkpoint of this
/// format.
pub fn read(path: &Path) -> Result<Checkpoint> {
    read_parts(path, true)
}

/// Reads a checkpoint without the optimizer's slots, which a network that is not trained any further does without; they are left
/// empty. That the file is whole is told by its seal, which is over all of its bytes.
///
/// # Errors
/// As of [`read`].
pub fn read_network(path: &Path) -> Result<Checkpoint> {
    read_parts(path, false)
}

fn read_parts(path: &Path, slots: bool) -> Result<Checkpoint> {
    seal::verify(path, Kind::Checkpoint)?;
    let file = hdf::open(path)?;
    let unreadable = |e: hdf5::Error| hdf::damaged(path, &format!("cannot read the checkpoint: {}", hdf::cause(&e)));
    let version: u64 = hdf::get(&file, "format_version").map_err(unreadable)?;
    if ![FORMAT_1, FORMAT_VERSION].contains(&version) {
        let what = format!("checkpoint format {version}, but this ddl reads formats {FORMAT_1} and {FORMAT_VERSION}");
        return Err(Error::data(path.display().to_string(), what, "use the ddl that wrote it"));
    }
    let checksum = hdf::text(&file, "checksum").map_err(|_| hdf::damaged(path, "no attribute checksum"))?;
    let (checkpoint, found) = read_content(&file, version, slots).map_err(unreadable)?;
    // It is over the slots, too.
    if slots && checksum != found {
        return Err(hdf::damaged(path, "the attribute checksum does not match the content"));
    }
    Ok(checkpoint)
}

fn read_content(file: &File, version: u64, slots: bool) -> hdf5::Result<(Checkpoint, String)> {
    let config = hdf::text(file, "config")?;
    let mut sums = [0.0; 4];
    for (sum, name) in sums.iter_mut().zip(EpochSums::NAMES) {
        *sum = hdf::get(file, name)?;
    }
    let best = match version {
        FORMAT_1 => Best::default(),
        _ => Best { loss: hdf::get(file, "best_loss")?, epoch: hdf::get(file, "best_epoch")? },
    };
    let progress = Progress {
        best,
        input: &Input::default(),
        step: hdf::get(file, "step")?,
        epoch: hdf::get(file, "epoch")?,
        sample: hdf::get(file, "sample")?,
        sums: sums.into(),
        seed: hdf::get(file, "seed")?,
        ranks: hdf::get(file, "ranks")?,
        config: &config,
        products: &hdf::text(file, "products").unwrap_or_default(),
    };
    let mut content = Content::new(version, &progress);
    let input = match version {
        FORMAT_1 => None,
        _ => Some(input::read(file, |bytes| content.0.update(bytes))?),
    };
    let model = read_tensors(file, &file.group("model")?, "model", &mut content)?;
    let group = file.group("optimizer")?;
    let mut names = if slots { group.member_names()? } else { Vec::new() };
    names.sort();
    let mut optimizer = Vec::new();
    for name in names {
        let tensors = read_tensors(file, &group.group(&name)?, &format!("optimizer/{name}"), &mut content)?;
        optimizer.push((name, tensors));
    }
    let Progress { step, epoch, sample, sums, best, seed, ranks, products, .. } = progress;
    let products = products.to_owned();
    let checkpoint =
        Checkpoint { step, epoch, sample, sums, best, seed, ranks, config, products, input, model, optimizer };
    Ok((checkpoint, content.finish()))
}

fn read_tensors(file: &File, parent: &Group, path: &str, content: &mut Content) -> hdf5::Result<Vec<Tensor>> {
    let mut found = Vec::new();
    for layer in parent.member_names()? {
        let group = parent.group(&layer)?;
        for name in group.member_names()? {
            found.push((format!("{layer}.{name}"), format!("{path}/{layer}/{name}"), group.dataset(&name)?));
        }
    }
    found.sort_by(|a, b| key_order(&a.0).cmp(&key_order(&b.0)));
    let mut tensors = Vec::with_capacity(found.len());
    for (key, path, dataset) in found {
        let shape = dataset.get_shape()?;
        let data = hdf::read::<f32>(file, &dataset)?;
        content.tensor(&path, &shape, &data);
        tensors.push(Tensor { key, shape, data });
    }
    Ok(tensors)
}

/// A checkpoint and where it is.
pub type Found = (PathBuf, Checkpoint);

/// The newest checkpoint in `dir` that is whole, and a line on each newer one that is not. No folder: none.
///
/// # Errors
/// `Io` if the folder exists and cannot be listed.
pub fn newest_good(dir: &Path) -> Result<(Option<Found>, Vec<String>)> {
    let mut damaged = Vec::new();
    for path in list(dir)?.into_iter().rev() {
        match read(&path) {
            Ok(checkpoint) => return Ok((Some((path, checkpoint)), damaged)),
            Err(e) => damaged.push(e.to_string()),
        }
    }
    Ok((None, damaged))
}

/// The step of the newest checkpoint whose checksum is right; what is in it is not looked at.
///
/// # Errors
/// `Io` if the folder exists and cannot be listed.
pub fn newest_whole(dir: &Path) -> Result<Option<u64>> {
    let whole = |path: &PathBuf| seal::verify(path, Kind::Checkpoint).is_ok();
    Ok(list(dir)?.iter().rev().find(|path| whole(path)).and_then(|path| step_of(path)))
}

/// Lets `best.h5` beside a checkpoint be that checkpoint, also when it is pruned later.
///
/// # Errors
/// `Io`; an older best one stays then.
pub fn keep_best(checkpoint: &Path) -> Result<()> {
    let best = checkpoint.with_file_name(BEST);
    let link = checkpoint.with_file_name(format!("{BEST}{TEMPORARY}"));
    let _ = fs::remove_file(&link);
    // Not every file system has hard links.
    let linked = fs::hard_link(checkpoint, &link).or_else(|_| fs::copy(checkpoint, &link).map(|_| ()));
    linked
        .and_then(|()| fs::rename(&link, &best))
        .and_then(|()| sync_folder(folder_of(&best)))
        .map_err(|e| Error::io(&best, format!("cannot be written: {e}"), "check the folder and its free space"))
}

/// Removes all but the newest `keep` checkpoints (at least one stays), and temporary files left by a killed run.
/// To be called after a checkpoint was written, so that the newest is good.
///
/// # Errors
/// `Io` if the folder cannot be listed or a file not removed.
pub fn prune(dir: &Path, keep: usize) -> Result<()> {
    let checkpoints = list(dir)?;
    let older = checkpoints.len().saturating_sub(keep.max(1));
    let abandoned = entries(dir)?.into_iter().filter(|path| {
        let name = path.file_name().and_then(|n| n.to_str()).and_then(|n| n.strip_suffix(TEMPORARY));
        name.is_some_and(|name| step_of(Path::new(name)).is_some())
    });
    for path in checkpoints[..older].iter().cloned().chain(abandoned) {
        fs::remove_file(&path)
            .map_err(|e| Error::io(&path, format!("cannot remove the old checkpoint: {e}"), "check the folder"))?;
    }
    Ok(())
}

/// The checkpoints of a folder, oldest first.
///
/// # Errors
/// `Io` if the folder exists and cannot be listed.
pub fn list(dir: &Path) -> Result<Vec<PathBuf>> {
    let mut found: Vec<(u64, PathBuf)> =
        entries(dir)?.into_iter().filter(|p| p.is_file()).filter_map(|p| step_of(&p).map(|s| (s, p))).collect();
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

fn entries(dir: &Path) -> Result<Vec<PathBuf>> {
    let failed = |e: std::io::Error| Error::io(dir, format!("cannot list the checkpoints: {e}"), "check the folder");
    match fs::read_dir(dir) {
        Ok(entries) => entries.map(|entry| entry.map(|e| e.path()).map_err(failed)).collect(),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(failed(e)),
    }
}

/// The step in the name of a checkpoint, `step-<8 or more digits>.h5`.
pub fn step_of(path: &Path) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix("step-")?.strip_suffix(".h5")?;
    (digits.len() >= 8 && digits.bytes().all(|b| b.is_ascii_digit())).then(|| digits.parse().ok())?
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arena::Storage;

    /// A file whose bytes are as they were written, but whose content is not ours.
    #[test]
    fn what_a_sealed_file_lacks_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let (mut layout, none) = (Layout::default(), Layout::default());
        layout.push("0", "bias", &[2], Storage::Plain);
        let (sums, best, input) = (EpochSums::default(), Best::default(), &Input::default());
        let progress = Progress {
            step: 1,
            epoch: 0,
            sample: 0,
            sums,
            best,
            seed: 0,
            ranks: 1,
            config: "",
            products: "f32",
            input,
        };
        let refused = |edit: &dyn Fn(&File) -> hdf5::Result<()>| {
            let params = vec![1.0; layout.len()];
            let path = write(dir.path(), &progress, (&layout, &params), (&none, &[]), &[]).unwrap();
            let file = hdf::options().open_rw(&path).unwrap();
            edit(&file).unwrap();
            file.close().unwrap();
            let bytes = fs::read(&path).unwrap();
            seal::write(&path, Kind::Checkpoint, &bytes).unwrap();
            let error = read(&path).unwrap_err();
            assert_eq!(error.exit_code(), 65);
            error.to_string()
        };
        let version = refused(&|file| hdf::set(file, "format_version", &3u64));
        assert!(version.contains("checkpoint format 3"), "{version}");
        let absent = refused(&|file| file.delete_attr("checksum"));
        assert!(absent.contains("no attribute checksum"), "{absent}");
        let changed = refused(&|file| file.dataset("model/0/bias")?.write_raw(&[1.0f32, 2.0]));
        assert!(changed.contains("checksum does not match"), "{changed}");
        let seed = refused(&|file| hdf::set(file, "seed", &9u64));
        assert!(seed.contains("checksum does not match"), "{seed}");
        let group = refused(&|file| file.unlink("optimizer"));
        assert!(group.contains("cannot read the checkpoint"), "{group}");
    }
}
