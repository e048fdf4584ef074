//! Curves in panels, several to a picture.

use super::{
    Area, BLUE, Drawn, GREEN, GRID, INK, OLIVE, ORANGE, PALE, PURPLE, Picture, SKY, VERMILION, caption, font, line,
    write_at,
};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

/// Colours of curves, in the order in which they are given out (after Okabe and Ito).
pub const COLOURS: [RGBColor; 7] = [BLUE, ORANGE, GREEN, VERMILION, PURPLE, SKY, OLIVE];

/// How points become marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// A line through them.
    Line,
    /// A dashed line.
    Dashes,
    /// A dot each.
    Dots,
}

/// One curve.
#[derive(Debug, Clone)]
pub struct Curve {
    /// For the legend; none without a name.
    pub name: String,
    /// Its colour.
    pub colour: RGBColor,
    /// Its marks.
    pub mark: Mark,
    /// Ascending in x; those that are not finite are left out.
    pub points: Vec<(f64, f64)>,
}

/// A plot of its own axes.
#[derive(Debug, Clone, Default)]
pub struct Panel {
    /// Above it.
    pub title: String,
    /// Below it.
    pub x: String,
    /// Whether heights are logarithms, if all are above zero.
    pub log: bool,
    /// What places on the x axis are called, if not by their number: 0, 1, ....
    pub labels: Vec<String>,
    /// The curves.
    pub curves: Vec<Curve>,
}

/// Panels side by side and in rows.
pub struct Panels {
    /// Above all.
    pub title: String,
    /// How many to a row.
    pub columns: usize,
    /// The panels.
    pub panels: Vec<Panel>,
}

/// More points than a screen has pixels are drawn as means of neighbours.
const MOST_POINTS: usize = 700;
const WIDTH: i32 = 1400;
const HEIGHT: i32 = 360;
const HEAD: i32 = 70;

impl Picture for Panels {
    fn size(&self) -> (u32, u32) {
        (WIDTH as u32, (HEAD + HEIGHT * self.panels.len().div_ceil(self.columns) as i32) as u32)
    }

    fn draw<B: DrawingBackend>(&self, area: &Area<B>) -> Drawn<B> {
        caption(area, &self.title, (30, 20), 26)?;
        let width = WIDTH / self.columns as i32;
        for (index, panel) in self.panels.iter().enumerate() {
            let (column, row) = ((index % self.columns) as i32, (index / self.columns) as i32);
            let (left, top) = (column * width, HEAD + row * HEIGHT);
            let inner = area.clone().shrink((left, top), (width as u32, HEIGHT as u32));
            panel.draw(&inner, width)?;
        }
        Ok(())
    }
}

impl Panel {
    fn draw<B: DrawingBackend>(&self, area: &Area<B>, width: i32) -> Drawn<B> {
        caption(area, &self.title, (30, 4), 19)?;
        self.legend(area, width)?;
        let all = || self.curves.iter().flat_map(|curve| &curve.points).filter(|(x, y)| x.is_finite() && y.is_finite());
        let (least, most) = all().fold((f64::INFINITY, 0.0f64), |(a, b), p| (a.min(p.1), b.max(p.1)));
        // Over a short way a logarithm has no round numbers to name.
        let log = self.log && least > 0.0 && most > 3.0 * least;
        let height = |y: f64| if log { y.log10() } else { y };
        let range = |values: &mut dyn Iterator<Item = f64>| {
            values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)))
        };
        let ((x0, x1), (y0, y1)) = (range(&mut all().map(|p| p.0)), range(&mut all().map(|p| height(p.1))));
        if !x0.is_finite() {
            return write_at(area, "nothing to show", (width / 2, HEIGHT / 2), 17, PALE, HPos::Center);
        }
        let padded = |low: f64, high: f64, share: f64| {
            let room = match (high > low, high == 0.0) {
                (true, _) => (high - low) * share,
                (_, true) => 1.0,
                _ => 0.1 * high.abs(),
            };
            (low - room, high + room)
        };
        let ((x0, x1), (y0, y1)) = (padded(x0, x1, 0.0), padded(y0, y1, 0.06));
        let plot = area.clone().shrink((24, 56), (width as u32 - 48, HEIGHT as u32 - 66));
        let mut chart = ChartBuilder::on(&plot)
            .margin_right(30)
            .set_label_area_size(LabelAreaPosition::Left, 66)
            .set_label_area_size(LabelAreaPosition::Bottom, 46)
            .build_cartesian_2d(x0..x1, y0..y1)?;
        let whole = |x: f64| x.fract() == 0.0;
        let x_text = |x: &f64| match self.labels.get(x.round().max(0.0) as usize) {
            Some(label) => label.clone(),
            // There is no epoch or step between two.
            None if !self.labels.is_empty() || (self.x_is_counted() && !whole(*x)) => String::new(),
            None => figure(*x),
        };
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .axis_style(PALE)
            .x_labels(if self.labels.is_empty() { 6 } else { 4 })
            .y_labels(if log { 0 } else { 6 })
            .x_label_formatter(&x_text)
            .y_label_formatter(&|y| figure(*y))
            .label_style(font(15).color(&PALE))
            .x_desc(self.x.clone())
            .axis_desc_style(font(15).color(&PALE))
            .draw()?;
        for tick in if log { ticks(10f64.powf(y0), 10f64.powf(y1)) } else { Vec::new() } {
            let (left, at) = chart.backend_coord(&(x0, tick.log10()));
            let right = chart.backend_coord(&(x1, tick.log10())).0;
            let (dx, dy) = plot.get_base_pixel();
            line(&plot, vec![(left - dx, at - dy), (right - dx, at - dy)], GRID, 1)?;
            write_at(&plot, &figure(tick), (left - dx - 10, at - dy), 15, PALE, HPos::Right)?;
        }
        for curve in &self.curves {
            let points: Vec<(f64, f64)> = thinned(&curve.points, curve.mark).map(|(x, y)| (x, height(y))).collect();
            match curve.mark {
                Mark::Line if points.len() == 1 => {
                    chart.draw_series(points.iter().map(|&at| Circle::new(at, 4, curve.colour.filled())))?;
                }
                Mark::Line => {
                    chart.draw_series(LineSeries::new(points, curve.colour.stroke_width(2)))?;
                }
                Mark::Dashes => {
                    chart.draw_series(DashedLineSeries::new(points, 6, 5, curve.colour.stroke_width(2)))?;
                }
                Mark::Dots => {
                    chart.draw_series(points.iter().map(|&at| Circle::new(at, 2, curve.colour.filled())))?;
                }
            }
        }
        Ok(())
    }

    fn x_is_counted(&self) -> bool {
        ["epoch", "step"].contains(&self.x.as_str())
    }

    fn legend<B: DrawingBackend>(&self, area: &Area<B>, width: i32) -> Drawn<B> {
        let mut x = 30;
        for curve in self.curves.iter().filter(|curve| !curve.name.is_empty()) {
            let wide = 38 + 8 * curve.name.chars().count() as i32;
            if x + wide > width - 20 {
                return write_at(area, "...", (x, 42), 15, PALE, HPos::Left);
            }
            match curve.mark {
                Mark::Line => line(area, vec![(x, 42), (x + 18, 42)], curve.colour, 3)?,
                Mark::Dashes => {
                    line(area, vec![(x, 42), (x + 7, 42)], curve.colour, 3)?;
                    line(area, vec![(x + 11, 42), (x + 18, 42)], curve.colour, 3)?;
                }
                Mark::Dots => area.draw(&Circle::new((x + 9, 42), 4, curve.colour.filled()))?,
            }
            write_at(area, &curve.name, (x + 24, 42), 15, INK, HPos::Left)?;
            x += wide;
        }
        Ok(())
    }
}

/// Round numbers between two, some of which a logarithmic axis names: 1, 2 and 5 of each power of ten, or fewer.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let powers = || (low.log10().floor() as i32..=high.log10().ceil() as i32).map(|power| 10f64.powi(power));
    let within = |factors: &[f64], every: usize| -> Vec<f64> {
        let all = powers().step_by(every).flat_map(|power| factors.iter().map(move |factor| factor * power));
        all.filter(|tick| (low..=high).contains(tick)).collect()
    };
    let tried = [within(&[1.0, 2.0, 5.0], 1), within(&[1.0, 3.0], 1), within(&[1.0], 1), within(&[1.0], 2)];
    let fine = tried.iter().find(|ticks| ticks.len() <= 7).cloned();
    fine.unwrap_or_else(|| within(&[1.0], 4))
}

/// The finite points; of lines with too many, the means of neighbours.
fn thinned(points: &[(f64, f64)], mark: Mark) -> impl Iterator<Item = (f64, f64)> + '_ {
    let step = if mark == Mark::Dots { 1 } else { points.len().div_ceil(MOST_POINTS).max(1) };
    points.chunks(step).filter_map(|some| {
        let (mut sum, mut count) = ((0.0, 0.0), 0.0);
        for (x, y) in some.iter().filter(|(x, y)| x.is_finite() && y.is_finite()) {
            (sum, count) = ((sum.0 + x, sum.1 + y), count + 1.0);
        }
        (count > 0.0).then(|| (sum.0 / count, sum.1 / count))
    })
}

/// A number in few letters: `0.0125`, `1,250`, `3.2e6`.
pub fn figure(value: f64) -> String {
    let size = value.abs();
    match size {
        _ if value == 0.0 => "0".into(),
        1e6.. | ..1e-3 => {
            let text = format!("{value:.2e}");
            let (digits, power) = text.split_once('e').unwrap_or((&text, "0"));
            format!("{}e{power}", digits.trim_end_matches('0').trim_end_matches('.'))
        }
        1000.0.. => {
            let text = format!("{size:.0}");
            let sign = if value < 0.0 { "-" } else { "" };
            format!("{sign}{},{}", &text[..text.len() - 3], &text[text.len() - 3..])
        }
        100.0.. => format!("{value:.0}"),
        _ => {
            let digits = if size >= 10.0 { 1 } else { 2 + (-size.log10()).ceil().max(0.0) as usize };
            let text = format!("{value:.digits$}");
            text.trim_end_matches('0').trim_end_matches('.').to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_short() {
        let texts = [0.0, 0.5, -0.0125, 1.0, 12.34, 250.4, 1250.0, -98765.4, 3.2e6, 2e-5].map(figure);
        assert_eq!(texts, ["0", "0.5", "-0.0125", "1", "12.3", "250", "1,250", "-98,765", "3.2e6", "2e-5"]);
    }

    #[test]
    fn ticks_of_logarithms_are_round() {
        assert_eq!(ticks(0.03, 0.4), [0.05, 0.1, 0.2]);
        assert_eq!(
            ticks(1e-3, 0.5).iter().map(|&tick| figure(tick)).collect::<Vec<_>>().join(" "),
            "0.001 0.003 0.01 0.03 0.1 0.3"
        );
        assert!(ticks(1e-30, 1.0).len() <= 9);
    }

    #[test]
    fn many_points_become_means_and_holes_are_left_out() {
        let points: Vec<(f64, f64)> = (0..1400).map(|i| (f64::from(i), if i % 2 == 0 { 1.0 } else { 3.0 })).collect();
        let found: Vec<_> = thinned(&points, Mark::Line).collect();
        assert_eq!((found.len(), found[0]), (700, (0.5, 2.0)));
        assert_eq!(thinned(&[(0.0, f64::NAN), (1.0, 2.0)], Mark::Line).collect::<Vec<_>>(), [(1.0, 2.0)]);
        assert_eq!(thinned(&points, Mark::Dots).count(), 1400);
    }
}
