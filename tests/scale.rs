//! A scaling study as a user sees it: real runs under mpirun, kept by a second call, and failures that say what to do.

mod support;

use std::fs;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::{Duration, Instant, SystemTime};
use support::{command, ddl, ddl_ok, ended, run};

/// The shipped digits for a few steps; tests run at the same time, so ranks are not bound.
fn args<'a>(job: &'a str, out: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    let fixed = ["scale", job, "--out", out, "--launcher-args", "--bind-to none --oversubscribe"];
    fixed.into_iter().chain(more.iter().copied()).collect()
}

fn job() -> String {
    format!("{}/jobs/example.toml", env!("CARGO_MANIFEST_DIR"))
}

fn data() -> String {
    format!("data.path={}/data/mnist", env!("CARGO_MANIFEST_DIR"))
}

fn text(output: &Output) -> (Option<i32>, String) {
    let bytes = [&output.stdout[..], &output.stderr[..]].concat();
    (output.status.code(), String::from_utf8_lossy(&bytes).into_owned())
}

fn json(folder: &Path) -> serde_json::Value {
    serde_json::from_slice(&fs::read(folder.join("scale.json")).unwrap()).unwrap()
}

fn changed(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

#[test]
fn a_study_is_run_reported_and_gone_on_with() {
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("study");
    let (job, data, out) = (job(), data(), folder.display().to_string());
    let more = ["--ranks", "2,1", "--repeats", "2", "--steps", "6", "--set", &data, "--predict"];
    let (stdout, _) = ddl_ok(0, &args(&job, &out, &more));
    for part in [
        "average time (s)",
        "standard deviation",
        "efficiency",
        "test accuracy (%)",
        "1 slot",
        "difference",
        "noise scale: ",
        "prediction",
    ] {
        assert!(stdout.contains(part), "no {part} in\n{stdout}");
    }
    for name in ["scale.csv", "scale.svg", "scale.png", "ranks-2/repeat-2/run.h5", "ranks-1/repeat-1/stdout.log"] {
        assert!(fs::metadata(folder.join(name)).is_ok_and(|file| file.len() > 0), "{name} is not there");
    }
    let study = json(&folder);
    let rows = study["rows"].as_array().unwrap();
    assert_eq!(rows.iter().map(|row| row["ranks"].as_u64().unwrap()).collect::<Vec<_>>(), [1, 2]);
    for row in rows {
        assert_eq!((row["steps"].as_u64(), row["samples"].as_f64().map(f64::round)), (Some(6), Some(6.0 * 128.0)));
        assert!(
            row["seconds"]["deviation"].as_f64().unwrap() >= 0.0 && row["split"]["compute"].as_f64().unwrap() > 0.0
        );
    }
    // The same seeds give the same network at any number of ranks; another repeat is another seed.
    let accuracy = |row: usize| study["rows"][row]["figures"]["test_accuracy"]["mean"].as_f64().unwrap();
    assert!((accuracy(0) - accuracy(1)).abs() < 0.02, "{} and {}", accuracy(0), accuracy(1));
    assert!(!study["prediction"]["predictions"].as_array().unwrap().is_empty());
    // 32 micro-batches of 4 share the batch of 128.
    assert_eq!(study["noise"]["ranks_of_batch"], 32, "{}", study["noise"]);
    assert!(study["noise"]["advice"].as_str().unwrap().contains("useful"));
    // Cores are shared where there is but one.
    let cores = study["cores"].as_u64().unwrap();
    assert_eq!(rows[1]["oversubscribed"].as_bool(), Some(cores < 2));
    assert_eq!(rows[1]["speedup"].is_null(), cores < 2);

    // Done points are kept; one that is damaged is run again, and the others' files stay as they are.
    let (kept, damaged) = (folder.join("ranks-1/repeat-1/run.h5"), folder.join("ranks-2/repeat-1/run.h5"));
    let before = changed(&kept);
    fs::write(&damaged, b"broken").unwrap();
    let (stdout, _) = ddl_ok(0, &args(&job, &out, &more));
    assert_eq!(stdout.matches("(kept)").count(), 3, "{stdout}");
    assert_eq!(changed(&kept), before);
    assert!(fs::metadata(&damaged).unwrap().len() > 1000);
    // Other limits are another study.
    let other = ["--ranks", "1", "--repeats", "1", "--steps", "7", "--set", &data, "--json"];
    let (stdout, _) = ddl_ok(0, &args(&job, &out, &other));
    let printed: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert_eq!(printed["rows"][0]["steps"], 7);
}

#[test]
fn weak_scaling_gives_each_rank_the_same_work() {
    let dir = tempfile::tempdir().unwrap();
    let (job, data, out) = (job(), data(), dir.path().display().to_string());
    let more = ["--ranks", "1,2", "--repeats", "1", "--mode", "weak", "--steps", "4", "--set", &data, "--json"];
    let (stdout, _) = ddl_ok(0, &args(&job, &out, &more));
    let study: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let samples = |row: usize| study["rows"][row]["samples"].as_f64().unwrap().round();
    assert_eq!((samples(0), samples(1)), (4.0 * 128.0, 8.0 * 128.0));
    assert_eq!(study["rows"][1]["steps"], 4);
    // Nothing is run to report again.
    let (again, _) = ddl_ok(0, &args(&job, &out, &[&more[..], &["--collect"]].concat()));
    assert_eq!(again, stdout);
}

#[test]
fn a_failing_point_is_named_with_its_words_and_exit_code() {
    let dir = tempfile::tempdir().unwrap();
    let (job, data, out) = (job(), data(), dir.path().display().to_string());
    let more = ["--ranks", "1,2", "--repeats", "1", "--steps", "5", "--set", &data, "--set", "optimizer.lr=1e30"];
    let (code, words) = text(&ddl(0, &args(&job, &out, &more)));
    assert_eq!(code, Some(70), "{words}");
    for part in ["ranks-1/repeat-1", "lower optimizer.lr", "stderr.log", "run the same command again"] {
        assert!(words.contains(part), "no {part} in\n{words}");
    }
    // The others are tried all the same.
    assert!(dir.path().join("ranks-2/repeat-1/run.h5").exists(), "{words}");
}

#[test]
fn a_study_that_is_stopped_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let (job, data, out) = (job(), data(), dir.path().display().to_string());
    let more = ["--ranks", "1,2", "--repeats", "1", "--epochs", "20", "--set", &data];
    let mut study = command(0, &args(&job, &out, &more)).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (second, began) = (dir.path().join("ranks-2/repeat-1/run.h5"), Instant::now());
    while !second.exists() {
        assert!(study.try_wait().unwrap().is_none() && began.elapsed() < Duration::from_secs(60), "no second point");
        std::thread::sleep(Duration::from_millis(1));
    }
    let told = std::process::Command::new("kill").arg(study.id().to_string()).status().unwrap();
    assert!(told.success());
    assert_eq!(study.wait().unwrap().code(), Some(75));
    // The launcher has ended with its ranks.
    let processes =
        fs::read_dir("/proc").unwrap().filter_map(|entry| fs::read(entry.ok()?.path().join("cmdline")).ok());
    let left: Vec<String> =
        processes.map(|line| String::from_utf8_lossy(&line).into_owned()).filter(|line| line.contains(&out)).collect();
    assert!(left.is_empty(), "{left:?}");
    let (stdout, _) = ddl_ok(0, &args(&job, &out, &more));
    assert_eq!(stdout.matches("(kept)").count(), 1, "{stdout}");
}

#[test]
fn wrong_usage_is_told_before_anything_runs() {
    let dir = tempfile::tempdir().unwrap();
    let (job, data, out) = (job(), data(), dir.path().join("none").display().to_string());
    let cases: [(&[&str], &str); 6] = [
        (&["--ranks", "1,x"], "--ranks 1,2,4"),
        (&["--ranks", "2,2"], "twice"),
        (&["--ranks", "64"], "train.micro_batch=2"),
        (&["--ranks", "1", "--bandwidth-gbit", "0"], "--bandwidth-gbit"),
        (&["--ranks", "1", "--launcher", "srun"], "--launcher mpirun"),
        (&["--ranks", "1", "--collect"], "without --collect"),
    ];
    for (more, mend) in cases {
        let more: Vec<&str> = more.iter().copied().chain(["--set", &data]).collect();
        let (code, words) =
            text(&run(command(0, &args(&job, &out, &more)).env("PATH", "/nowhere"), Duration::from_secs(60)));
        assert_eq!(code, Some(2), "{more:?}\n{words}");
        assert!(words.contains(mend), "no {mend} in\n{words}");
    }
    let plain = ["--ranks", "1", "--set", &data];
    let (code, words) =
        text(&run(command(0, &args(&job, &out, &plain)).env("PATH", "/nowhere"), Duration::from_secs(60)));
    assert_eq!(code, Some(2), "{words}");
    assert!(words.contains("no mpirun in the PATH") && words.contains("--slurm"), "{words}");
    let unclosed = ["scale", &job, "--out", &out, "--ranks", "1", "--launcher-args", "--hostfile 'my hosts"];
    let (code, words) = text(&ddl(0, &unclosed));
    assert!(code == Some(2) && words.contains("--launcher-args: `--hostfile 'my hosts`"), "{code:?} {words}");
    assert!(!Path::new(&out).exists());
}

#[test]
fn under_mpirun_it_refuses_on_all_ranks() {
    let ended = ended(2, "", &["scale", &job(), "--ranks", "1,2"], Duration::from_secs(60));
    assert_eq!(ended.codes, [2, 2], "{}", ended.stderr);
    assert!(ended.errors.len() == 1 && ended.errors[0].contains("run it alone"), "{}", ended.stderr);
}

#[test]
fn scripts_for_slurm_are_written_instead_of_runs() {
    let dir = tempfile::tempdir().unwrap();
    let [scripts, out] = ["scripts", "study"].map(|name| dir.path().join(name).display().to_string());
    let (job, data) = (job(), data());
    let more = ["--ranks", "1,2", "--repeats", "2", "--set", &data, "--slurm", &scripts];
    let (stdout, _) = ddl_ok(0, &args(&job, &out, &more));
    assert!(stdout.contains("submit.sh"), "{stdout}");
    assert_eq!(fs::read_dir(&scripts).unwrap().count(), 6);
    let collect = fs::read_to_string(dir.path().join("scripts/collect.sbatch")).unwrap();
    let words = shlex::split(collect.lines().last().unwrap()).unwrap().join(" ");
    assert!(words.contains("--collect --ranks 1,2 --mode strong --repeats 2"), "{collect}");
    assert!(dir.path().join("study/ranks-2/repeat-2/job.toml").exists());
    assert!(!dir.path().join("study/ranks-2/repeat-2/run.h5").exists());
}

#[test]
fn a_prediction_needs_no_ranks() {
    let (job, data) = (job(), data());
    let more = ["scale", &job, "--predict", "--json", "--mode", "weak", "--set", &data];
    let network = ["--latency-us", "2", "--bandwidth-gbit", "100", "--ranks-per-host", "64"];
    let (stdout, _) = ddl_ok(0, &[&more[..], &network].concat());
    let outlook: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    let predictions = outlook["predictions"].as_array().unwrap();
    assert_eq!(
        (predictions.len(), &predictions[16]["ranks"], &predictions[16]["hosts"]),
        (17, &65_536.into(), &1024.into())
    );
    assert!((outlook["cluster"]["between"]["latency"].as_f64().unwrap() - 2e-6).abs() < 1e-12);
    let (stdout, _) = ddl_ok(0, &["scale", &job, "--predict", "--set", &data]);
    assert!(stdout.contains("beyond 128 ranks") && stdout.contains("smaller train.micro_batch"), "{stdout}");
}

/// Each rank counts as a host, so there is a link between two to be measured.
#[test]
fn under_mpirun_a_prediction_measures_the_links() {
    let (job, data) = (job(), data());
    for (exchange, measured) in [("mpi", "between"), ("shared", "inside")] {
        let set = format!("distributed.exchange={exchange}");
        let more = ["scale", &job, "--predict", "--json", "--set", &data, "--set", &set];
        let (stdout, _) = ddl_ok(2, &more);
        let outlook: serde_json::Value = serde_json::from_str(&stdout).unwrap();
        let link = &outlook["cluster"][measured];
        let [latency, byte] = ["latency", "seconds_per_byte"].map(|part| link[part].as_f64().unwrap());
        assert!((0.0..1.0).contains(&latency) && byte < 1e-5 && latency + byte > 0.0, "{outlook}");
        assert!([1e-6, 2e-5].iter().all(|assumed| (latency - assumed).abs() > 1e-15), "{outlook}");
        let expected = if exchange == "mpi" { ("measured", 1, 2) } else { ("assumed", 2, 1) };
        let found = (&outlook["network_from"], &outlook["cluster"]["ranks_per_host"], &outlook["here"]["hosts"]);
        assert_eq!(found, (&expected.0.into(), &expected.1.into(), &expected.2.into()));
        let step = outlook["here"]["by_algorithm"][2]["step_seconds"].as_f64().unwrap();
        assert!(step > outlook["here"]["compute_seconds"].as_f64().unwrap(), "{outlook}");
    }
    // What is given goes before what is measured.
    let given = ["--set", "distributed.exchange=mpi", "--latency-us", "5", "--bandwidth-gbit", "1"];
    let (stdout, _) = ddl_ok(2, &[&["scale", &job, "--predict", "--set", &data][..], &given].concat());
    assert!(
        stdout.contains("5.0 µs and 1.0 Gbit/s between hosts (given)") && stdout.contains("here, 2 ranks on 2"),
        "{stdout}"
    );
}
