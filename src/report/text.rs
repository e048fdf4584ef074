//! The tables of a report.

use super::picture::worded;
use super::{Run, Study};
use crate::chart::{escaped, figure, table};
use crate::config::{Change, changes};
use crate::scale::summary::Mean;
use crate::store::{Answers, ClassFigures, SeriesError};

/// More rows are cut.
const MOST_ROWS: usize = 24;
const MOST_CLASSES: usize = 200;

pub(super) fn heading(text: &str) -> String {
    format!("<h2>{}</h2>\n", escaped(text))
}

fn remark(text: &str) -> String {
    format!("<p class=\"pale\">{}</p>\n", escaped(text))
}

/// How each run ended, its final figures with their mean and deviation, and the settings in which runs differ.
pub(super) fn summary(runs: &[Run]) -> String {
    if runs.is_empty() {
        return String::new();
    }
    let mut names: Vec<&str> = Vec::new();
    for run in runs {
        for (name, _) in &run.found.result {
            if !names.contains(&name.as_str()) {
                names.push(name);
            }
        }
    }
    let head = ["run", "status", "ranks", "epochs", "training s"].map(str::to_owned);
    let mut rows = vec![[&head[..], &names.iter().map(|name| named(name)).collect::<Vec<_>>()].concat()];
    let seconds = |run: &Run| run.found.epoch_column("seconds").unwrap_or_default().iter().sum::<f64>();
    let value = |figures: &[(String, f64)], name: &str| figures.iter().find(|(n, _)| n == name).map(|(_, v)| *v);
    let told = |value: Option<f64>| value.filter(|v| v.is_finite()).map_or_else(|| "-".to_owned(), precise);
    for run in runs {
        let attribute = |name: &str| run.found.attribute(name).unwrap_or("-").to_owned();
        let epochs = run.found.epoch_column("epoch").map_or(0, <[f64]>::len).to_string();
        let mut row = vec![run.name.clone(), attribute("status"), attribute("ranks"), epochs, figure(seconds(run))];
        row.extend(names.iter().map(|name| told(value(&run.found.result, name))));
        rows.push(row);
        for (name, figures) in &run.found.baselines {
            let mut row = vec![format!("naive: {}", name.replace('_', " "))];
            row.resize(head.len(), String::new());
            row.extend(names.iter().map(|name| told(value(figures, name))));
            rows.push(row);
        }
    }
    if runs.len() > 1 && comparable(runs) {
        let mut row = vec![format!("mean ± deviation of {}", runs.len())];
        row.resize(head.len(), String::new());
        row.extend(names.iter().map(|name| {
            let values: Vec<f64> = runs.iter().filter_map(|run| value(&run.found.result, name)).collect();
            mean_and_deviation(&values)
        }));
        rows.push(row);
    }
    let mut text = table(&rows);
    if let [first, others @ ..] = runs
        && !others.is_empty()
    {
        text += &settings(first, others);
    }
    text
}

/// Whether figures of runs are of one kind: of the same data and loss.
fn comparable(runs: &[Run]) -> bool {
    let other = |key: &str| ["data.source", "data.path", "loss"].iter().any(|of| key.starts_with(of));
    runs.iter().all(|run| !changes(&runs[0].found.config, &run.found.config).iter().any(|change| other(&change.key)))
}

/// The keys in which runs differ from the first.
fn settings(first: &Run, others: &[Run]) -> String {
    let mut keys: Vec<(String, Option<String>)> = Vec::new();
    let of: Vec<_> = others.iter().map(|run| changes(&first.found.config, &run.found.config)).collect();
    for change in of.iter().flatten() {
        if !keys.iter().any(|(key, _)| *key == change.key) {
            keys.push((change.key.clone(), change.old.clone()));
        }
    }
    if keys.is_empty() {
        return remark("All runs have the same settings.");
    }
    let none = || "-".to_owned();
    let names = others.iter().map(|run| run.name.clone());
    let mut rows = vec![["setting".to_owned(), first.name.clone()].into_iter().chain(names).collect::<Vec<_>>()];
    for (key, old) in keys {
        let value = |of: &Vec<Change>| match of.iter().find(|change| change.key == key) {
            Some(change) => change.new.clone().unwrap_or_else(none),
            None => old.clone().unwrap_or_else(none),
        };
        rows.push([key.clone(), old.clone().unwrap_or_else(none)].into_iter().chain(of.iter().map(value)).collect());
    }
    table(&rows)
}

fn named(column: &str) -> String {
    match column.split_once('_') {
        Some((part, rest)) if ["train", "validation", "test"].contains(&part) => format!("{part} {}", worded(rest)),
        _ => column.replace('_', " "),
    }
}

fn precise(value: f64) -> String {
    if value.fract() != 0.0 && value.abs() < 1000.0 && value.abs() >= 1e-3 {
        format!("{value:.4}")
    } else {
        figure(value)
    }
}

fn mean_and_deviation(values: &[f64]) -> String {
    if values.is_empty() {
        return "-".into();
    }
    match Mean::of(values) {
        Mean { mean, deviation: Some(deviation) } => format!("{} ± {}", precise(mean), precise(deviation)),
        Mean { mean, deviation: None } => precise(mean),
    }
}

/// Precision, recall and F1 of each class.
pub(super) fn classes(answers: &Answers) -> String {
    let mut rows = vec![["class", "samples", "precision %", "recall %", "F1 %"].map(str::to_owned).to_vec()];
    for (name, of) in answers.classes.iter().zip(ClassFigures::of(&answers.confusion)).take(MOST_CLASSES) {
        rows.push([name.clone(), of.samples.to_string()].into_iter().chain(of.texts()).collect());
    }
    table(&rows)
}

/// Errors by series, the largest first.
pub(super) fn errors(answers: &Answers) -> String {
    if answers.errors.len() < 2 {
        return String::new();
    }
    let mut errors: Vec<_> = answers.errors.iter().collect();
    errors.sort_by(|a, b| b.mape.total_cmp(&a.mape));
    let head = ["series", "target", "test samples", "MAPE %", "RMSE", "RMSE, naive"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    let row = |of: &&SeriesError| {
        let figures = [of.mape, of.rmse, of.naive_rmse].map(|v| if v.is_finite() { precise(v) } else { "-".into() });
        [of.series.clone(), of.target.clone(), of.samples.to_string()].into_iter().chain(figures).collect::<Vec<_>>()
    };
    match errors.len() > MOST_ROWS {
        false => rows.extend(errors.iter().map(row)),
        true => {
            rows.extend(errors[..MOST_ROWS / 2].iter().map(row));
            rows.push(vec![format!("... {} more ...", errors.len() - MOST_ROWS)]);
            rows.extend(errors[errors.len() - MOST_ROWS / 2..].iter().map(row));
        }
    }
    let better = errors.iter().filter(|of| of.rmse < of.naive_rmse).count();
    let comparable = errors.iter().filter(|of| of.naive_rmse.is_finite()).count();
    let words = match comparable {
        0 => String::new(),
        all => remark(&format!("Of {all} series {better} are predicted better than that their last value stays.")),
    };
    table(&rows) + &words
}

/// A study's rows.
pub(super) fn study(study: &Study) -> String {
    let head = ["ranks", "runs", "seconds", "samples/s", "speedup", "efficiency %", "serial share"];
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for row in study.found["rows"].as_array().into_iter().flatten() {
        let number = |name: &str| row[name].as_u64().map_or_else(|| "-".to_owned(), |v| v.to_string());
        let mean = |name: &str, factor: f64| match (row[name]["mean"].as_f64(), row[name]["deviation"].as_f64()) {
            (Some(mean), Some(deviation)) => format!("{} ± {}", figure(factor * mean), figure(factor * deviation)),
            (Some(mean), None) => figure(factor * mean),
            _ => "-".to_owned(),
        };
        let serial = row["serial_fraction"].as_f64().map_or_else(|| "-".to_owned(), precise);
        rows.push(vec![
            number("ranks"),
            number("repeats"),
            mean("seconds", 1.0),
            mean("samples_per_second", 1.0),
            mean("speedup", 1.0),
            mean("efficiency", 100.0),
            serial,
        ]);
    }
    table(&rows)
}

/// Where a run happened, and its job.
pub(super) fn about(run: &Run, several: bool) -> String {
    let title = if several { format!("About {}", run.name) } else { "About this run".to_owned() };
    let mut rows = vec![vec!["".to_owned(), String::new()]];
    let attributes = run.found.attributes.iter().chain(run.found.environment.iter().filter(|(name, _)| name != "os"));
    rows.extend(attributes.map(|(name, value)| vec![name.replace('_', " "), value.chars().take(120).collect()]));
    format!(
        "<details><summary>{}</summary>\n{}<pre>{}</pre>\n</details>\n",
        escaped(&title),
        table(&rows),
        escaped(&run.found.config)
    )
}
