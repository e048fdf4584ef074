//! The study as text: the tables that scaling studies are reported in.

use super::Study;
use super::forecast::Outlook;
use super::model::Algorithm;
use super::summary::{Mean, Row};
use crate::train::terminal::{table, thousands};

const SHARED: &str = "oversubscribed";

/// All tables of a study.
pub fn text(study: &Study) -> String {
    let rows = &study.rows;
    let mut parts = vec![format!("{}\n{}", study.title(), study.subtitle()), time(rows), scaling(rows)];
    parts.extend(errors(rows));
    parts.push(split(rows));
    if let [one, other] = &rows[..] {
        parts.push(slots(one, other));
    }
    parts.extend(shared(rows));
    parts.extend(study.noise.as_ref().map(|noise| format!("noise scale: {}", noise.advice)));
    parts.extend(study.prediction.as_ref().map(prediction));
    parts.join("\n\n")
}

/// To four digits or so: `0.0123`, `1.234`, `123.4`.
fn figure(v: f64) -> String {
    match v.abs() {
        size if size >= 1000.0 => thousands(v.abs().round() as u64),
        size if size >= 100.0 => format!("{v:.1}"),
        size if size >= 10.0 => format!("{v:.2}"),
        size if size >= 0.1 || size == 0.0 => format!("{v:.3}"),
        size if size >= 1e-4 => format!("{v:.5}"),
        _ => format!("{v:.2e}"),
    }
}

fn deviation(mean: Mean) -> String {
    mean.deviation.map_or("-".into(), figure)
}

fn with_deviation(mean: Mean) -> String {
    mean.deviation
        .map_or_else(|| figure(mean.mean), |deviation| format!("{} ± {}", figure(mean.mean), figure(deviation)))
}

fn ratio(value: Option<Mean>, row: &Row) -> String {
    match value {
        Some(mean) => format!("{:.2}", mean.mean),
        None if row.oversubscribed => SHARED.into(),
        None => "-".into(),
    }
}

/// The number of ranks, marked where they share cores and no other cell of the row says so.
fn marked(row: &Row) -> String {
    if row.oversubscribed { format!("{} {SHARED}", row.ranks) } else { row.ranks.to_string() }
}

fn percent(value: f64) -> String {
    format!("{:.1} %", 100.0 * value)
}

/// Processes, average time, standard deviation, speedup.
fn time(rows: &[Row]) -> String {
    let mut table = table(&["processes", "average time (s)", "standard deviation", "speedup", "runs"], 1);
    for row in rows {
        let (time, runs) = (figure(row.seconds.mean), row.repeats.to_string());
        table.add_row([row.ranks.to_string(), time, deviation(row.seconds), ratio(row.speedup, row), runs]);
    }
    table.to_string()
}

/// Workers, total time, speedup, efficiency, and what the network is worth.
fn scaling(rows: &[Row]) -> String {
    let quality = if rows[0].figure("test_accuracy").is_some() { "test accuracy (%)" } else { "test loss" };
    let header = ["workers", "total time (s)", "samples/s", "speedup", "efficiency", "serial fraction", quality];
    let mut table = table(&header, 1);
    for row in rows {
        let efficiency = row.efficiency.map_or_else(|| ratio(None, row), |mean| percent(mean.mean));
        let serial = row.serial_fraction.map_or("-".into(), |fraction| format!("{fraction:.3}"));
        let accuracy = row
            .figure("test_accuracy")
            .map(|mean| Mean { mean: 100.0 * mean.mean, deviation: mean.deviation.map(|deviation| 100.0 * deviation) });
        table.add_row([
            row.ranks.to_string(),
            figure(row.total_seconds.mean),
            figure(row.samples_per_second.mean),
            ratio(row.speedup, row),
            efficiency,
            serial,
            accuracy.or(row.figure("test_loss")).map_or("-".into(), with_deviation),
        ]);
    }
    table.to_string()
}

/// Processes, MAPE and RMSE, for series and values.
fn errors(rows: &[Row]) -> Option<String> {
    rows[0].figure("test_rmse")?;
    let header = ["processes", "MAPE (%)", "deviation", "RMSE", "deviation"];
    let mut table = table(&header, 1);
    for row in rows {
        let cells = ["test_mape", "test_rmse"].map(|name| row.figure(name));
        let cells = cells.into_iter().flat_map(|mean| match mean {
            Some(mean) => [figure(mean.mean), deviation(mean)],
            None => ["-".into(), "-".into()],
        });
        table.add_row(std::iter::once(marked(row)).chain(cells));
    }
    Some(table.to_string())
}

/// Where the training time went, mean over ranks.
fn split(rows: &[Row]) -> String {
    let header = ["processes", "compute", "data", "communication", "waiting", "other", "imbalance"];
    let mut table = table(&header, 1);
    for row in rows {
        let share =
            |(name, value): (&str, f64)| percent(if name == "imbalance" { value } else { value / row.seconds.mean });
        table.add_row(std::iter::once(marked(row)).chain(row.split.columns().map(share)));
    }
    table.to_string()
}

/// One number of slots beside another, and what changes.
fn slots(one: &Row, other: &Row) -> String {
    let slots = |row: &Row| {
        let shared = if row.oversubscribed { format!(", {SHARED}") } else { String::new() };
        format!("{} slot{}{shared}", row.ranks, if row.ranks == 1 { "" } else { "s" })
    };
    let mut table = table(&["", &slots(one), &slots(other), "difference"], 1);
    let mut add = |name: &str, value: &dyn Fn(&Row) -> Option<f64>| {
        if let (Some(a), Some(b)) = (value(one), value(other)) {
            let sign = if b < a { "-" } else { "+" };
            let change = if a == 0.0 { String::new() } else { format!(" ({:+.1} %)", 100.0 * (b - a) / a) };
            table.add_row([name.to_owned(), figure(a), figure(b), format!("{sign}{}{change}", figure((b - a).abs()))]);
        }
    };
    add("time (s)", &|row| Some(row.seconds.mean));
    add("samples/s", &|row| Some(row.samples_per_second.mean));
    add("test accuracy (%)", &|row| row.figure("test_accuracy").map(|mean| 100.0 * mean.mean));
    add("test loss", &|row| row.figure("test_loss").map(|mean| mean.mean));
    add("test MAPE (%)", &|row| row.figure("test_mape").map(|mean| mean.mean));
    add("test RMSE", &|row| row.figure("test_rmse").map(|mean| mean.mean));
    add("training loss", &|row| row.figure("train_loss").map(|mean| mean.mean));
    table.to_string()
}

/// What to think of points with more ranks than cores.
fn shared(rows: &[Row]) -> Option<String> {
    let of = |row: &Row| format!("{} ranks {:.2}", row.ranks, row.ratio.mean);
    let shared: Vec<String> = rows.iter().filter(|row| row.oversubscribed).map(of).collect();
    (!shared.is_empty()).then(|| {
        let (fewest, ratios) = (rows[0].ranks, shared.join(", "));
        format!(
            "{SHARED}: more ranks than cores, so their times say nothing about scaling
\
             (samples/s against {fewest} rank(s), no speedup: {ratios})"
        )
    })
}

/// The model's table.
pub fn prediction(outlook: &Outlook) -> String {
    let header = [
        "ranks",
        "hosts",
        "compute",
        "ring sum",
        "tree sum",
        "hierarchical sum",
        "s/epoch",
        "speedup",
        "efficiency",
        "by",
    ];
    let mut table = table(&header, 0);
    for prediction in &outlook.predictions {
        let best = prediction.best();
        let mark = if prediction.smaller_micro_batch { "*" } else { "" };
        let ms = |seconds: f64| format!("{} ms", figure(1e3 * seconds));
        let mut cells = vec![format!("{mark}{}", prediction.ranks), prediction.hosts.to_string()];
        cells.push(ms(prediction.compute_seconds));
        cells.extend(prediction.by_algorithm.iter().map(|forecast| ms(forecast.sum_seconds)));
        cells.extend([figure(best.epoch_seconds), figure(best.speedup), percent(best.efficiency)]);
        let by = if prediction.ranks == 1 { "-".to_owned() } else { best.algorithm.to_string() };
        cells.push(by);
        table.add_row(cells);
    }
    let mut text = format!("{}\n\n{table}\n\n{}", outlook.assumptions(), epochs(outlook));
    if outlook.predictions.iter().any(|prediction| prediction.smaller_micro_batch) {
        text += "\n* needs a smaller train.micro_batch than the job has";
    }
    if let Some(last) = outlook.predictions.last().filter(|last| last.ranks < 65_536) {
        text += &format!("\nbeyond {} ranks a batch of {} has no sample for each", last.ranks, outlook.load.batch);
    }
    if let Some(here) = &outlook.here {
        let ddl = here.by(Algorithm::Hierarchical);
        text += &format!(
            "\nhere, {} ranks on {} host(s): {} ms a step, {} of compute and {} of sums; {} samples/s",
            here.ranks,
            here.hosts,
            figure(1e3 * ddl.step_seconds),
            figure(1e3 * here.compute_seconds),
            figure(1e3 * ddl.sum_seconds),
            thousands((outlook.load.samples as f64 / ddl.epoch_seconds).round() as u64)
        );
    }
    text
}

/// Time an epoch, speedup and efficiency under each way of summing.
fn epochs(outlook: &Outlook) -> String {
    let names = Algorithm::ALL.map(|algorithm| algorithm.to_string());
    let header = [
        "ranks".to_owned(),
        format!("{}: s/epoch", names[0]),
        "speedup".into(),
        "efficiency".into(),
        format!("{}: s/epoch", names[1]),
        "speedup".into(),
        "efficiency".into(),
        format!("{}: s/epoch", names[2]),
        "speedup".into(),
        "efficiency".into(),
    ];
    let mut table = table(&header.each_ref().map(String::as_str), 0);
    for prediction in &outlook.predictions {
        let cells = prediction.by_algorithm.iter().flat_map(|forecast| {
            [figure(forecast.epoch_seconds), figure(forecast.speedup), percent(forecast.efficiency)]
        });
        table.add_row(std::iter::once(prediction.ranks.to_string()).chain(cells));
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::tests::study;

    #[test]
    fn shared_cores_are_marked_in_every_table_and_never_a_speedup() {
        let text = text(&study());
        let rows: Vec<&str> = text.lines().filter(|line| line.starts_with("4 ")).collect();
        assert!(rows.len() >= 3, "{text}");
        assert!(rows.iter().all(|row| row.contains(SHARED)), "{text}");
        assert!(text.contains("say nothing about scaling"), "{text}");
        for heading in ["average time (s)", "standard deviation", "efficiency", "serial fraction", "test accuracy (%)"]
        {
            assert!(text.contains(heading), "no {heading} in\n{text}");
        }
        assert!(!text.contains("1 slot"), "{text}");
    }

    #[test]
    fn two_numbers_of_ranks_are_set_side_by_side() {
        let mut study = study();
        study.rows.truncate(2);
        let text = text(&study);
        assert!(text.contains("1 slot") && text.contains("2 slots") && text.contains("difference"), "{text}");
        let time = text.lines().find(|line| line.starts_with("time (s)")).unwrap();
        assert!(time.contains("-4.500 (-45.0 %)"), "{time}");
    }

    #[test]
    fn figures_keep_their_digits() {
        for (v, text) in
            [(0.0, "0.000"), (0.01234567, "0.01235"), (1.5, "1.500"), (12.345, "12.35"), (12345.6, "12,346")]
        {
            assert_eq!(figure(v), text);
        }
    }
}
