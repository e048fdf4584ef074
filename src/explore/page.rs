//! A survey as pictures in a folder, and as one page that holds them all.

use super::picture::{Classes, Heat, Histograms, Lines, MOST_DRAWN, Sheet, range};
use super::series::lines;
use super::{Survey, image, text};
use crate::chart::{self, escaped, inline};
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

fn page(survey: &Survey, svgs: &[String]) -> String {
    let svgs: Vec<&str> = svgs.iter().map(|svg| inline(svg)).collect();
    let title = survey.path.as_ref().unwrap_or(&survey.source);
    chart::page(title, &format!("{}\n<pre>{}</pre>", svgs.join("\n"), escaped(&text(survey))))
}
