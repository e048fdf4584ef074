//! On which line of the job file each key stands.

use super::Component;
use crate::error::{Error, Result};
use std::collections::HashMap;
use toml::Table;
use toml::de::{DeTable, DeValue};

/// The lines of all keys of a job file, by path: `train.epochs`, `model.layers[3].p`.
pub struct Lines {
    file: String,
    lines: HashMap<String, usize>,
}

impl Lines {
    /// Parses the text for the places of its keys.
    ///
    /// # Errors
    /// The text is no TOML; the line and column are named.
    pub fn of(text: &str, file: &str) -> Result<Self> {
        let root = DeTable::parse(text).map_err(|e| {
            let place = e.span().map_or(file.to_owned(), |span| {
                let before = &text[..span.start.min(text.len())];
                let column = before.chars().rev().take_while(|c| *c != '\n').count() + 1;
                format!("{file}:{}:{column}", line_of(text, span.start))
            });
            Error::usage(place, e.message().replace('\n', " "), "correct the TOML")
        })?;
        let mut lines = HashMap::new();
        visit_table(text, "", root.get_ref(), &mut lines);
        Ok(Self { file: file.into(), lines })
    }

    /// `job.toml:12, train.epochs`; without the line for keys that are not in the file.
    pub fn place(&self, path: &str) -> String {
        match self.lines.get(path) {
            Some(line) => format!("{}:{line}, {path}", self.file),
            None => format!("{}, {path}", self.file),
        }
    }

    /// The table at `path` as a component that knows its lines.
    pub fn component(&self, path: &str, kind: &str, table: Table) -> Component {
        let prefix = format!("{path}.");
        let inside = |(key, line): (&String, &usize)| Some((key.strip_prefix(&prefix)?.to_owned(), *line));
        let mut lines: Vec<(String, usize)> = self.lines.iter().filter_map(inside).collect();
        lines.sort();
        Component { kind: kind.into(), table, place: self.place(path), lines, shared: Vec::new() }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn visit_table(text: &str, prefix: &str, table: &DeTable<'_>, lines: &mut HashMap<String, usize>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        lines.insert(path.clone(), line_of(text, key.span().start));
        visit_value(text, &path, value.get_ref(), lines);
    }
}

fn visit_value(text: &str, path: &str, value: &DeValue<'_>, lines: &mut HashMap<String, usize>) {
    match value {
        DeValue::Table(table) => visit_table(text, path, table, lines),
        DeValue::Array(array) => {
            for (index, item) in array.iter().enumerate() {
                let path = format!("{path}[{index}]");
                lines.insert(path.clone(), line_of(text, item.span().start));
                visit_value(text, &path, item.get_ref(), lines);
            }
        }
        _ => {}
    }
}
