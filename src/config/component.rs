//! One typed table of a job: `{ type = "conv2d", out_channels = 32 }`. The registries parse it into their own structs.

use super::lines::Origin;
use crate::error::{Error, Result};
use serde::{Serialize, de::DeserializeOwned};
use toml::Table;

/// A table of the job with a name that a registry knows (`type`, or `source` for data) and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Component {
    /// The value of `type` or `source`.
    pub kind: String,
    /// The other keys.
    pub table: Table,
    /// For messages: `job.toml:12, model.layers[3]`.
    pub place: String,
    /// For each key (`p`, `layers[1].p`) where it was given, as far as that is known.
    pub lines: Vec<(String, Origin)>,
    /// Keys taken out by [`Component::take`], known beside those of the kind.
    pub shared: Vec<String>,
}

impl Component {
    /// A component made in code, for defaults and tests. `text` is the inside of a TOML table.
    pub fn new(kind: &str, text: &str) -> Result<Self> {
        let table = text.parse::<Table>().map_err(|e| Error::usage(kind, e.message(), "correct the TOML"))?;
        Ok(Self { kind: kind.into(), table, place: kind.into(), lines: Vec::new(), shared: Vec::new() })
    }

    /// What stands at `path` in it, such as `layers[1]`, as a component of its own.
    pub fn part(&self, path: &str, kind: &str, table: Table) -> Self {
        let prefix = format!("{path}.");
        let inside = |(key, origin): &(String, Origin)| Some((key.strip_prefix(&prefix)?.to_owned(), origin.clone()));
        let lines = self.lines.iter().filter_map(inside).collect();
        Self { kind: kind.into(), table, place: self.place_of(path), lines, shared: Vec::new() }
    }

    /// The keys as `T` (which denies unknown fields); a wrong key is named with its line and the nearest known one.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T> {
        T::deserialize(toml::Value::Table(self.table.clone())).map_err(|e| self.explain(&e, ""))
    }

    /// The keys as `T`, and the table again with every default written out.
    pub fn resolve<T: DeserializeOwned + Serialize>(&self) -> Result<(T, Component)> {
        let parsed: T = self.parse()?;
        let table = Table::try_from(&parsed).map_err(|e| Error::internal(&self.place, e))?;
        Ok((parsed, Component { table, ..self.clone() }))
    }

    /// The table with its kind under `tag` first, for the resolved job.
    pub fn to_table(&self, tag: &str) -> Table {
        let mut table = Table::new();
        table.insert(tag.into(), self.kind.clone().into());
        table.extend(self.table.clone());
        table
    }

    /// An error at `key` of this component.
    pub fn error(&self, key: &str, what: impl Into<String>, mend: impl Into<String>) -> Error {
        Error::usage(self.place_of(key), what, mend)
    }

    /// `job.toml:12, model.layers[3].p`. A key of a table inside answers by its own name too.
    fn place_of(&self, key: &str) -> String {
        let own_name = |path: &str| path.rsplit('.').next() == Some(key);
        let exact = self.lines.iter().find(|(path, _)| path == key);
        match exact.or_else(|| self.lines.iter().find(|(path, _)| own_name(path))) {
            Some((_, Origin::Setting(setting))) => match self.place.rsplit_once(", ") {
                Some((_, path)) => format!("{setting}, {path}.{key}"),
                None => format!("{setting}, {key}"),
            },
            Some((_, Origin::Line(line))) => match self.place.split_once(':') {
                Some((file, rest)) => {
                    let rest = rest.trim_start_matches(|c: char| c.is_ascii_digit());
                    format!("{file}:{line}{rest}.{key}")
                }
                None => format!("{}, line {line}, {key}", self.place),
            },
            None if key.is_empty() => self.place.clone(),
            None => format!("{}.{key}", self.place),
        }
    }

    /// Removes `key` and parses it, for keys that several components share.
    pub fn take<T: DeserializeOwned>(&mut self, key: &str) -> Result<Option<T>> {
        self.shared.push(key.into());
        let Some(value) = self.table.remove(key) else { return Ok(None) };
        T::deserialize(value).map(Some).map_err(|e| self.explain(&e, key))
    }

    /// An error for a kind that no registry entry has.
    pub fn unknown_kind<'a>(&self, tag: &str, known: impl Iterator<Item = &'a str> + Clone) -> Error {
        let list = known.clone().collect::<Vec<_>>().join(", ");
        let mend = match nearest(&self.kind, known) {
            Some(near) => format!("did you mean \"{near}\"? Known: {list}"),
            None => format!("known: {list}"),
        };
        self.error(tag, format!("unknown {tag} \"{}\"", self.kind), mend)
    }

    /// The error of parsing this table, or what was at `key`.
    fn explain(&self, error: &toml::de::Error, key: &str) -> Error {
        let message = error.message().trim_end();
        // toml tells the key on a last line of its own.
        let text = error.to_string();
        let inside = text.lines().last().and_then(|line| line.trim().strip_prefix("in `")?.strip_suffix('`'));
        let inside = inside.and_then(|path| path.split(['.', '[']).next()).unwrap_or_default();
        let key = if key.is_empty() { inside } else { key };
        if let Some((unknown, mut known)) = unknown_name(message, "unknown field ") {
            if key.is_empty() {
                known.extend(self.shared.iter().cloned());
            }
            let of = if key.is_empty() { &self.kind } else { key };
            return self.error(&unknown, format!("unknown key `{unknown}` for \"{of}\""), suggestion(&unknown, &known));
        }
        if let Some((unknown, known)) = unknown_name(message, "unknown variant ") {
            return self.error(key, format!("unknown value \"{unknown}\""), suggestion(&unknown, &known));
        }
        self.error(key, plain(message), format!("correct the keys of \"{}\"", self.kind))
    }
}

/// serde's message on one line, in words of a job file instead of Rust's types.
fn plain(message: &str) -> String {
    let mut text = message.trim_end().replace('\n', " ");
    for (types, words) in [
        (&["usize", "u64", "u32"][..], "a whole number of at least 0"),
        (&["f64", "f32"], "a number"),
        (&["a sequence"], "a list"),
        (&["a map", "struct Names"], "a table"),
        (&["a string", "path string"], "a text"),
    ] {
        for name in types {
            if let Some(start) = text.strip_suffix(&format!("expected {name}")) {
                text = format!("{start}expected {words}");
            }
        }
    }
    text
}

/// The name and the known names of serde's "unknown field `a`, expected one of `b`, `c`".
fn unknown_name(message: &str, start: &str) -> Option<(String, Vec<String>)> {
    let rest = message.strip_prefix(start)?;
    let mut quoted = rest.split('`').skip(1).step_by(2).map(str::to_owned);
    let name = quoted.next()?;
    Some((name, quoted.collect()))
}

/// `did you mean ...?` and the list of what is known.
pub fn suggestion(key: &str, known: &[String]) -> String {
    if known.is_empty() {
        return "remove it: there are no keys here".into();
    }
    let list = known.join(", ");
    match nearest(key, known.iter().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`? Known: {list}"),
        None => format!("known: {list}"),
    }
}

/// The known name nearest to `name`, if one is near at all.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= 1 + candidate.len().max(name.len()) / 3)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
