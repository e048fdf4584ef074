//! What a file holds, as text: runs, checkpoints, safetensors, and any other HDF5 file.

use super::seal::{Kind, kind_of};
use super::{RunSummary, Tensor, checkpoint, hdf, probe, read_run, safetensors, shape_text};
use crate::error::{Error, Result};
use comfy_table::{CellAlignment, Table, presets};
use hdf5::{Group, LinkType, LocationType};
use std::fmt::Write;
use std::path::Path;

/// Longer attribute texts are cut.
const TEXT_CHARS: usize = 60;
/// A tree deeper than this is cut: links may form circles.
const DEPTH: usize = 16;
/// So is one with more members.
const MEMBERS: usize = 2000;

/// Describes a run file, a checkpoint, a safetensors file or any HDF5 file.
///
/// # Errors
/// `Io` if it cannot be read, `Data` if it is damaged, `Usage` if it is of no known kind.
pub fn describe(path: &Path) -> Result<String> {
    let (kind, start) = kind_of(path)?;
    match kind {
        Some(Kind::Checkpoint) => return describe_checkpoint(path),
        Some(Kind::Run) => return Ok(describe_run(path, &read_run(path)?)),
        None => {}
    }
    match path.extension().and_then(|e| e.to_str()).unwrap_or_default() {
        "safetensors" => {
            let tensors = safetensors::read(path)?;
            Ok(format!("safetensors file {}\n\n{}", path.display(), tensor_table(&tensors)))
        }
        "h5" | "hdf5" => describe_hdf5(path),
        _ if start.starts_with(b"\x89HDF\r\n\x1a\n") => describe_hdf5(path),
        _ => {
            let what = "neither HDF5 nor safetensors";
            let mend = "known are run.h5, checkpoints, any .h5 file and .safetensors";
            Err(Error::usage(path.display().to_string(), what, mend))
        }
    }
}

fn describe_checkpoint(path: &Path) -> Result<String> {
    let found = checkpoint::read(path)?;
    let slots: Vec<&str> = found.optimizer.iter().map(|(name, _)| name.as_str()).collect();
    let mut table = plain();
    for (name, value) in [
        ("step", found.step.to_string()),
        ("epoch", format!("{} done, and {} samples of the next", found.epoch, found.sample)),
        ("seed", found.seed.to_string()),
        ("ranks", found.ranks.to_string()),
        ("optimizer", if slots.is_empty() { "no slots".into() } else { slots.join(", ") }),
    ] {
        table.add_row([name.to_string(), value]);
    }
    let model = tensor_table(&found.model);
    Ok(format!("checkpoint {}: whole\n\n{table}\n\n{model}\njob\n\n{}\n", path.display(), found.config.trim_end()))
}

fn describe_hdf5(path: &Path) -> Result<String> {
    probe::survives(path)?;
    tree_text(path)
}

/// All groups, data sets and attributes of any HDF5 file.
pub(super) fn tree_text(path: &Path) -> Result<String> {
    let file = hdf::open(path)?;
    let mut text = format!("HDF5 file {}\n\n", path.display());
    let mut members = 0;
    tree(&file, 0, &mut members, &mut text)
        .map_err(|e| hdf::damaged(path, &format!("cannot read: {}", hdf::cause(&e))))?;
    Ok(text)
}

fn describe_run(path: &Path, run: &RunSummary) -> String {
    let mut text = format!("run {}\n", path.display());
    for (title, rows) in [("", &run.attributes), ("environment", &run.environment)] {
        if !rows.is_empty() {
            let mut table = plain();
            for (name, value) in rows {
                table.add_row([name.clone(), shorten(value)]);
            }
            let _ = write!(text, "{title}\n{table}\n");
        }
    }
    let figures =
        run.baselines.iter().flat_map(|(b, figures)| figures.iter().map(move |f| (format!("baseline {b}"), f)));
    let result = run.result.iter().map(|f| ("result".to_string(), f));
    let mut table = plain();
    for (of, (name, value)) in result.chain(figures) {
        table.add_row([of, name.clone(), number(*value)]);
    }
    if !table.is_empty() {
        let _ = write!(text, "\n{table}\n");
    }
    let rows = run.epochs.iter().map(|(_, values)| values.len()).max().unwrap_or(0);
    if rows > 0 {
        let mut table = numeric();
        table.set_header(run.epochs.iter().map(|(name, _)| name));
        for row in 0..rows {
            table.add_row(run.epochs.iter().map(|(_, values)| values.get(row).map_or(String::new(), |&v| number(v))));
        }
        align(&mut table, 0);
        let _ = write!(text, "\n{table}\n");
    }
    if let Some((_, last)) = run.steps.first() {
        let _ = write!(text, "\n{} rows of steps\n", last.len());
    }
    let mut table = numeric();
    table.set_header(["seconds of a rank", "mean", "minimum", "maximum"]);
    for (phase, epochs) in &run.timing {
        let values: Vec<f64> = epochs.iter().flatten().copied().filter(|v| !v.is_nan()).collect();
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let (low, high) =
            (values.iter().copied().fold(f64::NAN, f64::min), values.iter().copied().fold(f64::NAN, f64::max));
        table.add_row([phase.clone(), number(mean), number(low), number(high)]);
    }
    if !run.timing.is_empty() {
        align(&mut table, 1);
        let _ = write!(text, "\n{table}\n");
    }
    let _ = write!(text, "\njob\n\n{}\n", run.config.trim_end());
    text
}

/// Key, shape, elements and range of each tensor.
fn tensor_table(tensors: &[Tensor]) -> String {
    let mut table = numeric();
    table.set_header(["tensor", "shape", "elements", "minimum", "maximum", "not finite"]);
    for tensor in tensors {
        let finite = || tensor.data.iter().copied().filter(|v| v.is_finite());
        let (low, high) = (finite().fold(f32::NAN, f32::min), finite().fold(f32::NAN, f32::max));
        let broken = tensor.data.len() - finite().count();
        table.add_row([
            tensor.key.clone(),
            shape_text(&tensor.shape),
            tensor.data.len().to_string(),
            number(f64::from(low)),
            number(f64::from(high)),
            if broken == 0 { String::new() } else { broken.to_string() },
        ]);
    }
    align(&mut table, 2);
    let elements: usize = tensors.iter().map(|t| t.data.len()).sum();
    format!("{table}\n\n{} tensors, {elements} elements\n", tensors.len())
}

/// One line a group, data set or attribute, indented by depth.
fn tree(group: &Group, depth: usize, members: &mut usize, text: &mut String) -> hdf5::Result<()> {
    let indent = "  ".repeat(depth);
    for (name, value) in hdf::attributes(group)? {
        let _ = writeln!(text, "{indent}@{name} = {}", shorten(&value));
    }
    for (name, link) in hdf::links(group)? {
        *members += 1;
        if *members > MEMBERS || depth >= DEPTH {
            let _ = writeln!(text, "{indent}...");
            return Ok(());
        }
        if link == LinkType::External {
            let _ = writeln!(text, "{indent}{name}  (a link to another file, not followed)");
            continue;
        }
        // A link to nowhere has no type.
        match group.loc_type_by_name(&name) {
            Ok(LocationType::Group) => {
                let _ = writeln!(text, "{indent}{name}/");
                tree(&group.group(&name)?, depth + 1, members, text)?;
            }
            Ok(LocationType::Dataset) => {
                let dataset = group.dataset(&name)?;
                if let Some(file) = hdf::elsewhere(&dataset)? {
                    let _ = writeln!(text, "{indent}{name}  (its elements are in the file {})", shorten(&file));
                    continue;
                }
                let kind = dataset.dtype()?.to_descriptor().map_or("(unknown type)".into(), |kind| kind.to_string());
                let _ = writeln!(text, "{indent}{name}  {kind} {}", shape_text(&dataset.get_shape()?));
                for (name, value) in hdf::attributes(&dataset)? {
                    let _ = writeln!(text, "{indent}  @{name} = {}", shorten(&value));
                }
            }
            Ok(_) => drop(writeln!(text, "{indent}{name}  (a named type)")),
            Err(_) => drop(writeln!(text, "{indent}{name}  (a link to nowhere)")),
        }
    }
    Ok(())
}

/// Enough digits to tell values apart, and no more; nothing for NaN, which stands for absent.
fn number(value: f64) -> String {
    match value {
        v if v.is_nan() => String::new(),
        v if v == v.trunc() && v.abs() < 1e15 => format!("{v}"),
        v if v.abs() >= 1e-3 && v.abs() < 1e7 => format!("{v:.4}"),
        v => format!("{v:.3e}"),
    }
}

/// The first line, cut to [`TEXT_CHARS`].
fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    let cut: String = line.chars().take(TEXT_CHARS).collect();
    if cut.len() < text.trim_end().len() { format!("{cut}...") } else { cut }
}

/// A table of names and values.
fn plain() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table
}

/// A table with a ruled header.
fn numeric() -> Table {
    let mut table = Table::new();
    table.load_preset("     --            ");
    table
}

/// Aligns the columns from `first` on to the right.
fn align(table: &mut Table, first: usize) {
    table.column_iter_mut().skip(first).for_each(|column| column.set_cell_alignment(CellAlignment::Right));
}
