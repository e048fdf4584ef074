//! CSV files as a table, the type of each column inferred from all its fields: a first reading tells the types, a second
//! takes the values, so that no text is kept of what are numbers.

use super::{Cells, Column, Table, Texts, reserve};
use crate::data::delimited::Rows;
use crate::data::transform::infer::Kind;
use crate::error::Result;
use std::path::Path;

/// The columns `names` of a file (none: all), with the type of each. `known` are the types that the training part has.
pub fn read(path: &Path, delimiter: u8, names: &[String], known: Option<&[Kind]>) -> Result<(Table, Vec<Kind>)> {
    let mut rows = Rows::open(path, delimiter)?;
    let columns: Vec<usize> = if names.is_empty() {
        (0..rows.header().len()).collect()
    } else {
        names.iter().map(|name| rows.require(name)).collect::<Result<_>>()?
    };
    let kinds = match known {
        Some(kinds) => kinds.to_vec(),
        None => {
            let mut kinds = vec![Kind::Empty; columns.len()];
            while rows.next()? {
                for (&column, kind) in columns.iter().zip(&mut kinds) {
                    // What is a category stays one.
                    if *kind != Kind::Category {
                        *kind = kind.join(Kind::of(rows.text(column)?));
                    }
                }
            }
            rows = Rows::open(path, delimiter)?;
            kinds
        }
    };
    let cells = |kind: &Kind| match kind {
        Kind::Category => Cells::Texts(Texts::default()),
        _ => Cells::Numbers(Vec::new()),
    };
    let name = |&column: &usize| rows.header()[column].clone();
    let columns_of = |(column, kind): (&usize, &Kind)| Column { name: name(column), cells: cells(kind) };
    let mut table = Table { columns: columns.iter().zip(&kinds).map(columns_of).collect(), rows: 0 };
    while rows.next()? {
        for ((&column, kind), to) in columns.iter().zip(&kinds).zip(&mut table.columns) {
            let text = rows.text(column)?;
            match &mut to.cells {
                Cells::Texts(texts) => texts.push(Some(text).filter(|text| !text.is_empty()), path)?,
                Cells::Numbers(values) => {
                    let value = kind.value(text);
                    if value.is_nan() && !text.is_empty() {
                        let what = format!("\"{text}\" in a column of {}", kind.name());
                        return Err(rows.error(column, what, "correct the field or leave it empty"));
                    }
                    reserve(values, 1, path)?;
                    values.push(value);
                }
                Cells::Arrays(_) => {}
            }
        }
        table.rows += 1;
    }
    Ok((table, kinds))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::transform::encode::{Encoder, Filling, Missing};

    #[test]
    fn columns_have_the_types_of_their_fields() -> Result<()> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.csv");
        let text = "\u{feff}day,color,x,none\r\n1970-01-03,red,1.5,\r\n,\"blue, dark\",,\r\n1970-01-01,red,-2,\r\n";
        std::fs::write(&path, text).unwrap();
        let (table, kinds) = read(&path, b',', &[], None)?;
        assert_eq!(kinds, [Kind::Date, Kind::Category, Kind::Number, Kind::Empty]);
        let Cells::Numbers(days) = &table.columns[0].cells else { panic!() };
        assert!(days[0] == 2.0 && days[1].is_nan() && table.rows == 3);
        let names = ["x".to_owned(), "color".to_owned()];
        let encoder = Encoder::fit(&table, &names, Missing::Named(Filling::Mean), &path)?;
        assert_eq!(encoder.names(), ["x", "color=blue, dark", "color=red"]);
        assert_eq!(encoder.encode(&table, &path)?.values, [1.5, 0.0, 1.0, -0.25, 1.0, 0.0, -2.0, 0.0, 1.0]);
        // A second file has the types of the first.
        std::fs::write(&path, "x,color\nred,red\n").unwrap();
        let error = read(&path, b',', &names, Some(&[Kind::Number, Kind::Category])).unwrap_err();
        assert!(
            error.exit_code() == 65 && error.to_string().contains("t.csv:2, column x: \"red\" in a column of numbers")
        );
        Ok(())
    }
}
