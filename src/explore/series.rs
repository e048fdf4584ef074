//! Series of daily values: ranges, gaps and returns. Each series is one rank's.

use super::distribution::{Distribution, Moments};
use super::gather::gathered;
use crate::comm::Comm;
use crate::data::{Dataset, Times};
use crate::error::Result;
use crate::shard::own;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};

/// A return, and the day it ended on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Return {
    /// value / value before − 1.
    pub value: f64,
    /// `2008-10-13`.
    pub date: String,
}

/// What one series looks like.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SeriesFigures {
    /// The ticker.
    pub name: String,
    /// Days with a value.
    pub rows: u64,
    /// The first day.
    pub first: String,
    /// The last day.
    pub last: String,
    /// The lowest value.
    pub min: f64,
    /// The mean of all.
    pub mean: f64,
    /// The highest value.
    pub max: f64,
    /// Mondays to Fridays between the first day and the last that have no value, holidays among them.
    pub missing_weekdays: u64,
    /// Days between the first day and the last on which another series has a value and this one has none.
    pub missing_of_others: u64,
    /// The most days from one value to the next, and where that begins.
    pub longest_gap: u64,
    /// The day before that gap.
    pub gap_after: String,
    /// How many returns from row to row there are; a series with a value that is not above 0 has none.
    pub returns: u64,
    /// Their mean.
    pub return_mean: f64,
    /// Of the population.
    pub return_deviation: f64,
    /// The largest loss.
    pub largest_loss: Option<Return>,
    /// The largest gain.
    pub largest_gain: Option<Return>,
}

/// All series of a data set.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SeriesSurvey {
    /// The returns of all series.
    pub returns: Option<Distribution>,
    /// Series by series.
    pub series: Vec<SeriesFigures>,
}

/// Days since 0000-03-01 of the proleptic Gregorian calendar (Hinnant's `days_from_civil`).
fn day_number(date: Date) -> i64 {
    let (year, month, day) = (i64::from(date.year()), i64::from(date.month()), i64::from(date.day()));
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year
}

/// Mondays to Fridays up to a day, counted from some Monday on.
fn weekdays_until(date: Date) -> i64 {
    // 0000-03-01 was a Wednesday.
    let day = day_number(date) + 2;
    day.div_euclid(7) * 5 + (day.rem_euclid(7) + 1).min(5)
}

/// A column of a series.
pub(super) struct Line {
    /// The series' name, with the column's where there are several.
    pub name: String,
    /// Of the rows.
    pub times: Times,
    /// In the data's unit.
    pub values: Vec<f64>,
}

impl Line {
    /// When a row is.
    pub fn time(&self, row: usize) -> String {
        self.times.text(row)
    }
}

/// Every column of every series.
pub(super) fn lines(data: &Dataset) -> Vec<Line> {
    let columns = data.series_columns();
    let mut lines = Vec::new();
    for series in data.series() {
        for (c, column) in columns.iter().enumerate() {
            let name = match (columns.len(), series.name.is_empty()) {
                (1, false) => series.name.clone(),
                (_, true) => column.clone(),
                _ => format!("{} {column}", series.name),
            };
            lines.push(Line { name, times: series.times.clone(), values: series.column(c).collect() });
        }
    }
    lines
}

/// The returns from row to row, each with the place of its row; none where values are no prices, which are above zero.
pub(super) fn returns(line: &Line) -> impl Iterator<Item = (usize, f64)> + Clone {
    let prices = line.values.iter().all(|&value| value > 0.0);
    let pairs = line.values.windows(if prices { 2 } else { usize::MAX }).enumerate();
    pairs.map(|(before, pair)| (before + 1, pair[1] / pair[0] - 1.0))
}

/// `days` are those of all series, ascending.
fn figures(line: &Line, days: &[Date]) -> SeriesFigures {
    let rows = line.values.len();
    let values = Moments::of(line.values.iter().copied());
    let of_returns = Moments::of(returns(line).map(|(_, value)| value));
    let day = |(at, value): (usize, f64)| Return { value, date: line.time(at) };
    let by_value = |a: &(usize, f64), b: &(usize, f64)| a.1.total_cmp(&b.1);
    let mut figures = SeriesFigures {
        name: line.name.clone(),
        rows: rows as u64,
        first: line.time(0),
        last: line.time(rows - 1),
        min: values.min,
        mean: values.mean,
        max: values.max,
        missing_weekdays: 0,
        missing_of_others: 0,
        longest_gap: 0,
        gap_after: String::new(),
        returns: of_returns.count,
        return_mean: of_returns.mean,
        return_deviation: of_returns.deviation(),
        largest_loss: returns(line).min_by(by_value).map(day),
        largest_gain: returns(line).max_by(by_value).map(day),
    };
    let mut dates: Vec<Date> = line.times.dates().iter().map(|time| time.date()).collect();
    dates.dedup();
    if let (Some(&first), Some(&last)) = (dates.first(), dates.last()) {
        let is_weekday = |date: &&Date| (day_number(**date) + 2).rem_euclid(7) < 5;
        let present = dates.iter().filter(is_weekday).count() as i64;
        let weekdays = weekdays_until(last) - weekdays_until(first) + i64::from(is_weekday(&&first));
        let known = days.partition_point(|day| *day <= last) - days.partition_point(|day| *day < first);
        let gap = |at: &usize| day_number(dates[at + 1]) - day_number(dates[*at]);
        // The first of the longest.
        let longest = (0..dates.len() - 1).rev().max_by_key(gap);
        figures.missing_weekdays = (weekdays - present) as u64;
        figures.missing_of_others = (known - dates.len()) as u64;
        figures.longest_gap = longest.map_or(0, |at| gap(&at) as u64);
        figures.gap_after = longest.map_or_else(String::new, |at| dates[at].to_string());
    }
    figures
}

/// All series, on rank 0; None where samples are no windows of series. Collective.
pub(super) fn series(data: &Dataset, comm: &dyn Comm) -> Result<Option<SeriesSurvey>> {
    let all = lines(data);
    if all.is_empty() {
        return Ok(None);
    }
    let mut days: Vec<Date> = all.iter().flat_map(|line| line.times.dates().iter().map(|time| time.date())).collect();
    days.sort_unstable();
    days.dedup();
    let mine = &all[own(all.len(), comm.rank(), comm.size())];
    let series = gathered(comm, mine.iter().map(|line| figures(line, &days)).collect())?;
    let pooled = || all.iter().flat_map(|line| returns(line).map(|(_, value)| value)).collect();
    Ok((comm.rank() == 0).then(|| SeriesSurvey { returns: Distribution::of(pooled()), series }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weekdays_are_counted_as_on_a_calendar() {
        let mut day = Date::constant(1999, 1, 4);
        let (first, mut counted) = (day, 0);
        for _ in 0..3000 {
            use jiff::civil::Weekday::{Saturday, Sunday};
            counted += i64::from(![Saturday, Sunday].contains(&day.weekday()));
            assert_eq!(weekdays_until(day) - weekdays_until(first) + 1, counted, "{day}");
            assert_eq!((day_number(day) + 2).rem_euclid(7), i64::from(day.weekday().to_monday_zero_offset()), "{day}");
            day = day.tomorrow().unwrap();
        }
    }
}
