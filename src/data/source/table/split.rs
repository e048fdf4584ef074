//! Which rows are for testing.

use super::Meaning;
use crate::data::format::{Cells, Table};
use crate::rng::{Purpose, Stream, permute};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;

/// Which rows are for testing.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(in crate::data::source) enum Split {
    /// The last.
    Last,
    /// Any.
    Shuffled,
    /// The same share of each class.
    Stratified,
}

/// The rows to learn from and those to test on, both in order: a pure function of the seed.
pub(super) fn parts(meaning: &Meaning, seed: u64, rows: Vec<u32>, table: &Table) -> [Vec<u32>; 2] {
    let share = |of: usize| (meaning.test_fraction * of as f64).round() as usize;
    let mut test = vec![false; rows.len()];
    let mut any = |mut places: Vec<u32>, class: u64| {
        let taken = share(places.len());
        permute(&mut Stream::new(seed, Purpose::Split, class, 0), &mut places);
        places[..taken].iter().for_each(|&place| test[place as usize] = true);
    };
    match meaning.split {
        Split::Last => test[rows.len() - share(rows.len())..].fill(true),
        Split::Shuffled => any((0..rows.len() as u32).collect(), 0),
        Split::Stratified => {
            let cells = table.column(&meaning.targets[0]).map(|column| &column.cells);
            let class = |row: u32| match cells {
                Some(Cells::Texts(texts)) => u64::from(texts.of[row as usize]),
                Some(Cells::Numbers(values)) => values[row as usize].to_bits(),
                _ => 0,
            };
            // Classes are numbered as they come.
            let (mut number, mut of): (HashMap<u64, usize>, Vec<Vec<u32>>) = Default::default();
            for (place, &row) in rows.iter().enumerate() {
                let next = of.len();
                let number = *number.entry(class(row)).or_insert(next);
                if number == next {
                    of.push(Vec::new());
                }
                of[number].push(place as u32);
            }
            of.into_iter().zip(0..).for_each(|(places, class)| any(places, class));
        }
    }
    let part =
        |wanted: bool| rows.iter().zip(&test).filter(|&(_, &test)| test == wanted).map(|(&row, _)| row).collect();
    [part(false), part(true)]
}
