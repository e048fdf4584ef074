//! CSV files as columns: what a column holds is told, or inferred from its first field that is not empty.

use super::csv::Rows;
use super::{Cells, Column, Table, Tables, Texts, file, reserve};
use crate::error::{Error, Result};
use crate::resource::open_file;
use jiff::civil::{Date, DateTime, Time};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// What a column holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Holds {
    /// Numbers, if the first field is one; else texts.
    Anything,
    /// Finite numbers that f32 can hold, or nothing.
    Numbers,
    /// Texts, or nothing.
    Texts,
    /// Texts, none of them empty.
    Names,
    /// One of these texts, or nothing.
    OneOf(HashSet<String>),
    /// Dates or dates with a time, none of them empty: see [`parse_time`].
    Times,
}

/// A column that is wanted.
#[derive(Debug, Clone)]
pub struct Wish {
    /// In whatever case; the table's column is called so.
    pub name: String,
    pub holds: Holds,
    /// Whether a file without it is an error.
    pub required: bool,
}

/// What is wanted of the files.
#[derive(Debug, Clone, Default)]
pub struct Wanted {
    pub delimiter: u8,
    pub columns: Vec<Wish>,
    /// Whether all other columns are wanted, too; columns then come in the file's order.
    pub others: bool,
    /// A column that a file without it has by its own name: see [`stem`].
    pub of_file: Option<String>,
}

impl Holds {
    /// What a column that was read holds.
    pub fn of(cells: &Cells) -> Self {
        if matches!(cells, Cells::Texts(_)) { Holds::Texts } else { Holds::Numbers }
    }
}

impl Wanted {
    /// What a column was said to hold.
    pub fn holds(&self, name: &str) -> Option<Holds> {
        let wish = self.columns.iter().find(|wish| wish.name == name)?;
        Some(wish.holds.clone()).filter(|holds| *holds != Holds::Anything)
    }
}

/// A column being read.
struct Reading {
    name: String,
    holds: Holds,
    /// In the current file; None: the file's name.
    at: Option<usize>,
    cells: Cells,
    /// The last text and its index, which mostly comes again.
    last: (String, u32),
}

/// CSV files of the same columns, whose rows follow one another.
pub struct CsvTables {
    files: std::vec::IntoIter<PathBuf>,
    wanted: Wanted,
    rows: Option<Rows>,
    path: PathBuf,
    columns: Vec<Reading>,
    /// Whether some file has a column that others have by their own name.
    pub named: bool,
    begun: bool,
    total: u64,
}

/// Fields that stand for no number.
const MISSING: [&str; 8] = ["NA", "N/A", "na", "n/a", "NaN", "nan", "null", "NULL"];

impl CsvTables {
    /// Opens the first file.
    ///
    /// # Errors
    /// It cannot be read, or lacks a column.
    pub fn open(files: Vec<PathBuf>, wanted: Wanted) -> Result<Self> {
        let mut new = Self {
            files: files.into_iter(),
            wanted,
            rows: None,
            path: PathBuf::new(),
            columns: Vec::new(),
            named: false,
            begun: false,
            total: 0,
        };
        new.open_next()?;
        Ok(new)
    }

    /// Goes to the next file; false after the last.
    fn open_next(&mut self) -> Result<bool> {
        let Some(path) = self.files.next() else { return Ok(false) };
        drop(open_file(&path, "check data.path")?);
        let rows = Rows::open(&path, self.wanted.delimiter)?;
        let mut found: Vec<(Option<usize>, String, Holds)> = Vec::new();
        for wish in &self.wanted.columns {
            let at = if wish.required && Some(&wish.name) != self.wanted.of_file.as_ref() {
                Some(rows.require(&wish.name)?)
            } else {
                rows.column(&wish.name)
            };
            let own = Some(&wish.name) == self.wanted.of_file.as_ref();
            self.named |= own && at.is_some();
            if at.is_some() || own {
                found.push((at, wish.name.clone(), wish.holds.clone()));
            }
        }
        if self.wanted.others {
            for (at, name) in rows.header().iter().enumerate() {
                if !found.iter().any(|(known, ..)| *known == Some(at)) {
                    found.push((Some(at), name.clone(), Holds::Anything));
                }
            }
            found.sort_by_key(|(at, ..)| at.unwrap_or(usize::MAX));
        }
        if self.columns.is_empty() {
            self.columns = found.into_iter().map(|(at, name, holds)| Reading::new(at, name, holds)).collect();
        } else {
            for column in &mut self.columns {
                let place = found.iter().find(|(_, name, _)| name.eq_ignore_ascii_case(&column.name));
                column.at = match place {
                    Some((at, ..)) => *at,
                    None => Some(rows.require(&column.name)?),
                };
            }
        }
        for column in self.columns.iter_mut().filter(|column| column.at.is_none()) {
            column.last = (stem(&path), u32::MAX);
        }
        (self.rows, self.path) = (Some(rows), path);
        Ok(true)
    }

    /// Which columns but `targets` hold texts, and how many different ones.
    pub fn texts(table: &Table, targets: &[String]) -> Option<String> {
        let of = |column: &Column| match &column.cells {
            Cells::Texts(texts) if !targets.contains(&column.name) => {
                Some(format!("{} ({})", column.name, texts.names.len()))
            }
            _ => None,
        };
        let texts: Vec<String> = table.columns.iter().filter_map(of).collect();
        (!texts.is_empty()).then(|| format!("columns of texts, and how many different ones: {}", texts.join(", ")))
    }
}

impl Tables for CsvTables {
    fn next(&mut self, rows: usize) -> Result<Option<Table>> {
        let mut count = 0;
        while count < rows {
            let Some(reader) = &mut self.rows else { break };
            if reader.next()? {
                for column in &mut self.columns {
                    column.push(reader, &self.path, count)?;
                }
                count += 1;
                continue;
            }
            self.rows = None;
            if !self.open_next()? {
                break;
            }
        }
        self.total += count as u64;
        if self.total > u64::from(u32::MAX) {
            return Err(Error::data(self.path.display().to_string(), "more than 2^32 rows", "give less data"));
        }
        if std::mem::replace(&mut self.begun, true) && count == 0 {
            return Ok(None);
        }
        let columns = self.columns.iter_mut().map(Reading::take).collect();
        Ok(Some(Table { columns, rows: count }))
    }
}

impl Reading {
    fn new(at: Option<usize>, name: String, holds: Holds) -> Self {
        let mut new = Self { name, holds, at, cells: Cells::Numbers(Vec::new()), last: Default::default() };
        new.cells = new.none();
        new
    }

    fn none(&self) -> Cells {
        match self.holds {
            Holds::Anything | Holds::Numbers => Cells::Numbers(Vec::new()),
            _ => Cells::Texts(Texts::default()),
        }
    }

    /// What has been read so far.
    fn take(&mut self) -> Column {
        if self.at.is_some() {
            self.last = Default::default();
        } else {
            self.last.1 = u32::MAX;
        }
        let none = self.none();
        Column { name: self.name.clone(), cells: std::mem::replace(&mut self.cells, none) }
    }

    /// Appends the field of the current row, which is the `count`-th of the table.
    #[inline]
    fn push(&mut self, rows: &Rows, path: &Path, count: usize) -> Result<()> {
        let Some(at) = self.at else {
            let Cells::Texts(texts) = &mut self.cells else { return Ok(()) };
            return repeat(texts, &mut self.last, path);
        };
        let text = rows.text(at)?;
        if self.holds == Holds::Anything {
            if text.is_empty() || MISSING.contains(&text) {
                let Cells::Numbers(values) = &mut self.cells else { return Ok(()) };
                return file::push(values, f64::NAN, path);
            }
            self.holds = if text.parse::<f64>().is_ok() { Holds::Numbers } else { Holds::Texts };
            if self.holds == Holds::Texts {
                let mut texts = Texts::default();
                for _ in 0..count {
                    texts.push(None, path)?;
                }
                self.cells = Cells::Texts(texts);
            }
        }
        match &mut self.cells {
            Cells::Numbers(values) => file::push(values, number(rows, at, text)?, path),
            Cells::Texts(texts) => {
                if self.last.0 == text && !text.is_empty() {
                    return repeat(texts, &mut self.last, path);
                }
                match &self.holds {
                    Holds::Names if text.is_empty() => {
                        let what = format!("a row without a {}", self.name);
                        return Err(rows.error(at, what, "name it or remove the row"));
                    }
                    Holds::Times if parse_time(text).is_none() => {
                        let what = format!("\"{text}\" is no date");
                        return Err(rows.error(at, what, "write it as 2013-02-08, 2013-02-08 16:30 or 2/8/2013"));
                    }
                    Holds::OneOf(known) if !text.is_empty() && !known.contains(text) => {
                        let what = format!("\"{text}\" is none of the {} classes", known.len());
                        return Err(rows.error(at, what, "correct it, or name all classes in data.classes"));
                    }
                    _ => {}
                }
                texts.push(Some(text).filter(|text| !text.is_empty()), path)?;
                self.last.0.clear();
                self.last.0.push_str(text);
                self.last.1 = texts.of.last().copied().unwrap_or(u32::MAX);
                Ok(())
            }
            Cells::Arrays(_) => Ok(()),
        }
    }
}

/// Appends the last text once more.
fn repeat(texts: &mut Texts, last: &mut (String, u32), path: &Path) -> Result<()> {
    if last.1 == u32::MAX {
        texts.push(Some(&last.0), path)?;
        last.1 = texts.of.last().copied().unwrap_or(u32::MAX);
        return Ok(());
    }
    reserve(&mut texts.of, 1, path)?;
    texts.of.push(last.1);
    Ok(())
}

/// A field as a number; NaN where there is none.
#[inline]
fn number(rows: &Rows, at: usize, text: &str) -> Result<f64> {
    match text.parse::<f64>() {
        Ok(value) if value.abs() <= f64::from(f32::MAX) => Ok(value),
        _ if text.is_empty() || MISSING.contains(&text) => Ok(f64::NAN),
        _ => {
            let what = format!("\"{text}\" is no usable number");
            let mend = "correct the field or leave it empty; a column of texts is named in data.categories";
            Err(rows.error(at, what, mend))
        }
    }
}

/// `AAPL` of `AAPL_data.csv.gz`: what the rows of a file are about, where the file does not say.
pub fn stem(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    stem.strip_suffix("_data").unwrap_or(stem).to_owned()
}

/// `2013-02-08` or `2/8/2013` (month first), perhaps with a time after it: ` 16:30`, `T16:30:05.25Z`. An offset to UTC is passed
/// over: times of one file are of one place.
pub fn parse_time(text: &str) -> Option<DateTime> {
    let (date, time) = text.split_once([' ', 'T']).map_or((text, None), |(date, time)| (date, Some(time.trim())));
    let date = parse_date(date)?;
    let Some(time) = time.filter(|time| !time.is_empty()) else { return Some(date.to_datetime(Time::midnight())) };
    let end = time.find(['+', '-', 'Z', 'z']).unwrap_or(time.len());
    Some(date.to_datetime(time[..end].trim().parse::<Time>().ok()?))
}

fn parse_date(text: &str) -> Option<Date> {
    // The common form, without looking for where its parts end.
    if let &[a, b, c, d, b'-', e, f, b'-', g, h] = text.as_bytes()
        && [a, b, c, d, e, f, g, h].iter().all(u8::is_ascii_digit)
    {
        let two = |tens: u8, ones: u8| (10 * (tens - b'0') + ones - b'0') as i8;
        return Date::new(100 * i16::from(two(a, b)) + i16::from(two(c, d)), two(e, f), two(g, h)).ok();
    }
    let number = |text: &str| {
        (!text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
    };
    let (year, month, day): (i16, i16, i16) = if text.contains('-') {
        let mut fields = text.splitn(3, '-');
        let mut field = || number(fields.next()?);
        (field()?, field()?, field()?)
    } else {
        let mut fields = text.splitn(3, '/');
        let mut field = || number(fields.next()?);
        let (month, day) = (field()?, field()?);
        (field()?, month, day)
    };
    Date::new(year, month.try_into().ok()?, day.try_into().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_in_both_forms_and_times() {
        let date = |y, m, d| Date::new(y, m, d).ok();
        assert_eq!(parse_date("2013-02-08"), date(2013, 2, 8));
        assert_eq!(parse_date("1/4/1999"), date(1999, 1, 4));
        for wrong in
            ["", "-", "2013-02-30", "2013-13-01", "13/1/2013", "2013-02", "2013-2-+8", "abc", "1/2/3/4", "٣-1-1"]
        {
            assert_eq!(parse_time(wrong), None, "{wrong}");
        }
        let at = |text: &str| parse_time(text).map(|time| time.to_string());
        assert_eq!(at("2013-02-08").as_deref(), Some("2013-02-08T00:00:00"));
        for text in ["2013-02-08 16:30:00-05:00", "2013-02-08T16:30Z", "2/8/2013 16:30"] {
            assert_eq!(at(text).as_deref(), Some("2013-02-08T16:30:00"), "{text}");
        }
        assert_eq!(at("2013-02-08 25:00"), None);
    }

    #[test]
    fn files_are_named_by_their_stem() {
        for name in ["AAPL.csv", "AAPL_data.csv", "x/AAPL_data.csv.gz", "AAPL"] {
            assert_eq!(stem(Path::new(name)), "AAPL");
        }
    }
}
