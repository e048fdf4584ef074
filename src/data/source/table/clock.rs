//! What the rows of series are sorted by: dates and times, numbers, or the file's order.

use crate::data::format::csv_table::parse_time;
use crate::data::format::{Cells, Table};
use crate::data::transform::encode::require;
use crate::data::transform::window::Times;
use crate::error::{Error, Result, shorten};
use jiff::civil::DateTime;
use std::cmp::Ordering;
use std::path::Path;

/// What rows are sorted by.
pub(super) enum Clock<'t> {
    /// The file's order.
    Rows,
    Numbers(&'t [f64]),
    /// The times of the texts, and of each row its text.
    Times(Vec<DateTime>, &'t [u32]),
}

impl<'t> Clock<'t> {
    /// The clock of a column. Errors: a row without a time, texts that are none, arrays.
    pub fn of(table: &'t Table, time: Option<&String>, path: &Path) -> Result<Self> {
        let Some(name) = time else { return Ok(Clock::Rows) };
        let error =
            |what: String, mend: &str| Err(Error::data(format!("{}, column {name}", path.display()), what, mend));
        let cells = &require(table, name, path)?.cells;
        if let Some(row) = (0..table.rows).find(|&row| !cells.has(row)) {
            return error(format!("row {row} has no time"), "give it one, or remove the row");
        }
        match cells {
            Cells::Numbers(values) => Ok(Clock::Numbers(values)),
            Cells::Texts(texts) => {
                let mut times = Vec::new();
                for text in &texts.names {
                    match parse_time(text) {
                        Some(time) => times.push(time),
                        None => {
                            return error(format!("\"{}\" is no date", shorten(text)), "write it as 2013-02-08 16:30");
                        }
                    }
                }
                Ok(Clock::Times(times, &texts.of))
            }
            Cells::Arrays(_) => error("an array".into(), "name a column of times or numbers"),
        }
    }

    /// Which of two rows is earlier.
    pub fn compare(&self, a: u32, b: u32) -> Ordering {
        let (a, b) = (a as usize, b as usize);
        match self {
            Clock::Rows => a.cmp(&b),
            Clock::Numbers(values) => values[a].total_cmp(&values[b]),
            Clock::Times(times, of) => times[of[a] as usize].cmp(&times[of[b] as usize]),
        }
    }

    /// The times of rows.
    pub fn times(&self, rows: &[u32]) -> Times {
        match self {
            Clock::Rows => Times::Rows,
            Clock::Numbers(values) => Times::Numbers(rows.iter().map(|&row| values[row as usize]).collect()),
            Clock::Times(times, of) => Times::Dates(rows.iter().map(|&row| times[of[row as usize] as usize]).collect()),
        }
    }
}
