//! The pictures of a report: curves, seconds by rank, confusion, forecasts, errors by series.

use super::Run;
use crate::chart::{
    Area, BLUE, COLOURS, Curve, Drawn, GREEN, GRID, INK, Mark, OLIVE, ORANGE, PALE, PURPLE, Panel, Panels, Picture,
    SILVER, SKY, VERMILION, caption, figure, write_at,
};
use crate::store::{Answers, Forecast};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

const WIDTH: i32 = 1400;

/// The curves of runs over each other: by epoch what is measured, by step the loss, the rate and the gradient's norm.
pub(super) fn curves(runs: &[Run]) -> Panels {
    let mut panels = Vec::new();
    let alone = runs.len() == 1;
    let colour = |run: usize, part: usize| COLOURS[if alone { part } else { run } % COLOURS.len()];
    let mut measured: Vec<&str> = Vec::new();
    for run in runs {
        for (name, _) in &run.found.epochs {
            let name = name.trim_start_matches("train_").trim_start_matches("validation_").trim_start_matches("test_");
            if !measured.contains(&name)
                && !["epoch", "lr", "seconds", "noise_scale", "samples_per_second"].contains(&name)
            {
                measured.push(name);
            }
        }
    }
    measured
        .sort_by_key(|name| ["loss", "accuracy", "rmse", "mape", "mae", "mse", "r2"].iter().position(|n| n == name));
    let parts = [("train", Mark::Dashes), ("validation", Mark::Dots), ("test", Mark::Line)];
    for name in measured {
        let mut panel =
            Panel { title: capital(&worded(name)), x: "epoch".into(), log: name == "loss", ..Panel::default() };
        let has = |part: &str| runs.iter().any(|run| run.found.epoch_column(&format!("{part}_{name}")).is_some());
        if !alone && has("train") {
            panel.title +=
                if has("validation") { " (dashed: training, dots: validation)" } else { " (dashed: training)" };
        }
        for (number, run) in runs.iter().enumerate() {
            for (place, (part, mark)) in parts.into_iter().enumerate() {
                let Some(values) = run.found.epoch_column(&format!("{part}_{name}")) else { continue };
                // Of several runs the colour tells which, the mark which part.
                let name = match (alone, part) {
                    (true, part) => part.to_owned(),
                    (false, "test") => run.name.clone(),
                    _ => String::new(),
                };
                let mark = if alone { Mark::Line } else { mark };
                panel.curves.push(curve(name, colour(number, place), mark, run.found.epoch_column("epoch"), values));
            }
        }
        panels.push(panel);
    }
    let by_step = [
        ("loss", "Training loss of a step", true),
        ("lr", "Learning rate", false),
        ("grad_norm", "Norm of the gradient", true),
    ];
    for (column, title, log) in by_step {
        let mut panel = Panel { title: title.into(), x: "step".into(), log, ..Panel::default() };
        for (number, run) in runs.iter().enumerate() {
            let Some(values) = run.found.step_column(column) else { continue };
            let name = if alone { String::new() } else { run.name.clone() };
            panel.curves.push(curve(name, colour(number, 0), Mark::Line, run.found.step_column("step"), values));
        }
        panels.push(panel);
    }
    let mut panel = Panel { title: "Samples per second".into(), x: "epoch".into(), ..Panel::default() };
    for (number, run) in runs.iter().enumerate() {
        let Some(values) = run.found.epoch_column("samples_per_second") else { continue };
        let name = if alone { String::new() } else { run.name.clone() };
        panel.curves.push(curve(name, colour(number, 0), Mark::Line, run.found.epoch_column("epoch"), values));
    }
    panels.push(panel);
    Panels { title: "How it was trained".into(), columns: 2, panels }
}

fn curve(name: String, colour: RGBColor, mark: Mark, x: Option<&[f64]>, y: &[f64]) -> Curve {
    let points = x.unwrap_or_default().iter().copied().zip(y.iter().copied()).collect();
    Curve { name, colour, mark, points }
}

/// A column's name in words.
pub(super) fn worded(column: &str) -> String {
    match column {
        "rmse" => "RMSE".into(),
        "mape" => "MAPE in %".into(),
        "mae" => "MAE".into(),
        "mse" => "MSE".into(),
        "r2" => "R²".into(),
        other => other.replace('_', " "),
    }
}

fn capital(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

/// What was predicted beside what came: in time, or where samples are no series against one another.
pub(super) fn forecasts(answers: &Answers) -> Option<Panels> {
    let panels: Vec<Panel> = answers.forecasts.iter().filter(|of| !of.actual.is_empty()).map(forecast).collect();
    (!panels.is_empty()).then(|| Panels {
        title: "Test part: what was predicted, and what came".into(),
        columns: if panels.len() == 1 { 1 } else { 2 },
        panels,
    })
}

fn forecast(of: &Forecast) -> Panel {
    let title = format!("{} {}", of.series, of.target).trim().to_owned();
    let curve = |name: &str, colour, mark, points: Vec<(f64, f64)>| Curve { name: name.into(), colour, mark, points };
    if of.times.is_empty() {
        let points: Vec<(f64, f64)> = of.actual.iter().copied().zip(of.predicted.iter().copied()).collect();
        let ends = points.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), p| (a.min(p.0), b.max(p.0)));
        let curves = vec![
            curve("as predicted", PALE, Mark::Line, vec![(ends.0, ends.0), (ends.1, ends.1)]),
            curve("", BLUE, Mark::Dots, points),
        ];
        return Panel {
            title: format!("{title}: predicted over actual"),
            x: "actual".into(),
            curves,
            ..Panel::default()
        };
    }
    let over_time = |values: &[f64]| values.iter().enumerate().map(|(i, &value)| (i as f64, value)).collect();
    let curves = vec![
        curve("predicted", BLUE, Mark::Line, over_time(&of.predicted)),
        curve("naive: the last value stays", ORANGE, Mark::Dashes, over_time(&of.naive)),
        curve("actual", INK, Mark::Line, over_time(&of.actual)),
    ];
    let labels = of.times.iter().map(|time| time.trim_end_matches("T00:00:00").to_owned()).collect();
    Panel { title, labels, curves, ..Panel::default() }
}

/// Colours of the phases of a step.
const PHASES: [(&str, RGBColor); 7] = [
    ("data", GREEN),
    ("forward", BLUE),
    ("backward", SKY),
    ("communication", ORANGE),
    ("optimizer", PURPLE),
    ("checkpoint", OLIVE),
    ("evaluation", SILVER),
];

/// Seconds by phase and rank over the whole run, as stacked bars.
pub(super) struct Phases {
    /// Of each rank, in the order of [`PHASES`].
    ranks: Vec<[f64; PHASES.len()]>,
    /// How many there are.
    all: usize,
}

/// More ranks than these are not drawn.
const MOST_RANKS: usize = 32;

impl Phases {
    pub fn of(run: &Run) -> Option<Self> {
        let mut ranks: Vec<[f64; PHASES.len()]> = Vec::new();
        for (phase, rows) in &run.found.timing {
            let Some(place) = PHASES.iter().position(|(name, _)| name == phase) else { continue };
            for row in rows {
                ranks.resize(ranks.len().max(row.len()), [0.0; PHASES.len()]);
                row.iter().zip(&mut ranks).filter(|(v, _)| v.is_finite()).for_each(|(v, rank)| rank[place] += v);
            }
        }
        let all = ranks.len();
        ranks.truncate(MOST_RANKS);
        (!ranks.is_empty()).then_some(Self { ranks, all })
    }

    /// By how much the busiest rank computes longer than the mean.
    pub fn imbalance(&self) -> f64 {
        let compute: Vec<f64> = self.ranks.iter().map(|rank| rank[1] + rank[2]).collect();
        let mean = compute.iter().sum::<f64>() / compute.len() as f64;
        compute.iter().copied().fold(0.0, f64::max) / mean - 1.0
    }
}

impl Picture for Phases {
    fn size(&self) -> (u32, u32) {
        (WIDTH as u32, 150 + 34 * self.ranks.len() as u32)
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        caption(area, "Where the seconds went, by rank", (30, 20), 26)?;
        let mut x = 30;
        for (name, colour) in PHASES {
            area.draw(&Rectangle::new([(x, 64), (x + 16, 80)], colour.filled()))?;
            write_at(area, name, (x + 22, 72), 16, INK, HPos::Left)?;
            x += 46 + 9 * name.len() as i32;
        }
        let most = self.ranks.iter().map(|rank| rank.iter().sum::<f64>()).fold(f64::MIN_POSITIVE, f64::max);
        for (number, rank) in self.ranks.iter().enumerate() {
            let top = 104 + 34 * number as i32;
            write_at(area, &format!("rank {number}"), (110, top + 12), 16, INK, HPos::Right)?;
            let mut from = 0.0;
            let place = |seconds: f64| 124 + (seconds / most * f64::from(WIDTH - 260)).round() as i32;
            for (seconds, (_, colour)) in rank.iter().zip(PHASES) {
                area.draw(&Rectangle::new([(place(from), top), (place(from + seconds), top + 25)], colour.filled()))?;
                from += seconds;
            }
            write_at(area, &format!("{} s", figure(from)), (place(from) + 10, top + 12), 15, PALE, HPos::Left)?;
        }
        let bottom = 118 + 34 * self.ranks.len() as i32;
        let more =
            if self.all > MOST_RANKS { format!("; {} more ranks", self.all - MOST_RANKS) } else { String::new() };
        let text = format!("the busiest rank computes {:.1} % longer than the mean{more}", 100.0 * self.imbalance());
        write_at(area, &text, (124, bottom), 16, PALE, HPos::Left)
    }
}

/// How often each class was taken for which.
pub(super) struct Confusion<'a>(pub &'a Answers);

/// Of more classes only the table says something.
pub(super) const MOST_CLASSES: usize = 30;

impl Confusion<'_> {
    fn cell(&self) -> i32 {
        (900 / self.0.classes.len().max(1) as i32).clamp(24, 64)
    }
}

impl Picture for Confusion<'_> {
    fn size(&self) -> (u32, u32) {
        let side = self.cell() * self.0.classes.len() as i32;
        (260 + side as u32 + 40, 190 + side as u32)
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        let (n, cell) = (self.0.classes.len(), self.cell());
        caption(area, "Test part: which class was taken for which", (30, 20), 24)?;
        write_at(area, "rows: true; columns: given; colour: share of the row", (30, 66), 16, PALE, HPos::Left)?;
        let short = |name: &str| name.chars().take(if cell < 40 { 4 } else { 12 }).collect::<String>();
        let narrow = self.0.classes.iter().all(|name| short(name).chars().count() * 9 < cell as usize);
        for (row, name) in self.0.classes.iter().enumerate() {
            let counts = &self.0.confusion[row * n..][..n];
            let sum = counts.iter().sum::<u64>().max(1) as f64;
            let top = 150 + cell * row as i32;
            write_at(area, &name.chars().take(22).collect::<String>(), (245, top + cell / 2), 16, INK, HPos::Right)?;
            let (x, y) = (260 + cell * row as i32 + cell / 2, if narrow || row % 2 == 0 { 136 } else { 116 });
            write_at(area, &short(name), (x, y), 14, INK, HPos::Center)?;
            for (column, &count) in counts.iter().enumerate() {
                let (left, share) = (260 + cell * column as i32, count as f64 / sum);
                let (strong, gap) =
                    (if row == column { BLUE } else { VERMILION }, [(left, top), (left + cell - 2, top + cell - 2)]);
                area.draw(&Rectangle::new(gap, GRID.filled()))?;
                area.draw(&Rectangle::new(gap, strong.mix(share.sqrt()).filled()))?;
                if count > 0 && cell >= 30 {
                    let ink = if share > 0.25 { WHITE } else { INK };
                    let size = if count > 999 { 13 } else { 15 };
                    write_at(area, &count.to_string(), (left + cell / 2 - 1, top + cell / 2), size, ink, HPos::Center)?;
                }
            }
        }
        Ok(())
    }
}
