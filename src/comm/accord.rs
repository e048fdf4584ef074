//! Ranks that were started differently would wait for each other without end: they compare what they were started with,
//! and what became of it, before they begin.

use super::{Comm, on_root};
use crate::error::{Error, Result};
use crate::resource::host_name;
use sha2::{Digest, Sha256};
use toml::Value;

/// How many characters of each side a difference shows.
const SHOWN: usize = 200;

/// Makes sure that all ranks hold the same texts under the same names, such as their command lines. Costs two sums over
/// ranks of one number. Collective.
///
/// # Errors
/// `Usage`, on every rank, naming the first rank that differs from rank 0, and how: of TOML texts the first key.
pub fn accord(comm: &dyn Comm, texts: &[(&str, &str)]) -> Result<()> {
    let hash = hash(texts);
    // Equal where the largest is the smallest.
    if comm.max(hash) == -comm.max(-hash) {
        return Ok(());
    }
    let mine = serde_json::to_vec(&(host_name(), texts)).map_err(|e| Error::internal("ranks' texts", e))?;
    let all = comm.gather_bytes(&mine);
    on_root(comm, || {
        let ranks: Vec<Rank> = all
            .iter()
            .map(|bytes| serde_json::from_slice(bytes).map_err(|e| Error::internal("ranks' texts", e)))
            .collect::<Result<_>>()?;
        let found = ranks.iter().enumerate().skip(1).find_map(|(number, rank)| difference(number, rank, &ranks[0]));
        Err(found.unwrap_or_else(|| Error::internal("ranks' texts", "their hashes differ and they do not")))
    })
}

/// A host's name, and what [`accord`] was given there.
type Rank = (String, Vec<(String, String)>);

fn hash(texts: &[(&str, &str)]) -> i64 {
    let mut sha = Sha256::new();
    for (name, text) in texts {
        for part in [name, text] {
            sha.update((part.len() as u64).to_le_bytes());
            sha.update(part);
        }
    }
    let digest = sha.finalize();
    // Of a size that can be negated.
    digest.iter().take(7).fold(0, |hash, byte| hash << 8 | i64::from(*byte))
}

fn difference(number: usize, (host, texts): &Rank, (first_host, first): &Rank) -> Option<Error> {
    let (name, mine, theirs) = first.iter().enumerate().find_map(|(index, (name, theirs))| {
        let mine = texts.get(index).filter(|(other, _)| other == name).map_or("", |(_, text)| text);
        (mine != theirs).then_some((name, mine, theirs.as_str()))
    })?;
    let (key, mine, theirs) = match (mine.parse(), theirs.parse()) {
        (Ok(mine), Ok(theirs)) => differing_key(&Value::Table(mine), &Value::Table(theirs)),
        _ => (String::new(), mine.to_owned(), theirs.to_owned()),
    };
    let name = if key.is_empty() { name.clone() } else { format!("{name}, {key}") };
    let [mine, theirs] = [mine, theirs].map(shown);
    let what = format!("rank {number} on {host} has `{mine}`, rank 0 on {first_host} has `{theirs}`");
    let mend = "start all ranks with the same command, files and DDL_ variables (mpirun -x NAME hands one on)";
    Some(Error::usage(format!("ranks differ in their {name}"), what, mend))
}

/// The path of the first value that differs, as `--set` takes it, and both values.
fn differing_key(mine: &Value, theirs: &Value) -> (String, String, String) {
    let below = match (mine, theirs) {
        (Value::Table(mine), Value::Table(theirs)) => {
            let keys = mine.keys().chain(theirs.keys().filter(|key| !mine.contains_key(*key)));
            keys.map(|key| (key.clone(), mine.get(key), theirs.get(key))).find(|(_, a, b)| a != b)
        }
        (Value::Array(mine), Value::Array(theirs)) => {
            let places = 0..mine.len().max(theirs.len());
            places.map(|at| (at.to_string(), mine.get(at), theirs.get(at))).find(|(_, a, b)| a != b)
        }
        _ => None,
    };
    let text = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    match below {
        Some((key, Some(mine), Some(theirs))) => {
            let (rest, mine, theirs) = differing_key(mine, theirs);
            (if rest.is_empty() { key } else { format!("{key}.{rest}") }, mine, theirs)
        }
        Some((key, mine, theirs)) => (key, text(mine), text(theirs)),
        None => (String::new(), text(Some(mine)), text(Some(theirs))),
    }
}

fn shown(text: String) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(mine: &[(&str, &str)], theirs: &[(&str, &str)]) -> String {
        let rank = |host: &str, texts: &[(&str, &str)]| -> Rank {
            (host.into(), texts.iter().map(|(name, text)| (name.to_string(), text.to_string())).collect())
        };
        assert_ne!(hash(mine), hash(theirs));
        let error = difference(2, &rank("h", mine), &rank("g", theirs)).unwrap();
        assert_eq!(error.exit_code(), 2);
        error.to_string()
    }

    #[test]
    fn differences_are_named() {
        let text = told(&[("command", "train a.toml --set seed=2")], &[("command", "train a.toml")]);
        let expected = "ranks differ in their command: rank 2 on h has `train a.toml --set seed=2`, rank 0 on g has \
                        `train a.toml`; start all";
        assert!(text.starts_with(expected), "{text}");
        // The first text that differs counts, also one that only a rank has.
        let text = told(&[("command", "x"), ("program", "1")], &[("command", "x"), ("program", "2")]);
        assert!(text.contains("in their program: rank 2 on h has `1`"), "{text}");
        let text = told(&[("command", "x")], &[("command", "x"), ("program", "2")]);
        assert!(text.contains("in their program: rank 2 on h has ``"), "{text}");
    }

    #[test]
    fn keys_of_jobs_are_named_as_they_are_set() {
        let job = |layers: &str, train: &str| format!("seed = 1\n[model]\nlayers = [{layers}]\n[train]\n{train}");
        let (a, b) = ("{ type = \"linear\", out = 5 }", "{ type = \"linear\", out = 7 }");
        for (mine, theirs, key, values) in [
            (job(a, "epochs = 3"), job(a, "epochs = 4"), "train.epochs", ["`3`", "`4`"]),
            (job(a, ""), job(b, ""), "model.layers.0.out", ["`5`", "`7`"]),
            (job(a, ""), job(&format!("{a}, {b}"), ""), "model.layers.1", ["`nothing`", "out = 7"]),
            (job(a, "clip = 1.0"), job(a, ""), "train.clip", ["`1.0`", "`nothing`"]),
        ] {
            let text = told(&[("job", &mine)], &[("job", &theirs)]);
            assert!(text.contains(&format!("in their job, {key}: ")), "{text}");
            assert!(values.iter().all(|value| text.contains(value)), "{text}");
        }
    }

    #[test]
    fn long_texts_are_cut() {
        let text = told(&[("command", &"é".repeat(10_000))], &[("command", "y")]);
        assert!(text.chars().count() < 500 && text.contains("é..."), "{text}");
    }

    #[test]
    fn one_rank_is_in_accord() {
        accord(&super::super::Solo, &[("command", "x")]).unwrap();
    }
}
