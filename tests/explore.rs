//! `ddl explore`: the same figures at any number of ranks, and those that this test computes by itself.

mod support;

use serde_json::Value;
use std::fs;
use std::path::Path;
use support::training::shipped;
use support::{ddl, ddl_ok, value};

/// The JSON of a look, which must be the same on 1 (without mpirun and with), 2, 3 and 4 ranks.
fn explored(args: &[&str]) -> Value {
    let args = [&["explore"], args, &["--json"]].concat();
    let (alone, _) = ddl_ok(0, &args);
    for ranks in 1..=4 {
        assert!(ddl_ok(ranks, &args).0 == alone, "{args:?} on {ranks} ranks");
    }
    serde_json::from_str(&alone).unwrap()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

fn close(found: &Value, expected: f64) {
    let found = number(found);
    assert!((found - expected).abs() <= 1e-9 * expected.abs().max(1e-3), "{found} instead of {expected}");
}

/// Mean and deviation of the population.
fn moments(values: &[f64]) -> (f64, f64) {
    let mean = values.iter().sum::<f64>() / values.len() as f64;
    (mean, (values.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / values.len() as f64).sqrt())
}

/// IDX files of made images of 5 x 4, `n` to train on and 7 to test on.
fn images(folder: &Path, n: usize, pixel: impl Fn(usize, usize) -> u8, class: impl Fn(usize) -> u8) {
    for (name, start, count) in [("train", 0, n), ("t10k", n, 7)] {
        let size = |dims: &[usize]| dims.iter().flat_map(|&dim| (dim as u32).to_be_bytes()).collect::<Vec<u8>>();
        let all = (start..start + count).flat_map(|i| (0..20).map(move |at| (i, at)));
        let pixels: Vec<u8> = all.map(|(i, at)| pixel(i, at)).collect();
        let classes: Vec<u8> = (start..start + count).map(&class).collect();
        let file = |kind: &str, magic: u32, dims: &[usize], bytes: &[u8]| {
            let bytes = [&magic.to_be_bytes(), &size(dims)[..], bytes].concat();
            fs::write(folder.join(format!("{name}-{kind}-ubyte")), bytes).unwrap();
        };
        file("images-idx3", 0x803, &[count, 5, 4], &pixels);
        file("labels-idx1", 0x801, &[count], &classes);
    }
}

#[test]
fn images_are_counted_and_twins_found() {
    let folder = tempfile::tempdir().unwrap();
    // More than two blocks of 256. Sample 600 equals 3, of another class; 10 is black all over; test sample 702 equals 5.
    let pixel = |i: usize, at: usize| match i {
        10 => 0,
        600 => (3 * 31 + at * 7) as u8,
        702 => (5 * 31 + at * 7) as u8,
        _ => (i * 31 + at * 7 + i / 256 * at) as u8,
    };
    images(folder.path(), 700, pixel, |i| (i % 3) as u8);
    let path = folder.path().display().to_string();
    let found = explored(&["mnist", "--path", &path]);
    assert_eq!((&found["kind"], &found["shape"]), (&"images".into(), &serde_json::json!([1, 5, 4])));
    let train = &found["train"];
    assert_eq!(train["samples"], 700);
    assert_eq!(train["of_class"].as_array().unwrap()[..3], [234, 233, 233].map(Value::from));
    let pixels: Vec<f64> = (0..700).flat_map(|i| (0..20).map(move |at| f64::from(pixel(i, at)) / 255.0)).collect();
    let (mean, deviation) = moments(&pixels);
    let channel = &train["images"]["channels"][0];
    close(&channel["mean"], mean);
    close(&channel["deviation"], deviation);
    let most = pixels.iter().copied().fold(0.0, f64::max) * 255.0;
    assert_eq!((number(&channel["min"]), number(&channel["max"])), (0.0, most));
    let counts: Vec<u64> =
        channel["histogram"]["counts"].as_array().unwrap().iter().map(|v| v.as_u64().unwrap()).collect();
    for (bin, count) in counts.iter().enumerate() {
        let inside = pixels.iter().filter(|&&v| ((v * 255.0).round() as usize) / 4 == bin).count();
        assert_eq!(*count, inside as u64, "bin {bin}");
    }
    let of_images: Vec<(f64, f64)> = pixels.chunks(20).map(moments).collect();
    let brightness: Vec<f64> = of_images.iter().map(|of| of.0).collect();
    let contrast: Vec<f64> = of_images.iter().map(|of| of.1).collect();
    for (name, values) in [("brightness", brightness), ("contrast", contrast)] {
        close(&train["images"][name]["mean"], moments(&values).0);
        close(&train["images"][name]["deviation"], moments(&values).1);
        close(&train["images"][name]["max"], values.iter().copied().fold(0.0, f64::max));
    }
    assert_eq!(train["constant"], serde_json::json!({ "count": 1, "first": [10] }));
    let repeats = &found["repeats"];
    // Images whose numbers differ by 256 might be alike, too: counted here one by one.
    let image = |i: usize| (0..20).map(|at| pixel(i, at)).collect::<Vec<u8>>();
    let all: Vec<Vec<u8>> = (0..707).map(image).collect();
    let later =
        |range: std::ops::Range<usize>| range.clone().filter(|&i| all[range.start..i].contains(&all[i])).count();
    assert_eq!(repeats["in_train"]["count"], later(0..700));
    assert!(repeats["in_train"]["first"].as_array().unwrap().contains(&600.into()));
    assert_eq!(repeats["in_test"]["count"], later(700..707));
    assert_eq!(repeats["of_train_in_test"]["count"], (700..707).filter(|&i| all[..700].contains(&all[i])).count());
    assert!(repeats["of_train_in_test"]["first"].as_array().unwrap().contains(&2.into()));
    let other = |i: &usize| (0..707).any(|j| all[j] == all[*i] && j % 3 != i % 3);
    assert_eq!(repeats["of_other_class"], (0..707).filter(other).count());
}

#[test]
fn tables_have_quantiles_holes_and_correlations() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.csv");
    let mut text = "a,b,c,price\n".to_owned();
    let mut rows = Vec::new();
    for i in 0..400 {
        let (a, b) = (100.0 * value(1, i), (i % 5) as f32);
        let price = f64::from(3.0 * a - b + value(2, i));
        if i % 50 == 7 {
            text += &format!(",{b},,{price}\n");
        } else if i == 9 {
            text += &format!("{a},{b},1,\n");
        } else {
            text += &format!("{a},{b},1,{price}\n");
            rows.push([f64::from(a), f64::from(b), 1.0, price]);
        }
    }
    fs::write(&path, text).unwrap();
    let path = path.display().to_string();
    let found = explored(&["csv", "--path", &path, "--set", "data.target=price"]);
    assert_eq!(found["missing"], serde_json::json!([["a", 8], ["c", 8], ["price", 1]]));
    assert_eq!(found["train"]["samples"].as_u64().unwrap() + found["test"]["samples"].as_u64().unwrap(), 391);
    let train = &rows[..found["train"]["samples"].as_u64().unwrap() as usize];
    for (index, name) in ["a", "b", "c", "price"].into_iter().enumerate() {
        let column = &found["train"]["columns"][index];
        assert_eq!(column["name"], name);
        let mut values: Vec<f64> = train.iter().map(|row| row[index]).collect();
        let (mean, deviation) = moments(&values);
        let of = &column["values"];
        close(&of["mean"], mean);
        close(&of["deviation"], deviation);
        values.sort_by(f64::total_cmp);
        for (found, share) in of["quantiles"].as_array().unwrap().iter().zip([0.05, 0.25, 0.5, 0.75, 0.95]) {
            let place = share * (values.len() - 1) as f64;
            let (low, high) = (values[place.floor() as usize], values[place.ceil() as usize]);
            close(found, low + (high - low) * place.fract());
        }
    }
    assert_eq!(
        (&found["train"]["columns"][1]["whole"], &found["train"]["columns"][1]["values"]["distinct"]),
        (&true.into(), &5.into())
    );
    let correlation = |a: usize, b: usize| {
        let (x, y): (Vec<f64>, Vec<f64>) = train.iter().map(|row| (row[a], row[b])).unzip();
        let (mx, my) = (moments(&x).0, moments(&y).0);
        let together: f64 = x.iter().zip(&y).map(|(x, y)| (x - mx) * (y - my)).sum();
        together / train.len() as f64 / moments(&x).1 / moments(&y).1
    };
    let correlations = &found["correlations"]["rows"];
    close(&correlations[0][3], correlation(0, 3));
    close(&correlations[3][1], correlation(3, 1));
    assert_eq!(correlations[3][3], 1.0);
    assert!(correlations[0][2].is_null(), "c is constant");
}

#[test]
fn series_have_gaps_and_returns() {
    let folder = tempfile::tempdir().unwrap();
    // Weekdays from Monday, 2020-01-06; b has no value in its third week, and a none on one Wednesday.
    let mut rows = vec!["date,close,name".to_owned()];
    let mut prices = [Vec::new(), Vec::new()];
    let day = |i: usize| format!("2020-{:02}-{:02}", if i < 26 { 1 } else { 2 }, if i < 26 { 6 + i } else { i - 25 });
    for i in (0..54).filter(|i| i % 7 < 5) {
        for (of, name) in ["a", "b"].into_iter().enumerate() {
            let left_out = if of == 0 { i == 9 } else { i / 7 == 2 };
            if !left_out {
                let price = 100.0 + 10.0 * f64::from(value(of as u32, i as u32));
                rows.push(format!("{},{price},{name}", day(i)));
                prices[of].push((i, price));
            }
        }
    }
    let path = folder.path().join("p.csv");
    fs::write(&path, rows.join("\n")).unwrap();
    let path = path.display().to_string();
    let found = explored(&["stocks", "--path", &path, "--set", "data.window=3"]);
    let series = found["series"]["series"].as_array().unwrap();
    for (index, (missing, gap, after)) in [(1, 3, ""), (5, 10, "2020-01-17")].into_iter().enumerate() {
        let (of, prices) = (&series[index], &prices[index]);
        assert_eq!(
            (&of["rows"], &of["first"], &of["last"]),
            (&prices.len().into(), &"2020-01-06".into(), &day(53).into())
        );
        assert_eq!((&of["missing_weekdays"], &of["missing_of_others"]), (&missing.into(), &missing.into()));
        assert_eq!(of["longest_gap"], gap);
        assert!(after.is_empty() || of["gap_after"] == after);
        let returns: Vec<f64> = prices.windows(2).map(|pair| pair[1].1 / pair[0].1 - 1.0).collect();
        close(&of["return_mean"], moments(&returns).0);
        close(&of["return_deviation"], moments(&returns).1);
        let (at, most) = returns.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1)).unwrap();
        close(&of["largest_gain"]["value"], *most);
        assert_eq!(of["largest_gain"]["date"], day(prices[at + 1].0));
    }
    assert_eq!(found["series"]["returns"]["count"], prices[0].len() + prices[1].len() - 2);
}

#[test]
fn what_is_not_finite_is_counted_and_not_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("n.h5");
    let file = hdf5::File::create(&path).unwrap();
    let mut x: Vec<f32> = (0..600).map(|i| value(5, i)).collect();
    (x[2 * 257], x[2 * 258 + 1]) = (f32::NAN, f32::INFINITY);
    let x = ndarray::Array2::from_shape_vec((300, 2), x).unwrap();
    file.new_dataset_builder().with_data(&x).create("x_train").unwrap();
    file.new_dataset_builder().with_data(&(0..300).map(|i| i % 2).collect::<Vec<i32>>()).create("y_train").unwrap();
    file.close().unwrap();
    let path = path.display().to_string();
    let found = explored(&["hdf5", "--path", &path]);
    assert_eq!(found["train"]["not_finite"], serde_json::json!({ "count": 2, "first": [257, 258] }));
    assert_eq!(found["train"]["columns"][0]["not_finite"], 1);
    assert_eq!(found["train"]["columns"][0]["values"]["count"], 299);
    // A training is told which it is, as before.
    let out = folder.path().join("n-out.h5").display().to_string();
    let refused = ddl(2, &["prepare", "hdf5", "--path", &path, "--out", &out]);
    assert_eq!(refused.status.code(), Some(65));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("sample 257 of the training part"), "{refused:?}");
    assert!(!Path::new(&out).exists());
}

#[test]
fn pictures_and_a_page_are_the_same_on_any_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let job = folder.path().join("job.toml");
    // Of a job only [data] counts.
    fs::write(&job, format!("[data]\nsource = \"mnist\"\npath = {:?}\n[model]\nlayers = 1\n", shipped("mnist")))
        .unwrap();
    let job = job.display().to_string();
    let made = |ranks: usize| {
        let out = folder.path().join(ranks.to_string());
        ddl_ok(ranks, &["explore", &job, "--out", &out.display().to_string()]);
        let mut files: Vec<_> = fs::read_dir(&out).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        let name = |path: &Path| path.file_name().unwrap().to_string_lossy().into_owned();
        files.iter().map(|path| (name(path), fs::read(path).unwrap())).collect::<Vec<_>>()
    };
    let alone = made(0);
    let names: Vec<&str> = alone.iter().map(|(name, _)| name.as_str()).collect();
    let pictures = ["classes.png", "classes.svg", "explore.html", "histograms.png", "histograms.svg"];
    assert_eq!(names, [&pictures[..], &["means.png", "means.svg", "samples.png", "samples.svg"]].concat());
    assert!(made(3) == alone);
    let page = String::from_utf8(alone[2].1.clone()).unwrap();
    assert!(page.matches("<svg").count() == 4 && page.contains("data:image/png;base64,"));
    assert!(!page.contains("http://") || page.matches("http://").count() == page.matches("http://www.w3.org/").count());
}

#[test]
fn no_sample_at_all_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("t.csv");
    fs::write(&path, "a,b\n,1\n").unwrap();
    let path = path.display().to_string();
    let out = folder.path().join("p.h5").display().to_string();
    let data = ["csv", "--path", &path, "--set", "data.target=b"];
    for (command, rest) in [("explore", &[][..]), ("prepare", &["--out", &out])] {
        let output = ddl(2, &[&[command], &data[..], rest].concat());
        assert_eq!(output.status.code(), Some(65), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains("no training sample"), "{output:?}");
    }
}

#[test]
fn a_wrong_source_is_told() {
    for (args, code, said) in [
        (&["explore", "none.toml"][..], 2, "there is no such job file"),
        (&["explore", "mnst"], 2, "did you mean \"mnist\"?"),
        (&["prepare", "nothing-near", "--out", "x.h5"], 2, "neither a job file nor the name of a source"),
        (&["explore", "mnst", "--path", "x"], 2, "is not the name of a source"),
        (&["explore", "mnist"], 2, "no path is given"),
        (&["explore", "mnist", "--path", "/none"], 74, "/none"),
        (&["explore", "csv", "--path", "x"], 2, "no column to predict"),
    ] {
        for ranks in [0, 2] {
            let output = ddl(ranks, args);
            let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.code(), Some(code), "{args:?}: {stderr}");
            assert!(stderr.contains(said), "{args:?}: {stderr}");
        }
    }
}
