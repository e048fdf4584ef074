//! The study as JSON and CSV.

use super::Study;
use super::summary::Mean;
use crate::error::{Error, Result};
use crate::store;
use std::path::Path;

/// Writes `scale.json` and `scale.csv` into `folder`.
///
/// # Errors
/// `Io` when the folder cannot be written to.
pub fn write(study: &Study, folder: &Path) -> Result<()> {
    let json = serde_json::to_vec_pretty(study).map_err(|e| Error::internal("scale.json", e))?;
    store::write_file(&folder.join("scale.json"), &json)?;
    store::write_file(&folder.join("scale.csv"), csv(study)?.as_bytes())
}

/// A row for each number of ranks; what does not apply is empty.
fn csv(study: &Study) -> Result<String> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let failed = |e: csv::Error| Error::internal("scale.csv", e);
    for (index, row) in study.rows.iter().enumerate() {
        let mut columns: Vec<(String, String)> = Vec::new();
        let mut add = |name: &str, value: String| columns.push((name.to_owned(), value));
        add("mode", study.mode.to_string());
        add("ranks", row.ranks.to_string());
        add("hosts", row.hosts.to_string());
        add("repeats", row.repeats.to_string());
        add("oversubscribed", row.oversubscribed.to_string());
        add("samples", row.samples.round().to_string());
        add("steps", row.steps.to_string());
        let means = [
            ("seconds", Some(row.seconds)),
            ("total_seconds", Some(row.total_seconds)),
            ("samples_per_second", Some(row.samples_per_second)),
            ("ratio", Some(row.ratio)),
            ("speedup", row.speedup),
            ("efficiency", row.efficiency),
        ];
        let figures = row.figures.iter().map(|(name, mean)| (name.as_str(), Some(*mean)));
        for (name, mean) in means.into_iter().chain(figures) {
            add(name, number(mean.map(|mean: Mean| mean.mean)));
            add(&format!("{name}_deviation"), number(mean.and_then(|mean| mean.deviation)));
        }
        add("serial_fraction", number(row.serial_fraction));
        for (name, value) in row.split.columns() {
            add(&if name == "imbalance" { name.to_owned() } else { format!("{name}_seconds") }, number(Some(value)));
        }
        if index == 0 {
            writer.write_record(columns.iter().map(|(name, _)| name)).map_err(failed)?;
        }
        writer.write_record(columns.iter().map(|(_, value)| value)).map_err(failed)?;
    }
    let bytes = writer.into_inner().map_err(|e| Error::internal("scale.csv", e))?;
    String::from_utf8(bytes).map_err(|e| Error::internal("scale.csv", e))
}

fn number(value: Option<f64>) -> String {
    value.filter(|value| value.is_finite()).map(|value| value.to_string()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scale::tests::study;

    #[test]
    fn every_row_has_every_column_and_shared_cores_no_speedup() {
        let text = csv(&study()).unwrap();
        let mut reader = csv::Reader::from_reader(text.as_bytes());
        let header = reader.headers().unwrap().clone();
        let rows: Vec<csv::StringRecord> = reader.records().collect::<std::result::Result<_, _>>().unwrap();
        let column = |name: &str| header.iter().position(|n| n == name).unwrap_or_else(|| panic!("no {name}"));
        let cells = |name: &str| rows.iter().map(|row| row[column(name)].to_owned()).collect::<Vec<_>>();
        assert_eq!(cells("ranks"), ["1", "2", "4"]);
        assert_eq!(cells("oversubscribed"), ["false", "false", "true"]);
        assert_eq!(cells("speedup")[2], "");
        assert!(!cells("ratio")[2].is_empty() && !cells("speedup")[1].is_empty());
        assert!(header.iter().any(|name| name == "test_accuracy_deviation"));
    }

    #[test]
    fn json_says_null_where_there_is_no_speedup() {
        let json: serde_json::Value = serde_json::to_value(study()).unwrap();
        assert!(json["rows"][2]["speedup"].is_null() && json["rows"][2]["oversubscribed"] == true);
        assert!(json["rows"][1]["speedup"]["mean"].as_f64().unwrap() > 1.0);
        assert_eq!(json["mode"], "strong");
        assert!(json["rows"][0]["figures"]["test_accuracy"]["mean"].is_f64());
    }
}
