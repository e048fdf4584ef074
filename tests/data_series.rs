//! Stocks: windows by hand, holes, scalers, and broken files.

use ddl::config::{Component, DataConfig};
use ddl::data::{Dataset, Part, Targets, Task, open_inputs};
use ddl::error::Result;
use ddl::shape::Shape;
use proptest::prelude::*;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn config(path: &Path, keys: &str) -> DataConfig {
    let text = format!("path = '{}'\n{keys}", path.display());
    DataConfig::from_component(Component::new("stocks", &text).unwrap()).unwrap()
}

fn file(folder: &TempDir, name: &str, text: &str) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, text).unwrap();
    path
}

fn sample(data: &Dataset, part: Part, i: u32) -> (Vec<f32>, f32) {
    let (mut x, mut targets) = (vec![0.0; data.input().len()], Targets::default());
    data.fill(part, &[i], None, &mut x, &mut targets);
    (x, targets.values[0])
}

fn failure(path: &Path, keys: &str) -> (i32, String) {
    Dataset::open(&config(path, keys), 1).err().map(|e| (e.exit_code(), e.to_string())).expect("an error")
}

/// Ten rows: 1, 3, 2, 4, 3, 5, 4, 6, 20, 8.
fn ten(folder: &TempDir) -> PathBuf {
    let closes = [1, 3, 2, 4, 3, 5, 4, 6, 20, 8];
    let rows: String = closes.iter().enumerate().map(|(i, v)| format!("2020-01-{:02},{v},9,X\n", i + 1)).collect();
    file(folder, "ten.csv", &format!("date,Close,volume,Name\n{rows}"))
}

#[test]
fn windows_by_hand() -> Result<()> {
    let folder = TempDir::new().unwrap();
    let path = ten(&folder);
    // cut = 8, fitted on 1..6: min 1, span 5.
    let data = Dataset::open(&config(&path, "window = 3"), 1)?;
    assert_eq!((data.input(), data.task()), (Shape::Sequence { t: 3, f: 1 }, &Task::Values(1)));
    assert_eq!((data.len(Part::Train), data.len(Part::Test)), (5, 2));
    assert_eq!(sample(&data, Part::Train, 0), (vec![0.0, 0.4, 0.2], 0.6));
    // close[4..7] = 3, 5, 4 and close[7] = 6.
    assert_eq!(sample(&data, Part::Train, 4), (vec![0.4, 0.8, 0.6], 1.0));
    assert_eq!(sample(&data, Part::Test, 0), (vec![0.8, 0.6, 1.0], 3.8));
    let unit = data.unit(Part::Test, 0, 0);
    assert_eq!((unit.scale, unit.offset), (5.0, 1.0));
    assert_eq!((data.last_value(Part::Test, 0, 0), data.target_value(Part::Test, 0, 0)), (Some(6.0), Some(20.0)));
    assert_eq!(data.describe(Part::Test, 1).as_deref(), Some("X 2020-01-10"));
    assert!(data.is_series());
    Ok(())
}

#[test]
fn a_horizon_never_reaches_over_the_cut() -> Result<()> {
    let folder = TempDir::new().unwrap();
    let data = Dataset::open(&config(&ten(&folder), "window = 3\nhorizon = 2\nnormalize = 'none'"), 1)?;
    // Train: t + 1 < 8, so t in 3..7; test: t + 1 < 10, so t = 8.
    assert_eq!((data.len(Part::Train), data.len(Part::Test)), (4, 1));
    assert_eq!(sample(&data, Part::Train, 3), (vec![4.0, 3.0, 5.0], 6.0));
    assert_eq!(sample(&data, Part::Test, 0), (vec![5.0, 4.0, 6.0], 8.0));
    assert_eq!(data.describe(Part::Test, 0).as_deref(), Some("X 2020-01-10"));
    assert_eq!(data.last_value(Part::Test, 0, 0), Some(6.0));
    Ok(())
}

#[test]
fn normalisations_are_fitted_without_looking_ahead() -> Result<()> {
    let folder = TempDir::new().unwrap();
    let path = ten(&folder);
    // Mean and population deviation of the first eight: 3.5, 1.5.
    let data = Dataset::open(&config(&path, "window = 3\nnormalize = 'standard'"), 1)?;
    assert_eq!(
        (data.unit(Part::Train, 0, 0).offset, data.unit(Part::Train, 0, 0).scale),
        (3.5, (18.0f64 / 8.0).sqrt())
    );
    let data = Dataset::open(&config(&path, "window = 3\nnormalize = { mean = [1.0], std = [2.0] }"), 1)?;
    assert_eq!(sample(&data, Part::Train, 0), (vec![0.0, 1.0, 0.5], 1.5));
    let data = Dataset::open(&config(&path, "window = 3\nnormalize = 'window'"), 1)?;
    let (x, y) = sample(&data, Part::Train, 0);
    let std = (2.0f32 / 3.0).sqrt();
    for (got, raw) in x.iter().chain([&y]).zip([1.0, 3.0, 2.0, 4.0]) {
        assert!((got - (raw - 2.0) / std).abs() < 1e-6);
    }
    let unit = data.unit(Part::Train, 0, 0);
    assert!((f64::from(y) * unit.scale + unit.offset - 4.0).abs() < 1e-6);
    Ok(())
}

#[test]
fn constant_and_zero_windows_stay_finite() -> Result<()> {
    let folder = TempDir::new().unwrap();
    for value in ["0", "7.1"] {
        let rows: String = (1..=20).map(|i| format!("2020-01-{i:02},{value}\n")).collect();
        let path = file(&folder, "flat.csv", &format!("date,close\n{rows}2020-01-21,9\n"));
        for normalize in ["window", "minmax", "standard", "none"] {
            let data = Dataset::open(&config(&path, &format!("window = 4\nnormalize = '{normalize}'")), 1)?;
            for (part, i) in [(Part::Train, 0), (Part::Test, data.len(Part::Test) as u32 - 1)] {
                let (x, y) = sample(&data, part, i);
                assert!(x.iter().chain([&y]).all(|v| v.is_finite() && v.abs() < 10.0), "{normalize} {x:?} {y}");
            }
        }
    }
    Ok(())
}

#[test]
fn rows_are_sorted_and_holes_and_duplicates_dropped_and_told() -> Result<()> {
    let folder = TempDir::new().unwrap();
    let text = "Date,Open,CLOSE,Name\n1/4/2020,1,4,B\n1/2/2020,,2,B\n1/3/2020,1,,B\n1/1/2020,1,1,B\n1/2/2020,1,99,B\n\
                1/5/2020,1,5,B\n1/6/2020,1,6,B\n1/1/2020,1,1,A\n";
    let path = file(&folder, "x.csv", text);
    let data = Dataset::open(&config(&path, "window = 2\nnormalize = 'none'"), 1)?;
    assert_eq!((data.len(Part::Train), data.len(Part::Test)), (2, 1));
    assert_eq!(sample(&data, Part::Train, 0), (vec![1.0, 2.0], 4.0));
    assert_eq!(data.describe(Part::Train, 0).as_deref(), Some("B 2020-01-04"));
    assert_eq!(
        data.notes(),
        [
            "6 rows of 2 tickers, 2020-01-01 to 2020-01-06",
            "1 row without close dropped, of 1 ticker: B 1",
            "1 row of a date that was there already dropped, of 1 ticker: B 1",
            "1 ticker skipped, with fewer than 3 training rows: A",
        ]
    );
    Ok(())
}

#[test]
fn a_folder_holds_one_file_a_ticker() -> Result<()> {
    let folder = TempDir::new().unwrap();
    let rows: String = (1..=10).map(|i| format!("2020-01-{i:02},{i}\n")).collect();
    for name in ["MSFT_data.csv", "AAPL.csv", "readme.txt"] {
        file(&folder, name, &format!("date,close\n{rows}"));
    }
    let data = Dataset::open(&config(folder.path(), "window = 3"), 1)?;
    assert_eq!(data.len(Part::Train), 10);
    assert_eq!(data.describe(Part::Train, 0).as_deref(), Some("AAPL 2020-01-04"));
    assert_eq!(data.describe(Part::Train, 5).as_deref(), Some("MSFT 2020-01-04"));
    let data = Dataset::open(&config(folder.path(), "window = 3\ntickers = ['MSFT']"), 1)?;
    assert_eq!(data.describe(Part::Train, 0).as_deref(), Some("MSFT 2020-01-04"));
    let (code, text) = failure(folder.path(), "window = 3\ntickers = ['MSFTT']");
    assert!(code == 2 && text.contains("did you mean \"MSFT\""), "{text}");
    assert_eq!(failure(TempDir::new().unwrap().path(), "").0, 65);
    Ok(())
}

/// Which windows there are is settled by the rows alone, so `normalize` cannot leave a part without samples.
#[test]
fn no_way_to_normalize_takes_samples_away() -> Result<()> {
    let folder = TempDir::new().unwrap();
    // The last rows are constant: there is no deviation to divide by.
    let closes = [1, 3, 2, 4, 3, 5, 4, 4, 4, 4];
    let rows: String = closes.iter().enumerate().map(|(i, v)| format!("2020-01-{:02},{v}\n", i + 1)).collect();
    let path = file(&folder, "still.csv", &format!("date,close\n{rows}"));
    for normalize in ["\"none\"", "\"standard\"", "\"minmax\"", "\"window\"", "{ mean = [1.0], std = [2.0] }"] {
        let data = Dataset::open(&config(&path, &format!("window = 2\nnormalize = {normalize}")), 1)?;
        assert_eq!((data.len(Part::Train), data.len(Part::Test)), (6, 2), "{normalize}");
    }
    Ok(())
}

#[test]
fn broken_files_are_named_with_line_and_column() {
    let folder = TempDir::new().unwrap();
    let check = |text: &str, part: &str| {
        let (code, message) = failure(&file(&folder, "x.csv", text), "window = 2");
        assert!(code == 65 && message.contains(part) && message.contains("x.csv"), "{message}");
    };
    check("", "empty");
    check("date,close,Name\n", "no row with a close");
    check("date,close,Name\n2020-01-01,1O.5,A\n", "x.csv:2, column close: \"1O.5\"");
    check("date,close,Name\n2020-01-01,1,A\n2020-01-02,inf,A\n", "x.csv:3, column close");
    check("date,close,Name\n2020-01-01,1e300,A\n", "column close");
    check("date,close,Name\nyesterday,1,A\n", "x.csv:2, column date");
    check("date,close,Name\n2020-01-01,1,\n", "column Name");
    check("date,close,Name\n2020-01-01,1\n", "x.csv:2: 2 fields where the header has 3");
    check("date,open,Name\n2020-01-01,1,A\n", "no column \"close\"; the columns are: date, open, Name");
    check("date,close,Name\n2020-01-01,1,A\n", "no ticker is long enough");
    assert_eq!(failure(&folder.path().join("none.csv"), "").0, 74);
    assert_eq!(failure(&file(&folder, "x.csv.gz", "date,close\n"), "").0, 65);
    for keys in
        ["window = 0", "horizon = 0", "train_fraction = 0.0", "train_fraction = 1.5", "windw = 3", "window = -1"]
    {
        assert_eq!(failure(&ten(&folder), keys).0, 2, "{keys}");
    }
}

#[test]
fn inputs_take_the_scaler_of_the_job_and_forecast_past_the_end() -> Result<()> {
    let folder = TempDir::new().unwrap();
    let job = config(&ten(&folder), "window = 3");
    let data = Dataset::open(&job, 1)?;
    let new = file(&folder, "new.csv", "date,close\n2021-01-01,6\n2021-01-02,11\n2021-01-03,1\n2021-01-04,2\n");
    let inputs = open_inputs(&data.description(), &job, &new)?;
    assert_eq!(inputs.len(Part::Test), 2);
    assert_eq!(sample(&inputs, Part::Test, 0), (vec![1.0, 2.0, 0.0], 0.2));
    assert_eq!(inputs.target_value(Part::Test, 0, 0), Some(2.0));
    assert!(sample(&inputs, Part::Test, 1).1.is_nan());
    assert_eq!((inputs.target_value(Part::Test, 1, 0), inputs.last_value(Part::Test, 1, 0)), (None, Some(2.0)));
    assert_eq!(inputs.describe(Part::Test, 1).as_deref(), Some("new 2021-01-04+1"));
    let other = file(&folder, "other.csv", "date,close,Name\n2021-01-01,6,Z\n2021-01-02,6,Z\n2021-01-03,6,Z\n");
    assert_eq!(open_inputs(&data.description(), &job, &other).err().map(|e| e.exit_code()), Some(65));
    Ok(())
}

#[test]
fn the_shipped_index_has_the_windows_its_users_expect() -> Result<()> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data/sp500/index_daily.csv.gz");
    let data = Dataset::open(&config(&path, ""), 1)?;
    assert_eq!((data.len(Part::Train), data.len(Part::Test)), (3964, 1007));
    assert_eq!(data.describe(Part::Test, 0).as_deref(), Some("index_daily 2014-12-31"));
    Ok(())
}

proptest! {
    #[test]
    fn random_text_never_panics(text in "(date|close|Name|[0-9/,.\"\n-]|\\PC){0,80}", bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
        let folder = TempDir::new().unwrap();
        let mut content = b"date,close\n".to_vec();
        content.extend(text.as_bytes());
        content.extend(&bytes);
        let path = folder.path().join("x.csv");
        for content in [&content[..], text.as_bytes(), &bytes] {
            std::fs::write(&path, content).unwrap();
            if let Err(error) = Dataset::open(&config(&path, "window = 1"), 1) {
                prop_assert_eq!(error.exit_code(), 65);
            }
        }
    }
}
