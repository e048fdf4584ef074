//! Windows over any table: several columns in and out, groups, times and horizons, against a computation of its own here; the
//! same windows from every format; a network trained on them, and what it predicts by itself.

#[path = "support/data_files.rs"]
mod data_files;
mod support;

use data_files::{config, failure, fill};
use ddl::config::DataConfig;
use ddl::data::{Dataset, Part, Targets};
use ddl::error::Result;
use ddl::shape::Shape;
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int64Type};
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use support::training::train;
use support::{ddl, ddl_ok};
use tempfile::TempDir;

const COLUMNS: [&str; 3] = ["temp", "wind", "load"];

/// What a station measured in an hour. All values are whole quarters, which every format can say.
#[derive(Clone, Copy)]
struct Row {
    station: &'static str,
    hour: usize,
    values: [f64; 3],
}

/// The rows of a station in order.
fn station(station: &'static str, hours: usize) -> Vec<Row> {
    let far = if station == "south" { 40.0 } else { 0.0 };
    let of = |hour: usize| {
        let temp = far + ((hour * 7) % 11) as f64 * 0.5;
        let wind = ((hour * 5) % 13) as f64 * 0.25 - 1.0;
        [temp, wind, 100.0 + 3.0 * temp + ((hour * hour) % 17) as f64]
    };
    (0..hours).map(|hour| Row { station, hour, values: of(hour) }).collect()
}

fn stations() -> [Vec<Row>; 2] {
    [station("north", 40), station("south", 31)]
}

/// The rows of both stations in no order.
fn mixed() -> Vec<Row> {
    let all = stations().concat();
    (0..all.len()).map(|i| all[(i * 29 + 3) % all.len()]).collect()
}

fn time(hour: usize) -> String {
    format!("2024-03-{:02} {:02}:00", 1 + hour / 24, hour % 24)
}

fn csv_text(rows: &[Row]) -> String {
    let line = |row: &Row| {
        let [temp, wind, load] = row.values;
        format!("{load},{},{},{wind},fair,{temp}\n", row.station, time(row.hour))
    };
    "load,station,when,wind,sky,temp\n".to_owned() + &rows.iter().map(line).collect::<String>()
}

fn write(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn parquet(path: &Path, rows: &[Row]) {
    let schema = "message rows { required double temp; required double wind; required double load; required binary \
                  station (UTF8); required int64 when (TIMESTAMP(MILLIS,true)); }";
    let schema = Arc::new(parse_message_type(schema).unwrap());
    let mut writer = SerializedFileWriter::new(File::create(path).unwrap(), schema, Default::default()).unwrap();
    // In row groups of unequal length.
    for rows in rows.chunks(30) {
        let mut group = writer.next_row_group().unwrap();
        for column in 0..3 {
            let values: Vec<f64> = rows.iter().map(|row| row.values[column]).collect();
            let mut column = group.next_column().unwrap().unwrap();
            column.typed::<DoubleType>().write_batch(&values, None, None).unwrap();
            column.close().unwrap();
        }
        let names: Vec<ByteArray> = rows.iter().map(|row| ByteArray::from(row.station)).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<ByteArrayType>().write_batch(&names, None, None).unwrap();
        column.close().unwrap();
        let times: Vec<i64> = rows.iter().map(|row| 3_600_000 * row.hour as i64).collect();
        let mut column = group.next_column().unwrap().unwrap();
        column.typed::<Int64Type>().write_batch(&times, None, None).unwrap();
        column.close().unwrap();
        group.close().unwrap();
    }
    writer.close().unwrap();
}

/// A field of a protocol buffer that has a length.
fn field(number: u8, content: &[u8]) -> Vec<u8> {
    assert!(content.len() < 128);
    [&[number << 3 | 2, content.len() as u8], content].concat()
}

fn records(path: &Path, rows: &[Row]) {
    let masked = |bytes: &[u8]| crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes().to_vec();
    let entry = |name: &str, feature: Vec<u8>| field(1, &[field(1, name.as_bytes()), field(2, &feature)].concat());
    let record = |row: &Row| {
        let mut features = vec![entry("station", field(1, &field(1, row.station.as_bytes())))];
        features.push(entry("when", field(3, &field(1, &[row.hour as u8]))));
        for (name, value) in COLUMNS.iter().zip(row.values) {
            features.push(entry(name, field(2, &field(1, &(value as f32).to_le_bytes()))));
        }
        let features = features.concat();
        // The message of all features is longer than one byte of length can say.
        let length = [0x0a, (features.len() & 127) as u8 | 128, (features.len() >> 7) as u8];
        let message = [&length[..], &features].concat();
        let length = (message.len() as u64).to_le_bytes();
        [&length[..], &masked(&length), &message, &masked(&message)].concat()
    };
    std::fs::write(path, rows.iter().flat_map(record).collect::<Vec<u8>>()).unwrap();
}

/// The keys of the windows that [`Expected`] computes.
const WINDOWS: &str = "window = 4\nhorizon = 2\ngroup = 'station'\ntime = 'when'\ntest_fraction = 0.25\n\
                       targets = ['load', 'temp']\n";
const W: usize = 4;
const H: usize = 2;

/// Datasets (T), one of texts.
fn hdf5(folder: &TempDir, rows: &[Row]) -> PathBuf {
    let path = folder.path().join("rows.h5");
    let file = ::hdf5::File::create(&path).unwrap();
    let text = |row: &Row| row.station.parse::<::hdf5::types::VarLenUnicode>().unwrap();
    let stations: Vec<_> = rows.iter().map(text).collect();
    file.new_dataset_builder().with_data(&stations).create("station").unwrap();
    let hours: Vec<i64> = rows.iter().map(|row| row.hour as i64).collect();
    file.new_dataset_builder().with_data(&hours).create("when").unwrap();
    for (c, name) in COLUMNS.into_iter().enumerate() {
        let values: Vec<f64> = rows.iter().map(|row| row.values[c]).collect();
        file.new_dataset_builder().with_data(&values).create(name).unwrap();
    }
    // Neither as long as the others nor asked for.
    file.new_dataset_builder().with_data(&[1.0f32, 2.0]).create("about").unwrap();
    path
}

/// An array as numpy writes it.
fn npy(kind: &str, shape: &str, bytes: Vec<u8>) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n");
    [&b"\x93NUMPY\x01\x00"[..], &(header.len() as u16).to_le_bytes(), header.as_bytes(), &bytes].concat()
}

/// A folder of arrays (T), one of texts and one of times.
fn npys(folder: &TempDir, rows: &[Row]) -> PathBuf {
    let path = folder.path().join("arrays");
    std::fs::create_dir(&path).unwrap();
    let save = |name: &str, kind: &str, of: &dyn Fn(&Row) -> Vec<u8>| {
        let bytes = rows.iter().flat_map(of).collect();
        std::fs::write(path.join(format!("{name}.npy")), npy(kind, &format!("({},)", rows.len()), bytes)).unwrap();
    };
    save("station", "<U5", &|row| row.station.chars().flat_map(|c| (c as u32).to_le_bytes()).collect());
    // 2024-03-01 in hours since 1970.
    save("when", "<M8[h]", &|row| (474_792 + row.hour as i64).to_le_bytes().to_vec());
    for (c, name) in COLUMNS.into_iter().enumerate() {
        save(name, "<f8", &|row| row.values[c].to_le_bytes().to_vec());
    }
    path
}

/// The configuration, with a part to validate on.
fn validated(kind: &str, path: &Path, keys: &str) -> DataConfig {
    DataConfig { validation: 0.2, ..config(kind, path, keys) }
}

/// One window: inputs and targets as the network sees them, the targets' true values and the last ones seen.
#[derive(Debug)]
struct Expected {
    of: String,
    x: Vec<f64>,
    y: [f64; 2],
    truth: [f64; 2],
    last: [f64; 2],
}

/// Offset and scale of values.
fn scaler(normalize: &str, column: usize, values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let (low, high) = values.iter().fold((f64::MAX, f64::MIN), |(low, high), &v| (low.min(v), high.max(v)));
    match normalize {
        "'none'" => (0.0, 1.0),
        "'minmax'" => (low, high - low),
        "'standard'" | "'window'" => (mean, (values.iter().map(|v| (v - mean).powi(2)).sum::<f64>() / n).sqrt()),
        _ => ([1.0, 2.0, 3.0][column], [2.0, 4.0, 8.0][column]),
    }
}

/// The windows of the training, validation and test part, of `inputs` among the columns.
fn expected(normalize: &str, inputs: &[usize]) -> [Vec<Expected>; 3] {
    let mut parts: [Vec<Expected>; 3] = Default::default();
    for rows in stations() {
        let cut = rows.len() * 3 / 4;
        let train = (W..cut).filter(|t| t + H <= cut).collect::<Vec<_>>();
        let kept = (0.2 * train.len() as f64).round() as usize;
        let learnt = cut - kept;
        let (train, validation) = train.split_at(train.len() - kept);
        let test: Vec<usize> = (cut..rows.len()).filter(|t| t + H <= rows.len()).collect();
        let values =
            |range: std::ops::Range<usize>, c: usize| rows[range].iter().map(|r| r.values[c]).collect::<Vec<_>>();
        for (part, times) in parts.iter_mut().zip([train, validation, &test]) {
            part.extend(times.iter().map(|&t| {
                let scalers = [0, 1, 2].map(|c| {
                    let of = if normalize == "'window'" { values(t - W..t, c) } else { values(0..learnt, c) };
                    scaler(normalize, c, &of)
                });
                let scaled = |row: &Row, c: usize| (row.values[c] - scalers[c].0) / scalers[c].1;
                let target = &rows[t + H - 1];
                Expected {
                    of: format!("{} {}:00", target.station, time(target.hour).replace(' ', "T"))
                        .replace("T00:00:00", ""),
                    x: rows[t - W..t].iter().flat_map(|row| inputs.iter().map(|&c| scaled(row, c))).collect(),
                    y: [scaled(target, 2), scaled(target, 0)],
                    truth: [target.values[2], target.values[0]],
                    last: [rows[t - 1].values[2], rows[t - 1].values[0]],
                }
            }));
        }
    }
    parts
}

const PARTS: [Part; 3] = [Part::Train, Part::Validation, Part::Test];

/// Whether the data are what was computed; `dated`: whether rows are known by their times.
fn check(data: &Dataset, expected: &[Vec<Expected>; 3], dated: bool, what: &str) {
    let close = |a: f64, b: f64| (a - b).abs() <= 2e-6 * b.abs().max(1.0);
    for (part, expected) in PARTS.into_iter().zip(expected) {
        assert!(data.len(part) == expected.len() && !expected.is_empty(), "{what}: {part:?} {}", data.len(part));
        for (sample, window) in expected.iter().enumerate() {
            let sample = sample as u32;
            let (x, targets) = fill(data, part, &[sample]);
            let place = format!("{what}: {part:?} {sample} {window:?}");
            assert!(
                x.len() == window.x.len() && x.iter().zip(&window.x).all(|(&a, &b)| close(f64::from(a), b)),
                "{place} {x:?}"
            );
            for output in 0..2 {
                let (y, unit) = (f64::from(targets.values[output]), data.unit(part, sample, output));
                assert!(close(y, window.y[output]), "{place} {y}");
                assert!(close(y * unit.scale + unit.offset, window.truth[output]), "{place} {unit:?}");
                assert_eq!(data.target_value(part, sample, output), Some(window.truth[output]), "{place}");
                assert_eq!(data.last_value(part, sample, output), Some(window.last[output]), "{place}");
            }
            if dated {
                assert_eq!(data.describe(part, sample).as_deref(), Some(window.of.as_str()));
            }
        }
    }
}

#[test]
fn several_columns_in_and_out_are_scaled_by_group_and_cut_in_time() -> Result<()> {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "rows.csv", csv_text(&mixed()));
    for normalize in
        ["'none'", "'standard'", "'minmax'", "'window'", "{ mean = [1.0, 2.0, 3.0], std = [2.0, 4.0, 8.0] }"]
    {
        let keys = format!("{WINDOWS}features = ['temp', 'wind']\nnormalize = {normalize}");
        let data = Dataset::open(&validated("csv", &path, &keys), 1)?;
        assert_eq!(data.input(), Shape::Sequence { t: W, f: 2 });
        check(&data, &expected(normalize, &[0, 1]), true, normalize);
    }
    // Without names all numbers are inputs, in the file's order: load, wind, temp.
    let data = Dataset::open(&validated("csv", &path, &format!("{WINDOWS}normalize = 'standard'")), 1)?;
    check(&data, &expected("'standard'", &[2, 1, 0]), true, "all columns");
    assert_eq!(
        data.notes(),
        [
            "71 rows of 2 series, 2024-03-01 to 2024-03-02T15:00:00",
            "columns of texts are in no window unless data.features names them: sky"
        ]
    );
    Ok(())
}

#[test]
fn every_table_gives_the_same_windows() -> Result<()> {
    let folder = TempDir::new().unwrap();
    let rows = mixed();
    let csv = write(&folder, "rows.csv", csv_text(&rows));
    parquet(&folder.path().join("rows.parquet"), &rows);
    records(&folder.path().join("rows.tfrecord"), &rows);
    // Two files, of which the second has its columns in another order, and quotes.
    let part = folder.path().join("part-*.csv");
    write(&folder, "part-0.csv", csv_text(&rows[..33]));
    let turned = rows[33..].iter().map(|row| {
        let [temp, wind, load] = row.values;
        format!("\"{}\",{temp},{load},{wind},{}\n", time(row.hour), row.station)
    });
    write(&folder, "part-1.csv", "when,temp,load,wind,station\n".to_owned() + &turned.collect::<String>());
    let types = "[features]\nload = { type = 'float' }\ntemp = { type = 'float' }\nwind = { type = 'float' }\n\
                 station = { type = 'text' }\nwhen = { type = 'int64' }";
    let named = "features = ['load', 'temp', 'wind']";
    let files = [
        ("csv", csv, named),
        ("csv", part, named),
        ("parquet", folder.path().join("rows.parquet"), named),
        ("tfrecord", folder.path().join("rows.tfrecord"), types),
        ("hdf5", hdf5(&folder, &rows), named),
        ("npz", npys(&folder, &rows), named),
    ];
    let mut first: Option<Vec<(Vec<f32>, Targets)>> = None;
    for (kind, path, features) in files {
        let keys = format!("{WINDOWS}normalize = 'standard'\n{features}");
        let data = Dataset::open(&validated(kind, &path, &keys), 1)?;
        check(&data, &expected("'standard'", &[2, 0, 1]), ["csv", "npz"].contains(&kind), kind);
        let all = PARTS.map(|part| fill(&data, part, &(0..data.len(part) as u32).collect::<Vec<_>>())).to_vec();
        assert!(*first.get_or_insert_with(|| all.clone()) == all, "{kind} differs");
    }
    Ok(())
}

/// Outputs of the network `flatten, linear` for a window.
fn linear(weight: &[f64], bias: &[f64; 2], x: &[f64]) -> [f64; 2] {
    [0, 1].map(|o| bias[o] + weight[o * x.len()..][..x.len()].iter().zip(x).map(|(w, x)| w * x).sum::<f64>())
}

#[test]
fn a_network_learns_them_as_computed_here_and_predicts_by_itself() -> Result<()> {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "rows.csv", csv_text(&mixed()));
    let job = |lr: &str| {
        format!(
            "[data]\nsource = \"csv\"\npath = '{}'\n{WINDOWS}features = ['temp', 'wind']\nshuffle = false\n[model]\n\
             layers = [{{ type = \"flatten\" }}, {{ type = \"linear\", out_features = 2 }}]\n[loss]\ntype = \"mse\"\n\
             [optimizer]\ntype = \"sgd\"\nlr = {lr}\n[train]\nepochs = 3\nbatch_size = 8\nmicro_batch = 4\nvalidation = 0.2\n",
            path.display()
        )
    };
    let weights = |run: &support::training::Run| -> (Vec<f64>, [f64; 2]) {
        let of = |key: &str| {
            let tensor = run.last.model.iter().find(|tensor| tensor.key.ends_with(key)).unwrap();
            tensor.data.iter().map(|&v| f64::from(v)).collect::<Vec<_>>()
        };
        (of("weight"), of("bias").try_into().unwrap())
    };
    // So small a rate leaves what it began with.
    let (mut weight, mut bias) = weights(&train(folder.path(), &job("1e-30"), 0, &[]));
    let windows = &expected("'standard'", &[0, 1])[0];
    assert_eq!((windows.len(), weight.len()), (34, 2 * 2 * W));
    for batch in (0..3).flat_map(|_| windows.chunks(8)) {
        let (mut dw, mut db) = (vec![0.0; weight.len()], [0.0; 2]);
        for window in batch {
            let y = linear(&weight, &bias, &window.x);
            for o in 0..2 {
                let d = 2.0 * (y[o] - window.y[o]) / (2 * batch.len()) as f64;
                db[o] += d;
                dw[o * window.x.len()..][..window.x.len()].iter_mut().zip(&window.x).for_each(|(dw, x)| *dw += d * x);
            }
        }
        weight.iter_mut().zip(&dw).for_each(|(w, d)| *w -= 0.1 * d);
        bias.iter_mut().zip(&db).for_each(|(b, d)| *b -= 0.1 * d);
    }
    let run = train(folder.path(), &job("0.1"), 2, &[]);
    let found = weights(&run);
    let near = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(near(&found.0, &weight) && near(&found.1, &bias), "{found:?} {weight:?} {bias:?}");
    let input = run.last.input.as_ref().unwrap();
    assert_eq!(
        input.series.iter().map(|(name, units)| (name.as_str(), units.len())).collect::<Vec<_>>(),
        [("north", 3), ("south", 3)]
    );

    // The checkpoint predicts every window of a file without the loads, also past its end, when the training file is gone.
    std::fs::remove_file(&path).unwrap();
    let recent = station("south", 44)[36..].to_vec();
    let text = recent.iter().map(|row| format!("{},{},south,{}\n", row.values[1], row.values[0], time(row.hour)));
    let new = write(&folder, "new.csv", "wind,temp,station,when\n".to_owned() + &text.collect::<String>());
    let (checkpoint, new, out) =
        (run.path.display().to_string(), new.display().to_string(), folder.path().join("p.csv"));
    ddl_ok(0, &["predict", &checkpoint, "--input", &new, "--out", out.to_str().unwrap()]);
    let predicted = std::fs::read_to_string(&out).unwrap();
    let mut lines = predicted.lines();
    assert_eq!(lines.next(), Some("sample,of,prediction_0,prediction_1,actual_1"));
    let lines: Vec<Vec<&str>> = lines.map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 8 - W + 1, "{predicted}");
    // The scaler of south: its 23 training rows but for the 4 of 18 windows that are kept back.
    let known = station("south", 23 - 4);
    let scalers =
        [0, 1, 2].map(|c| scaler("'standard'", c, &known.iter().map(|row| row.values[c]).collect::<Vec<_>>()));
    for (i, line) in lines.iter().enumerate() {
        let scaled = |c: usize, row: &Row| (row.values[c] - scalers[c].0) / scalers[c].1;
        let x: Vec<f64> = recent[i..i + W].iter().flat_map(|row| [0, 1].map(|c| scaled(c, row))).collect();
        let y = linear(&found.0, &found.1, &x);
        for (output, c) in [2, 0].into_iter().enumerate() {
            let (value, shown) = (y[output] * scalers[c].1 + scalers[c].0, line[2 + output].parse::<f64>().unwrap());
            assert!((value - shown).abs() < 1e-4 * value.abs().max(1.0), "{i} {output}: {value} {shown}");
        }
    }
    assert_eq!((lines[0][1], lines[2][1]), ("south 2024-03-02T17:00:00", "south 2024-03-02T19:00:00"));
    assert_eq!((lines[3][1], lines[4][1]), ("south 2024-03-02T19:00:00+1", "south 2024-03-02T19:00:00+2"));
    // A station that it does not know has no scale.
    let west = std::fs::read_to_string(&new).unwrap().replace("south", "west");
    let west = write(&folder, "west.csv", west).display().to_string();
    let refused = ddl(0, &["predict", &checkpoint, "--input", &west, "--out", out.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(65) && text.contains("series west is none of the job's"), "{text}");
    Ok(())
}

#[test]
fn explore_shows_each_column_of_each_series() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "rows.csv", csv_text(&mixed())).display().to_string();
    let out = folder.path().join("look").display().to_string();
    let keys = ["target=load", "window=4", "group=station", "time=when"].map(|key| format!("data.{key}"));
    let mut args = vec!["explore", "csv", "--path", &path, "--json", "--out", &out];
    keys.iter().for_each(|key| args.extend(["--set", key]));
    let (text, _) = ddl_ok(2, &args);
    let found: serde_json::Value = serde_json::from_str(&text).unwrap();
    let series = found["series"]["series"].as_array().unwrap();
    let names: Vec<&str> = series.iter().map(|of| of["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["north load", "north wind", "north temp", "south load", "south wind", "south temp"]);
    let winds: Vec<f64> = station("south", 31).iter().map(|row| row.values[1]).collect();
    let mean = winds.iter().sum::<f64>() / 31.0;
    assert!(series[4]["rows"] == 31 && (series[4]["mean"].as_f64().unwrap() - mean).abs() < 1e-12, "{}", series[4]);
    assert_eq!((&series[4]["first"], &series[4]["last"]), (&"2024-03-01".into(), &"2024-03-02T06:00:00".into()));
    assert!(folder.path().join("look/series.svg").is_file());
}

#[test]
fn what_windows_cannot_be_is_told() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "rows.csv", csv_text(&mixed()));
    let refused = |keys: &str, code: i32, says: &str| {
        let (found, text) = failure(&config("csv", &path, &format!("target = 'load'\n{keys}")));
        assert!(found == code && text.contains(says), "{keys}: {found} {text}");
    };
    for key in ["horizon = 2", "group = 'station'", "time = 'when'"] {
        refused(key, 2, "is of windows, and there is no window; set data.window");
    }
    for (key, says) in [
        ("window = 0", "0 rows"),
        ("horizon = 0", "0 rows"),
        ("split = 'shuffled'", "windows are cut in time"),
        ("test_path = 'x.csv'", "windows are cut in time"),
        ("task = 'classes'", "windows predict values, not classes"),
        ("missing = 'mean'", "the mean of a series looks ahead"),
    ] {
        let window = if key.starts_with("window") { "" } else { "window = 4\n" };
        refused(&format!("{window}{key}"), 2, says);
    }
    let refused = |keys: &str, says: &str| refused(&format!("window = 4\n{keys}"), 65, says);
    refused("group = 'city'", "no column \"city\"; the columns are: load, station, when, wind, sky, temp");
    refused("time = 'sky'", "rows.csv, column sky: \"fair\" is no date");
    refused("targets = ['sky']", "rows.csv:2, column sky: \"fair\" is no usable number");
    refused("group = 'station'\nhorizon = 50", "no series is long enough");
}
