//! A checkpoint predicts and is measured by itself, wherever it is; training goes by a validation part.

mod support;

use ddl::store::{checkpoint, read_run};
use ndarray::Array2;
use ndarray_npy::NpzWriter;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use support::{command, ddl, ddl_ok};

struct Folder(tempfile::TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    fn job(&self, data: &str, layers: &str, loss: &str, train: &str) {
        let optimizer = "[optimizer]\ntype = \"adam\"\nlr = 0.01\n";
        let text = format!(
            "name = \"t\"\nseed = 1\n[data]\n{data}\n[model]\nlayers = [{layers}]\n[loss]\ntype = \"{loss}\"\n{optimizer}\
             [train]\nepochs = 3\nbatch_size = 16\nmicro_batch = 4\n{train}\n"
        );
        fs::write(self.path("job.toml"), text).unwrap();
    }

    fn train(&self, ranks: usize, more: &[&str]) -> (String, String) {
        let (job, out) = (self.text("job.toml"), self.text("out"));
        ddl_ok(ranks, &[&["train", &job, "--out", &out], more].concat())
    }

    fn newest(&self) -> PathBuf {
        checkpoint::list(&self.path("out/checkpoints")).unwrap().pop().expect("a checkpoint")
    }

    /// The weights of the newest checkpoint.
    fn weights(&self) -> Vec<u32> {
        let model = checkpoint::read(&self.newest()).unwrap().model;
        model.iter().flat_map(|tensor| tensor.data.iter().map(|v| v.to_bits())).collect()
    }
}

fn table(path: &Path, rows: usize) {
    let rows = (0..rows).map(|i| format!("{},{},{}\n", i % 7, i % 5, (i % 7) * 2 + i % 5));
    fs::write(path, "a,b,y\n".to_owned() + &rows.collect::<String>()).unwrap();
}

const DENSE: &str =
    r#"{ type = "linear", out_features = 4 }, { type = "relu" }, { type = "linear", out_features = 1 }"#;

/// What a checkpoint says of `input` from an empty folder, after the training set is gone.
fn alone(folder: &Folder, gone: &[&str], input: &str) -> String {
    let moved = Folder::new();
    fs::copy(folder.newest(), moved.path("c.h5")).unwrap();
    fs::copy(folder.path(input), moved.path(input)).unwrap();
    gone.iter().for_each(|name| fs::remove_file(folder.path(name)).unwrap());
    let (checkpoint, file, out) = (moved.text("c.h5"), moved.text(input), moved.text("p.csv"));
    ddl_ok(0, &["predict", &checkpoint, "--input", &file, "--out", &out]);
    let one = fs::read_to_string(&out).unwrap();
    ddl_ok(2, &["predict", &checkpoint, "--input", &file, "--out", &out]);
    assert_eq!(fs::read_to_string(&out).unwrap(), one, "on two ranks");
    one
}

/// The same from where it was trained, while all is there.
fn at_home(folder: &Folder, input: &str) -> String {
    let (checkpoint, file, out) = (folder.newest().display().to_string(), folder.text(input), folder.text("home.csv"));
    ddl_ok(0, &["predict", &checkpoint, "--input", &file, "--out", &out]);
    fs::read_to_string(&out).unwrap()
}

/// More rows than a piece holds: as the rows are in files of their own, numbers and holes included, on one rank or three.
#[test]
fn predictions_in_pieces_are_those_of_the_whole() {
    let folder = Folder::new();
    table(&folder.path("data.csv"), 60);
    folder.job(&format!("source = \"csv\"\npath = \"{}\"\ntarget = \"y\"", folder.text("data.csv")), DENSE, "mse", "");
    folder.train(0, &[]);
    const ROWS: usize = 70_000;
    let row = |i: usize| if i % 1000 == 999 { format!("{i},\n") } else { format!("{},{}\n", i % 13, (i / 7) % 11) };
    let write = |name: &str, rows: std::ops::Range<usize>| {
        fs::write(folder.path(name), "a,b\n".to_owned() + &rows.map(row).collect::<String>()).unwrap();
    };
    write("all.csv", 0..ROWS);
    write("first.csv", 0..40_000);
    write("last.csv", 40_000..ROWS);
    let checkpoint = folder.newest().display().to_string();
    let predict = |ranks: usize, input: &str, out: &str| {
        let said = ddl_ok(ranks, &["predict", &checkpoint, "--input", &folder.text(input), "--out", &folder.text(out)]);
        (fs::read_to_string(folder.path(out)).unwrap_or_default(), said.0 + &said.1)
    };
    let (all, said) = predict(0, "all.csv", "all-p.csv");
    assert!(
        said.contains("70 of 70000 rows have missing values") && said.contains("wrote 69,930 predictions"),
        "{said}"
    );
    let numbered = |text: &str, from: usize| -> Vec<String> {
        let rows = text.lines().skip(1).map(|line| line.split_once(',').unwrap());
        rows.map(|(row, rest)| format!("{},{rest}", row.parse::<usize>().unwrap() + from)).collect()
    };
    let parts = [("first.csv", 0), ("last.csv", 40_000)];
    let parts: Vec<String> =
        parts.iter().flat_map(|&(name, from)| numbered(&predict(0, name, "p.csv").0, from)).collect();
    assert!(numbered(&all, 0) == parts && parts.len() == ROWS);
    assert!(predict(3, "all.csv", "three.csv").0 == all);
    predict(0, "all.csv", "all.h5");
    let file = hdf5::File::open(folder.path("all.h5")).unwrap();
    let column = file.dataset("prediction").unwrap().read_raw::<f64>().unwrap();
    let text = |value: f64| if value.is_nan() { String::new() } else { value.to_string() };
    assert!(column.iter().zip(&parts).all(|(&value, line)| line.ends_with(&format!(",{}", text(value)))));
}

/// The most memory that a run of `ddl` had at once, in MB.
fn peak(args: &[&str]) -> f64 {
    // `wait4` waits for it.
    #[allow(clippy::zombie_processes)]
    let child = command(0, args).stdout(Stdio::null()).spawn().unwrap();
    let (pid, mut status) = (child.id() as i32, 0);
    // SAFETY: all zeros are such numbers.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    // SAFETY: the process is our child, nobody else waits for it, and the pointers live until the call returns.
    let ended = unsafe { libc::wait4(pid, &mut status, 0, &mut usage) };
    assert_eq!((ended, status), (pid, 0), "ddl {args:?}");
    usage.ru_maxrss as f64 / 1024.0
}

/// Neither rows nor what only training needs is in memory when a network predicts.
#[test]
fn memory_grows_with_the_weights_and_not_with_rows_or_moments() {
    let folder = Folder::new();
    let arrays = |name: &str, rows: usize| {
        let mut npz = NpzWriter::new(fs::File::create(folder.path(name)).unwrap());
        npz.add_array("x_train", &Array2::<f32>::ones((rows, 8))).unwrap();
        npz.add_array("y_train", &Array2::<f32>::ones((rows, 1))).unwrap();
        npz.finish().unwrap();
    };
    arrays("few.npz", 100);
    arrays("many.npz", 600_000);
    folder.job(&format!("source = \"npz\"\npath = \"{}\"", folder.text("few.npz")), DENSE, "mse", "max_steps = 1");
    let out = folder.text("p.csv");
    let predict = |input: &str| {
        let checkpoint = folder.newest().display().to_string();
        peak(&["predict", &checkpoint, "--input", &folder.text(input), "--out", &out])
    };
    folder.train(0, &[]);
    let few = predict("few.npz");
    let many = predict("many.npz");
    assert_eq!(fs::read_to_string(&out).unwrap().lines().count(), 600_001);
    // The inputs alone take 18 MB.
    assert!(few < 60.0 && many < few + 12.0, "{few} MB with few rows, {many} with many");
    let wide = DENSE.replace("out_features = 4", "out_features = 2000");
    let wide = wide.replacen("},", "}, { type = \"linear\", out_features = 2000 },", 1);
    folder.job(&format!("source = \"npz\"\npath = \"{}\"", folder.text("few.npz")), &wide, "mse", "max_steps = 1");
    folder.train(0, &[]);
    // Weights of 15 MB, of which the largest tensor is there twice for a moment; moments of 31 MB.
    let large = predict("few.npz");
    assert!(large < few + 40.0, "{few} MB with few weights, {large} with many");
}

#[test]
fn a_table_is_predicted_without_the_training_set() {
    let folder = Folder::new();
    table(&folder.path("data.csv"), 60);
    // Columns in another order, and one that the network never saw.
    fs::write(folder.path("new.csv"), "x,b,a\n1,2,3\n1,4,6\n").unwrap();
    folder.job(&format!("source = \"csv\"\npath = \"{}\"\ntarget = \"y\"", folder.text("data.csv")), DENSE, "mse", "");
    folder.train(0, &[]);
    let input = checkpoint::read(&folder.newest()).unwrap().input.unwrap();
    assert_eq!((input.features, input.targets), (vec!["a".to_owned(), "b".into()], vec!["y".to_owned()]));
    let home = at_home(&folder, "new.csv");
    assert_eq!(alone(&folder, &["data.csv"], "new.csv"), home);
    // Measured on a file of its own.
    table(&folder.path("other.csv"), 30);
    let (checkpoint, other) = (folder.newest().display().to_string(), folder.text("other.csv"));
    let (text, _) = ddl_ok(2, &["evaluate", &checkpoint, "--input", &other, "--json"]);
    let figures: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(figures["samples"], 30);
    let output = ddl(0, &["evaluate", &checkpoint, "--input", &folder.text("new.csv")]);
    assert_eq!(output.status.code(), Some(65));
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not hold every sample's target"), "{output:?}");
}

#[test]
fn classes_and_series_are_predicted_without_the_training_set() {
    let folder = Folder::new();
    let rows = |n: usize| (0..n).map(|i| format!("{},{}\n", i % 6, ["low", "high"][i % 6 / 3])).collect::<String>();
    fs::write(folder.path("data.csv"), format!("a,kind\n{}", rows(60))).unwrap();
    fs::write(folder.path("new.csv"), "a\n0\n5\n").unwrap();
    let data =
        format!("source = \"csv\"\npath = \"{}\"\ntarget = \"kind\"\ntask = \"classes\"", folder.text("data.csv"));
    folder.job(&data, &DENSE.replace("out_features = 1", "out_features = 2"), "cross_entropy", "");
    folder.train(0, &[]);
    let home = at_home(&folder, "new.csv");
    assert!(home.starts_with("sample,class,probability,p_high,p_low"), "{home}");
    assert_eq!(alone(&folder, &["data.csv"], "new.csv"), home);

    let folder = Folder::new();
    let price = |ticker: &str, day: usize| format!("2020-01-{:02},{},{ticker}\n", day + 1, 10.0 + (day % 5) as f64);
    let prices =
        |days: usize| (0..days).flat_map(|day| ["A", "B"].map(|ticker| price(ticker, day))).collect::<String>();
    fs::write(folder.path("data.csv"), "date,close,Name\n".to_owned() + &prices(30)).unwrap();
    fs::write(folder.path("new.csv"), "date,close,Name\n".to_owned() + &prices(8)).unwrap();
    let data = format!("source = \"stocks\"\npath = \"{}\"\nwindow = 4", folder.text("data.csv"));
    folder.job(&data, r#"{ type = "lstm", hidden_size = 3 }, { type = "linear", out_features = 1 }"#, "mse", "");
    folder.train(0, &[]);
    let home = at_home(&folder, "new.csv");
    assert!(home.lines().nth(1).is_some_and(|line| line.contains("A 2020-01-05")), "{home}");
    assert_eq!(alone(&folder, &["data.csv"], "new.csv"), home);
}

/// Made by the program as it was before checkpoints knew their input, with what it predicted.
#[test]
fn an_older_checkpoint_opens_and_says_what_it_lacks() {
    let folder = Folder::new();
    table(&folder.path("data.csv"), 60);
    let old = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/checkpoint-format-1.h5");
    let (data, out) = (folder.text("data.csv"), folder.text("p.csv"));
    let set = format!("data.path=\"{data}\"");
    let (_, stderr) = ddl_ok(0, &["predict", old, "--input", &data, "--out", &out, "--set", &set]);
    assert!(stderr.contains("made by an older ddl") && stderr.contains("is read"), "{stderr}");
    let text = fs::read_to_string(&out).unwrap();
    let of = |line: &str| line.split(',').nth(1).unwrap().parse::<f64>().unwrap();
    for (line, expected) in text.lines().skip(1).zip(PREDICTED) {
        assert!((of(line) - expected).abs() < 1e-5, "{line}: {expected}");
    }
    fs::create_dir_all(folder.path("out/checkpoints")).unwrap();
    fs::copy(old, folder.path("out/checkpoints/step-00000009.h5")).unwrap();
    folder.job(&format!("source = \"csv\"\npath = \"{data}\"\ntarget = \"y\""), DENSE, "mse", "");
    folder.train(0, &["--resume", "--set", "train.epochs=4"]);
    assert!(checkpoint::read(&folder.newest()).unwrap().input.is_some());
}

const PREDICTED: [f64; 8] = [6.595397, 7.155067, 7.470331, 8.148309, 9.34976, 7.486939, 8.043967, 7.121232];

#[test]
fn the_best_epoch_is_kept_and_training_ends_when_it_gets_no_better() {
    let folder = Folder::new();
    table(&folder.path("data.csv"), 100);
    let data = format!("source = \"csv\"\npath = \"{}\"\ntarget = \"y\"", folder.text("data.csv"));
    // Rates that grow until the loss does.
    let train = "validation = 0.25\npatience = 3\nkeep_checkpoints = 1\n[schedule]\ntype = \"step\"\nstep_size = 4\ngamma = 20.0\n[distributed]\nreduction = \"reproducible\"";
    folder.job(&data, DENSE, "mse", train);
    let (stdout, _) = folder.train(0, &["--set", "train.epochs=50"]);
    let run = read_run(&folder.path("out/run.h5")).unwrap();
    let losses = run.epoch_column("validation_loss").unwrap().to_vec();
    let best = (0..losses.len()).reduce(|best, epoch| if losses[epoch] < losses[best] { epoch } else { best }).unwrap();
    assert_eq!(losses.len(), best + 4, "{losses:?}");
    assert!(losses.len() < 50 && stdout.contains("ended early: 3 epochs"), "{stdout}");
    assert!(stdout.contains("60 training"), "a quarter of 80 is kept back: {stdout}");
    let kept = checkpoint::read(&folder.path("out/checkpoints/best.h5")).unwrap();
    assert_eq!((kept.epoch, kept.best.epoch, kept.best.loss), (best as u64 + 1, best as u64 + 1, losses[best]));
    assert_eq!(run.result.iter().find(|(name, _)| name == "best_epoch").unwrap().1, best as f64 + 1.0);
    let best = folder.text("out/checkpoints/best.h5");
    let (text, _) = ddl_ok(0, &["evaluate", &best, "--json"]);
    assert!(text.contains("test_mse"), "{text}");
    // The same on other ranks, and cut and gone on with.
    let weights = folder.weights();
    for ranks in [2, 3] {
        folder.train(ranks, &["--set", "train.epochs=50"]);
        assert!(folder.weights() == weights, "{ranks} ranks");
        assert_eq!(read_run(&folder.path("out/run.h5")).unwrap().epoch_column("validation_loss").unwrap(), losses);
    }
    folder.train(0, &["--set", "train.epochs=2"]);
    folder.train(2, &["--resume", "--set", "train.epochs=50"]);
    assert!(folder.weights() == weights, "resumed");
    assert_eq!(read_run(&folder.path("out/run.h5")).unwrap().epoch_column("validation_loss").unwrap(), losses);
    let (again, _) = folder.train(0, &["--resume", "--set", "train.epochs=50"]);
    assert!(again.contains("train.patience is reached already"), "{again}");
}

/// Of each series the last rows are kept back, and the scalers do not see them.
#[test]
fn of_series_the_last_rows_are_kept_back() {
    let folder = Folder::new();
    let day = |day: usize| format!("2020-{:02}-{:02},{}\n", day / 28 + 1, day % 28 + 1, day);
    fs::write(folder.path("A.csv"), "date,close\n".to_owned() + &(0..100).map(day).collect::<String>()).unwrap();
    let data = format!("source = \"stocks\"\npath = \"{}\"\nwindow = 4", folder.text("A.csv"));
    folder.job(
        &data,
        r#"{ type = "flatten" }, { type = "linear", out_features = 1 }"#,
        "mse",
        "validation = 0.25\nmax_steps = 1",
    );
    let (stdout, _) = folder.train(0, &[]);
    // 80 rows to train on: 76 windows, of which 19 are kept back, and 61 rows to fit the scaler on.
    assert!(stdout.contains("57 training"), "{stdout}");
    let input = checkpoint::read(&folder.newest()).unwrap().input.unwrap();
    let (name, unit) = &input.series[0];
    assert_eq!((name.as_str(), unit[0].scale, unit[0].offset), ("A", 60.0, 0.0));
}

/// Each of the five jobs: what its checkpoint says from an empty folder is what it said beside the job and the data.
#[test]
fn the_five_jobs_predict_from_their_checkpoint_alone() {
    let home = Path::new(env!("CARGO_MANIFEST_DIR"));
    let cifar: Vec<u8> =
        (0..40 * 3073).map(|i| if i % 3073 == 0 { (i / 3073 % 10) as u8 } else { (i % 251) as u8 }).collect();
    let batches = (1..6).map(|i| format!("data/data_batch_{i}.bin")).chain(["data/test_batch.bin".into()]);
    let batches: Vec<(String, Vec<u8>)> = batches.map(|name| (name, cifar.clone())).collect();
    let shipped = |folder: &str, name: &str| (format!("data/{name}"), fs::read(home.join(folder).join(name)).unwrap());
    let digits = ["train-images", "t10k-images"].map(|name| shipped("data/mnist", &format!("{name}-idx3-ubyte.gz")));
    let labels = ["train-labels", "t10k-labels"].map(|name| shipped("data/mnist", &format!("{name}-idx1-ubyte.gz")));
    let digits = [digits, labels].concat();
    let price = |day: usize| ["A", "B"].map(|ticker| format!("2020-01-{:02},{},{ticker}\n", day + 1, 10 + day * 7 % 5));
    let prices = "date,close,Name\n".to_owned() + &(0..30).flat_map(price).collect::<String>();
    let stocks = vec![("data/stocks.csv".to_owned(), prices.into_bytes())];
    let index = vec![shipped("data/sp500", "index_daily.csv.gz")];
    for (job, data, files, input) in [
        ("cifar10-simplecnn", "data", &batches, "data/test_batch.bin"),
        ("cifar10-bncnn", "data", &batches, "data/test_batch.bin"),
        ("mnist-cnn", "data", &digits, "data/t10k-images-idx3-ubyte.gz"),
        ("sp500-lstm", "data/stocks.csv", &stocks, "data/stocks.csv"),
        ("sp500-mlp", "data/index_daily.csv.gz", &index, "data/index_daily.csv.gz"),
    ] {
        let folder = Folder::new();
        fs::create_dir(folder.path("data")).unwrap();
        files.iter().for_each(|(name, bytes)| fs::write(folder.path(name), bytes).unwrap());
        let file = home.join(format!("jobs/{job}.toml")).display().to_string();
        let path = format!("data.path={}", folder.text(data));
        let mut args = vec!["train", &file, "--set", "train.max_steps=2", "--set", "train.epochs=1", "--set", &path];
        if job == "sp500-lstm" {
            args.extend(["--set", "data.window=6"]);
        }
        let out = folder.text("out");
        args.extend(["--out", &out]);
        ddl_ok(0, &args);
        let predict = |checkpoint: &Path, input: &Path, out: PathBuf| {
            let [checkpoint, input, out] = [checkpoint, input, &out].map(|path| path.display().to_string());
            ddl_ok(0, &["predict", &checkpoint, "--input", &input, "--out", &out]);
            fs::read_to_string(out).unwrap()
        };
        let at_home = predict(&folder.newest(), &folder.path(input), folder.path("p.csv"));
        let moved = Folder::new();
        let name = Path::new(input).file_name().unwrap().to_str().unwrap();
        fs::rename(folder.newest(), moved.path("c.h5")).unwrap();
        fs::rename(folder.path(input), moved.path(name)).unwrap();
        drop(folder);
        let alone = predict(&moved.path("c.h5"), &moved.path(name), moved.path("p.csv"));
        assert!(alone == at_home && alone.lines().count() > 20, "{job}: {} lines", alone.lines().count());
    }
}
