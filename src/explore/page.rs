//! A survey as pictures in a folder, and as one page that holds them all.

use super::picture::{Classes, Heat, Histograms, Lines, MOST_DRAWN, Sheet, range};
use super::series::lines;
use super::{Survey, image, text};
use crate::chart;
use crate::comm::{Comm, on_root};
use crate::data::{Dataset, Task};
use crate::error::Result;
use crate::shape::Shape;
use crate::store::write_file;
use std::path::Path;

const NAME: &str = "explore.html";

/// Writes pictures as PNG and SVG, and `explore.html`, into `folder`. `survey` is rank 0's. Collective.
///
/// # Errors
/// `Io` when the folder cannot be written to; on every rank.
pub fn write(survey: Option<&Survey>, data: &Dataset, folder: &Path, comm: &dyn Comm) -> Result<()> {
    let is_image = matches!(data.input(), Shape::Image { .. });
    let classes = match data.task() {
        Task::Classes(names) => names.len().min(MOST_DRAWN),
        Task::Values(_) => 1,
    };
    let means = if is_image { image::means(data, classes, comm)? } else { Vec::new() };
    on_root(comm, || {
        let Some(survey) = survey else { return Ok(()) };
        let mut svgs = Vec::new();
        if !survey.classes.is_empty() {
            svgs.push(chart::write(&Classes(survey), folder, "classes")?);
        }
        if is_image {
            let range = range(survey, data);
            svgs.push(chart::write(&Sheet::of_means(survey, &means, data.input(), range), folder, "means")?);
            svgs.push(chart::write(&Sheet::of_samples(survey, data, range), folder, "samples")?);
        }
        if data.is_series() {
            svgs.push(chart::write(&Lines(&lines(data)), folder, "series")?);
        }
        if let Some(histograms) = Histograms::of(survey) {
            svgs.push(chart::write(&histograms, folder, "histograms")?);
        }
        if let Some(correlations) = &survey.correlations {
            svgs.push(chart::write(&Heat(correlations), folder, "correlations")?);
        }
        write_file(&folder.join(NAME), page(survey, &svgs).as_bytes())
    })
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// Colours of the pictures are replaced where the reader's system is dark.
const STYLE: &str = "
:root { color-scheme: light dark; --paper: #ffffff; --ink: #222831; --pale: #78808a; --grid: #e4e7eb; --blue: #005faf }
@media (prefers-color-scheme: dark) {
  :root { --paper: #16191d; --ink: #e6e9ed; --pale: #9aa2ac; --grid: #333941; --blue: #5aa9e6 }
}
body { background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; max-width: 1400px; margin: 2rem auto; padding: 0 1rem }
pre { overflow-x: auto; font-size: 13px; line-height: 1.35 }
svg { display: block; max-width: 100%; height: auto; margin: 1.5rem 0 }
svg [fill=\"#FFFFFF\"] { fill: var(--paper) }
svg [fill=\"#222831\"] { fill: var(--ink) }
svg [fill=\"#78808A\"] { fill: var(--pale) }
svg [fill=\"#E4E7EB\"] { fill: var(--grid) }
svg [fill=\"#005FAF\"] { fill: var(--blue) }
svg [stroke=\"#78808A\"] { stroke: var(--pale) }
svg [stroke=\"#E4E7EB\"] { stroke: var(--grid) }
svg [stroke=\"#005FAF\"] { stroke: var(--blue) }
";

fn page(survey: &Survey, svgs: &[String]) -> String {
    // Only what stands in the page: a declaration may not.
    let svgs: Vec<&str> = svgs.iter().map(|svg| svg.find("<svg").map_or("", |start| &svg[start..])).collect();
    let title = escaped(survey.path.as_ref().unwrap_or(&survey.source));
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width\">\n<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<h1>{title}</h1>\n{}\n\
         <pre>{}</pre>\n</body>\n</html>\n",
        svgs.join("\n"),
        escaped(&text(survey))
    )
}
