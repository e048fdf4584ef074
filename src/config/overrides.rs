//! Changes to a job from the command line (`--set train.epochs=3`) and the environment (`DDL_TRAIN_EPOCHS=3`).

use super::job::SECTIONS;
use crate::error::{Error, Result};
use std::ffi::OsString;
use toml::{Table, Value};

/// One key of the job set to a value.
#[derive(Debug, Clone, PartialEq)]
pub struct Override {
    /// `train.epochs`, `model.layers.3.p`.
    pub path: String,
    value: Value,
    /// Where it was given, for messages.
    origin: String,
}

/// Choose instructions and methods (`kernel`); no keys of a job.
pub const SWITCHES: [&str; 3] = ["DDL_ISA", "DDL_CONV", "DDL_BF16"];

/// Deeper tables could not be walked safely.
const MOST_NAMES: usize = 32;

impl Override {
    /// From `key=value`; the value is TOML, or else a text.
    pub fn parse(assignment: &str) -> Result<Self> {
        let origin = format!("--set {}", cut(assignment));
        let Some((path, text)) = assignment.split_once('=') else {
            return Err(Error::usage(origin, "has no `=`", "write --set train.epochs=3"));
        };
        let path = path.trim().replace('[', ".").replace(']', "");
        if path.split('.').count() > MOST_NAMES {
            let what = format!("has a key of more than {MOST_NAMES} names");
            return Err(Error::usage("--set", what, "write --set train.epochs=3"));
        }
        if path.is_empty() || path.split('.').any(str::is_empty) {
            return Err(Error::usage(origin, "has no key before `=`", "write --set train.epochs=3"));
        }
        Ok(Self { path, value: value(text.trim()), origin })
    }

    /// From the process's environment: `DDL_SECTION_KEY`, or `DDL_NAME` and `DDL_SEED`.
    pub fn from_environment() -> Vec<Self> {
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Self::from_variables(std::env::vars_os().filter_map(text))
    }

    /// `--set train.epochs=3`, or the environment variable.
    pub fn origin(&self) -> &str {
        &self.origin
    }

    fn from_variables(variables: impl Iterator<Item = (String, String)>) -> Vec<Self> {
        let mut found: Vec<Self> = variables
            .filter(|(name, _)| !SWITCHES.contains(&name.as_str()))
            .filter_map(|(name, text)| {
                let key = name.strip_prefix("DDL_")?.to_ascii_lowercase();
                let path = match key.split_once('_') {
                    Some((section, rest)) if SECTIONS.contains(&section) => format!("{section}.{rest}"),
                    None if ["name", "seed"].contains(&key.as_str()) => key,
                    _ => {
                        log::warn!("environment variable {name} names no key of a job; it is ignored");
                        return None;
                    }
                };
                Some(Self { path, value: value(&text), origin: format!("environment variable {name}") })
            })
            .collect();
        found.sort_by(|a, b| a.path.cmp(&b.path));
        found
    }

    /// Sets the key in `job`, making tables on the way.
    pub fn apply(&self, job: &mut Table) -> Result<()> {
        let wrong = |what: String| Error::usage(&self.origin, what, "check the key against the job file");
        let mut names: Vec<&str> = self.path.split('.').collect();
        let Some(last) = names.pop() else { return Ok(()) };
        let mut holder = None::<&mut Value>;
        for name in names {
            let next = match holder {
                None => job.entry(name).or_insert_with(|| Table::new().into()),
                Some(value) => step_into(value, name).map_err(wrong)?,
            };
            holder = Some(next);
        }
        match holder {
            None => {
                job.insert(last.into(), self.value.clone());
            }
            Some(value) => *step_into(value, last).map_err(wrong)? = self.value.clone(),
        }
        Ok(())
    }
}

/// The value under `name`: a key of a table (made if need be) or an index of a list.
fn step_into<'v>(value: &'v mut Value, name: &str) -> Result<&'v mut Value, String> {
    match value {
        Value::Table(table) => Ok(table.entry(name).or_insert_with(|| Table::new().into())),
        Value::Array(list) => {
            let len = list.len();
            let index = name.parse::<usize>().map_err(|_| format!("`{name}` is no index into a list of {len}"))?;
            list.get_mut(index).ok_or(format!("there is no item {index} in a list of {len}"))
        }
        _ => Err(format!("`{name}` stands below a key that is no table")),
    }
}

/// What fits a message.
fn cut(text: &str) -> String {
    match text.char_indices().nth(80) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

/// TOML where it parses as such, else a text.
fn value(text: &str) -> Value {
    format!("v = {text}")
        .parse::<Table>()
        .ok()
        .filter(|table| table.len() == 1)
        .and_then(|mut table| table.remove("v"))
        .unwrap_or_else(|| Value::String(text.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn applied(job: &str, change: &str) -> Result<Table> {
        let mut table: Table = job.parse().expect("TOML");
        Override::parse(change)?.apply(&mut table)?;
        Ok(table)
    }

    #[test]
    fn values_are_typed_and_tables_made() {
        assert_eq!(applied("", "train.epochs=3").unwrap()["train"]["epochs"].as_integer(), Some(3));
        assert_eq!(applied("", "data.path=a/b c").unwrap()["data"]["path"].as_str(), Some("a/b c"));
        assert_eq!(applied("", "name=1\nb=2").unwrap()["name"].as_str(), Some("1\nb=2"));
        assert_eq!(applied("", "seed = 7").unwrap()["seed"].as_integer(), Some(7));
        let job = "model.layers = [{ p = 0.5 }, { p = 0.1 }]";
        for path in ["model.layers.1.p=0.2", "model.layers[1].p=0.2"] {
            assert_eq!(applied(job, path).unwrap()["model"]["layers"][1]["p"].as_float(), Some(0.2));
        }
    }

    #[test]
    fn wrong_ones_are_named() {
        for change in ["train.epochs", "=3", "a..b=1", "model.layers.9.p=1", "model.layers.x.p=1", "name.x=1"] {
            let error = applied("name = \"n\"\nmodel.layers = [{ p = 0.5 }]", change).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{change}");
            assert!(error.to_string().contains(change), "{error}");
        }
    }

    #[test]
    fn the_environment_names_sections() {
        let variables =
            [("DDL_TRAIN_BATCH_SIZE", "64"), ("DDL_ISA", "avx2"), ("DDL_SEED", "1"), ("PATH", "x"), ("DDL_X", "1")];
        let found = Override::from_variables(variables.into_iter().map(|(k, v)| (k.to_owned(), v.to_owned())));
        let paths: Vec<_> = found.iter().map(|o| o.path.as_str()).collect();
        assert_eq!(paths, ["seed", "train.batch_size"]);
    }
}
