//! Where each key of a job was given: on which line of the file, or by which setting.

use super::Component;
use crate::error::{Error, Result};
use std::collections::HashMap;
use toml::Table;
use toml::de::{DeTable, DeValue};

/// Where a key was given.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Origin {
    /// A line of the job file.
    Line(usize),
    /// `--set train.epochs=3`, or an environment variable.
    Setting(String),
}

/// The origins of all keys of a job, by path: `train.epochs`, `model.layers[3].p`.
pub struct Lines {
    file: String,
    lines: HashMap<String, Origin>,
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

    /// Lets what stands at `path`, and below, come from a setting. List items may be written `layers.3`.
    pub fn set(&mut self, path: &str, setting: &str) {
        let mut name = String::new();
        for part in path.split('.') {
            match part.parse::<usize>() {
                Ok(index) => name += &format!("[{index}]"),
                Err(_) if name.is_empty() => name += part,
                Err(_) => name += &format!(".{part}"),
            }
        }
        self.lines.retain(|key, _| !key.strip_prefix(&name).is_some_and(|rest| rest.starts_with(['.', '['])));
        self.lines.insert(name, Origin::Setting(setting.into()));
    }

    /// `job.toml:12, train.epochs`, or the setting in place of the line; without either `job.toml, train.epochs`.
    pub fn place(&self, path: &str) -> String {
        if let Some(Origin::Line(line)) = self.lines.get(path) {
            return format!("{}:{line}, {path}", self.file);
        }
        // A setting may have given a whole table or list.
        let mut around = Some(path);
        while let Some(outer) = around {
            if let Some(Origin::Setting(setting)) = self.lines.get(outer) {
                return format!("{setting}, {path}");
            }
            around = outer.rfind(['.', '[']).map(|end| &outer[..end]);
        }
        format!("{}, {path}", self.file)
    }

    /// The table at `path` as a component that knows its lines.
    pub fn component(&self, path: &str, kind: &str, table: Table) -> Component {
        let prefix = format!("{path}.");
        let inside = |(key, origin): (&String, &Origin)| Some((key.strip_prefix(&prefix)?.to_owned(), origin.clone()));
        let mut lines: Vec<(String, Origin)> = self.lines.iter().filter_map(inside).collect();
        lines.sort();
        Component { kind: kind.into(), table, place: self.place(path), lines, shared: Vec::new() }
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text.as_bytes()[..at.min(text.len())].iter().filter(|byte| **byte == b'\n').count() + 1
}

fn visit_table(text: &str, prefix: &str, table: &DeTable<'_>, lines: &mut HashMap<String, Origin>) {
    for (key, value) in table {
        let path = if prefix.is_empty() { key.get_ref().to_string() } else { format!("{prefix}.{}", key.get_ref()) };
        lines.insert(path.clone(), Origin::Line(line_of(text, key.span().start)));
        visit_value(text, &path, value.get_ref(), lines);
    }
}

fn visit_value(text: &str, path: &str, value: &DeValue<'_>, lines: &mut HashMap<String, Origin>) {
    match value {
        DeValue::Table(table) => visit_table(text, path, table, lines),
        DeValue::Array(array) => {
            for (index, item) in array.iter().enumerate() {
                let path = format!("{path}[{index}]");
                lines.insert(path.clone(), Origin::Line(line_of(text, item.span().start)));
                visit_value(text, &path, item.get_ref(), lines);
            }
        }
        _ => {}
    }
}
