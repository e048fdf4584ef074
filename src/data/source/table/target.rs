//! The targets in columns: classes by number or by text, or values.

use super::{Kind, Meaning, normalization};
use crate::config::DataConfig;
use crate::data::Input;
use crate::data::format::{Cells, Table, reserve};
use crate::data::transform::encode::require;
use crate::data::transform::label::{Labels, MOST_CLASSES, seen};
use crate::data::transform::split::Selection;
use crate::error::{Error, Result};
use std::collections::{BTreeSet, HashMap};
use std::path::Path;

/// The targets of some rows of both parts' tables.
pub(super) fn labels(
    (config, selection): (&DataConfig, &Option<Selection>),
    meaning: &Meaning,
    default: Kind,
    tables: [&Table; 2],
    rows: &[Vec<u32>; 2],
    path: &Path,
) -> Result<Labels> {
    let first = &require(tables[0], &meaning.targets[0], path)?.cells;
    let task = meaning.task.unwrap_or(if matches!(first, Cells::Texts(_)) { Kind::Classes } else { default });
    if task == Kind::Values {
        let of = [values(meaning, tables[0], &rows[0], path)?, values(meaning, tables[1], &rows[1], path)?];
        return Labels::values(config, &normalization(config)?, meaning.targets.len(), of, selection);
    }
    if meaning.targets.len() > 1 {
        return Err(config.source.error("targets", "several targets of classes", "name one, or set task = \"values\""));
    }
    let of = [texts(meaning, tables[0], &rows[0], path)?, texts(meaning, tables[1], &rows[1], path)?];
    let names = match (&meaning.classes, &of) {
        (Some(names), _) => names.clone(),
        (None, [Classes::Numbers(train), Classes::Numbers(test)]) => {
            seen([train, test], &format!("{}, column {}", path.display(), meaning.targets[0]))?
        }
        (None, [Classes::Texts(train), Classes::Texts(test)]) => {
            let distinct: BTreeSet<&str> = train.iter().chain(test).copied().collect();
            let mut names: Vec<String> = distinct.into_iter().map(str::to_owned).collect();
            // Whole numbers by what they are, not by letter.
            if names.iter().all(|name| name.parse::<i64>().is_ok()) {
                names.sort_by_key(|name| name.parse::<i64>().unwrap_or_default());
            }
            names
        }
        _ => {
            let place = format!("{}, column {}", path.display(), meaning.targets[0]);
            return Err(Error::data(place, "texts in one part and numbers in the other", "give both alike"));
        }
    };
    if names.len() > MOST_CLASSES {
        let place = format!("{}, column {}", path.display(), meaning.targets[0]);
        return Err(Error::data(place, format!("{} classes", names.len()), "name a column of classes as the target"));
    }
    let known = of.map(|classes| classes.indices(&names));
    match known {
        [Some(train), Some(test)] => Ok(Labels::Classes { names, of: [train, test] }),
        _ => {
            let place = format!("{}, column {}", path.display(), meaning.targets[0]);
            let what = format!("a class that is none of the {} named", names.len());
            Err(Error::data(place, what, "name all classes in data.classes, or leave it out"))
        }
    }
}

/// A word on classes that are in one part only, as they are when the rows are sorted by class.
pub(super) fn uneven(labels: &Labels) -> Option<String> {
    let Labels::Classes { names, of } = labels else { return None };
    let lacks = [0, 1].map(|part: usize| {
        let mut lacks = vec![true; names.len()];
        of[part].iter().for_each(|&class| lacks[class as usize] = false);
        lacks
    });
    let only = |part: usize| lacks[1 - part].iter().zip(&lacks[part]).filter(|&(&other, &own)| other && !own).count();
    (only(0) + only(1) > 0 && !of[1].is_empty()).then(|| {
        format!(
            "of {} classes {} are in the training part only and {} in the test part only: if the rows are sorted by class, \
             set data.split = \"stratified\"",
            names.len(),
            only(0),
            only(1)
        )
    })
}

/// The targets of a file of inputs, as far as they are there; a value that is not is NaN.
pub(super) fn known(trained: &Input, meaning: &Meaning, table: &Table, rows: &[u32], path: &Path) -> Labels {
    let unknown = || Labels::unknown(trained);
    if meaning.targets.iter().any(|name| table.column(name).is_none()) {
        return unknown();
    }
    match unknown() {
        Labels::Classes { names, .. } => {
            let known = texts(meaning, table, rows, path).ok().and_then(|classes| classes.indices(&names));
            known.map_or_else(unknown, |classes| Labels::Classes { names, of: [Vec::new(), classes] })
        }
        Labels::Values { n, units, .. } => {
            let known = columns(meaning, table, path).ok();
            known.map_or_else(unknown, |columns| {
                let of = rows.iter().flat_map(|&row| columns.iter().map(move |values| values[row as usize]));
                Labels::Values { n, of: [Vec::new(), of.collect()], units }
            })
        }
        other => other,
    }
}

/// The columns of the targets.
fn columns<'t>(meaning: &Meaning, table: &'t Table, path: &Path) -> Result<Vec<&'t Vec<f64>>> {
    let of = |name: &String| match &require(table, name, path)?.cells {
        Cells::Numbers(values) => Ok(values),
        _ => {
            let place = format!("{}, column {name}", path.display());
            Err(Error::data(place, "a target that is no number", "set data.task = \"classes\""))
        }
    };
    meaning.targets.iter().map(of).collect()
}

/// (rows, targets).
fn values(meaning: &Meaning, table: &Table, rows: &[u32], path: &Path) -> Result<Vec<f64>> {
    let columns = columns(meaning, table, path)?;
    for (values, name) in columns.iter().zip(&meaning.targets) {
        if let Some(&row) = rows.iter().find(|&&row| !(values[row as usize] as f32).is_finite()) {
            let place = format!("{}, column {name}, row {row}", path.display());
            return Err(Error::data(place, "no finite number", "replace or drop it"));
        }
    }
    let mut targets = Vec::new();
    reserve(&mut targets, rows.len() * columns.len(), path)?;
    targets.extend(rows.iter().flat_map(|&row| columns.iter().map(move |values| values[row as usize])));
    Ok(targets)
}

/// Classes of rows, by number or by text.
enum Classes<'a> {
    Numbers(Vec<u32>),
    Texts(Vec<&'a str>),
}

impl Classes<'_> {
    /// Of each row the index of its class, if all are among `names`.
    fn indices(self, names: &[String]) -> Option<Vec<u32>> {
        match self {
            Classes::Numbers(of) if of.iter().all(|&class| (class as usize) < names.len()) => Some(of),
            Classes::Numbers(_) => None,
            Classes::Texts(texts) => {
                let index: HashMap<&str, u32> = names.iter().map(String::as_str).zip(0..).collect();
                texts.iter().map(|text| index.get(text).copied()).collect()
            }
        }
    }
}

fn texts<'a>(meaning: &Meaning, table: &'a Table, rows: &[u32], path: &Path) -> Result<Classes<'a>> {
    let name = &meaning.targets[0];
    let error = |row: u32, what: String| {
        let place = format!("{}, column {name}, row {row}", path.display());
        Err(Error::data(place, what, "give each sample a class: a whole number from 0 on, or a text"))
    };
    match &require(table, name, path)?.cells {
        Cells::Numbers(values) => {
            let mut classes = Vec::new();
            reserve(&mut classes, rows.len(), path)?;
            for &row in rows {
                let value = values[row as usize];
                if value.fract() != 0.0 || !(0.0..MOST_CLASSES as f64).contains(&value) {
                    return error(row, format!("class {value}"));
                }
                classes.push(value as u32);
            }
            Ok(Classes::Numbers(classes))
        }
        Cells::Texts(texts) => {
            let mut classes = Vec::new();
            reserve(&mut classes, rows.len(), path)?;
            for &row in rows {
                match texts.get(row as usize) {
                    Some(text) => classes.push(text),
                    None => return error(row, "no class".into()),
                }
            }
            Ok(Classes::Texts(classes))
        }
        Cells::Arrays(_) => error(0, "an array".into()),
    }
}
