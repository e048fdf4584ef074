//! `stocks`: windows over daily prices, one series a ticker, split in time; nothing ever looks ahead.

use super::Source;
use crate::config::data::NormalizeMethod;
use crate::config::{DataConfig, Normalize, nearest};
use crate::data::format::csv::Rows;
use crate::data::format::file;
use crate::data::transform::label::Labels;
use crate::data::transform::normalize::{Scaling, Summary};
use crate::data::transform::split::{Selection, wanted};
use crate::data::transform::window::{Columns, Series, Windows};
use crate::data::{Dataset, Input, Part, Unit};
use crate::error::{Error, Result, shorten};
use crate::resource::memory;
use crate::shape::Shape;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

pub(super) const SOURCE: Source = Source {
    name: "stocks",
    doc: "daily prices: a CSV of all tickers, of one, or a folder of one CSV a ticker; plain or .gz",
    keys: &[
        ("column", "the price to learn (\"close\")"),
        ("window", "rows the network sees (60)"),
        ("horizon", "rows ahead that it predicts (1: the next)"),
        ("tickers", "which to take ([]: all)"),
        ("train_fraction", "the first part of each series, to learn from (0.8)"),
    ],
    open,
    open_inputs,
    resolve: super::resolve_keys::<Keys>,
    normalize: |_| Normalize::Named(NormalizeMethod::Minmax),
};

#[derive(Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Keys {
    column: String,
    window: usize,
    horizon: usize,
    tickers: Vec<String>,
    train_fraction: f64,
}

impl Default for Keys {
    fn default() -> Self {
        Self { column: "close".into(), window: 60, horizon: 1, tickers: Vec::new(), train_fraction: 0.8 }
    }
}

impl Keys {
    fn of(config: &DataConfig) -> Result<Self> {
        let keys: Self = config.source.parse()?;
        let error = |key, what: String, mend| Err(config.source.error(key, what, mend));
        if keys.window == 0 || keys.window > 1 << 20 {
            return error("window", format!("{} rows", keys.window), "use 1 to 1048576, such as 60");
        }
        if keys.horizon == 0 || keys.horizon > 1 << 20 {
            return error("horizon", format!("{} rows", keys.horizon), "use 1 to 1048576; 1 is the next row");
        }
        if !(keys.train_fraction > 0.0 && keys.train_fraction <= 1.0) {
            return error(
                "train_fraction",
                format!("{}", keys.train_fraction),
                "use more than 0 and at most 1, such as 0.8",
            );
        }
        Ok(keys)
    }

    fn columns(&self) -> Columns {
        Columns { all: 1, inputs: 1, targets: vec![0] }
    }

    fn input(&self) -> Shape {
        Shape::Sequence { t: self.window, f: 1 }
    }
}

fn open(config: &DataConfig, _seed: u64) -> Result<Dataset> {
    let keys = Keys::of(config)?;
    let normalize = super::normalization(config)?;
    let path = super::path(config)?;
    let mut prices = Prices::read(path, &keys.column)?;
    if !keys.tickers.is_empty() {
        prices.select(config, &keys.tickers)?;
    }
    let mut notes = prices.notes();
    let by_window = normalize == Normalize::Named(NormalizeMethod::Window);
    let mut windows = Windows::new(keys.window, keys.horizon, by_window, keys.columns());
    let (mut short, mut runs) = (Vec::new(), Vec::new());
    for ticker in prices.tickers {
        let (dates, raw): (Vec<Date>, Vec<f64>) = ticker.rows.into_iter().unzip();
        let n = raw.len();
        let cut = (keys.train_fraction * n as f64) as usize;
        // A target at t + horizon - 1 must still be in its part.
        let (train_end, test_end) = ((cut + 1).saturating_sub(keys.horizon), (n + 1).saturating_sub(keys.horizon));
        if cut <= keys.window || train_end <= keys.window {
            short.push(ticker.name);
            continue;
        }
        let run = train_end - keys.window;
        runs.push(run);
        // What is kept back to validate on is unknown to the scaler, too.
        let unit = fit(config, &normalize, &raw[..cut - wanted(config, run).unwrap_or(0)])?;
        let scaled = scale(&raw, unit, by_window, path, &ticker.name)?;
        let series = Series { name: ticker.name, dates, raw, scaled, units: vec![unit] };
        windows.add(series, [keys.window..train_end, cut..test_end]);
    }
    if !short.is_empty() {
        let rows = keys.window + keys.horizon;
        let skipped = count(short.len(), "ticker");
        notes.push(format!("{skipped} skipped, with fewer than {rows} training rows: {}", some(&short)));
    }
    if windows.series.is_empty() {
        let what = format!("no ticker is long enough for windows of {} rows", keys.window);
        return Err(Error::data(path.display().to_string(), what, "give longer series or lower data.window"));
    }
    if windows.count(Part::Test) == 0 && keys.train_fraction < 1.0 && config.source.table.contains_key("train_fraction")
    {
        let what = format!("{} leaves no test sample", keys.train_fraction);
        let mend =
            format!("lower it, so that the last {} rows are left to test on, or set 1 to test on none", keys.horizon);
        return Err(config.source.error("train_fraction", what, mend));
    }
    let scaling = Scaling::new(config, &Normalize::Named(NormalizeMethod::None), 1, || Ok(Vec::new()))?;
    let dataset = windowed(config, &keys, windows, scaling, notes)?;
    Ok(dataset.keep_back(Selection::last(config, &runs)))
}

/// Every window of every ticker in a file, also the one that ends with the last row.
fn open_inputs(trained: &Input, config: &DataConfig, path: &Path) -> Result<Dataset> {
    let keys = Keys::of(config)?;
    let by_window = super::normalization(config)? == Normalize::Named(NormalizeMethod::Window);
    let known = &trained.series;
    let prices = Prices::read(path, &keys.column)?;
    let mut notes = prices.notes();
    let mut windows = Windows::new(keys.window, keys.horizon, by_window, keys.columns());
    let mut short = Vec::new();
    // One unnamed series for a job of one series: file names may differ.
    let alone = known.first().filter(|_| known.len() == 1 && !prices.named);
    for ticker in prices.tickers {
        let (dates, raw): (Vec<Date>, Vec<f64>) = ticker.rows.into_iter().unzip();
        if raw.len() < keys.window {
            short.push(ticker.name);
            continue;
        }
        let unit = match known.iter().find(|(name, _)| *name == ticker.name).or(alone) {
            _ if by_window => Unit::IDENTITY,
            Some((_, units)) if units.len() == 1 => units[0],
            _ => {
                let what = format!("ticker {} is none of the job's, so there is no scale for it", ticker.name);
                let mend = "leave it out, or train with normalize = \"window\"";
                return Err(Error::data(path.display().to_string(), what, mend));
            }
        };
        let scaled = scale(&raw, unit, by_window, path, &ticker.name)?;
        let times = keys.window..raw.len() + 1;
        windows.add(Series { name: ticker.name, dates, raw, scaled, units: vec![unit] }, [0..0, times]);
    }
    if !short.is_empty() {
        let skipped = count(short.len(), "ticker");
        notes.push(format!("{skipped} skipped, with fewer than {} rows: {}", keys.window, some(&short)));
    }
    windowed(config, &keys, windows, Scaling::of(trained), notes)
}

fn windowed(
    config: &DataConfig,
    keys: &Keys,
    windows: Windows,
    scaling: Scaling,
    notes: Vec<String>,
) -> Result<Dataset> {
    let windows = Rc::new(windows);
    let mut new =
        Dataset::new(config, keys.input(), Box::new(windows.clone()), Labels::Windows(windows), scaling, notes)?;
    new.columns = [vec![keys.column.clone()], vec![keys.column.clone()]];
    Ok(new)
}

/// The scaler of one ticker, fitted on its training part.
fn fit(config: &DataConfig, normalize: &Normalize, train: &[f64]) -> Result<Unit> {
    if *normalize == Normalize::Named(NormalizeMethod::Window) {
        return Ok(Unit::IDENTITY);
    }
    let summary = || Ok(vec![Summary::of(train.iter().map(|&value| (value, 1.0)))]);
    let scaling = Scaling::new(config, normalize, 1, summary)?;
    Ok(Unit { scale: scaling.std[0], offset: scaling.mean[0] })
}

/// A series as the network sees it; nothing where each window is normalised by itself.
fn scale(raw: &[f64], unit: Unit, by_window: bool, path: &Path, ticker: &str) -> Result<Vec<f32>> {
    if by_window {
        return Ok(Vec::new());
    }
    let scaled: Vec<f32> = raw.iter().map(|&value| unit.normalize(value)).collect();
    match scaled.iter().position(|value| !value.is_finite()) {
        None => Ok(scaled),
        Some(i) => {
            let what = format!("row {i} of ticker {ticker} leaves the range of f32 when scaled");
            Err(Error::data(path.display().to_string(), what, "correct the prices"))
        }
    }
}

/// One ticker's prices in the order of their dates.
struct Ticker {
    name: String,
    rows: Vec<(Date, f64)>,
    holes: usize,
    duplicates: usize,
}

/// The prices in a file or folder, tickers by name.
struct Prices {
    column: String,
    tickers: Vec<Ticker>,
    /// Whether the file names the tickers itself.
    named: bool,
}

impl Prices {
    fn read(path: &Path, column: &str) -> Result<Self> {
        let mut prices = Self { column: column.into(), tickers: Vec::new(), named: false };
        let mut places = HashMap::new();
        for file in files(path)? {
            prices.read_file(&file, &mut places)?;
        }
        prices.tickers.sort_by(|a, b| a.name.cmp(&b.name));
        for ticker in &mut prices.tickers {
            ticker.rows.sort_by_key(|&(date, _)| date);
            let rows = ticker.rows.len();
            ticker.rows.dedup_by_key(|&mut (date, _)| date);
            ticker.duplicates = rows - ticker.rows.len();
        }
        // Dates, values and what each window is scaled by, in series of their own.
        let rows: usize = prices.tickers.iter().map(|ticker| ticker.rows.len()).sum();
        memory::ask(32.0 * rows as f64).map_err(|e| file::read_error(path, &e))?;
        if rows == 0 {
            let what = format!("no row with a {column}");
            return Err(Error::data(path.display().to_string(), what, "give a file with prices"));
        }
        Ok(prices)
    }

    /// Adds the rows of one file; `places` says where each ticker stands in `tickers`.
    fn read_file(&mut self, path: &Path, places: &mut HashMap<String, usize>) -> Result<()> {
        let mut rows = Rows::open(path, b',')?;
        let (date, price) = (rows.require("date")?, rows.require(&self.column)?);
        let name = rows.column("name");
        self.named |= name.is_some();
        let stem = ticker_of(path);
        let mut place = 0;
        while rows.next()? {
            let ticker = match name {
                Some(column) => rows.text(column)?,
                None => &stem,
            };
            if ticker.is_empty() {
                return Err(rows.error(name.unwrap_or(0), "a row without a ticker", "name it or remove the row"));
            }
            if self.tickers.get(place).is_none_or(|known| known.name != ticker) {
                place = *places.entry(ticker.to_owned()).or_insert(self.tickers.len());
                if place == self.tickers.len() {
                    let ticker = Ticker { name: ticker.into(), rows: Vec::new(), holes: 0, duplicates: 0 };
                    file::push(&mut self.tickers, ticker, path)?;
                }
            }
            let text = rows.text(date)?;
            let Some(day) = parse_date(text) else {
                return Err(rows.error(date, format!("\"{text}\" is no date"), "write it as 2013-02-08 or 2/8/2013"));
            };
            match rows.number(price)? {
                Some(value) => file::push(&mut self.tickers[place].rows, (day, value), path)?,
                None => self.tickers[place].holes += 1,
            }
        }
        Ok(())
    }

    /// Keeps the tickers of the job.
    fn select(&mut self, config: &DataConfig, wanted: &[String]) -> Result<()> {
        for name in wanted {
            if !self.tickers.iter().any(|ticker| ticker.name == *name) {
                let mend = match nearest(name, self.tickers.iter().map(|ticker| ticker.name.as_str())) {
                    Some(near) => format!("did you mean \"{near}\"?"),
                    None => format!("there are {} tickers; give some of them or []", self.tickers.len()),
                };
                return Err(config.source.error("tickers", format!("no ticker \"{name}\" in the data"), mend));
            }
        }
        self.tickers.retain(|ticker| wanted.contains(&ticker.name));
        Ok(())
    }

    /// What was found, and the holes in it.
    fn notes(&self) -> Vec<String> {
        let rows: usize = self.tickers.iter().map(|ticker| ticker.rows.len()).sum();
        let dates = || self.tickers.iter().flat_map(|ticker| ticker.rows.first().into_iter().chain(ticker.rows.last()));
        let mut notes = Vec::new();
        if let (Some(first), Some(last)) = (dates().map(|row| row.0).min(), dates().map(|row| row.0).max()) {
            notes.push(format!("{} of {}, {first} to {last}", count(rows, "row"), count(self.tickers.len(), "ticker")));
        }
        let mut dropped = |what: &str, of_ticker: fn(&Ticker) -> usize| {
            let of: Vec<&Ticker> = self.tickers.iter().filter(|ticker| of_ticker(ticker) > 0).collect();
            let total: usize = of.iter().map(|ticker| of_ticker(ticker)).sum();
            if total > 0 {
                let list: Vec<String> =
                    of.iter().map(|ticker| format!("{} {}", ticker.name, of_ticker(ticker))).collect();
                let (rows, tickers) = (count(total, "row"), count(of.len(), "ticker"));
                notes.push(format!("{rows} {what} dropped, of {tickers}: {}", some(&list)));
            }
        };
        dropped(&format!("without {}", self.column), |ticker| ticker.holes);
        dropped("of a date that was there already", |ticker| ticker.duplicates);
        notes
    }
}

/// The CSV files in a folder, or the file itself.
fn files(path: &Path) -> Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let is_csv = |file: &PathBuf| {
        let name = file.to_string_lossy().to_ascii_lowercase();
        name.ends_with(".csv") || name.ends_with(".csv.gz")
    };
    let files: Vec<PathBuf> = file::list(path)?.into_iter().filter(is_csv).collect();
    if files.is_empty() {
        let mend = "set data.path to a CSV file or a folder of them";
        return Err(Error::data(path.display().to_string(), "no .csv or .csv.gz in the folder", mend));
    }
    Ok(files)
}

/// `AAPL` of `AAPL_data.csv.gz`.
fn ticker_of(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gz").unwrap_or(&name);
    let stem = name.rsplit_once('.').map_or(name, |(stem, _)| stem);
    stem.strip_suffix("_data").unwrap_or(stem).to_owned()
}

/// `2013-02-08`, perhaps with a time after it, or `2/8/2013` (month first).
fn parse_date(text: &str) -> Option<Date> {
    // The common form, without looking for where its parts end.
    if let &[a, b, c, d, b'-', e, f, b'-', g, h] = text.as_bytes()
        && [a, b, c, d, e, f, g, h].iter().all(u8::is_ascii_digit)
    {
        let two = |tens: u8, ones: u8| (10 * (tens - b'0') + ones - b'0') as i8;
        return Date::new(100 * i16::from(two(a, b)) + i16::from(two(c, d)), two(e, f), two(g, h)).ok();
    }
    let text = text.split([' ', 'T']).next()?;
    let number = |text: &str| {
        (!text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
    };
    let (year, month, day): (i16, i16, i16) = if text.contains('-') {
        let mut fields = text.splitn(3, '-');
        (number(fields.next()?)?, number(fields.next()?)?, number(fields.next()?)?)
    } else {
        let mut fields = text.splitn(3, '/');
        let (month, day) = (number(fields.next()?)?, number(fields.next()?)?);
        (number(fields.next()?)?, month, day)
    };
    Date::new(year, month.try_into().ok()?, day.try_into().ok()?).ok()
}

/// `1 row`, `2 rows`.
fn count(n: usize, what: &str) -> String {
    format!("{n} {what}{}", if n == 1 { "" } else { "s" })
}

/// The first of many names.
fn some(names: &[String]) -> String {
    const SHOWN: usize = 8;
    let list = names.iter().take(SHOWN).map(|name| shorten(name)).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN { format!("{list} and {} more", names.len() - SHOWN) } else { list }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_in_both_forms() {
        let date = |y, m, d| Date::new(y, m, d).ok();
        assert_eq!(parse_date("2013-02-08"), date(2013, 2, 8));
        assert_eq!(parse_date("2013-02-08 00:00:00-05:00"), date(2013, 2, 8));
        assert_eq!(parse_date("1/4/1999"), date(1999, 1, 4));
        for wrong in [
            "",
            "-",
            "2013-02-30",
            "2013-13-01",
            "0x13-02-08",
            "2013-02-0:",
            "2013-00-10",
            "13/1/2013",
            "2013-02",
            "2013-2-+8",
            "abc",
            "1/2/3/4",
            "٣-1-1",
        ] {
            assert_eq!(parse_date(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn tickers_are_named_by_their_file() {
        for name in ["AAPL.csv", "AAPL_data.csv", "x/AAPL_data.csv.gz", "AAPL"] {
            assert_eq!(ticker_of(Path::new(name)), "AAPL");
        }
    }
}
