//! The columns of windows: features, a text's as one number for each of the texts, then targets that are no features.

use crate::data::Input;
use crate::data::format::{Cells, Table};
use crate::data::transform::encode::{Encoder, require};
use crate::data::transform::window::Columns;
use crate::error::{Error, Result};
use crate::input::Encoded;
use std::path::Path;

/// See the head of this file.
pub(super) struct Layout {
    /// Of each column of a window.
    pub names: Vec<String>,
    pub columns: Columns,
    encoder: Encoder,
}

/// Where the numbers of a column of windows are.
pub(super) enum Numbers<'t> {
    Given(&'t [f64]),
    /// 1 where the row's text is this one.
    Text(&'t [u32], Option<u32>),
}

impl Layout {
    pub fn new(encoder: Encoder, targets: &[String]) -> Self {
        let mut names = encoder.names();
        let inputs = names.len();
        let of = |column: &Encoded| match column {
            Encoded::Number { .. } => vec![false],
            Encoded::Category { texts, .. } => vec![true; texts.len()],
        };
        let mut categories: Vec<bool> = encoder.columns.iter().flat_map(of).collect();
        let place = |name: &String| {
            names.iter().position(|known| known == name).unwrap_or_else(|| {
                names.push(name.clone());
                names.len() - 1
            })
        };
        let targets = targets.iter().map(place).collect();
        categories.resize(names.len(), false);
        Self { columns: Columns { all: names.len(), inputs, targets, categories }, names, encoder }
    }

    /// That of a network.
    pub fn of(trained: &Input, fill: Option<f64>) -> Self {
        let number = |name: &String| Encoded::Number { name: name.clone(), fill };
        let columns = match &trained.encoding[..] {
            [] => trained.features.iter().map(number).collect(),
            encoding => encoding.to_vec(),
        };
        Self::new(Encoder { columns }, &trained.targets)
    }

    /// How the features became numbers, where texts are among them.
    pub fn encoding(self) -> Vec<Encoded> {
        let texts = self.columns.categories.contains(&true);
        self.encoder.columns.into_iter().filter(|_| texts).collect()
    }

    /// The cells of the features, and those of the other targets if so.
    pub fn needed<'t>(&self, table: &'t Table, targets: bool, path: &Path) -> Result<Vec<&'t Cells>> {
        let others = self.names[self.columns.inputs..].iter().filter(|_| targets).map(String::as_str);
        let names = self.encoder.columns.iter().map(Encoded::name).chain(others);
        names.map(|name| require(table, name, path).map(|column| &column.cells)).collect()
    }

    /// The numbers of each column of a window.
    pub fn cells<'t>(&self, table: &'t Table, path: &Path) -> Result<Vec<Numbers<'t>>> {
        let error = |name: &str, mend| {
            Err(Error::data(format!("{}, column {name}", path.display()), "no column of numbers", mend))
        };
        let mut cells = Vec::new();
        for column in &self.encoder.columns {
            match (column, &require(table, column.name(), path)?.cells) {
                (Encoded::Number { .. }, Cells::Numbers(values)) => cells.push(Numbers::Given(values)),
                (Encoded::Category { texts, .. }, Cells::Texts(found)) => {
                    let code = |text| found.names.iter().position(|name| name == text).map(|code| code as u32);
                    cells.extend(texts.iter().map(|text| Numbers::Text(&found.of, code(text))));
                }
                _ => return error(column.name(), "give the columns that the job has"),
            }
        }
        for name in &self.names[self.columns.inputs..] {
            match &require(table, name, path)?.cells {
                Cells::Numbers(values) => cells.push(Numbers::Given(values)),
                _ => return error(name, "name columns of numbers in data.targets"),
            }
        }
        Ok(cells)
    }
}

/// (rows, columns) of some rows; what is missing is filled by the column's number.
pub(super) fn raw(cells: &[Numbers], rows: &[u32], fills: &[f64]) -> Vec<f64> {
    let value = |numbers: &Numbers, row: u32, fill: f64| match numbers {
        Numbers::Given(values) => Some(values[row as usize]).filter(|value| !value.is_nan()).unwrap_or(fill),
        Numbers::Text(of, code) => f64::from(u8::from(Some(of[row as usize]) == *code)),
    };
    let row = |&row: &u32| cells.iter().zip(fills).map(move |(cells, &fill)| value(cells, row, fill));
    rows.iter().flat_map(row).collect()
}
