//! A survey as pictures: class balance, histograms, mean images, a sheet of samples, correlations, series.

use super::distribution::Histogram;
use super::image::white;
use super::series::{Line, returns};
use super::text::figure;
use super::{Correlations, Survey};
use crate::chart::{Area, BLUE, Drawn, GRID, INK, ORANGE, PALE, Picture, RED, Raster, caption, line, write_at};
use crate::data::{Dataset, Part, Raw};
use crate::shape::Shape;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

/// More classes, columns or series are not drawn.
pub(super) const MOST_DRAWN: usize = 20;
/// Samples in a row of the sheet.
const SHEET: usize = 10;
/// Width of every picture.
const WIDTH: i32 = 1400;

/// A name of whatever length, cut to fit.
fn short(name: &str) -> String {
    match name.char_indices().nth(16) {
        Some((end, _)) => format!("{}...", &name[..end]),
        None => name.to_owned(),
    }
}

/// How many samples of each class, as bars.
pub(super) struct Classes<'s>(pub &'s Survey);

impl Picture for Classes<'_> {
    fn size(&self) -> (u32, u32) {
        (WIDTH as u32, 130 + 44 * self.0.classes.len().min(MOST_DRAWN) as u32)
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        let parts = [("training", &self.0.train, BLUE), ("test", &self.0.test, ORANGE)];
        caption(area, "Samples of each class", (30, 20), 26)?;
        for (index, (name, _, colour)) in parts.iter().enumerate() {
            let x = 30 + 130 * index as i32;
            area.draw(&Rectangle::new([(x, 64), (x + 16, 80)], colour.filled()))?;
            write_at(area, name, (x + 24, 72), 17, INK, HPos::Left)?;
        }
        let most = parts.iter().flat_map(|(_, part, _)| &part.of_class).copied().max().unwrap_or(0).max(1);
        let length = |count: u64| (count as f64 / most as f64 * f64::from(WIDTH - 400)).round() as i32;
        for (class, name) in self.0.classes.iter().enumerate().take(MOST_DRAWN) {
            let top = 104 + 44 * class as i32;
            write_at(area, &short(name), (240, top + 18), 18, INK, HPos::Right)?;
            for (index, (_, part, colour)) in parts.iter().enumerate().filter(|(_, (_, part, _))| part.samples > 0) {
                let (count, y) = (part.of_class[class], top + 18 * index as i32);
                area.draw(&Rectangle::new([(256, y), (256 + length(count), y + 15)], colour.filled()))?;
                write_at(area, &count.to_string(), (264 + length(count), y + 8), 15, PALE, HPos::Left)?;
            }
        }
        Ok(())
    }
}

/// Histograms side by side.
pub(super) struct Histograms {
    title: String,
    /// Each with its name, and whether heights are logarithms: most pixels of many images are black.
    panels: Vec<(String, Histogram, bool)>,
}

/// Panels in a row, and the size of each.
const PANELS: usize = 4;
const PANEL: (i32, i32) = (335, 240);

impl Histograms {
    /// Of pixels and images, of columns, or of returns: the training part's.
    pub fn of(survey: &Survey) -> Option<Self> {
        let mut panels = Vec::new();
        if let Some(images) = &survey.train.images {
            let channels = images.channels.iter().take(MOST_DRAWN);
            panels.extend(channels.map(|of| (format!("pixels, {} (logarithm)", of.name), of.histogram.clone(), true)));
            for (name, of) in [("brightness of images", &images.brightness), ("contrast of images", &images.contrast)] {
                panels.extend(of.iter().map(|of| (name.to_owned(), of.histogram.clone(), false)));
            }
        }
        for column in survey.train.columns.iter().take(MOST_DRAWN) {
            panels.extend(column.values.iter().map(|of| (short(&column.name), of.histogram.clone(), false)));
        }
        let returns = survey.series.iter().filter_map(|series| series.returns.as_ref());
        panels
            .extend(returns.map(|of| ("changes from row to row (0.01: 1 %)".to_owned(), of.histogram.clone(), false)));
        let title = if survey.series.is_some() {
            "Returns of all series"
        } else {
            "Training part: how often which values are there"
        };
        (!panels.is_empty()).then(|| Self { title: title.into(), panels })
    }
}

impl Picture for Histograms {
    fn size(&self) -> (u32, u32) {
        (WIDTH as u32, 80 + PANEL.1 as u32 * self.panels.len().div_ceil(PANELS) as u32)
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        caption(area, &self.title, (30, 20), 26)?;
        for (index, (name, histogram, is_log)) in self.panels.iter().enumerate() {
            let left = 30 + PANEL.0 * (index % PANELS) as i32;
            let top = 70 + PANEL.1 * (index / PANELS) as i32;
            let (right, bottom) = (left + PANEL.0 - 36, top + PANEL.1 - 60);
            caption(area, name, (left, top), 18)?;
            let scale = |count: u64| if *is_log { (count as f64).ln_1p() } else { count as f64 };
            let most = scale(histogram.counts.iter().copied().max().unwrap_or(0).max(1));
            let edge = |bin: usize| left + ((right - left) as f64 * bin as f64 / histogram.counts.len() as f64) as i32;
            for (bin, &count) in histogram.counts.iter().enumerate().filter(|(_, count)| **count > 0) {
                // What is there at all can be seen.
                let height = (scale(count) / most * f64::from(bottom - top - 34)).ceil() as i32;
                area.draw(&Rectangle::new([(edge(bin), bottom - height), (edge(bin + 1), bottom)], BLUE.filled()))?;
            }
            line(area, vec![(left, bottom), (right, bottom)], PALE, 1)?;
            write_at(area, &figure(histogram.from), (left, bottom + 16), 15, PALE, HPos::Left)?;
            write_at(area, &figure(histogram.to), (right, bottom + 16), 15, PALE, HPos::Right)?;
        }
        Ok(())
    }
}

/// Images in rows, with a name to each row or image.
pub(super) struct Sheet {
    title: String,
    range: (f32, f32),
    names: Vec<((i32, i32), String)>,
    rasters: Vec<Raster>,
    height: u32,
}

/// The side of an image on a sheet.
const SIDE: usize = 112;

impl Sheet {
    fn new(title: &str, range: (f32, f32)) -> Self {
        Self { title: title.into(), range, names: Vec::new(), rasters: Vec::new(), height: 80 }
    }

    fn add(&mut self, image: &[f32], shape: Shape, at: (i32, i32)) {
        let Shape::Image { c, h, w } = shape else { return };
        // Of an image larger than its place every `step`th pixel is drawn.
        let step = h.max(w).div_ceil(SIDE);
        let scale = (SIDE / h.max(w)).max(1);
        let (low, high) = self.range;
        let colour = |pixel: &[f32], channel: usize| {
            let share = (pixel[channel.min(c - 1)] - low) / (high - low);
            (255.0 * share).round().clamp(0.0, 255.0) as u8
        };
        let pixels = (0..h).step_by(step).flat_map(|y| (0..w).step_by(step).map(move |x| y * w + x));
        // One channel is grey; of two or more than three the first three are shown.
        let rgb = pixels.flat_map(|at| [0, 1, 2].map(|channel| colour(&image[at * c..][..c], channel))).collect();
        self.rasters.push(Raster { at, scale, width: w.div_ceil(step), rgb });
        self.height = self.height.max(at.1 as u32 + SIDE as u32 + 44);
    }

    /// The mean image of each class.
    pub fn of_means(survey: &Survey, means: &[Vec<f32>], shape: Shape, range: (f32, f32)) -> Self {
        let mut sheet =
            Self::new(if survey.classes.is_empty() { "Mean image" } else { "Mean image of each class" }, range);
        for (index, mean) in means.iter().enumerate() {
            let at = (30 + 134 * (index % SHEET) as i32, 80 + 160 * (index / SHEET) as i32);
            sheet.add(mean, shape, at);
            let name = survey.classes.get(index).map_or(String::new(), |name| short(name));
            sheet.names.push(((at.0, at.1 + SIDE as i32 + 18), name));
        }
        sheet
    }

    /// The first training samples of each class, class by class.
    pub fn of_samples(survey: &Survey, data: &Dataset, range: (f32, f32)) -> Self {
        let mut sheet = Self::new("The first training samples", range);
        let rows = survey.classes.len().min(MOST_DRAWN);
        let mut placed = vec![0; rows.max(SHEET)];
        for sample in 0..data.len(Part::Train) as u32 {
            let row = match data.class(Part::Train, sample) {
                Some(class) => class as usize,
                None => sample as usize / SHEET,
            };
            let Some(count) = placed.get_mut(row).filter(|count| **count < SHEET) else { continue };
            let at = (190 + 120 * *count as i32, 80 + 120 * row as i32);
            *count += 1;
            sheet.add(&values(data.raw(Part::Train, sample)), data.input(), at);
            if placed.iter().take(rows.max(1)).all(|count| *count == SHEET) && rows > 0 {
                break;
            }
        }
        let names = survey.classes.iter().take(rows).enumerate();
        sheet.names = names.map(|(row, name)| ((30, 80 + 120 * row as i32 + SIDE as i32 / 2), short(name))).collect();
        sheet
    }
}

/// An image with white as 1.
fn values(raw: Raw) -> Vec<f32> {
    let white = white(raw) as f32;
    match raw {
        Raw::Pixels(pixels) => pixels.iter().map(|&v| f32::from(v) / white).collect(),
        Raw::Floats(values) => values.to_vec(),
        Raw::Window(values) => values.iter().map(|&v| v as f32).collect(),
    }
}

/// What is drawn black and white: 0 and 1, and of floats the lowest and the highest where those lie outside.
pub(super) fn range(survey: &Survey, data: &Dataset) -> (f32, f32) {
    let channels = survey.train.images.iter().flat_map(|images| &images.channels);
    match data.raw(Part::Train, 0) {
        Raw::Floats(_) => {
            channels.fold((0.0, 1.0), |(low, high), of| (low.min(of.min as f32), high.max(of.max as f32)))
        }
        _ => (0.0, 1.0),
    }
}

impl Picture for Sheet {
    fn size(&self) -> (u32, u32) {
        (WIDTH as u32, self.height)
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        caption(area, &self.title, (30, 20), 26)?;
        self.names.iter().try_for_each(|(at, name)| write_at(area, name, *at, 17, INK, HPos::Left))
    }

    fn rasters(&self) -> &[Raster] {
        &self.rasters
    }
}

/// Correlations as coloured squares: blue together, red against each other.
pub(super) struct Heat<'s>(pub &'s Correlations);

impl Heat<'_> {
    fn side(&self) -> i32 {
        (1000 / self.0.names.len() as i32).clamp(14, 64)
    }
}

impl Picture for Heat<'_> {
    fn size(&self) -> (u32, u32) {
        (WIDTH as u32, 100 + (self.side() * self.0.names.len() as i32) as u32)
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        caption(area, "Correlations (blue: together, red: against each other)", (30, 20), 26)?;
        let side = self.side();
        for (row, (name, values)) in self.0.names.iter().zip(&self.0.rows).enumerate() {
            let y = 80 + side * row as i32;
            write_at(area, &short(name), (230, y + side / 2), side.min(18) - 2, INK, HPos::Right)?;
            for (column, value) in values.iter().enumerate() {
                let x = 244 + side * column as i32;
                let colour = if *value < 0.0 { RED } else { BLUE };
                let strength = if value.is_finite() { value.abs() } else { 0.0 };
                let square = [(x, y), (x + side - 2, y + side - 2)];
                area.draw(&Rectangle::new(square, GRID.filled()))?;
                area.draw(&Rectangle::new(square, colour.mix(strength).filled()))?;
                if side >= 44 && value.is_finite() {
                    let ink = if strength > 0.5 { WHITE } else { INK };
                    write_at(area, &format!("{value:.2}"), (x + side / 2 - 1, y + side / 2), 15, ink, HPos::Center)?;
                }
            }
        }
        Ok(())
    }
}

/// The values and returns of the first series, over time.
pub(super) struct Lines<'d>(pub &'d [Line]);

/// Height of one series' two panels.
const LINES: i32 = 300;

impl Lines<'_> {
    fn drawn(&self) -> &[Line] {
        &self.0[..self.0.len().min(6)]
    }
}

impl Picture for Lines<'_> {
    fn size(&self) -> (u32, u32) {
        (WIDTH as u32, 70 + (LINES * self.drawn().len() as i32) as u32)
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        let more = self.0.len() - self.drawn().len();
        let title = if more > 0 {
            format!("Values, and of prices the change from row to row, of the first of {} series", self.0.len())
        } else {
            "Values, and of prices the change from row to row".into()
        };
        caption(area, &title, (30, 20), 26)?;
        for (index, series) in self.drawn().iter().enumerate() {
            let top = 70 + LINES * index as i32;
            caption(area, &short(&series.name), (30, top), 20)?;
            let returns: Vec<f64> = returns(series).map(|(_, value)| 100.0 * value).collect();
            // What is no price has no returns, and all of the width.
            let panels: &[(i32, i32)] = if returns.is_empty() { &[(100, 1370)] } else { &[(100, 680), (790, 1370)] };
            let kinds = [(&series.values, ""), (&returns, " %")];
            for (&(left, right), (values, unit)) in panels.iter().zip(kinds) {
                curve(area, values, (left, right, top + 36, top + LINES - 50), unit)?;
                let [first, last] = [0, series.values.len() - 1].map(|row| series.time(row));
                write_at(area, &first, (left, top + LINES - 32), 15, PALE, HPos::Left)?;
                write_at(area, &last, (right, top + LINES - 32), 15, PALE, HPos::Right)?;
            }
        }
        Ok(())
    }
}

/// Values from left to right: of each column of pixels the lowest and the highest.
fn curve<B: DrawingBackend>(
    area: &Area<B>,
    values: &[f64],
    (left, right, top, bottom): (i32, i32, i32, i32),
    unit: &str,
) -> Drawn<B> {
    let (low, high) =
        values.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)));
    let y = |value: f64| {
        let share = (value - low) / (high - low);
        if share.is_finite() { bottom - (share * f64::from(bottom - top)).round() as i32 } else { (top + bottom) / 2 }
    };
    for value in [low, high] {
        line(area, vec![(left, y(value)), (right, y(value))], GRID, 1)?;
        write_at(area, &format!("{}{unit}", figure(value)), (left - 10, y(value)), 15, INK, HPos::Right)?;
    }
    let columns = (right - left) as usize;
    let mut points = Vec::new();
    for column in 0..columns {
        let of = column * values.len() / columns..((column + 1) * values.len()).div_ceil(columns).min(values.len());
        let piece = &values[of];
        let (Some(first), Some(last)) = (piece.first(), piece.last()) else { continue };
        let (low, high) =
            piece.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), &v| (low.min(v), high.max(v)));
        let x = left + column as i32;
        // In the order in which the line goes through them, nearly.
        let between = if first <= last { [low, high] } else { [high, low] };
        points.extend([*first, between[0], between[1], *last].map(|value| (x, y(value))));
        points.dedup();
    }
    line(area, points, BLUE, 1)
}
