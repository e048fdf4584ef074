//! docs/reference.md is what the registries say. `UPDATE_DOCS=1 cargo test --release --test documentation` writes it.

use ddl::config::{Augmentation, DataConfig, Distributed, Job, Train};
use ddl::optimizer::schedule;
use ddl::{data, layer, loss, optimizer};
use std::fmt::Write;

fn section(out: &mut String, title: &str, note: &str, rows: &[(&str, &str, &str)]) {
    let _ = write!(out, "\n## {title}\n\n{note}\n\n| type | what it does | keys and defaults |\n| --- | --- | --- |\n");
    for (name, about, keys) in rows {
        let keys = if keys.is_empty() { "–".to_owned() } else { keys.replace('|', "\\|") };
        let _ = writeln!(out, "| `{name}` | {about} | {keys} |");
    }
}

fn reference() -> String {
    let mut out = String::from(
        "# Reference of the job file\n\nMade from the registries by `UPDATE_DOCS=1 cargo test --release --test \
         documentation`; a test holds it true.\n",
    );
    let layers: Vec<_> = layer::REGISTRY.iter().map(|entry| (entry.name, entry.about, entry.keys)).collect();
    let losses: Vec<_> = loss::REGISTRY.iter().map(|entry| (entry.name, entry.about, entry.keys)).collect();
    let optimizers: Vec<_> = optimizer::REGISTRY.iter().map(|entry| (entry.name, entry.about, entry.keys)).collect();
    let keys =
        |source: &data::Source| source.keys.iter().map(|(key, about)| format!("`{key}`: {about}")).collect::<Vec<_>>();
    let keys: Vec<String> = data::registry().iter().map(|source| keys(source).join("; ")).collect();
    let sources: Vec<_> =
        data::registry().iter().zip(&keys).map(|(source, keys)| (source.name, source.doc, keys.as_str())).collect();
    section(&mut out, "Sources", "`[data] source = ...`, and the keys of all sources below.", &sources);
    let _ = write!(out, "\n## Data\n\n`[data]`, for all sources:\n\n| key | what it is |\n| --- | --- |\n");
    for (key, about) in DataConfig::KEYS {
        let _ = writeln!(out, "| `{key}` | {about} |");
    }
    section(
        &mut out,
        "Augmentation",
        "`[data] augment = [{ type = ... }, ...]`, in that order, on training samples alone; names and parameters as in \
         torchvision.transforms. What is drawn depends on seed, epoch and sample (mixup: on seed and step), on nothing else.",
        &Augmentation::KINDS,
    );
    section(
        &mut out,
        "Layers",
        "`[model] layers = [{ type = ... }, ...]`; names and defaults as in torch.nn.",
        &layers,
    );
    section(&mut out, "Losses", "`[loss] type = ...`; means over samples and elements.", &losses);
    section(&mut out, "Optimizers", "`[optimizer] type = ...`; names and defaults as in torch.optim.", &optimizers);
    let _ = write!(out, "\n## Training\n\n`[train]`:\n\n| key | what it is |\n| --- | --- |\n");
    for (key, about) in Train::KEYS {
        let _ = writeln!(out, "| `{key}` | {about} |");
    }
    let _ = write!(out, "\n## Ranks\n\n`[distributed]`:\n\n| key | what it is |\n| --- | --- |\n");
    for (key, about) in Distributed::KEYS {
        let _ = writeln!(out, "| `{key}` | {about} |");
    }
    let note = format!("`[schedule] type = ...`; all take {}.", schedule::SHARED_KEYS);
    section(&mut out, "Schedules", &note, schedule::REGISTRY);
    out
}

#[test]
fn the_reference_is_what_the_registries_say() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/reference.md");
    let expected = reference();
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::create_dir_all(concat!(env!("CARGO_MANIFEST_DIR"), "/docs")).unwrap();
        std::fs::write(path, &expected).unwrap();
    }
    let found = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/reference.md is out of date: UPDATE_DOCS=1 cargo test --release --test documentation"
    );
}

#[test]
fn every_training_key_is_told() {
    let text = "data.source = \"synthetic\"\nmodel.layers = [{ type = \"flatten\" }]\nloss.type = \"mse\"\n\
                optimizer.type = \"sgd\"\n[train]\nepochs = 1\nbatch_size = 8\n";
    let train = Job::parse(text, "job.toml", &[]).unwrap().train;
    let all = Train { batch_per_rank: Some(1), micro_batch: Some(1), clip_norm: Some(1.0), ..train };
    let known = toml::Table::try_from(&all).unwrap();
    let mut told: Vec<&str> = Train::KEYS.iter().map(|(key, _)| *key).collect();
    told.sort_unstable();
    assert_eq!(told, known.keys().collect::<Vec<_>>());
    let known = toml::Table::try_from(Distributed::default()).unwrap();
    let mut told: Vec<&str> = Distributed::KEYS.iter().map(|(key, _)| *key).collect();
    told.sort_unstable();
    assert_eq!(told, known.keys().collect::<Vec<_>>());
}
