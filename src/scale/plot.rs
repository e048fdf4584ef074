//! The study as a picture: speedup, efficiency, and where the time went.

use super::Study;
use super::summary::{Mean, Row};
use crate::chart::{
    self, Area, BLUE, Drawn, GREEN, GRID, INK, ORANGE, PALE, Picture, RED, SILVER, VERMILION, caption, dashed, font,
    line, write_at,
};
use crate::error::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;
use std::path::Path;

/// Told apart by the colour-blind, too (after Okabe and Ito).
const PARTS: [(&str, RGBColor); 5] =
    [("compute", BLUE), ("data", GREEN), ("communication", ORANGE), ("waiting", VERMILION), ("other", SILVER)];

/// Writes `scale.svg` and `scale.png` into `folder`.
///
/// # Errors
/// `Io` when the folder cannot be written to.
pub fn write(study: &Study, folder: &Path) -> Result<()> {
    chart::write(&Plot(study), folder, "scale").map(|_| ())
}

struct Plot<'s>(&'s Study);

impl Picture for Plot<'_> {
    fn size(&self) -> (u32, u32) {
        (1800, 720)
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        draw(area, self.0)
    }
}

fn draw<B: DrawingBackend>(area: &Area<B>, study: &Study) -> Drawn<B> {
    caption(area, &study.title(), (40, 26), 32)?;
    area.draw(&Text::new(study.subtitle(), (40, 74), font(21).color(&PALE)))?;
    let panel = |left: i32, width: i32| (left, left + width, 210, 610);
    speedup(area, study, panel(90, 450))?;
    efficiency(area, study, panel(680, 450))?;
    split(area, &study.rows, panel(1290, 470))
}

/// Values to pixels: linear, or logarithmic where the range is wide.
struct Frame {
    pixels: (i32, i32, i32, i32),
    x: (f64, f64),
    y: (f64, f64),
    log: bool,
}

impl Frame {
    /// For the ranks of `rows` and values up to `highest`.
    fn of(rows: &[Row], highest: f64, log: bool, pixels: (i32, i32, i32, i32)) -> Self {
        let place = |ranks: usize| if log { (ranks as f64).log2() } else { ranks as f64 };
        let (first, last) = (place(rows[0].ranks), place(rows[rows.len() - 1].ranks));
        let margin = if last > first { 0.13 * (last - first) } else { 0.5 };
        let y = if log { (-0.7, highest.log2() + 0.3) } else { (0.0, 1.12 * highest) };
        Self { pixels, x: (first - margin, last + margin), y, log }
    }

    fn x(&self, ranks: f64) -> i32 {
        let (left, right, ..) = self.pixels;
        let place = if self.log { ranks.log2() } else { ranks };
        left + (f64::from(right - left) * (place - self.x.0) / (self.x.1 - self.x.0)).round() as i32
    }

    fn y(&self, value: f64, log: bool) -> i32 {
        let (.., top, bottom) = self.pixels;
        let place = if log { value.max(1e-9).log2() } else { value };
        let share = ((place - self.y.0) / (self.y.1 - self.y.0)).clamp(0.0, 1.0);
        bottom - (f64::from(bottom - top) * share).round() as i32
    }

    /// Caption, axes and ticks.
    fn axes<B: DrawingBackend>(&self, area: &Area<B>, title: &str, rows: &[Row], y: &[(i32, String)]) -> Drawn<B> {
        let (left, right, top, bottom) = self.pixels;
        caption(area, title, (left, top - 70), 26)?;
        for (at, text) in y {
            line(area, vec![(left, *at), (right, *at)], GRID, 1)?;
            write_at(area, text, (left - 14, *at), 20, INK, HPos::Right)?;
        }
        for row in rows {
            let at = self.x(row.ranks as f64);
            line(area, vec![(at, bottom), (at, bottom + 7)], PALE, 2)?;
            write_at(area, &row.ranks.to_string(), (at, bottom + 26), 20, INK, HPos::Center)?;
        }
        write_at(area, "ranks", ((left + right) / 2, bottom + 60), 20, PALE, HPos::Center)?;
        line(area, vec![(left, bottom), (right, bottom)], PALE, 2)
    }

    /// A point with its deviation; hollow and marked where ranks share cores.
    fn point<B: DrawingBackend>(&self, area: &Area<B>, row: &Row, value: Mean, text: &str, log: bool) -> Drawn<B> {
        let (x, y) = (self.x(row.ranks as f64), self.y(value.mean, log));
        let colour = if row.oversubscribed { RED } else { BLUE };
        let mut below = y;
        if let Some(deviation) = value.deviation.filter(|deviation| *deviation > 0.0) {
            let (low, high) = (self.y(value.mean - deviation, log), self.y(value.mean + deviation, log));
            below = below.max(low);
            line(area, vec![(x, low), (x, high)], colour, 2)?;
            for end in [low, high] {
                line(area, vec![(x - 8, end), (x + 8, end)], colour, 2)?;
            }
        }
        area.draw(&Circle::new((x, y), if row.oversubscribed { 10 } else { 8 }, colour.filled()))?;
        if !row.oversubscribed {
            return write_at(area, text, (x, below + 26), 20, colour, HPos::Center);
        }
        // Lower than its neighbour's figure.
        area.draw(&Circle::new((x, y), 7, WHITE.filled()))?;
        write_at(area, text, (x, below + 38), 20, colour, HPos::Center)?;
        write_at(area, "oversubscribed", (x, below + 62), 17, colour, HPos::Center)
    }
}

fn speedup<B: DrawingBackend>(area: &Area<B>, study: &Study, pixels: (i32, i32, i32, i32)) -> Drawn<B> {
    let rows = &study.rows;
    let (fewest, most) = (rows[0].ranks as f64, rows[rows.len() - 1].ranks as f64);
    let ideal = most / fewest;
    let log = ideal > 8.0;
    let highest = rows.iter().map(|row| row.ratio.mean + row.ratio.deviation.unwrap_or(0.0)).fold(ideal, f64::max);
    let frame = Frame::of(rows, highest, log, pixels);
    let ticks: Vec<f64> = if log {
        (0..=highest.log2() as i32).map(|power| f64::from(power).exp2()).collect()
    } else {
        let step = if highest > 4.5 {
            2.0
        } else if highest > 2.2 {
            1.0
        } else {
            0.5
        };
        (0..=(highest / step) as i32).map(|i| f64::from(i) * step).collect()
    };
    let ticks: Vec<(i32, String)> = ticks.iter().map(|&v| (frame.y(v, log), format!("{v}"))).collect();
    let against = if fewest == 1.0 { "1 rank".to_owned() } else { format!("{fewest} ranks") };
    frame.axes(area, &format!("Speedup over {against}"), rows, &ticks)?;
    let at = |ranks: f64, value: f64| (frame.x(ranks), frame.y(value, log));
    dashed(area, &[at(fewest, 1.0), at(most, ideal)], PALE)?;
    let (x, y) = at(most, ideal);
    write_at(area, "ideal", (x - 14, y - 16), 20, PALE, HPos::Right)?;
    let measured = rows.iter().filter(|row| row.speedup.is_some());
    line(area, measured.map(|row| at(row.ranks as f64, row.ratio.mean)).collect(), BLUE, 3)?;
    for row in rows {
        let text = if row.speedup.is_some() {
            format!("{:.2}", row.ratio.mean)
        } else {
            format!("time ratio {:.2}", row.ratio.mean)
        };
        frame.point(area, row, row.ratio, &text, log)?;
    }
    Ok(())
}

fn efficiency<B: DrawingBackend>(area: &Area<B>, study: &Study, pixels: (i32, i32, i32, i32)) -> Drawn<B> {
    let rows = &study.rows;
    let fewest = rows[0].ranks as f64;
    let share = |row: &Row| {
        let scale = 100.0 * fewest / row.ranks as f64;
        Mean { mean: row.ratio.mean * scale, deviation: row.ratio.deviation.map(|deviation| deviation * scale) }
    };
    let highest = rows.iter().map(|row| share(row).mean + share(row).deviation.unwrap_or(0.0)).fold(100.0, f64::max);
    let wide = rows[rows.len() - 1].ranks as f64 / fewest > 8.0;
    let frame = Frame { y: (0.0, 1.12 * highest), ..Frame::of(rows, highest, wide, pixels) };
    let ticks: Vec<(i32, String)> =
        (0..=(highest / 20.0) as i32).map(|i| (frame.y(f64::from(20 * i), false), format!("{} %", 20 * i))).collect();
    frame.axes(area, "Parallel efficiency", rows, &ticks)?;
    let at = |ranks: usize, value: f64| (frame.x(ranks as f64), frame.y(value, false));
    dashed(area, &[at(rows[0].ranks, 100.0), at(rows[rows.len() - 1].ranks, 100.0)], PALE)?;
    let measured = rows.iter().filter(|row| row.speedup.is_some());
    line(area, measured.map(|row| at(row.ranks, share(row).mean)).collect(), BLUE, 3)?;
    for row in rows {
        frame.point(area, row, share(row), &format!("{:.0} %", share(row).mean), false)?;
    }
    Ok(())
}

/// Stacked shares of the training time.
fn split<B: DrawingBackend>(area: &Area<B>, rows: &[Row], pixels: (i32, i32, i32, i32)) -> Drawn<B> {
    let (left, right, top, bottom) = pixels;
    caption(area, "Where the time goes", (left, top - 70), 26)?;
    let mut x = left;
    for (name, colour) in PARTS {
        area.draw(&Rectangle::new([(x, top - 22), (x + 16, top - 6)], colour.filled()))?;
        write_at(area, name, (x + 22, top - 14), 17, INK, HPos::Left)?;
        x += 34 + 9 * name.len() as i32;
    }
    let height = f64::from(bottom - top - 14) / rows.len() as f64;
    for (index, row) in rows.iter().enumerate() {
        let upper = top + 14 + (height * index as f64) as i32;
        let lower = upper + (0.72 * height).min(90.0) as i32;
        let total: f64 = row.split.columns().iter().take(PARTS.len()).map(|(_, seconds)| seconds).sum();
        let mut start = f64::from(left);
        for ((_, seconds), (_, colour)) in row.split.columns().into_iter().zip(PARTS) {
            let end = start + f64::from(right - left) * seconds / total.max(f64::MIN_POSITIVE);
            let (from, to) = (start.round() as i32, end.round() as i32);
            area.draw(&Rectangle::new([(from, upper), (to, lower)], colour.filled()))?;
            if to - from > 52 {
                let text = format!("{:.0} %", 100.0 * seconds / total);
                let ink = if colour == BLUE { WHITE } else { INK };
                write_at(area, &text, ((from + to) / 2, (upper + lower) / 2), 18, ink, HPos::Center)?;
            }
            start = end;
        }
        let ranks = if row.ranks == 1 { "1 rank".to_owned() } else { format!("{} ranks", row.ranks) };
        let colour = if row.oversubscribed { RED } else { INK };
        let above = if height > 56.0 { 12 } else { 0 };
        write_at(area, &ranks, (left - 14, (upper + lower) / 2 - above), 20, colour, HPos::Right)?;
        if height > 56.0 {
            let seconds = format!("{:.3} s", row.seconds.mean);
            write_at(area, &seconds, (left - 14, (upper + lower) / 2 + 14), 18, PALE, HPos::Right)?;
        }
        if row.oversubscribed {
            write_at(area, "oversubscribed", (left, lower + 16), 17, RED, HPos::Left)?;
        }
    }
    write_at(
        area,
        "share of the training time, mean over ranks",
        ((left + right) / 2, bottom + 26),
        18,
        PALE,
        HPos::Center,
    )
}
