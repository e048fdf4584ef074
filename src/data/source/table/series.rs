//! Windows over rows: rows of a group are one series, sorted in time and split in time; nothing ever looks ahead.

use super::clock::Clock;
use super::layout::{Layout, raw};
use super::{Kind, Meaning, Split};
use crate::config::data::NormalizeMethod;
use crate::config::{DataConfig, Normalize, nearest};
use crate::data::format::{Cells, Table};
use crate::data::source::normalization;
use crate::data::transform::encode::{Encoder, Filling, Missing, require};
use crate::data::transform::label::Labels;
use crate::data::transform::normalize::{Scaling, Summary};
use crate::data::transform::split::{Selection, wanted};
use crate::data::transform::window::{Columns, Series, Windows};
use crate::data::{Dataset, Input, Part, Unit};
use crate::error::{Error, Result, shorten};
use crate::resource::memory;
use crate::shape::Shape;
use std::cmp::Ordering;
use std::ops::Range;
use std::path::Path;
use std::rc::Rc;

/// The keys of windows.
#[derive(Debug, Clone)]
pub(in crate::data::source) struct Keys {
    pub window: usize,
    pub horizon: usize,
    /// The column that tells series apart.
    pub group: Option<String>,
    /// The column to sort by.
    pub time: Option<String>,
    /// The series to take; none: all.
    pub select: Vec<String>,
    /// What one series is called, and the key that selects some.
    pub noun: &'static str,
    /// The first share of each series, to learn from, and the key that says it.
    pub learnt: f64,
    pub fraction: &'static str,
    /// Whether one series of a file may be that of the job whatever it is called.
    pub any_name: bool,
}

impl Default for Keys {
    fn default() -> Self {
        Self {
            window: 0,
            horizon: 1,
            group: None,
            time: None,
            select: Vec::new(),
            noun: "series",
            learnt: 0.8,
            fraction: "test_fraction",
            any_name: false,
        }
    }
}

impl Keys {
    /// Errors: lengths that cannot be, other keys that windows do not go with.
    pub fn check(&self, config: &DataConfig, meaning: &Meaning, test_path: bool) -> Result<()> {
        let error = |key: &str, what: String, mend: &str| Err(config.source.error(key, what, mend));
        if self.window == 0 || self.window > 1 << 20 {
            return error("window", format!("{} rows", self.window), "use 1 to 1048576, such as 60");
        }
        if self.horizon == 0 || self.horizon > 1 << 20 {
            return error("horizon", format!("{} rows", self.horizon), "use 1 to 1048576; 1 is the next row");
        }
        let cut = "windows are cut in time: leave it out, and set data.test_fraction";
        if test_path {
            return error("test_path", "beside a window".into(), cut);
        }
        if meaning.split != Split::Last {
            return error("split", "beside a window".into(), cut);
        }
        if meaning.task == Some(Kind::Classes) || meaning.classes.is_some() {
            return error("window", "windows predict values, not classes".into(), "leave out task and classes");
        }
        if meaning.missing == Missing::Named(Filling::Mean) {
            return error("missing", "the mean of a series looks ahead".into(), "use \"drop\" or a number");
        }
        Ok(())
    }
}

/// What the windows of a series are for: their times, and how many rows are learnt from, none in one that is too short.
#[derive(Default)]
struct Cut {
    train: Range<usize>,
    test: Range<usize>,
    learnt: usize,
}

impl Keys {
    fn cut(&self, config: &DataConfig, group: &Group) -> Cut {
        let n = group.rows.len();
        let cut = (self.learnt * n as f64) as usize;
        // A target at t + horizon - 1 must still be in its part.
        let (train_end, test_end) = ((cut + 1).saturating_sub(self.horizon), (n + 1).saturating_sub(self.horizon));
        if cut <= self.window || train_end <= self.window {
            return Cut::default();
        }
        let train = self.window..train_end;
        // What is kept back to validate on is unknown to scalers and texts, too.
        let learnt = cut - wanted(config, train.len()).unwrap_or(0);
        Cut { train, test: cut..test_end, learnt }
    }
}

/// The rows of one series in the order of their times.
struct Group {
    name: String,
    rows: Vec<u32>,
    holes: usize,
    duplicates: usize,
}

/// The groups of a table by name, sorted in time, without rows that lack one of `needed` and times that come again.
fn groups(keys: &Keys, table: &Table, needed: &[&Cells], clock: &Clock, path: &Path) -> Result<Vec<Group>> {
    let mut whole = vec![true; table.rows];
    needed.iter().for_each(|cells| cells.mark(&mut whole));
    let group = |name: String| Group { name, rows: Vec::new(), holes: 0, duplicates: 0 };
    let mut groups = Vec::new();
    let add = |groups: &mut Vec<Group>, of: usize, row: usize| match whole[row] {
        true => groups[of].rows.push(row as u32),
        false => groups[of].holes += 1,
    };
    let error = |name: &str, row: usize| {
        let place = format!("{}, column {name}, row {row}", path.display());
        Err(Error::data(place, format!("a row without a {name}"), "name it or remove the row"))
    };
    match keys.group.as_ref().map(|name| Ok((name, &require(table, name, path)?.cells))).transpose()? {
        None => {
            groups.push(group(String::new()));
            (0..table.rows).for_each(|row| add(&mut groups, 0, row));
        }
        Some((name, Cells::Texts(texts))) => {
            groups.extend(texts.names.iter().cloned().map(group));
            for row in 0..table.rows {
                match texts.of[row] as usize {
                    of if of < groups.len() => add(&mut groups, of, row),
                    _ => return error(name, row),
                }
            }
        }
        Some((name, Cells::Numbers(values))) => {
            let mut index = std::collections::HashMap::new();
            for (row, value) in values.iter().enumerate() {
                if value.is_nan() {
                    return error(name, row);
                }
                let of = *index.entry(value.to_bits()).or_insert(groups.len());
                if of == groups.len() {
                    groups.push(group(value.to_string()));
                }
                add(&mut groups, of, row);
            }
        }
        Some((name, Cells::Arrays(_))) => {
            let place = format!("{}, column {name}", path.display());
            return Err(Error::data(place, "an array", "name a column of texts or numbers as the group"));
        }
    }
    groups.sort_by(|a, b| a.name.cmp(&b.name));
    for group in &mut groups {
        group.rows.sort_by(|&a, &b| clock.compare(a, b));
        let rows = group.rows.len();
        group.rows.dedup_by(|a, b| clock.compare(*a, *b) == Ordering::Equal);
        group.duplicates = rows - group.rows.len();
    }
    Ok(groups)
}

/// Refuses rows of several series that are taken for one: most of them would be dropped, for their times are there already.
fn one_series(config: &DataConfig, keys: &Keys, groups: &[Group]) -> Result<()> {
    let ([group], Some(time)) = (groups, &keys.time) else { return Ok(()) };
    if keys.group.is_some() || group.duplicates <= group.rows.len() {
        return Ok(());
    }
    let what = format!(
        "{} of {} rows have a {time} that another row has",
        group.duplicates,
        group.duplicates + group.rows.len()
    );
    let mend = "set data.group to the column that tells series apart, or give each time once";
    Err(config.source.error("time", what, mend))
}

/// Keeps the series of the job.
fn select(config: &DataConfig, keys: &Keys, groups: &mut Vec<Group>) -> Result<()> {
    for name in &keys.select {
        if !groups.iter().any(|group| group.name == *name) {
            let noun = keys.noun;
            let mend = match nearest(name, groups.iter().map(|group| group.name.as_str())) {
                Some(near) => format!("did you mean \"{near}\"?"),
                None => format!("there are {} {noun}s; give some of them or []", groups.len()),
            };
            return Err(config.source.error(&format!("{noun}s"), format!("no {noun} \"{name}\" in the data"), mend));
        }
    }
    if !keys.select.is_empty() {
        groups.retain(|group| keys.select.contains(&group.name));
    }
    Ok(())
}

/// What was found, and the holes in it.
fn notes(keys: &Keys, what: &[String], groups: &[Group], clock: &Clock) -> Vec<String> {
    let rows: usize = groups.iter().map(|group| group.rows.len()).sum();
    let mut found = format!("{} of {}", count(rows, "row"), count(groups.len(), keys.noun));
    let ends = groups.iter().flat_map(|group| group.rows.first().into_iter().chain(group.rows.last()));
    let ends = ends.copied();
    if keys.time.is_some()
        && let (Some(first), Some(last)) =
            (ends.clone().min_by(|&a, &b| clock.compare(a, b)), ends.max_by(|&a, &b| clock.compare(a, b)))
    {
        let times = clock.times(&[first, last]);
        found += &format!(", {} to {}", times.text(0), times.text(1));
    }
    let mut notes = vec![found];
    let mut dropped = |what: &str, of_group: fn(&Group) -> usize| {
        let of: Vec<&Group> = groups.iter().filter(|group| of_group(group) > 0).collect();
        let total: usize = of.iter().map(|group| of_group(group)).sum();
        if total > 0 {
            let list: Vec<String> = of.iter().map(|group| format!("{} {}", group.name, of_group(group))).collect();
            let (rows, groups) = (count(total, "row"), count(of.len(), keys.noun));
            notes.push(format!("{rows} {what} dropped, of {groups}: {}", some(&list)));
        }
    };
    dropped(&format!("without {}", what.join(" or ")), |group| group.holes);
    let time = keys.time.as_deref().unwrap_or("time");
    dropped(&format!("of a {time} that was there already"), |group| group.duplicates);
    notes
}

/// The windows over all rows of a table.
pub(in crate::data::source) fn open(
    config: &DataConfig,
    path: &Path,
    meaning: &Meaning,
    keys: &Keys,
    table: Table,
) -> Result<Dataset> {
    let normalize = normalization(config)?;
    let by_window = normalize == Normalize::Named(NormalizeMethod::Window);
    let features = features(meaning, keys, &table);
    let beside = meaning.targets.iter().filter(|name| !features.contains(name));
    let names: Vec<String> = features.iter().chain(beside).cloned().collect();
    let needed: Vec<&Cells> =
        names.iter().map(|name| require(&table, name, path).map(|column| &column.cells)).collect::<Result<_>>()?;
    let clock = Clock::of(&table, keys.time.as_ref(), path)?;
    let fill = meaning.missing.number();
    let mut groups = groups(keys, &table, if fill.is_none() { &needed } else { &[] }, &clock, path)?;
    one_series(config, keys, &groups)?;
    let rows: usize = groups.iter().map(|group| group.rows.len()).sum();
    if rows == 0 {
        let what = format!("no row with a {}", names.join(" and a "));
        return Err(Error::data(path.display().to_string(), what, "give a file with rows"));
    }
    select(config, keys, &mut groups)?;
    let learnt: Vec<u32> =
        groups.iter().flat_map(|group| &group.rows[..keys.cut(config, group).learnt]).copied().collect();
    let layout = Layout::new(Encoder::fit(&table, &learnt, &features, meaning.missing, path)?, &meaning.targets);
    let cells = layout.cells(&table, path)?;
    let fills = vec![fill.unwrap_or(f64::NAN); layout.columns.all];
    require_room(&layout, rows, path)?;
    let mut notes = notes(keys, &names, &groups, &clock);
    notes.extend(left_out(meaning, keys, &table));
    let mut windows = Windows::new(keys.window, keys.horizon, by_window, layout.columns.clone());
    let (mut short, mut runs) = (Vec::new(), Vec::new());
    for group in groups {
        let Cut { train, test, learnt } = keys.cut(config, &group);
        if learnt == 0 {
            short.push(group.name);
            continue;
        }
        runs.push(train.len());
        let raw = raw(&cells, &group.rows, &fills);
        let units = fit(config, &normalize, &raw[..learnt * layout.columns.all], &layout.columns)?;
        let scaled = scale(&raw, &units, by_window, &|row| {
            let what = format!("row {row} of {} {} leaves the range of f32 when scaled", keys.noun, group.name);
            Error::data(path.display().to_string(), what, "correct the values")
        })?;
        let series = Series { times: clock.times(&group.rows), name: group.name, raw, scaled, units };
        windows.add(series, [train, test]);
    }
    if !short.is_empty() {
        let rows = keys.window + keys.horizon;
        let skipped = count(short.len(), keys.noun);
        notes.push(format!("{skipped} skipped, with fewer than {rows} training rows: {}", some(&short)));
    }
    if windows.series.is_empty() {
        let what = format!("no {} is long enough for windows of {} rows", keys.noun, keys.window);
        return Err(Error::data(path.display().to_string(), what, "give longer series or lower data.window"));
    }
    let given = config.source.table.contains_key(keys.fraction);
    if windows.count(Part::Test) == 0 && keys.learnt < 1.0 && given {
        let what = format!("{} leaves no test sample", config.source.table[keys.fraction]);
        let (way, none) = if keys.fraction == "test_fraction" { ("raise", 0) } else { ("lower", 1) };
        let mend = format!(
            "{way} it, so that the last {} rows are left to test on, or set {none} to test on none",
            keys.horizon
        );
        return Err(config.source.error(keys.fraction, what, mend));
    }
    let scaling =
        Scaling::new(config, &Normalize::Named(NormalizeMethod::None), layout.columns.inputs, || Ok(Vec::new()))?;
    let mut dataset = windowed(config, windows, scaling, notes)?;
    dataset.columns = [layout.names[..layout.columns.inputs].to_vec(), meaning.targets.clone()];
    dataset.encoding = layout.encoding();
    Ok(dataset.keep_back(Selection::last(config, &runs)))
}

/// Every window of every series in a table, also the one that ends with the last row.
pub(in crate::data::source) fn open_inputs(
    trained: &Input,
    config: &DataConfig,
    path: &Path,
    missing: Missing,
    keys: &Keys,
    mut table: Table,
) -> Result<Dataset> {
    let by_window = normalization(config)? == Normalize::Named(NormalizeMethod::Window);
    let fill = missing.number();
    let layout = Layout::of(trained, fill);
    let (features, others) = layout.names.split_at(layout.columns.inputs);
    for name in others.iter().filter(|_| !by_window) {
        // A target that is no feature need not be known.
        if table.column(name).is_none() {
            let cells = Cells::Numbers(vec![f64::NAN; table.rows]);
            table.columns.push(crate::data::format::Column { name: name.clone(), cells });
        }
    }
    let cells = layout.cells(&table, path)?;
    let clock = Clock::of(&table, keys.time.as_ref(), path)?;
    let known = if by_window { cells.len() } else { features.len() };
    let fills: Vec<f64> = (0..cells.len()).map(|column| fill.filter(|_| column < known).unwrap_or(f64::NAN)).collect();
    let needed = match fill {
        None => layout.needed(&table, by_window, path)?,
        Some(_) => Vec::new(),
    };
    let groups = groups(keys, &table, &needed, &clock, path)?;
    require_room(&layout, table.rows, path)?;
    let mut notes = notes(keys, features, &groups, &clock);
    let mut windows = Windows::new(keys.window, keys.horizon, by_window, layout.columns.clone());
    let mut short = Vec::new();
    // One unnamed series for a job of one series: file names may differ.
    let alone = trained.series.first().filter(|_| trained.series.len() == 1 && keys.any_name);
    for group in groups {
        if group.rows.len() < keys.window {
            short.push(group.name);
            continue;
        }
        let units = match trained.series.iter().find(|(name, _)| *name == group.name).or(alone) {
            _ if by_window => vec![Unit::IDENTITY; layout.columns.all],
            Some((_, units)) if units.len() == layout.columns.all => units.clone(),
            _ => {
                let what = format!("{} {} is none of the job's, so there is no scale for it", keys.noun, group.name);
                let mend = "leave it out, or train with normalize = \"window\"";
                return Err(Error::data(path.display().to_string(), what, mend));
            }
        };
        let raw = raw(&cells, &group.rows, &fills);
        let inputs = layout.columns.inputs;
        let scaled = scale(&raw, &units, by_window, &|row| {
            let what = format!("row {row} of {} {} leaves the range of f32 when scaled", keys.noun, group.name);
            Error::data(path.display().to_string(), what, "correct the values")
        });
        // What is not known is no error.
        let scaled = match scaled {
            Err(error) if inputs == layout.columns.all => return Err(error),
            Err(_) => raw.iter().enumerate().map(|(i, &v)| units[i % units.len()].normalize(v)).collect(),
            Ok(scaled) => scaled,
        };
        let times = keys.window..group.rows.len() + 1;
        windows.add(Series { times: clock.times(&group.rows), name: group.name, raw, scaled, units }, [0..0, times]);
    }
    if !short.is_empty() {
        let skipped = count(short.len(), keys.noun);
        notes.push(format!("{skipped} skipped, with fewer than {} rows: {}", keys.window, some(&short)));
    }
    windowed(config, windows, Scaling::of(trained), notes)
}

fn windowed(config: &DataConfig, windows: Windows, scaling: Scaling, notes: Vec<String>) -> Result<Dataset> {
    let windows = Rc::new(windows);
    let shape = Shape::Sequence { t: windows.window, f: windows.columns.inputs };
    let samples = Box::new(windows.clone());
    Dataset::new(config, shape, samples, Labels::Windows(windows), scaling, notes)
}

/// The columns to predict from: the job's, or all of numbers but the group and the time.
fn features(meaning: &Meaning, keys: &Keys, table: &Table) -> Vec<String> {
    if !meaning.features.is_empty() {
        return meaning.features.clone();
    }
    let apart = [&keys.group, &keys.time];
    let numbers = table.columns.iter().filter(|column| matches!(column.cells, Cells::Numbers(_)));
    let names = numbers.map(|column| column.name.clone());
    names.filter(|name| !apart.iter().any(|apart| apart.as_ref() == Some(name))).collect()
}

/// A word on columns that are no input since they hold no numbers.
fn left_out(meaning: &Meaning, keys: &Keys, table: &Table) -> Option<String> {
    let known = |name: &String| [&keys.group, &keys.time].iter().any(|of| of.as_ref() == Some(name));
    let other = |cells: &Cells| !matches!(cells, Cells::Numbers(_));
    let others = table.columns.iter().filter(|column| other(&column.cells) && !known(&column.name));
    let names: Vec<String> = others.map(|column| column.name.clone()).collect();
    (meaning.features.is_empty() && !names.is_empty())
        .then(|| format!("columns of texts are in no window unless data.features names them: {}", some(&names)))
}

/// Times, values and what each window is scaled by, in series of their own.
fn require_room(layout: &Layout, rows: usize, path: &Path) -> Result<()> {
    let bytes = (16 + 16 * layout.columns.all) as f64 * rows as f64;
    memory::ask(bytes).map_err(|e| crate::data::format::file::read_error(path, &e))
}

/// The scaler of each column of a series, fitted on what is learnt from.
fn fit(config: &DataConfig, normalize: &Normalize, learnt: &[f64], columns: &Columns) -> Result<Vec<Unit>> {
    let all = columns.all;
    if *normalize == Normalize::Named(NormalizeMethod::Window) {
        return Ok(vec![Unit::IDENTITY; all]);
    }
    let column = |c: usize| learnt.iter().skip(c).step_by(all).map(|&value| (value, 1.0));
    let scaling = Scaling::new(config, normalize, all, || Ok((0..all).map(|c| Summary::of(column(c))).collect()))?;
    let units = scaling.std.iter().zip(&scaling.mean).zip(&columns.categories);
    let unit = |((&scale, &offset), &category)| if category { Unit::IDENTITY } else { Unit { scale, offset } };
    Ok(units.map(unit).collect())
}

/// A series as the network sees it; nothing where each window is normalised by itself.
fn scale(raw: &[f64], units: &[Unit], by_window: bool, error: &dyn Fn(usize) -> Error) -> Result<Vec<f32>> {
    if by_window {
        return Ok(Vec::new());
    }
    let row = |row: &[f64]| row.iter().zip(units).map(|(&value, unit)| unit.normalize(value)).collect::<Vec<f32>>();
    let scaled: Vec<f32> = match units {
        [unit] => raw.iter().map(|&value| unit.normalize(value)).collect(),
        _ => raw.chunks_exact(units.len()).flat_map(row).collect(),
    };
    match scaled.iter().position(|value| !value.is_finite()) {
        None => Ok(scaled),
        Some(i) => Err(error(i / units.len())),
    }
}

/// `1 row`, `2 rows`.
fn count(n: usize, what: &str) -> String {
    if n == 1 || what == "series" { format!("{n} {what}") } else { format!("{n} {what}s") }
}

/// The first few names of a list.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 5;
    let list = names.iter().take(SHOWN).map(|name| shorten(name)).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{list} and {} more", names.len() - SHOWN) } else { list }
}
