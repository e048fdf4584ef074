//! In which keys two resolved jobs differ, and what that means for a run that goes on.

use super::Job;
use toml::{Table, Value};

/// A key that has another value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// As in the job file: `model.layers[3].p`.
    pub key: String,
    /// Before, as TOML; None where the key was not there.
    pub old: Option<String>,
    /// Now.
    pub new: Option<String>,
}

/// What a changed key means for a run that goes on from a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meaning {
    /// How long, how often, or how ranks talk: nothing that is learnt.
    Harmless,
    /// The rest of the run differs from its beginning, as whoever set it will want.
    Tell,
    /// The weights belong to another problem, network or order of samples.
    Refuse,
}

/// Values longer than this are cut.
const MOST_CHARS: usize = 60;

impl Change {
    /// What it means.
    pub fn meaning(&self) -> Meaning {
        let key = self.key.as_str();
        let harmless = [
            "name",
            "train.epochs",
            "train.max_steps",
            "train.evaluate_every",
            "train.checkpoint_every",
            "train.checkpoint_steps",
            "train.keep_checkpoints",
            "train.patience",
        ];
        let told = ["data.path", "data.test_path", "data.augment", "loss.weight"];
        let computed = ["distributed.reduction", "distributed.wire", "distributed.average_every"];
        let within = |tables: &[&str]| {
            tables.iter().any(|table| {
                key.strip_prefix(table).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            })
        };
        match key {
            _ if harmless.contains(&key) => Meaning::Harmless,
            _ if within(&computed) || within(&told) => Meaning::Tell,
            // Another share makes validation samples training samples.
            "optimizer.type" | "train.validation" => Meaning::Refuse,
            _ if within(&["distributed"]) => Meaning::Harmless,
            _ if within(&["train", "optimizer", "schedule"]) => Meaning::Tell,
            _ => Meaning::Refuse,
        }
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cut = |text: &str| match text.char_indices().nth(MOST_CHARS) {
            Some((end, _)) => format!("{}...", &text[..end]),
            None => text.to_owned(),
        };
        match (&self.old, &self.new) {
            (Some(old), Some(new)) => write!(f, "{} was {}, is {}", self.key, cut(old), cut(new)),
            (Some(old), None) => write!(f, "{} was {}, is no longer there", self.key, cut(old)),
            (None, Some(new)) => write!(f, "{} was not there, is {}", self.key, cut(new)),
            (None, None) => write!(f, "{}", self.key),
        }
    }
}

/// The keys in which two resolved jobs differ, in the order of the first and then of the second. Defaults that an older
/// program did not write out are filled in.
pub fn changes(old: &str, new: &str) -> Vec<Change> {
    let filled = |text: &str| {
        let resolved = Job::parse(text, "job", &[]).and_then(|job| job.resolved());
        resolved.unwrap_or_else(|_| text.to_owned())
    };
    let flat = |text: &str| {
        let mut keys = Vec::new();
        flatten("", &Value::Table(text.parse::<Table>().unwrap_or_default()), &mut keys);
        keys
    };
    let (old, new) = (flat(&filled(old)), flat(&filled(new)));
    let value = |keys: &[(String, String)], key: &str| keys.iter().find(|(k, _)| k == key).map(|(_, v)| v.clone());
    let mut changes: Vec<Change> = Vec::new();
    for (key, _) in old.iter().chain(&new) {
        let (old, new) = (value(&old, key), value(&new, key));
        if old != new && changes.iter().all(|change| change.key != *key) {
            changes.push(Change { key: key.clone(), old, new });
        }
    }
    changes
}

fn flatten(path: &str, value: &Value, keys: &mut Vec<(String, String)>) {
    match value {
        Value::Table(table) => {
            for (key, value) in table {
                flatten(&if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, keys);
            }
        }
        Value::Array(list) if list.iter().any(Value::is_table) => {
            for (index, value) in list.iter().enumerate() {
                flatten(&format!("{path}[{index}]"), value, keys);
            }
        }
        _ => keys.push((path.to_owned(), value.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JOB: &str = r#"
        name = "a"
        data = { source = "synthetic", shape = [4], values = 1 }
        model = { layers = [{ type = "linear", out_features = 3 }, { type = "relu" }, { type = "linear", out_features = 1 }] }
        loss = { type = "mse" }
        optimizer = { type = "sgd", lr = 0.1 }
        train = { epochs = 1, batch_size = 4 }
    "#;

    fn resolved(text: &str) -> String {
        Job::parse(text, "job", &[]).and_then(|job| job.resolved()).unwrap()
    }

    #[test]
    fn each_change_is_named_and_weighed() {
        let old = resolved(JOB);
        assert_eq!(changes(&old, &old), []);
        assert_eq!(changes(JOB, &old), [], "defaults are no change");
        for (from, to, text, meaning) in [
            ("\"relu\"", "\"tanh\"", "model.layers[1].type was \"relu\", is \"tanh\"", Meaning::Refuse),
            ("{ type = \"relu\" }, ", "", "model.layers[1].type was \"relu\", is \"linear\"", Meaning::Refuse),
            ("\"mse\"", "\"mae\"", "loss.type was \"mse\", is \"mae\"", Meaning::Refuse),
            (
                "values = 1",
                "values = 1, normalize = \"none\"",
                "data.normalize was \"standard\", is \"none\"",
                Meaning::Refuse,
            ),
            ("\"sgd\"", "\"adam\"", "optimizer.type was \"sgd\", is \"adam\"", Meaning::Refuse),
            ("lr = 0.1", "lr = 0.2", "optimizer.lr was 0.1, is 0.2", Meaning::Tell),
            ("batch_size = 4", "batch_size = 8", "train.batch_size was 4, is 8", Meaning::Tell),
            ("epochs = 1", "epochs = 2", "train.epochs was 1, is 2", Meaning::Harmless),
        ] {
            let found = changes(&old, &resolved(&JOB.replace(from, to)));
            let change = found.iter().find(|change| change.to_string() == text);
            assert_eq!(change.map(Change::meaning), Some(meaning), "{text}: {found:?}");
        }
    }
}
