//! Columns as numbers: missing ones filled or their rows dropped, texts as one number for each text of the training part,
//! which is 1 where the row has that text and else 0. What was fitted on the training part is kept in the [`Encoder`].

use crate::data::format::{Cells, Table, reserve};
use crate::error::{Error, Result};
use crate::input::Encoded;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::Path;

/// What becomes of rows that lack a value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged, expecting = "is none of: \"drop\", \"mean\", or the number to take")]
pub enum Missing {
    /// By a name.
    Named(Filling),
    /// This stands in for a number; a missing text is none of the texts.
    Value(f64),
}

/// A way to fill by name.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Filling {
    /// The row is dropped.
    Drop,
    /// The mean of the training part stands in for a number; a missing text is none of the texts.
    Mean,
}

impl Default for Missing {
    fn default() -> Self {
        Missing::Named(Filling::Drop)
    }
}

/// How columns become numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Encoder {
    /// A column each.
    pub columns: Vec<Encoded>,
}

/// What an [`Encoder`] makes of a table.
#[derive(Debug, Default, PartialEq)]
pub struct Rows {
    /// (rows, numbers).
    pub values: Vec<f32>,
    /// Which of the table's rows they are.
    pub kept: Vec<u32>,
    /// Texts that the training part does not have.
    pub unknown: usize,
}

/// More texts than these are no category.
const MOST_TEXTS: usize = 1000;

impl Encoder {
    /// Fitted on the columns `names` of the training part.
    pub fn fit(table: &Table, names: &[String], missing: Missing, path: &Path) -> Result<Self> {
        let encode = |name: &String| match &require(table, name, path)?.cells {
            Cells::Numbers(values) => {
                let there = values.iter().filter(|value| !value.is_nan());
                let fill = match missing {
                    Missing::Named(Filling::Drop) => None,
                    Missing::Named(Filling::Mean) => {
                        let count = there.clone().count();
                        if count == 0 {
                            return Err(at(path, name, "no value to have a mean of", "leave the column out"));
                        }
                        Some(there.sum::<f64>() / count as f64)
                    }
                    Missing::Value(value) => Some(value),
                };
                Ok(Encoded::Number { name: name.clone(), fill })
            }
            Cells::Texts(column) => {
                let mut used = vec![false; column.names.len()];
                for &index in &column.of {
                    used.get_mut(index as usize).map(|used| *used = true).unwrap_or_default();
                }
                let used = column.names.iter().zip(used).filter(|&(_, used)| used).map(|(text, _)| text.clone());
                let mut texts: Vec<String> = used.collect();
                if texts.len() > MOST_TEXTS {
                    let what = format!("{} different texts are no category", texts.len());
                    return Err(at(path, name, what, "name the columns to take in data.features, without it"));
                }
                texts.sort();
                Ok(Encoded::Category { name: name.clone(), texts, fill: missing != Missing::Named(Filling::Drop) })
            }
            Cells::Arrays(_) => Err(at(path, name, "arrays beside other columns", "name it alone in data.features")),
        };
        Ok(Self { columns: names.iter().map(encode).collect::<Result<_>>()? })
    }

    /// The names of the numbers: the column's, or `column=text`.
    pub fn names(&self) -> Vec<String> {
        let names = |column: &Encoded| match column {
            Encoded::Number { name, .. } => vec![name.clone()],
            Encoded::Category { name, texts, .. } => texts.iter().map(|text| format!("{name}={text}")).collect(),
        };
        self.columns.iter().flat_map(names).collect()
    }

    /// The numbers of a table's rows, but for those that lack one.
    pub fn encode(&self, table: &Table, path: &Path) -> Result<Rows> {
        let width = self.names().len();
        let mut columns = Vec::new();
        for column in &self.columns {
            let (Encoded::Number { name, .. } | Encoded::Category { name, .. }) = column;
            let cells = &require(table, name, path)?.cells;
            let index = match (column, cells) {
                (Encoded::Number { .. }, Cells::Numbers(_)) => Vec::new(),
                (Encoded::Category { texts, .. }, Cells::Texts(found)) => {
                    let known: HashMap<&String, usize> = texts.iter().zip(0..).collect();
                    found.names.iter().map(|text| known.get(text).copied()).collect()
                }
                _ => return Err(at(path, name, "another type than in the training part", "give the same columns")),
            };
            columns.push((column, cells, index));
        }
        let mut rows = Rows::default();
        'rows: for row in 0..table.rows {
            let start = rows.values.len();
            reserve(&mut rows.values, width, path)?;
            for (column, cells, index) in &columns {
                let whole = match (column, cells) {
                    (Encoded::Number { fill, .. }, Cells::Numbers(values)) => {
                        let value = Some(values[row]).filter(|value| !value.is_nan()).or(*fill);
                        value.map(|value| rows.values.push(value as f32)).is_some()
                    }
                    (Encoded::Category { texts, fill, .. }, Cells::Texts(found)) => {
                        let at = rows.values.len();
                        rows.values.resize(at + texts.len(), 0.0);
                        match index.get(found.of[row] as usize) {
                            Some(Some(text)) => rows.values[at + text] = 1.0,
                            Some(None) => rows.unknown += 1,
                            None => {}
                        }
                        *fill || index.get(found.of[row] as usize).is_some()
                    }
                    _ => false,
                };
                if !whole {
                    rows.values.truncate(start);
                    continue 'rows;
                }
            }
            reserve(&mut rows.kept, 1, path)?;
            rows.kept.push(row as u32);
        }
        Ok(rows)
    }
}

/// The column of this name, or an error that lists those there are.
pub fn require<'a>(table: &'a Table, name: &str, path: &Path) -> Result<&'a crate::data::format::Column> {
    table.column(name).ok_or_else(|| {
        let mend = format!("the columns are: {}", table.names().join(", "));
        Error::data(path.display().to_string(), format!("no column \"{name}\""), mend)
    })
}

fn at(path: &Path, column: &str, what: impl Into<String>, mend: &str) -> Error {
    Error::data(format!("{}, column {column}", path.display()), what, mend)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::format::{Column, Texts};

    fn table(numbers: &[f64], texts: &[&str]) -> Table {
        let mut column = Texts::default();
        let text = |text: &&str| Some(*text).filter(|text| !text.is_empty()).map(str::to_owned);
        texts.iter().for_each(|t| column.push(text(t).as_deref(), Path::new("t")).unwrap());
        let columns = vec![
            Column { name: "n".into(), cells: Cells::Numbers(numbers.to_vec()) },
            Column { name: "t".into(), cells: Cells::Texts(column) },
        ];
        Table { columns, rows: numbers.len() }
    }

    #[test]
    fn texts_become_ones_and_missing_values_what_was_asked() -> Result<()> {
        let (path, names) = (Path::new("t"), ["n".to_owned(), "t".to_owned()]);
        let train = table(&[1.0, f64::NAN, 5.0, 2.0], &["red", "blue", "red", ""]);
        let rows = |missing| {
            let encoder = Encoder::fit(&train, &names, missing, path)?;
            assert_eq!(encoder.names(), ["n", "t=blue", "t=red"]);
            encoder.encode(&train, path)
        };
        let dropped = rows(Missing::default())?;
        assert_eq!((dropped.values, dropped.kept), (vec![1.0, 0.0, 1.0, 5.0, 0.0, 1.0], vec![0, 2]));
        let mean = rows(Missing::Named(Filling::Mean))?;
        assert_eq!(mean.values[3..], [8.0 / 3.0, 1.0, 0.0, 5.0, 0.0, 1.0, 2.0, 0.0, 0.0]);
        assert_eq!(rows(Missing::Value(-1.0))?.values[3], -1.0);
        // What was fitted goes on, over its text too; a new text is none of those known.
        let encoder = Encoder::fit(&train, &names, Missing::Named(Filling::Mean), path)?;
        let encoder: Encoder = serde_json::from_str(&serde_json::to_string(&encoder).unwrap()).unwrap();
        let other = encoder.encode(&table(&[f64::NAN], &["green"]), path)?;
        assert_eq!((other.values, other.unknown), (vec![8.0 / 3.0, 0.0, 0.0], 1));
        let wrong = Table { columns: vec![train.columns[0].clone()], rows: 4 };
        assert_eq!(encoder.encode(&wrong, path).map_err(|e| e.exit_code()), Err(65));
        Ok(())
    }
}
