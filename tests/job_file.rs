//! The job file: every key of the contract parses, every mistake is named with its place.

mod support;

use ddl::config::{Augmentation, Batch, Job, Override, PaddingMode, Precision, Resident, Shuffle};
use ddl::error::Result;
use ddl::model::Model;
use ddl::shape::Shape;
use std::path::Path;
use std::process::{Command, Output};
use std::time::Duration;

/// Every section, and every key that all jobs share.
const FULL: &str = include_str!("support/full.toml");

fn parse(text: &str) -> Result<Job> {
    Job::parse(text, "job.toml", &[])
}

/// Parses, and has the registries check their keys, as a run does.
fn resolve(text: &str) -> Result<String> {
    parse(text)?.resolved()
}

/// FULL with `from` replaced.
fn changed(from: &str, to: &str) -> String {
    assert!(FULL.contains(from), "{from}");
    FULL.replacen(from, to, 1)
}

/// The line of FULL that `from` starts on, counted from 1.
fn line(from: &str) -> usize {
    let at = FULL.find(from).unwrap_or_else(|| panic!("{from}"));
    FULL[..at].matches('\n').count() + 1
}

#[test]
fn every_key_of_the_contract_parses() {
    let job = parse(FULL).unwrap();
    assert_eq!((job.name.as_str(), job.seed), ("cifar10-cnn", 42));
    assert_eq!(job.data.source.kind, "cifar10");
    assert_eq!(job.data.path.as_deref(), Some(Path::new("data/cifar10")));
    assert_eq!((job.data.shuffle, job.data.resident), (Shuffle::No, Resident::Yes));
    let augment = [
        Augmentation::RandomCrop { padding: 4, padding_mode: PaddingMode::Zeros },
        Augmentation::HorizontalFlip { p: 0.5 },
    ];
    assert_eq!(job.data.augment, augment);
    let kinds: Vec<_> = job.layers.iter().map(|layer| layer.kind.as_str()).collect();
    let expected = ["conv2d", "batch_norm2d", "relu", "residual", "max_pool2d", "dropout", "flatten", "linear"];
    assert_eq!(kinds, expected);
    assert_eq!((job.loss.kind.as_str(), job.optimizer.kind.as_str()), ("cross_entropy", "adam"));
    assert_eq!(job.schedule.kind, "cosine");
    assert_eq!((job.train.epochs, job.train.batch(), job.train.micro_batch()), (10, Batch::Global(128), 32));
    assert_eq!(job.train.precision, Precision::F32);
    assert_eq!(parse(&changed("\"f32\"", "\"bf16\"")).unwrap().train.precision, Precision::Bf16);
    assert!(job.distributed.overlap);
    job.resolved().unwrap();
    let weak = parse(&changed("batch_size = 128", "batch_per_rank = 64")).unwrap();
    assert_eq!(weak.train.batch(), Batch::PerRank(64));
    for kind in ["none", "standard", "minmax", "window"] {
        let from = "{ mean = [0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25] }";
        resolve(&changed(from, &format!("\"{kind}\""))).unwrap();
    }
}

#[test]
fn series_and_arrays_parse() {
    let rest = "model.layers = [{ type = \"lstm\", hidden_size = 64, num_layers = 2, return_sequences = true }]\n\
                loss.type = \"mse\"\noptimizer = { type = \"sgd\", lr = 0.1 }\ntrain = { epochs = 1, batch_size = 8 }\n";
    for data in [
        "source = \"stocks\"\npath = \"x.csv\"\ncolumn = \"close\"\nwindow = 60\nhorizon = 1\ntickers = [\"A\"]\n\
         normalize = \"minmax\"\ntrain_fraction = 0.8",
        "source = \"npz\"\npath = \"x.npz\"\nshuffle = false\nnormalize = \"none\"",
        "source = \"hdf5\"\npath = \"x.h5\"",
        "source = \"synthetic\"\nshape = [60, 1]\nvalues = 1",
    ] {
        resolve(&format!("{rest}[data]\n{data}")).unwrap_or_else(|e| panic!("{data}: {e}"));
    }
}

/// Defaults: constant schedule, allreduce, seed 42, and the file's name for the job's.
#[test]
fn little_is_needed() {
    let text = "data.source = \"synthetic\"\nmodel.layers = [{ type = \"flatten\" }]\nloss.type = \"mse\"\n\
                optimizer.type = \"adam\"\ntrain = { epochs = 1, batch_size = 8 }";
    let job = Job::parse(text, "some/where/my-run.toml", &[]).unwrap();
    assert_eq!((job.name.as_str(), job.seed, job.schedule.kind.as_str()), ("my-run", 42, "constant"));
    assert_eq!((job.data.shuffle, job.data.resident), (Shuffle::Exact, Resident::Auto));
    assert!(job.data.augment.is_empty() && !job.distributed.overlap);
    // A byte order mark, as Windows' editors write.
    assert_eq!(Job::parse(&format!("\u{feff}{text}"), "some/where/my-run.toml", &[]).unwrap(), job);
}

/// Errors have exit code 2, the line of `at` in FULL, and all of `parts`.
fn is_named(text: &str, at: &str, parts: &[&str]) {
    let error = match resolve(text) {
        Err(error) => error,
        Ok(_) => panic!("no error from:\n{text}"),
    };
    let message = error.to_string();
    assert_eq!(error.exit_code(), 2, "{message}");
    assert!(message.starts_with(&format!("job.toml:{}", line(at))), "line {} of {at}: {message}", line(at));
    for part in parts {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
    assert_eq!(message.lines().count(), 1, "{message}");
}

#[test]
fn unknown_keys_name_the_line_and_the_nearest() {
    let inner = "    { type = \"conv2d\", out_channels = 32, kernel_size = 1 }";
    for (from, to, at, near) in [
        ("seed = 42", "sed = 42", "seed", "`seed`"),
        ("[optimizer]", "[optimiser]", "[optimizer]", "`optimizer`"),
        ("shuffle = false", "shufle = false", "shuffle", "`shuffle`"),
        ("path = ", "pth = ", "path = ", "`path`"),
        ("padding = 4", "pading = 4", "augment", "`padding`"),
        ("layers = [\n", "layer = []\nlayers = [\n", "layers = [", "`layers`"),
        ("out_channels = 32", "out_chanels = 32", "  { type = \"conv2d\"", "`out_channels`"),
        ("p = 0.25", "q = 0.25", "  { type = \"dropout\"", "`p`"),
        (inner, &inner.replace("kernel_size", "kernelsize"), inner, "`kernel_size`"),
        ("label_smoothing", "label_smothing", "label_smoothing", "`label_smoothing`"),
        ("lr = 0.001", "Ir = 0.001", "lr = 0.001", "`lr`"),
        ("warmup_epochs", "warm_up_epochs", "warmup_epochs", "`warmup_epochs`"),
        ("micro_batch = 32", "microbatch = 32", "micro_batch", "`micro_batch`"),
        ("overlap", "overlaps", "overlap", "`overlap`"),
    ] {
        let key = to.trim_start_matches(['[', ' ', '{']).split([' ', ']']).next().unwrap();
        let key = if to.trim_start().starts_with('{') { "kernelsize" } else { key };
        is_named(&changed(from, to), at, &["unknown key", &format!("`{key}`"), &format!("did you mean {near}?")]);
    }
}

#[test]
fn unknown_kinds_name_the_line_and_the_nearest() {
    for (from, to, at) in [
        ("\"cifar10\"", "\"cifar\"", "source"),
        ("\"conv2d\"", "\"conv2\"", "  { type = \"conv2d\""),
        (
            "\"conv2d\", out_channels = 32, kernel_size = 1",
            "\"conv\"",
            "    { type = \"conv2d\", out_channels = 32, kernel_size = 1",
        ),
        ("\"cross_entropy\"", "\"crossentropy\"", "type = \"cross"),
        ("\"adam\"", "\"adm\"", "type = \"adam\""),
        ("\"cosine\"", "\"cosin\"", "type = \"cosine\""),
        ("\"random_crop\"", "\"randomcrop\"", "augment"),
        ("\"allreduce\"", "\"all_reduce\"", "reduction"),
    ] {
        is_named(
            &changed(from, to),
            at,
            &["unknown", to, "did you mean", from.split(',').next().unwrap().trim_matches('"')],
        );
    }
    let far = changed("\"adam\"", "\"zzzzzzzz\"");
    is_named(&far, "type = \"adam\"", &["known: adam, adamw, lamb, lars, sgd"]);
}

#[test]
fn wrong_types_and_values_name_the_key() {
    let normalize = "normalize = { mean = [0.5, 0.5, 0.5], std = [0.25, 0.25, 0.25] }";
    for (from, to, key) in [
        ("seed = 42", "seed = -1", "seed"),
        ("seed = 42", "seed = \"x\"", "seed"),
        ("name = \"cifar10-cnn\"", "name = 3", "name"),
        ("name = \"cifar10-cnn\"", "name = \"../up\"", "name"),
        ("name = \"cifar10-cnn\"", "name = \"\"", "name"),
        ("shuffle = false", "shuffle = 1", "shuffle"),
        ("shuffle = false", "shuffle = \"rows\"", "shuffle"),
        ("resident = true", "resident = \"never\"", "resident"),
        ("path = \"data/cifar10\"", "path = 3", "path"),
        ("source = \"cifar10\"", "source = 10", "source"),
        (normalize, "normalize = \"standrd\"", "normalize"),
        (normalize, "normalize = 3", "normalize"),
        ("padding = 4", "padding = -4", "augment"),
        ("out_channels = 32", "out_channels = \"32\"", "out_channels"),
        ("kernel_size = 3", "kernel_size = \"3\"", "kernel_size"),
        ("p = 0.25", "p = \"0.25\"", "p"),
        ("p = 0.25", "p = [0.25]", "p"),
        ("out_features = 10", "out_features = 1.5", "out_features"),
        ("lr = 0.001", "lr = \"fast\"", "lr"),
        ("lr = 0.001", "lr = { a = 1 }", "lr"),
        ("label_smoothing = 0.1", "label_smoothing = true", "label_smoothing"),
        ("warmup_epochs = 1", "warmup_epochs = \"one\"", "warmup_epochs"),
        ("epochs = 10", "epochs = 0", "epochs"),
        ("epochs = 10", "epochs = -1", "epochs"),
        ("epochs = 10", "epochs = 9223372036854775807", "epochs"),
        ("batch_size = 128", "batch_size = 0", "batch_size"),
        ("batch_size = 128", "batch_size = 1e3", "batch_size"),
        ("batch_size = 128", "batch_size = 100000000000", "batch_size"),
        ("micro_batch = 32", "micro_batch = 0", "micro_batch"),
        ("micro_batch = 32", "micro_batch = 32\nbatch_per_rank = 3", "batch_per_rank"),
        ("micro_batch = 32", "clip_norm = -1.0", "clip_norm"),
        ("micro_batch = 32", "clip_norm = nan", "clip_norm"),
        ("precision = \"f32\"", "precision = \"f16\"", "precision"),
        ("precision = \"f32\"", "precision = 16", "precision"),
        ("overlap = true", "overlap = \"yes\"", "overlap"),
        ("reduction = \"allreduce\"", "reduction = 1", "reduction"),
    ] {
        let text = changed(from, to);
        let error = resolve(&text).map(|_| text).expect_err(to);
        let message = error.to_string();
        assert_eq!(error.exit_code(), 2, "{to}: {message}");
        // The key that was changed is the last one that `to` writes.
        let line = line(from) + to.matches('\n').count();
        assert!(message.starts_with(&format!("job.toml:{line}")), "line {line} of {to}: {message}");
        let place = message.split(": ").next().unwrap_or_default();
        assert!(place.ends_with(key), "{to}: {message}");
        assert!(!message.contains("untagged") && message.lines().count() == 1, "{to}: {message}");
    }
}

#[test]
fn what_is_missing_is_named() {
    for (from, to, parts) in [
        ("source = \"cifar10\"", "", &["data", "source"][..]),
        ("type = \"batch_norm2d\"", "", &["model.layers[1]", "type"]),
        (
            "type = \"conv2d\", out_channels = 32, kernel_size = 1",
            "kernel_size = 1",
            &["model.layers[3].layers[1]", "type"],
        ),
        ("type = \"cross_entropy\"", "", &["loss", "type"]),
        ("type = \"adam\"", "", &["optimizer", "type"]),
        ("type = \"random_crop\", ", "", &["augment", "type"]),
        ("out_features = 10", "bias = true", &["model.layers[7]", "out_features"]),
        ("batch_size = 128", "", &["train", "batch_size"]),
        ("epochs = 10", "", &["train", "epochs"]),
        ("\"adam\"\nlr = 0.001", "\"sgd\"", &["optimizer", "lr"]),
        ("[model]\nlayers = [", "[model]\nlayers = [] #", &["model.layers"]),
    ] {
        let mut text = changed(from, to);
        if to.ends_with('#') {
            text = text.lines().filter(|line| !line.starts_with([' ', ']'])).collect::<Vec<_>>().join("\n");
        }
        let error = resolve(&text).map(|_| to).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{error}");
        let message = error.to_string();
        assert!(message.starts_with("job.toml:"), "{message}");
        assert!(parts.iter().all(|part| message.contains(part)), "{parts:?}: {message}");
    }
    let schedule = changed("type = \"cosine\"\n", "");
    assert_eq!(parse(&schedule).unwrap().schedule.kind, "constant");
    for text in ["", "name = \"x\"", "data = 3", "model = []", "[[train]]", "data.source = \"mnist\"\nmodel = 1"] {
        assert_eq!(parse(text).unwrap_err().exit_code(), 2, "{text}");
    }
}

#[test]
fn broken_toml_names_line_and_column() {
    let error = parse(&changed("lr = 0.001", "lr = = 0.001")).unwrap_err();
    assert!(error.to_string().starts_with(&format!("job.toml:{}:", line("lr = 0.001"))), "{error}");
    for text in ["\u{0}", "a = \"", "[", "a = 1\na = 2", "é = ü", "a = 1e999999", "a.b = 1\na = 2"] {
        let error = parse(text).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{text:?}");
        assert!(error.to_string().starts_with("job.toml"), "{text:?}: {error}");
    }
}

/// Nesting that would take a stack down is an error like any other.
#[test]
fn endless_nesting_is_an_error() {
    let deep = 200_000;
    for text in [
        format!("a = {}", "[".repeat(deep)),
        format!("a = {}", "{ a = ".repeat(deep)),
        format!("{}a = 1", "a.".repeat(deep)),
        format!("[{}a]", "a.".repeat(deep)),
    ] {
        assert_eq!(parse(&text).unwrap_err().exit_code(), 2);
    }
    let path = "a.".repeat(deep);
    let result = Override::parse(&format!("{path}a=1")).and_then(|change| Job::parse(FULL, "job.toml", &[change]));
    assert_eq!(result.unwrap_err().exit_code(), 2);
    let value = format!("name={}", "[".repeat(deep));
    assert!(Override::parse(&value).is_ok(), "taken as a text");
}

/// Layers of sizes that no memory holds are errors before anything is allocated.
#[test]
fn giant_layers_are_errors() {
    let huge = i64::MAX;
    for (input, layer) in [
        (Shape::Vector { n: 4 }, format!("type = \"linear\", out_features = {huge}")),
        (Shape::Vector { n: 4 }, "type = \"linear\", out_features = 100000000000".into()),
        (Shape::Vector { n: 1 << 30 }, "type = \"linear\", out_features = 262144".into()),
        (Shape::Sequence { t: 5, f: 4 }, "type = \"lstm\", hidden_size = 1000000000000".into()),
        (Shape::Sequence { t: 5, f: 4 }, format!("type = \"lstm\", hidden_size = {huge}, bidirectional = true")),
        (Shape::Sequence { t: 5, f: 4 }, "type = \"lstm\", hidden_size = 200000".into()),
        (Shape::Sequence { t: 5, f: 4 }, format!("type = \"lstm\", hidden_size = 2, num_layers = {huge}")),
        (IMAGE, format!("type = \"conv2d\", out_channels = {huge}, kernel_size = 3")),
        (IMAGE, format!("type = \"conv2d\", out_channels = 1, kernel_size = [3, {huge}], padding = {huge}")),
        (IMAGE, "type = \"conv2d\", out_channels = 9, kernel_size = 250000, padding = 200000".into()),
        (IMAGE, "type = \"conv2d\", out_channels = 200000, kernel_size = 1, padding = 200000".into()),
        (IMAGE, format!("type = \"max_pool2d\", kernel_size = {huge}")),
        (IMAGE, format!("type = \"adaptive_avg_pool2d\", output_size = {huge}")),
        (IMAGE, format!("type = \"residual\", layers = [{{ type = \"linear\", out_features = {huge} }}]")),
    ] {
        let job =
            parse(&changed("  { type = \"conv2d\"", &format!("  {{ {layer} }},\n  {{ type = \"conv2d\""))).unwrap();
        let error = Model::<f32>::build(&job.layers[..1], input, 32).map(|_| ()).expect_err(&layer);
        assert_eq!(error.exit_code(), 2, "{error}");
        let place = format!("job.toml:{}, model.layers[0]", line("  { type = \"conv2d\""));
        assert!(error.to_string().starts_with(&place), "{error}");
    }
}

const IMAGE: Shape = Shape::Image { c: 3, h: 8, w: 8 };

fn check_idempotent(text: &str, file: &str) -> String {
    let once = Job::parse(text, file, &[]).and_then(|job| job.resolved()).unwrap_or_else(|e| panic!("{file}: {e}"));
    let again = Job::parse(&once, "other.toml", &[]).and_then(|job| job.resolved());
    assert_eq!(again.unwrap_or_else(|e| panic!("{file}, resolved: {e}\n{once}")), once);
    once
}

#[test]
fn the_resolved_job_resolves_to_itself() {
    let resolved = check_idempotent(FULL, "job.toml");
    for part in ["eps = ", "momentum = 0.1", "betas = [", "min_lr = 0", "evaluate_every = 1", "overlap = true"] {
        assert!(resolved.contains(part), "no {part}:\n{resolved}");
    }
    check_idempotent(&changed("batch_size = 128\nmicro_batch = 32", "batch_per_rank = 24"), "weak");
}

#[test]
fn every_shipped_job_resolves() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("jobs");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|extension| extension == "toml") {
            check_idempotent(&std::fs::read_to_string(&path).unwrap(), &path.display().to_string());
            assert_eq!(Job::load(&path, &[]).unwrap().name, path.file_stem().unwrap().to_string_lossy());
            count += 1;
        }
    }
    assert!(count >= 6, "{count} jobs in {}", folder.display());
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let error = Job::load(Path::new("no/such.toml"), &[]).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().starts_with("no/such.toml: "), "{error}");
}

/// Later overrides win over earlier ones, and all over the file.
#[test]
fn the_last_override_wins() {
    let change = |text: &str| Override::parse(text).unwrap();
    let lr = |changes: &[Override]| {
        let job = Job::parse(FULL, "job.toml", changes).unwrap();
        job.optimizer.table["lr"].as_float()
    };
    assert_eq!(lr(&[]), Some(0.001));
    assert_eq!(lr(&[change("optimizer.lr=0.5")]), Some(0.5));
    assert_eq!(lr(&[change("optimizer.lr=0.5"), change("optimizer.lr=0.25")]), Some(0.25));
    let layers = [change("model.layers[3].layers[1].kernel_size=5"), change("name=other")];
    let job = Job::parse(FULL, "job.toml", &layers).unwrap();
    assert_eq!(job.name, "other");
    assert_eq!(job.layers[3].table["layers"][1]["kernel_size"].as_integer(), Some(5));
    let error = Job::parse(FULL, "job.toml", &[change("train.epoch=3")]).unwrap_err();
    assert!(error.exit_code() == 2 && error.to_string().contains("did you mean `epochs`?"), "{error}");
}

/// `ddl train --dry-run` on made data, with `epochs` in the file, the environment and on the command line.
fn dry_run(file: &str, environment: &[(&str, &str)], set: &[&str]) -> Output {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("job.toml");
    let text = format!(
        "model.layers = [{{ type = \"linear\", out_features = 10 }}]\nloss.type = \"cross_entropy\"\n\
         optimizer.type = \"adam\"\ndata = {{ source = \"synthetic\", shape = [4] }}\n\
         train = {{ epochs = {file}, batch_size = 8 }}\n"
    );
    std::fs::write(&path, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_ddl"));
    command.current_dir(folder.path()).args(["train", "job.toml", "--dry-run"]).envs(environment.iter().copied());
    for change in set {
        command.args(["--set", change]);
    }
    support::run(&mut command, Duration::from_secs(60))
}

/// A wrong value is only seen where nothing stronger is given.
#[test]
fn the_command_line_beats_the_environment_beats_the_file() {
    let (wrong, right) = ([("DDL_TRAIN_EPOCHS", "0")], [("DDL_TRAIN_EPOCHS", "2")]);
    let code = |output: Output| output.status.code();
    assert_eq!(code(dry_run("1", &[], &[])), Some(0));
    assert_eq!(code(dry_run("0", &[], &[])), Some(2));
    assert_eq!(code(dry_run("0", &right, &[])), Some(0));
    assert_eq!(code(dry_run("1", &wrong, &[])), Some(2));
    assert_eq!(code(dry_run("0", &wrong, &["train.epochs=3"])), Some(0));
    assert_eq!(code(dry_run("1", &right, &["train.epochs=0"])), Some(2));
}

/// Variables that are no text are none of ours.
#[cfg(unix)]
#[test]
fn an_environment_that_is_no_text_is_ignored() {
    use std::os::unix::ffi::OsStrExt;
    let mut command = Command::new(env!("CARGO_BIN_EXE_ddl"));
    command.args(["train", "no-such.toml"]);
    command.env("DDL_ODD", std::ffi::OsStr::from_bytes(b"\xff")).env("ODD", std::ffi::OsStr::from_bytes(b"\xfe"));
    let output = support::run(&mut command, Duration::from_secs(60));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("there is no such job file"), "{stderr}");
}

/// Sums that run ahead of the last micro-batch cannot follow the tree: the weights would be wrong without a word. Likewise
/// what else one of two options would undo.
#[test]
fn options_that_do_not_go_together_are_refused() {
    let cases = [
        ("overlap = true\nreduction = \"reproducible\"", "overlap", "reproducible"),
        ("overlap = true\nwire = \"bf16\"", "wire", "overlapping"),
        ("wire = \"bf16\"\nreduction = \"reproducible\"", "wire", "reproducible"),
        ("average_every = 0", "average_every", "at least 1"),
        ("average_every = 2\nreduction = \"reproducible\"", "average_every", "keep one"),
        ("average_every = 2\noverlap = true", "average_every", "keep one"),
        ("average_every = 2\nwire = \"bf16\"", "average_every", "keep one"),
    ];
    for (keys, key, why) in cases {
        let text = FULL.split("[distributed]").next().unwrap().to_owned() + "[distributed]\n" + keys + "\n";
        let error = parse(&text).unwrap_err();
        assert_eq!(error.exit_code(), 2, "{keys}");
        let (text, place) = (error.to_string(), format!("distributed.{key}"));
        assert!(text.starts_with("job.toml:") && text.contains(&place) && text.contains(why), "{keys}: {text}");
    }
}
