//! `/input` of a checkpoint: what a prediction needs beside the weights, each part a data set of its own.

use super::hdf;
use crate::input::{Encoded, Input, Unit};
use crate::shape::Shape;
use hdf5::types::VarLenUnicode;
use hdf5::{File, Group};

/// Names and numbers of an input, in the order of files and checksums.
type Parts = ([(&'static str, Vec<String>); 6], [(&'static str, Vec<f64>); 9]);

fn parts(input: &Input) -> Parts {
    let shape = match input.shape {
        Shape::Image { c, h, w } => vec![c, h, w],
        Shape::Sequence { t, f } => vec![t, f],
        Shape::Vector { n } => vec![n],
    };
    let units = || input.units.iter();
    let series = || input.series.iter();
    // Of each encoded column its name, what fills it (NaN: nothing), and how many texts it has (-1: it is a number).
    let (mut names, mut texts, mut fills, mut counts) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for column in &input.encoding {
        let (name, fill, count) = match column {
            Encoded::Number { name, fill } => (name, fill.unwrap_or(f64::NAN), -1.0),
            Encoded::Category { name, texts, fill } => (name, if *fill { 0.0 } else { f64::NAN }, texts.len() as f64),
        };
        names.push(name.clone());
        fills.push(fill);
        counts.push(count);
        if let Encoded::Category { texts: of, .. } = column {
            texts.extend(of.iter().cloned());
        }
    }
    (
        [
            ("classes", input.classes.clone()),
            ("features", input.features.clone()),
            ("series", series().map(|(name, _)| name.clone()).collect()),
            ("targets", input.targets.clone()),
            ("encoded_columns", names),
            ("encoded_texts", texts),
        ],
        [
            ("encoded_fill", fills),
            ("encoded_count", counts),
            ("mean", input.mean.clone()),
            ("std", input.std.clone()),
            ("shape", shape.into_iter().map(|size| size as f64).collect()),
            ("target_scale", units().map(|unit| unit.scale).collect()),
            ("target_offset", units().map(|unit| unit.offset).collect()),
            ("series_scale", series().flat_map(|(_, units)| units).map(|unit| unit.scale).collect()),
            ("series_offset", series().flat_map(|(_, units)| units).map(|unit| unit.offset).collect()),
        ],
    )
}

/// Writes `/input`, and calls `visit` with all of it as bytes, for a checksum.
pub(super) fn write(file: &File, input: &Input, visit: impl FnMut(&[u8])) -> hdf5::Result<()> {
    let group = file.create_group("input")?;
    let (texts, numbers) = parts(input);
    for (name, texts) in texts {
        let texts = texts.iter().map(|text| hdf::text_value(text)).collect::<hdf5::Result<Vec<VarLenUnicode>>>()?;
        hdf::write_texts(&group.new_dataset::<VarLenUnicode>().shape(texts.len()).create(name)?, &texts)?;
    }
    for (name, numbers) in numbers {
        let builder = group.new_dataset_builder();
        match name {
            "shape" => builder.with_data(&numbers.iter().map(|&size| size as u64).collect::<Vec<_>>()).create(name)?,
            _ => builder.with_data(&numbers).create(name)?,
        };
    }
    digest(input, visit);
    Ok(())
}

/// All of an input as bytes: for each part its name and length, then its texts (length and bytes) or numbers (bits).
fn digest(input: &Input, mut visit: impl FnMut(&[u8])) {
    let (texts, numbers) = parts(input);
    for (name, texts) in texts {
        visit(name.as_bytes());
        visit(&(texts.len() as u64).to_le_bytes());
        for text in texts {
            // HDF5 keeps no NUL in text; the checksum is over what can be read back.
            let text = text.replace('\0', "\u{fffd}");
            visit(&(text.len() as u64).to_le_bytes());
            visit(text.as_bytes());
        }
    }
    for (name, numbers) in numbers {
        visit(name.as_bytes());
        visit(&(numbers.len() as u64).to_le_bytes());
        numbers.iter().for_each(|number| visit(&number.to_bits().to_le_bytes()));
    }
}

/// Reads `/input` back, and calls `visit` as [`write`] did.
pub(super) fn read(file: &File, visit: impl FnMut(&[u8])) -> hdf5::Result<Input> {
    let group = file.group("input")?;
    let numbers = |name: &str| hdf::read::<f64>(file, &group.dataset(name)?);
    let sizes: Vec<usize> = numbers("shape")?.into_iter().map(|size| size as usize).collect();
    let shape = match sizes[..] {
        [c, h, w] => Shape::Image { c, h, w },
        [t, f] => Shape::Sequence { t, f },
        [n] => Shape::Vector { n },
        _ => return Err("/input/shape is not of 1 to 3 sizes".into()),
    };
    let units = |scale: &str, offset: &str| -> hdf5::Result<Vec<Unit>> {
        let units = numbers(scale)?.into_iter().zip(numbers(offset)?);
        Ok(units.map(|(scale, offset)| Unit { scale, offset }).collect())
    };
    let mut known = texts(file, &group, "encoded_texts")?.into_iter();
    let columns = texts(file, &group, "encoded_columns")?.into_iter();
    let columns = columns.zip(numbers("encoded_fill")?).zip(numbers("encoded_count")?);
    let encoding = columns.map(|((name, fill), count)| match count {
        count if count < 0.0 => Encoded::Number { name, fill: Some(fill).filter(|fill| !fill.is_nan()) },
        count => Encoded::Category { name, texts: known.by_ref().take(count as usize).collect(), fill: !fill.is_nan() },
    });
    let (names, of_series) = (texts(file, &group, "series")?, units("series_scale", "series_offset")?);
    // As many columns of each.
    let columns = of_series.chunks_exact((of_series.len() / names.len().max(1)).max(1)).map(<[Unit]>::to_vec);
    let input = Input {
        encoding: encoding.collect(),
        shape,
        mean: numbers("mean")?,
        std: numbers("std")?,
        features: texts(file, &group, "features")?,
        classes: texts(file, &group, "classes")?,
        targets: texts(file, &group, "targets")?,
        units: units("target_scale", "target_offset")?,
        series: names.into_iter().zip(columns).collect(),
    };
    digest(&input, visit);
    Ok(input)
}

fn texts(file: &File, group: &Group, name: &str) -> hdf5::Result<Vec<String>> {
    Ok(hdf::read::<VarLenUnicode>(file, &group.dataset(name)?)?.iter().map(hdf::utf8).collect())
}
