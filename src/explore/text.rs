//! A survey as tables on a terminal.

use super::distribution::Distribution;
use super::{Found, PartSurvey, SeriesFigures, Survey};
use crate::train::terminal::{table, thousands};

/// More rows of a table are for `--json`.
const MOST_ROWS: usize = 32;

/// Both parts, with their names.
pub(super) fn parts(survey: &Survey) -> impl Iterator<Item = (&'static str, &PartSurvey)> {
    [("training", &survey.train), ("test", &survey.test)].into_iter().filter(|(_, part)| part.samples > 0)
}

/// Five digits that count, without zeros at the end.
pub(super) fn figure(value: f64) -> String {
    if value == 0.0 || !value.is_finite() {
        return if value == 0.0 { "0".into() } else { "-".into() };
    }
    let magnitude = value.abs().log10().floor() as i32;
    if !(-5..12).contains(&magnitude) {
        return format!("{value:.4e}");
    }
    let text = format!("{value:.*}", (4 - magnitude).max(0) as usize);
    match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    }
}

fn percent(value: f64) -> String {
    if value.is_finite() { format!("{:.2} %", 100.0 * value) } else { "-".into() }
}

/// What a table leaves out.
fn rest(all: usize, what: &str) -> String {
    match all.checked_sub(MOST_ROWS) {
        None | Some(0) => String::new(),
        Some(more) => format!("\n... and {} {what} more (--json has all)", thousands(more as u64)),
    }
}

/// The whole survey, table by table.
pub fn text(survey: &Survey) -> String {
    let mut pieces = vec![head(survey)];
    pieces.extend(
        [classes(survey), images(survey), columns(survey), missing(survey), correlations(survey)].into_iter().flatten(),
    );
    pieces.extend(series(survey));
    pieces.extend(suspicious(survey));
    pieces.join("\n\n")
}

/// `images of 1x28x28: 5,000 training and 1,000 test samples`, and the notes of the source.
fn head(survey: &Survey) -> String {
    let shape = survey.shape.iter().map(usize::to_string).collect::<Vec<_>>().join("x");
    let [train, test] = [&survey.train, &survey.test].map(|part| thousands(part.samples));
    let of = survey.path.as_ref().map_or_else(String::new, |path| format!(", {path}"));
    let kind = if survey.kind == "series" { "windows of series" } else { survey.kind };
    let first = format!("{}{of}: {kind} of {shape}, {train} training and {test} test samples", survey.source);
    std::iter::once(first).chain(survey.notes.iter().cloned()).collect::<Vec<_>>().join("\n")
}

fn classes(survey: &Survey) -> Option<String> {
    if survey.classes.is_empty() {
        return None;
    }
    let parts: Vec<_> = parts(survey).collect();
    let names = parts.iter().flat_map(|(name, _)| [name.to_string(), "share".to_owned()]);
    let header: Vec<String> = std::iter::once("class".to_owned()).chain(names).collect();
    let mut rows = table(&header.iter().map(String::as_str).collect::<Vec<_>>(), 1);
    for (class, name) in survey.classes.iter().enumerate().take(MOST_ROWS) {
        let counts = parts.iter().flat_map(|(_, part)| {
            let count = part.of_class[class];
            [thousands(count), percent(count as f64 / part.samples as f64)]
        });
        rows.add_row(std::iter::once(name.clone()).chain(counts));
    }
    let counts = &survey.train.of_class;
    let (most, least) = (counts.iter().max()?, counts.iter().min()?);
    let balance = match least {
        0 => format!("{} classes have no training sample", counts.iter().filter(|&&count| count == 0).count()),
        _ => format!(
            "the largest class has {:.2} times the training samples of the smallest",
            *most as f64 / *least as f64
        ),
    };
    Some(format!("{rows}{}\n{balance}", rest(survey.classes.len(), "classes")))
}

fn images(survey: &Survey) -> Option<String> {
    survey.train.images.as_ref()?;
    let mut channels = table(&["part", "channel", "mean", "deviation", "lowest", "highest"], 2);
    let mut spread =
        table(&["part", "of each image", "mean", "deviation", "lowest", "5 %", "median", "95 %", "highest"], 2);
    for (name, images) in parts(survey).filter_map(|(name, part)| Some((name, part.images.as_ref()?))) {
        for channel in images.channels.iter().take(MOST_ROWS) {
            let figures = [channel.mean, channel.deviation].map(|value| format!("{value:.5}"));
            let range = [channel.min, channel.max].map(figure);
            channels.add_row([name.to_owned(), channel.name.clone()].into_iter().chain(figures).chain(range));
        }
        for (what, of) in [("brightness", &images.brightness), ("contrast", &images.contrast)] {
            let Some(of) = of else { continue };
            let [low, _, median, _, high] = of.quantiles;
            let figures = [of.mean, of.deviation, of.min, low, median, high, of.max].map(|value| format!("{value:.4}"));
            spread.add_row([name.to_owned(), what.to_owned()].into_iter().chain(figures));
        }
    }
    Some(format!("{channels}\n(mean and deviation as data.normalize takes them: u8 spans 0 to 1)\n\n{spread}"))
}

fn columns(survey: &Survey) -> Option<String> {
    if survey.train.columns.is_empty() {
        return None;
    }
    let header = [
        "part",
        "column",
        "mean",
        "deviation",
        "lowest",
        "5 %",
        "25 %",
        "median",
        "75 %",
        "95 %",
        "highest",
        "distinct",
    ];
    let mut rows = table(&header, 2);
    for (part, of) in parts(survey) {
        for column in of.columns.iter().take(MOST_ROWS) {
            let figures = match &column.values {
                Some(Distribution { mean, deviation, min, quantiles: [a, b, c, d, e], max, distinct, .. }) => {
                    let figures = [mean, deviation, min, a, b, c, d, e, max].map(|value| figure(*value));
                    figures.into_iter().chain([thousands(*distinct)]).collect()
                }
                None => vec!["-".to_owned(); header.len() - 2],
            };
            rows.add_row([part.to_owned(), column.name.clone()].into_iter().chain(figures));
        }
    }
    Some(format!("{rows}{}", rest(survey.train.columns.len(), "columns")))
}

fn missing(survey: &Survey) -> Option<String> {
    if survey.missing.is_empty() {
        return None;
    }
    let mut rows = table(&["column", "empty fields"], 1);
    for (name, count) in survey.missing.iter().take(MOST_ROWS) {
        rows.add_row([name.clone(), thousands(*count)]);
    }
    Some(format!("{rows}{}", rest(survey.missing.len(), "columns")))
}

fn correlations(survey: &Survey) -> Option<String> {
    let found = survey.correlations.as_ref()?;
    let shown = found.names.len().min(12);
    let header: Vec<&str> =
        std::iter::once("correlation").chain(found.names[..shown].iter().map(String::as_str)).collect();
    let mut rows = table(&header, 1);
    for (name, row) in found.names.iter().zip(&found.rows).take(MOST_ROWS) {
        let figures = row[..shown].iter().map(|v| if v.is_finite() { format!("{v:.3}") } else { "-".into() });
        rows.add_row(std::iter::once(name.clone()).chain(figures));
    }
    let more = if shown < found.names.len() { "\n... (--json has all)" } else { "" };
    Some(format!("{rows}{more}"))
}

fn series(survey: &Survey) -> Option<String> {
    let found = survey.series.as_ref()?;
    let header = ["series", "rows", "first", "last", "lowest", "mean", "highest", "missing weekdays", "longest gap"];
    let mut ranges = table(&header, 4);
    let header = ["series", "returns", "mean", "deviation", "largest loss", "on", "largest gain", "on"];
    let mut returns = table(&header, 1);
    for of in found.series.iter().take(MOST_ROWS) {
        let SeriesFigures { name, rows, first, last, min, mean, max, missing_weekdays, longest_gap, gap_after, .. } =
            of;
        let gap = match gap_after.is_empty() {
            // Rows that are not known by a date have none.
            true => "-".to_owned(),
            false => format!("{longest_gap} days from {gap_after}"),
        };
        let [min, mean, max] = [min, mean, max].map(|value| figure(*value));
        let missing = if gap_after.is_empty() { "-".to_owned() } else { thousands(*missing_weekdays) };
        ranges.add_row([name.clone(), thousands(*rows), first.clone(), last.clone(), min, mean, max, missing, gap]);
        let days = [&of.largest_loss, &of.largest_gain].into_iter().flat_map(|day| match day {
            Some(day) => [percent(day.value), day.date.clone()],
            None => ["-".to_owned(), String::new()],
        });
        let figures = [percent(of.return_mean), percent(of.return_deviation)];
        returns.add_row([name.clone(), thousands(of.returns)].into_iter().chain(figures).chain(days));
    }
    let more = rest(found.series.len(), "series");
    match found.series.iter().any(|of| of.returns > 0) {
        true => Some(format!("{ranges}{more}\n\n{returns}{more}")),
        false => Some(format!("{ranges}{more}")),
    }
}

/// What someone should look at before training.
fn suspicious(survey: &Survey) -> Option<String> {
    let mut lines = Vec::new();
    let mut line = |found: &Found, what: &str| {
        if found.count > 0 {
            let first = found.first.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            let more = if found.count > found.first.len() as u64 { ", ..." } else { "" };
            lines.push(format!("{} {what}: {first}{more}", thousands(found.count)));
        }
    };
    for (name, part) in parts(survey) {
        line(&part.not_finite, &format!("{name} samples with values that are not finite"));
        line(&part.constant, &format!("{name} samples that are the same all over"));
    }
    let Some(repeats) = &survey.repeats else { return (!lines.is_empty()).then(|| lines.join("\n")) };
    line(&repeats.in_train, "training samples that equal an earlier one");
    line(&repeats.in_test, "test samples that equal an earlier one");
    line(&repeats.of_train_in_test, "test samples that are in the training part, too");
    if repeats.of_other_class > 0 {
        lines.push(format!("{} samples equal one of another class", thousands(repeats.of_other_class)));
    }
    if lines.is_empty() {
        lines.push("no sample is there twice, constant or not finite".into());
    }
    Some(lines.join("\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_have_five_digits() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (-1234.5678, "-1234.6"),
            (1234567.0, "1234567"),
            (0.00123456, "0.0012346"),
            (100.0, "100"),
            (1e-9, "1.0000e-9"),
            (1e20, "1.0000e20"),
            (f64::NAN, "-"),
        ] {
            assert_eq!(figure(value), text);
        }
    }
}
