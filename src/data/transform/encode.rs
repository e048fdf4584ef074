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

impl Missing {
    /// Whether rows are dropped or filled by it, without what is fitted.
    pub fn unfitted(self) -> Self {
        match self {
            Missing::Named(Filling::Mean) => Missing::Value(0.0),
            other => other,
        }
    }

    /// The number that stands in, where it is known without looking.
    pub fn number(self) -> Option<f64> {
        if let Missing::Value(value) = self { Some(value) } else { None }
    }
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
    /// Texts that the training part does not have.
    pub unknown: usize,
}

/// More texts than these are no category.
const MOST_TEXTS: usize = 1000;

impl Encoder {
    /// Fitted on the columns `names` of the training part, which is some `rows` of a table.
    pub fn fit(table: &Table, rows: &[u32], names: &[String], missing: Missing, path: &Path) -> Result<Self> {
        let encode = |name: &String| match &require(table, name, path)?.cells {
            Cells::Numbers(values) => {
                let there = rows.iter().map(|&row| values[row as usize]).filter(|value| !value.is_nan());
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
                for &row in rows {
                    used.get_mut(column.of[row as usize] as usize).map(|used| *used = true).unwrap_or_default();
                }
                let used = column.names.iter().zip(used).filter(|&(_, used)| used).map(|(text, _)| text.clone());
                let mut texts: Vec<String> = used.collect();
                if texts.len() > MOST_TEXTS {
                    let what = format!("{} different texts are no category", texts.len());
                    return Err(at(path, name, what, "correct it, or name the columns to take in data.features"));
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

    /// Whether a row that lacks a value of this column is no sample.
    fn needs(column: &Encoded) -> bool {
        match column {
            Encoded::Number { fill, .. } => fill.is_none(),
            Encoded::Category { fill, .. } => !fill,
        }
    }

    /// Takes out of `whole` the rows of a table that lack a value.
    ///
    /// # Errors
    /// A column that is not there, or of another type than in the training part.
    pub fn mark(&self, table: &Table, whole: &mut [bool], path: &Path) -> Result<()> {
        for column in &self.columns {
            let name = column.name();
            let cells = &require(table, name, path)?.cells;
            let matching = matches!(
                (column, cells),
                (Encoded::Number { .. }, Cells::Numbers(_)) | (Encoded::Category { .. }, Cells::Texts(_))
            );
            if !matching {
                return Err(at(path, name, "another type than in the training part", "give the same columns"));
            }
            if Self::needs(column) {
                cells.mark(whole);
            }
        }
        Ok(())
    }

    /// The numbers of some of a table's rows, none of which lacks one that it needs.
    ///
    /// # Errors
    /// As of [`Encoder::mark`].
    pub fn encode(&self, table: &Table, wanted: &[u32], path: &Path) -> Result<Rows> {
        let width = self.names().len();
        let mut rows = Rows::default();
        reserve(&mut rows.values, width.saturating_mul(wanted.len()), path)?;
        rows.values.resize(width * wanted.len(), 0.0);
        let mut first = 0;
        for column in self.columns.iter().filter(|_| !wanted.is_empty()) {
            let name = column.name();
            let of_row = rows.values[first..].chunks_mut(width.max(1)).zip(wanted);
            match (column, &require(table, name, path)?.cells) {
                (Encoded::Number { fill, .. }, Cells::Numbers(values)) => {
                    let fill = fill.unwrap_or(f64::NAN);
                    for (to, &row) in of_row {
                        let value = values[row as usize];
                        to[0] = if value.is_nan() { fill } else { value } as f32;
                    }
                    first += 1;
                }
                (Encoded::Category { texts, .. }, Cells::Texts(found)) => {
                    let known: HashMap<&String, usize> = texts.iter().zip(0..).collect();
                    let index: Vec<Option<usize>> = found.names.iter().map(|text| known.get(text).copied()).collect();
                    for (to, &row) in of_row {
                        match index.get(found.of[row as usize] as usize) {
                            Some(Some(text)) => to[*text] = 1.0,
                            Some(None) => rows.unknown += 1,
                            None => {}
                        }
                    }
                    first += texts.len();
                }
                _ => return Err(at(path, name, "another type than in the training part", "give the same columns")),
            }
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
            let encoder = Encoder::fit(&train, &[0, 1, 2, 3], &names, missing, path)?;
            assert_eq!(encoder.names(), ["n", "t=blue", "t=red"]);
            let mut whole = [true; 4];
            encoder.mark(&train, &mut whole, path)?;
            let kept: Vec<u32> = (0..4).filter(|&row| whole[row as usize]).collect();
            Ok::<_, Error>((encoder.encode(&train, &kept, path)?.values, kept))
        };
        assert_eq!(rows(Missing::default())?, (vec![1.0, 0.0, 1.0, 5.0, 0.0, 1.0], vec![0, 2]));
        let mean = rows(Missing::Named(Filling::Mean))?;
        assert_eq!(mean.0[3..], [8.0 / 3.0, 1.0, 0.0, 5.0, 0.0, 1.0, 2.0, 0.0, 0.0]);
        assert_eq!(rows(Missing::Value(-1.0))?.0[3], -1.0);
        // Of the rows that it is fitted on alone.
        let part = Encoder::fit(&train, &[0, 3], &names, Missing::Named(Filling::Mean), path)?;
        assert_eq!(part.encode(&train, &[1], path)?, Rows { values: vec![1.5, 0.0], unknown: 1 });
        // What was fitted goes on, over its text too; a new text is none of those known.
        let encoder = Encoder::fit(&train, &[0, 1, 2, 3], &names, Missing::Named(Filling::Mean), path)?;
        let encoder: Encoder = serde_json::from_str(&serde_json::to_string(&encoder).unwrap()).unwrap();
        let other = encoder.encode(&table(&[f64::NAN], &["green"]), &[0], path)?;
        assert_eq!((other.values, other.unknown), (vec![8.0 / 3.0, 0.0, 0.0], 1));
        let wrong = Table { columns: vec![train.columns[0].clone()], rows: 4 };
        assert_eq!(encoder.mark(&wrong, &mut [true; 4], path).map_err(|e| e.exit_code()), Err(65));
        Ok(())
    }
}
