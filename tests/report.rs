//! Runs and studies on one page, from their files alone.

mod support;

use ddl::store::{Answers, Forecast, RunFile, RunInfo, SeriesError, read_run};
use std::fs;
use std::path::Path;
use std::process::Command;
use support::{ddl, ddl_ok};
use tempfile::TempDir;

const CLASSES: &str = "name = \"<b>&\"\nseed = 1\n[data]\nsource = \"synthetic\"\nshape = [8]\nclasses = 3\nsamples = 96\n\
                       test_samples = 30\n[model]\nlayers = [{ type = \"linear\", out_features = 3 }]\n[loss]\n\
                       type = \"cross_entropy\"\n[optimizer]\ntype = \"sgd\"\nlr = 0.1\n[train]\nepochs = 3\nbatch_size = 12\n\
                       micro_batch = 4\n";

/// Trains `job` into `folder/out`.
fn trained(folder: &TempDir, out: &str, job: &str, ranks: usize, more: &[&str]) -> String {
    let file = folder.path().join("job.toml");
    fs::write(&file, job).unwrap();
    let out = folder.path().join(out).display().to_string();
    ddl_ok(ranks, &[&["train", file.to_str().unwrap(), "--out", &out], more].concat());
    out
}

fn page(folder: &str) -> String {
    let page = fs::read_to_string(Path::new(folder).join("report.html")).unwrap();
    assert!(page.len() < 2 << 20, "{} bytes", page.len());
    // Nothing is fetched and nothing runs.
    for other in ["<script", "src=", "@import", "url(", "<link"] {
        assert!(!page.contains(other), "{other}");
    }
    page
}

#[test]
fn a_run_is_shown_with_its_curves_confusion_and_seconds() {
    let folder = TempDir::new().unwrap();
    let out = trained(&folder, "a", CLASSES, 2, &[]);
    ddl_ok(0, &["report", &out]);
    let report = format!("{out}/report");
    let page = page(&report);
    for part in [
        "<h1>&lt;b&gt;&amp;</h1>",
        "Accuracy",
        "which class was taken for which",
        "rank 1",
        "recall %",
        "micro_batch = 4",
    ] {
        assert!(page.contains(part), "{part}");
    }
    for name in ["curves", "confusion", "phases"] {
        let png = fs::read(format!("{report}/{name}.png")).unwrap();
        assert!(
            png.starts_with(b"\x89PNG") && fs::read_to_string(format!("{report}/{name}.svg")).unwrap().contains("<svg")
        );
    }
    // What is kept in the run file is what the evaluation counts.
    let run = read_run(&Path::new(&out).join("run.h5")).unwrap();
    let Answers { classes, confusion, .. } = run.answers;
    let right: u64 = (0..3).map(|class| confusion[4 * class]).sum();
    assert_eq!((classes.len(), confusion.iter().sum::<u64>()), (3, 30));
    let accuracy = run.result.iter().find(|(name, _)| name == "test_accuracy").unwrap().1;
    assert_eq!(right as f64 / 30.0, accuracy);
}

#[test]
fn a_series_is_shown_in_time_beside_the_naive_forecast_alike_on_any_ranks() {
    let folder = TempDir::new().unwrap();
    let prices = |day: usize| {
        ["AA", "BB", "CC"]
            .map(|ticker| format!("2020-{:02}-{:02},{},{ticker}\n", 1 + day / 28, 1 + day % 28, 10 + day * 7 % 5))
    };
    let path = folder.path().join("prices.csv");
    fs::write(&path, "date,close,Name\n".to_owned() + &(0..60).flat_map(prices).collect::<String>()).unwrap();
    let job = format!(
        "name = \"prices\"\nseed = 1\n[data]\nsource = \"stocks\"\npath = \"{}\"\nwindow = 4\n[model]\nlayers = [{{ type = \"lstm\", \
         hidden_size = 3 }}, {{ type = \"linear\", out_features = 1 }}]\n[loss]\ntype = \"mse\"\n[optimizer]\ntype = \"adam\"\n\
         lr = 0.01\n[train]\nepochs = 2\nbatch_size = 8\nmicro_batch = 2\n[distributed]\nreduction = \"reproducible\"\n",
        path.display()
    );
    let answers = |out: &str| read_run(&Path::new(out).join("run.h5")).unwrap().answers;
    let one = trained(&folder, "one", &job, 0, &[]);
    let three = trained(&folder, "three", &job, 3, &[]);
    let found = answers(&one);
    assert!(found == answers(&three), "on three ranks");
    assert_eq!(
        found.errors.iter().map(|of| (&of.series[..], of.samples)).collect::<Vec<_>>(),
        [("AA", 12), ("BB", 12), ("CC", 12)]
    );
    let Forecast { times, actual, naive, .. } = &found.forecasts[0];
    assert_eq!((found.forecasts.len(), times[0].as_str(), times.len()), (3, "2020-02-21", 12));
    assert_eq!((actual[0], naive[1]), ((10 + 48 * 7 % 5) as f64, actual[0]));
    ddl_ok(0, &["report", &one, "--out", folder.path().join("r").to_str().unwrap()]);
    let page = page(folder.path().join("r").to_str().unwrap());
    assert!(
        page.contains("naive: the last value stays") && page.contains("RMSE, naive") && page.contains("2020-02-21")
    );
}

#[test]
fn several_runs_are_laid_over_each_other_and_told_apart() {
    let folder = TempDir::new().unwrap();
    let outs = ["a", "b", "c"].map(|name| {
        let seed = format!("seed={}", name.len() + usize::from(name == "b"));
        let lr = if name == "c" { "optimizer.lr=0.2" } else { "optimizer.lr=0.1" };
        trained(&folder, name, CLASSES, 0, &["--set", &seed, "--set", lr])
    });
    let out = folder.path().join("all").display().to_string();
    ddl_ok(2, &["report", &outs[0], &outs[1], &format!("{}/run.h5", outs[2]), "--out", &out]);
    let page = page(&out);
    for part in [
        "mean ± deviation of 3",
        "<td>optimizer.lr</td><td>0.1</td><td>0.1</td><td>0.2</td>",
        "<h2>b</h2>",
        "dashed: training",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(Path::new(&out).join("confusion-3.png").is_file());
}

#[test]
fn a_study_is_shown_with_its_rows() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("job.toml");
    fs::write(&file, CLASSES).unwrap();
    let out = folder.path().join("study").display().to_string();
    ddl_ok(0, &["scale", file.to_str().unwrap(), "--ranks", "1,2", "--repeats", "1", "--steps", "4", "--out", &out]);
    ddl_ok(0, &["report", &out]);
    let page = page(&format!("{out}/report"));
    assert!(page.contains("Parallel efficiency") && page.contains("<th>efficiency %</th>"), "{page}");
}

#[test]
fn what_is_no_run_is_refused() {
    let folder = TempDir::new().unwrap();
    let refused = |name: &str, code: i32, says: &str| {
        let path = folder.path().join(name).display().to_string();
        let output = ddl(0, &["report", &path]);
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(code) && text.contains(says), "{name}: {text}");
        assert!(!folder.path().join("report").exists());
    };
    refused("none", 2, "there is neither a run nor a study");
    fs::create_dir(folder.path().join("empty")).unwrap();
    refused("empty", 2, "there is neither a run nor a study");
    fs::write(folder.path().join("text.h5"), "no run").unwrap();
    refused("text.h5", 65, "text.h5");
    fs::write(folder.path().join("scale.json"), "{}").unwrap();
    refused("scale.json", 65, "it holds no rows of a study");
    fs::write(folder.path().join("scale.json"), "{").unwrap();
    refused("scale.json", 65, "scale.json");
}

#[test]
fn answers_are_kept_as_they_are_until_the_run_goes_on() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run.h5");
    let info = RunInfo { name: "n", config: "", ranks: 1, commit: "", environment: &[] };
    let forecast = Forecast {
        series: "é".into(),
        target: "close".into(),
        times: vec!["2020-01-01".into(), "2020-01-02".into()],
        actual: vec![1.0, 2.0],
        predicted: vec![1.5, f64::NAN],
        naive: Vec::new(),
    };
    let error =
        SeriesError { series: "é".into(), target: "close".into(), samples: 2, mape: 50.0, rmse: 0.5, naive_rmse: 1.0 };
    let answers = Answers {
        classes: vec!["a".into(), "b".into()],
        confusion: vec![1, 2, 3, 4],
        forecasts: vec![forecast],
        errors: vec![error],
    };
    let mut run = RunFile::create(&path, &info).unwrap();
    run.answers(answers.clone());
    run.finish("done").unwrap();
    // A NaN equals nothing, but prints alike.
    assert_eq!(format!("{:?}", read_run(&path).unwrap().answers), format!("{answers:?}"));
    drop(RunFile::resume(&path, &info, 0, 0).unwrap());
    assert_eq!(read_run(&path).unwrap().answers, Answers::default());
}

/// A run of no epoch has nothing to show, and is shown.
#[test]
fn a_run_that_has_just_begun_is_shown() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("run.h5");
    let info = RunInfo { name: "young", config: "", ranks: 1, commit: "", environment: &[] };
    drop(RunFile::create(&path, &info).unwrap());
    ddl_ok(0, &["report", folder.path().to_str().unwrap()]);
    assert!(page(folder.path().join("report").to_str().unwrap()).contains("running"));
}

/// In a real browser, where there is one.
#[test]
fn a_browser_lays_the_page_out() {
    let Some(browser) = ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|name| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success()))
    else {
        eprintln!("skipped: needs chromium");
        return;
    };
    let folder = TempDir::new().unwrap();
    let out = trained(&folder, "a", CLASSES, 0, &[]);
    ddl_ok(0, &["report", &out]);
    let address = format!("file://{out}/report/report.html");
    let profile = format!("--user-data-dir={}", folder.path().join("profile").display());
    let args = ["--headless", "--no-sandbox", "--disable-gpu", &profile, "--dump-dom", &address];
    let output = Command::new(browser).args(args).output().unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    // What a browser cannot parse it would have moved or closed.
    assert_eq!((dom.matches("<svg").count(), dom.matches("<table").count()), (3, 3), "{dom}");
}
