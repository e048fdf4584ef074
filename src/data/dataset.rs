//! The data set that training sees: numbered samples of two parts, filled into micro-batches.

use super::loader::Picked;
use super::sample::Samples;
use super::sample::kept::{Bulk, Unread};
use super::transform::augment;
use super::transform::label::Labels;
use super::transform::normalize::Scaling;
use super::transform::split::Selection;
use super::{AugmentKey, Input, Part, Targets, Task, Unit, sampling, source};
use crate::config::{Augmentation, DataConfig, Resident, Sampling, Shuffle};
use crate::error::{Error, Result};
use crate::input::Encoded;
use crate::rng::{self, Purpose, Stream};
use crate::shape::Shape;
use serde::Serialize;
use std::cell::Cell;
use std::ops::Deref;
use std::sync::Arc;
use toml::{Table, Value};

/// Elements in memory, whoever's.
pub type Kept<T> = Box<dyn Deref<Target = [T]>>;

/// A data set: its labels are in memory, its samples may be in files.
pub struct Dataset {
    input: Shape,
    task: Task,
    pub(super) samples: Box<dyn Samples>,
    pub(super) labels: Labels,
    /// What the inputs were normalised by, where that is the same for all.
    pub(super) scaling: Scaling,
    augment: Vec<Augmentation>,
    /// Room for an image that is being changed.
    room: Cell<Vec<f32>>,
    /// Room for a sample that is to be mixed with another, and its target.
    other: Cell<(Vec<f32>, Targets)>,
    shuffle: Shuffle,
    /// Samples of a block, of which a block shuffle is made.
    block: usize,
    resident: Resident,
    /// Whether values may be other than finite.
    pub(super) any_value: bool,
    sampling: Sampling,
    /// Where some of the training part is kept back.
    selection: Option<Selection>,
    pub(super) notes: Vec<String>,
    /// Of a file of inputs with rows that are no samples.
    pub(super) numbers: Option<Numbers>,
    /// The columns that features and targets came from, where they have names.
    pub(super) columns: [Vec<String>; 2],
    /// How columns became features, where they may hold texts.
    pub(super) encoding: Vec<Encoded>,
    /// Empty fields by column, of those that have some.
    pub(super) missing: Vec<(String, u64)>,
}

/// Which rows of a file are samples: those without a hole.
pub(super) struct Numbers {
    /// The row of each sample, from 0.
    pub of: Vec<u32>,
    /// Rows in the file.
    pub rows: usize,
}

impl Dataset {
    /// Reads the data that `config` names; `seed` is for sources that make it up.
    /// Errors: an unknown source or key (2), bad data (65), a file that cannot be read (74).
    pub fn open(config: &DataConfig, seed: u64) -> Result<Dataset> {
        let mut dataset = Self::open_unread(config, seed)?;
        dataset.read()?;
        dataset.check()?;
        Ok(dataset)
    }

    /// [`Dataset::open`], but where it can be, samples stay in their files until [`Dataset::keep_samples`] or
    /// [`Dataset::read`]. Until then a [`Loader`](super::Loader) reads what [`Dataset::fill`] needs, and finds values that are
    /// not finite.
    /// Errors: as there.
    pub fn open_unread(config: &DataConfig, seed: u64) -> Result<Dataset> {
        let dataset = Self::open_unchecked(config, seed)?;
        dataset.check()?;
        Ok(dataset)
    }

    /// [`Dataset::open_unread`], but values may be other than finite.
    pub(super) fn open_unchecked(config: &DataConfig, seed: u64) -> Result<Dataset> {
        let mut dataset = (source::of(config)?.open)(config, seed)?;
        if dataset.len(Part::Train) == 0 {
            let place = config.path.as_ref().map_or("data".into(), |path| path.display().to_string());
            return Err(Error::data(place, "there is no training sample", "give more data"));
        }
        if dataset.len(Part::Test) == 0 {
            dataset
                .notes
                .push("there is no test sample: nothing will tell how the network does on data it has not seen".into());
        }
        if let (Sampling::Balanced, Task::Classes(names)) = (dataset.sampling, &dataset.task) {
            dataset.notes.extend(sampling::told(names, &dataset.class_counts()));
        }
        Ok(dataset)
    }

    /// The `[data]` table with every default written out, without reading data.
    pub fn resolve(config: &DataConfig) -> Result<Table> {
        let own = (source::of(config)?.resolve)(&config.source)?;
        let value = |v: Result<Value, toml::ser::Error>| v.map_err(|e| Error::internal(&config.source.place, e));
        let mut table = Table::new();
        table.insert("source".into(), config.source.kind.clone().into());
        if let Some(path) = &config.path {
            table.insert("path".into(), path.to_string_lossy().into_owned().into());
        }
        table.insert("shuffle".into(), config.shuffle.into());
        table.insert("sampling".into(), value(to_value(&config.sampling))?);
        table.insert("augment".into(), value(to_value(&config.augment))?);
        table.insert("normalize".into(), value(to_value(&source::normalization(config)?))?);
        table.extend(own.table);
        Ok(table)
    }

    /// Of what a source has read. Errors: augmentation of what is no image, too many samples.
    pub(super) fn new(
        config: &DataConfig,
        input: Shape,
        samples: Box<dyn Samples>,
        labels: Labels,
        scaling: Scaling,
        notes: Vec<String>,
    ) -> Result<Self> {
        augment::check(config, input)?;
        if config.sampling == Sampling::Balanced {
            if !matches!(labels.task(), Task::Classes(_)) {
                let what = "is \"balanced\", but the targets are values, not classes";
                return Err(config.source.error("sampling", what, "remove it"));
            }
            if config.shuffle != Shuffle::Exact {
                let how = if config.shuffle == Shuffle::No { "false" } else { "\"blocks\"" };
                let what = format!("is \"balanced\", which draws samples at random from all, but shuffle is {how}");
                return Err(config.source.error("sampling", what, "remove one of the two"));
            }
        }
        if config.resident == Resident::No && samples.unread(Part::Train).is_none() {
            let what = format!("is false, but the source \"{}\" keeps these samples in memory", config.source.kind);
            let mend = "remove it, or make a file of them that can be read as it is needed: ddl prepare --contiguous";
            return Err(config.source.error("resident", what, mend));
        }
        let chunk = samples.unread(Part::Train).and_then(|unread| unread.chunk);
        let block = chunk.unwrap_or_else(|| (sampling::BLOCK_BYTES / samples.size().max(1)).max(1));
        for part in [Part::Train, Part::Test] {
            if u32::try_from(samples.len(part)).is_err() {
                let place = config.path.as_ref().map_or("data".into(), |path| path.display().to_string());
                return Err(Error::data(place, "more than 2^32 samples", "give less data"));
            }
        }
        Ok(Self {
            input,
            task: labels.task(),
            samples,
            labels,
            scaling,
            augment: config.augment.clone(),
            room: Cell::new(vec![0.0; if config.augment.is_empty() { 0 } else { input.len() }]),
            other: Cell::default(),
            shuffle: config.shuffle,
            block,
            resident: config.resident,
            any_value: false,
            sampling: config.sampling,
            selection: None,
            notes,
            numbers: None,
            columns: Default::default(),
            encoding: Vec::new(),
            missing: Vec::new(),
        })
    }

    /// What a network trained on it must know to predict without it.
    pub fn description(&self) -> Input {
        let [features, targets] = self.columns.clone();
        let (mut classes, mut units) = (Vec::new(), Vec::new());
        match &self.labels {
            Labels::Classes { names, .. } => classes = names.clone(),
            Labels::Values { units: known, .. } => units = known.clone(),
            Labels::Windows(_) => {}
        }
        let series = self.labels.series().iter().map(|series| (series.name.clone(), series.units.clone())).collect();
        let Scaling { mean, std } = self.scaling.clone();
        let encoding = self.encoding.clone();
        Input { shape: self.input, mean, std, features, classes, targets, units, encoding, series }
    }

    /// Keeps back what is to validate on.
    pub(super) fn keep_back(mut self, selection: Option<Selection>) -> Self {
        self.selection = selection;
        self
    }

    /// The shape of one sample.
    pub fn input(&self) -> Shape {
        self.input
    }

    /// What the targets are.
    pub fn task(&self) -> &Task {
        &self.task
    }

    /// Number of samples of a part.
    pub fn len(&self, part: Part) -> usize {
        match (part, &self.selection) {
            (Part::Train, Some(selection)) => selection.train.len(),
            (Part::Validation, Some(selection)) => selection.validation.len(),
            (Part::Validation, None) => 0,
            _ => self.samples.len(part),
        }
    }

    /// Where a sample lies: the training part holds both what is learnt from and what is kept back.
    pub(super) fn place(&self, part: Part, sample: u32) -> (Part, usize) {
        match (part, &self.selection) {
            (Part::Train, Some(selection)) => (Part::Train, selection.train[sample as usize] as usize),
            (Part::Validation, Some(selection)) => (Part::Train, selection.validation[sample as usize] as usize),
            _ => (part, sample as usize),
        }
    }

    /// A line each on what was found, dropped and skipped.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Whether the samples are windows of series, for which [`Dataset::last_value`] answers.
    pub fn is_series(&self) -> bool {
        matches!(self.labels, Labels::Windows(_))
    }

    /// Hands the samples (with `unread` only those that are still in files) to `keep`, and goes on with what it gives back,
    /// which must be the same bytes: ranks of a host may keep one copy. The smaller part mostly comes first, so that less is
    /// held twice. Series, which are small, stay.
    ///
    /// # Errors
    /// Those of `keep`; what was not handed over stays as it is.
    pub fn keep_samples(&mut self, unread: bool, keep: &mut dyn FnMut(&Bulk) -> Result<Kept<u8>>) -> Result<()> {
        self.samples.keep(unread, keep)
    }

    /// Reads what is still in files, into memory of this process.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    pub fn read(&mut self) -> Result<()> {
        self.keep_samples(true, &mut |samples| Ok(Box::new(samples.all()?)))
    }

    /// The samples of a part that are still in files.
    pub(super) fn unread(&self, part: Part) -> Option<&Arc<Unread>> {
        self.samples.unread(if part == Part::Test { Part::Test } else { Part::Train })
    }

    /// Whether a part's samples are still in files.
    pub fn is_unread(&self, part: Part) -> bool {
        self.unread(part).is_some()
    }

    /// Bytes that samples take which are still in files.
    pub fn unread_bytes(&self) -> usize {
        let unread = [Part::Train, Part::Test].into_iter().filter_map(|part| self.samples.unread(part));
        unread.map(|unread| unread.count * unread.size).sum()
    }

    /// Whether samples are to stay in their files, as the job says or because there is no room for all: `fits` tells of bytes.
    pub fn should_stream(&self, fits: impl FnOnce(usize) -> bool) -> bool {
        match (self.unread_bytes(), self.resident) {
            (0, _) | (_, Resident::Yes) => false,
            (_, Resident::No) => true,
            (bytes, Resident::Auto) => !fits(bytes),
        }
    }

    /// Notes that samples stay in their files.
    pub fn stream(&mut self) {
        let (mib, gib) = (f64::from(1 << 20), f64::from(1 << 30));
        let size = match self.unread_bytes() as f64 {
            bytes if bytes < gib => format!("{:.1} MiB", bytes / mib),
            bytes => format!("{:.1} GiB", bytes / gib),
        };
        let why = if self.resident == Resident::No { "data.resident = false" } else { "they would not fit in memory" };
        self.notes.push(format!("{size} of samples stay in their files and are read as they are needed: {why}"));
        let packed = self.samples.unread(Part::Train).filter(|unread| unread.packed);
        if let (Some(unread), Shuffle::Exact) = (packed, self.shuffle) {
            self.notes.push(format!(
                "the file is packed in chunks of {} samples, and each sample of an exact shuffle costs the unpacking of a chunk: set \
                 data.shuffle = \"blocks\", or prepare the data with --contiguous",
                unread.chunk.unwrap_or(1)
            ));
        }
    }

    /// Memory held, in bytes.
    pub fn bytes(&self) -> usize {
        self.samples.bytes() + self.labels.bytes()
    }

    /// Fills `x` (M, H, W, C), (M, T, F) or (M, N), normalised, and `targets` (cleared first) with the M `samples` of a part.
    /// With a key, images are changed at random as the job says: the same for a sample and an epoch wherever it stands in
    /// a batch and whoever fills it. Nothing allocates once `targets` has its capacity.
    /// Panics if a sample is not below [`Dataset::len`], or in a file and its bytes are not there, or `x` is shorter than M samples.
    pub fn fill<'a>(
        &self,
        part: Part,
        picked: impl Into<Picked<'a>>,
        augment: Option<AugmentKey>,
        x: &mut [f32],
        targets: &mut Targets,
    ) {
        let picked = picked.into();
        let samples = picked.samples;
        assert!(x.len() >= samples.len() * self.input.len(), "x is too short for {} samples", samples.len());
        targets.classes.clear();
        targets.values.clear();
        targets.others.clear();
        targets.mixed = None;
        let mut room = self.room.take();
        for (i, (&sample, y)) in samples.iter().zip(x.chunks_exact_mut(self.input.len())).enumerate() {
            self.fill_one(part, (sample, self.held(picked, i)), augment, &mut room, y, targets);
        }
        self.room.set(room);
    }

    /// Mixes filled samples with `others`, to be filled likewise: `share` of what is there, and the rest of the others.
    /// Panics if `x` is shorter than so many samples.
    pub fn mix<'a>(
        &self,
        part: Part,
        others: impl Into<Picked<'a>>,
        share: f32,
        augment: Option<AugmentKey>,
        x: &mut [f32],
        targets: &mut Targets,
    ) {
        let picked = others.into();
        let others = picked.samples;
        assert!(x.len() >= others.len() * self.input.len(), "x is too short for {} samples", others.len());
        let (mut room, (mut other, mut theirs)) = (self.room.take(), self.other.take());
        other.resize(self.input.len(), 0.0);
        theirs.classes.clear();
        theirs.values.clear();
        let blend = |ours: &mut f32, theirs: &f32| *ours = share * *ours + (1.0 - share) * theirs;
        for (i, (&sample, y)) in others.iter().zip(x.chunks_exact_mut(self.input.len())).enumerate() {
            self.fill_one(part, (sample, self.held(picked, i)), augment, &mut room, &mut other, &mut theirs);
            y.iter_mut().zip(&other).for_each(|(ours, theirs)| blend(ours, theirs));
        }
        targets.values.iter_mut().zip(&theirs.values).for_each(|(ours, theirs)| blend(ours, theirs));
        targets.mixed = Some(share);
        targets.others.clear();
        targets.others.extend(&theirs.classes);
        self.room.set(room);
        self.other.set((other, theirs));
    }

    /// The bytes of one of those that are picked.
    fn held<'a>(&self, picked: Picked<'a>, i: usize) -> Option<&'a [u8]> {
        let size = || self.samples.size();
        picked.bytes.map(|bytes| &bytes[i * size()..][..size()])
    }

    /// Fills one sample, of which the bytes may be held, and appends its target.
    fn fill_one(
        &self,
        part: Part,
        (sample, held): (u32, Option<&[u8]>),
        augment: Option<AugmentKey>,
        room: &mut [f32],
        y: &mut [f32],
        targets: &mut Targets,
    ) {
        let (part, sample) = self.place(part, sample);
        let change = augment.filter(|_| !self.augment.is_empty()).map(|key| augment::Change {
            steps: &self.augment,
            stream: Stream::new(key.seed, Purpose::Augment, key.epoch, sample as u64),
            room,
        });
        self.samples.fill(part, sample, held, change, y);
        self.labels.fill(part, sample, targets);
    }

    /// The `alpha` of mixup, where batches are to be mixed.
    pub fn mixup(&self) -> Option<f32> {
        self.augment.iter().find_map(|step| match step {
            Augmentation::Mixup { alpha } => Some(*alpha),
            _ => None,
        })
    }

    /// The training samples of an epoch, as many as there are, in their order: a pure function of (seed, epoch).
    pub fn order(&self, seed: u64, epoch: u64, order: &mut [u32]) {
        match (self.sampling, self.shuffle) {
            (Sampling::Balanced, _) => {
                let classes = (0..order.len() as u32).map(|sample| self.class(Part::Train, sample).unwrap_or(0));
                sampling::balanced(classes, seed, epoch, order);
            }
            (Sampling::Once, Shuffle::Exact) => rng::shuffle(seed, epoch, order),
            (Sampling::Once, Shuffle::Blocks) => {
                let block = |sample: u32| self.place(Part::Train, sample).1 / self.block;
                sampling::blocks(block, sampling::window(self.block, self.samples.size()), seed, epoch, order);
            }
            (Sampling::Once, Shuffle::No) => order.iter_mut().enumerate().for_each(|(i, slot)| *slot = i as u32),
        }
    }

    /// The class of a sample, where it is known.
    pub fn class(&self, part: Part, sample: u32) -> Option<u32> {
        let (part, sample) = self.place(part, sample);
        match &self.labels {
            Labels::Classes { of, .. } => of[part as usize].get(sample).copied(),
            _ => None,
        }
    }

    /// How many training samples each class has; nothing where targets are values.
    pub fn class_counts(&self) -> Vec<u64> {
        let Task::Classes(names) = &self.task else { return Vec::new() };
        let mut counts = vec![0; names.len()];
        for class in (0..self.len(Part::Train) as u32).filter_map(|sample| self.class(Part::Train, sample)) {
            counts[class as usize] += 1;
        }
        counts
    }

    /// Of a file of inputs: whether some target is known, and every class.
    pub fn is_labelled(&self) -> bool {
        let known = |sample: u32| self.target_value(Part::Test, sample, 0).is_some();
        match &self.labels {
            Labels::Classes { of, .. } => of[1].len() == self.len(Part::Test),
            _ => (0..self.len(Part::Test) as u32).any(known),
        }
    }

    /// Of a file of inputs: how many rows it has, or samples where each row is one.
    pub fn rows(&self) -> usize {
        self.numbers.as_ref().map_or(self.len(Part::Test), |numbers| numbers.rows)
    }

    /// Of a file of inputs: the row of a sample, from 0; a row with a hole has no sample.
    pub fn row(&self, sample: u32) -> u32 {
        self.numbers.as_ref().map_or(sample, |numbers| numbers.of[sample as usize])
    }

    /// From what the network gives as one of a sample's values to the data's unit; the identity for classes.
    pub fn unit(&self, part: Part, sample: u32, output: usize) -> Unit {
        let (part, sample) = self.place(part, sample);
        self.labels.unit(part, sample, output)
    }

    /// The naive forecast of one of a sample's values, in the data's unit: its last value in the window. None where samples are
    /// no windows.
    pub fn last_value(&self, part: Part, sample: u32, output: usize) -> Option<f64> {
        let (part, sample) = self.place(part, sample);
        self.labels.last_value(part, sample, output)
    }

    /// One of a sample's true values in the data's unit, exact, where it is known.
    pub fn target_value(&self, part: Part, sample: u32, output: usize) -> Option<f64> {
        let (part, sample) = self.place(part, sample);
        self.labels.value(part, sample, output)
    }

    /// What a sample of a series is about: `AAPL 2017-03-02`, the series' name and the time of the target.
    pub fn describe(&self, part: Part, sample: u32) -> Option<String> {
        let (name, when) = self.place_in_series(part, sample)?;
        Some(format!("{name} {when}").trim_start().to_owned())
    }

    /// Likewise, the name and the time by themselves.
    pub fn place_in_series(&self, part: Part, sample: u32) -> Option<(String, String)> {
        let (part, sample) = self.place(part, sample);
        if let Labels::Windows(windows) = &self.labels { Some(windows.place(part, sample)) } else { None }
    }
}

/// As TOML, where an f32 of 0.1307 stays 0.1307 and does not become 0.13070000708103180.
fn to_value(value: &impl Serialize) -> Result<Value, toml::ser::Error> {
    let mut value = Value::try_from(value)?;
    shorten(&mut value);
    Ok(value)
}

fn shorten(value: &mut Value) {
    match value {
        Value::Float(float) => *float = (*float as f32).to_string().parse().unwrap_or(*float),
        Value::Array(values) => values.iter_mut().for_each(shorten),
        Value::Table(table) => table.iter_mut().for_each(|(_, value)| shorten(value)),
        _ => {}
    }
}
