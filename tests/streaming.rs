//! Samples that stay in their files give the bits of samples in memory, at any rank count, however they lie and are shuffled, after
//! a resume too; and a file that changes under a run ends it on all ranks.

mod support;

use ddl::config::{DataConfig, Job};
use ddl::data::Dataset;
use ddl::store::checkpoint;
use hdf5::File;
use ndarray::{Array1, Array2, Array4, ShapeBuilder};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;
use support::training::{Run, train, train_in, untimed};
use support::{command, ddl_ok, ended, value};

/// What trains on images, or on rows, of a file.
fn job(path: &Path, data: &str, images: bool) -> String {
    let (layers, outputs) = match images {
        true => (
            "{ type = \"conv2d\", out_channels = 6, kernel_size = 3, padding = 1 }, { type = \"relu\" }, { type = \"flatten\" },",
            3,
        ),
        false => ("{ type = \"linear\", out_features = 9 }, { type = \"tanh\" },", 2),
    };
    let loss = if images { "cross_entropy" } else { "mse" };
    format!(
        "[data]\nsource = \"hdf5\"\npath = \"{}\"\n{data}\n[model]\nlayers = [{layers} {{ type = \"linear\", out_features = {outputs} }}]\n\
         [loss]\ntype = \"{loss}\"\n[optimizer]\ntype = \"adam\"\nlr = 0.002\n[train]\nepochs = 2\nbatch_size = 42\nmicro_batch = 4\n\
         validation = 0.15\n[distributed]\nreduction = \"reproducible\"\n",
        path.display()
    )
}

const STREAMED: [&str; 2] = ["--set", "data.resident=false"];
const RESIDENT: [&str; 2] = ["--set", "data.resident=true"];

/// The same figures of steps and epochs, and the same weights, to the bit.
fn same(run: &Run, other: &Run, what: &str) {
    let bits = |values: &[f64]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
    for (name, values) in &run.run.steps {
        assert_eq!(bits(values), bits(other.run.step_column(name).unwrap()), "{what}: {name} of steps");
    }
    for (name, values) in untimed(&run.run) {
        assert_eq!(bits(values), bits(other.run.epoch_column(name).unwrap()), "{what}: {name} of epochs");
    }
    let weights = |run: &Run| -> Vec<u32> {
        run.last.model.iter().flat_map(|tensor| tensor.data.iter().map(|value| value.to_bits())).collect()
    };
    assert!(!weights(run).is_empty() && weights(run) == weights(other), "{what}: weights");
}

/// 330 training and 50 test images (3, 32, 32), in chunks of 85 as `ddl prepare` writes them, or in one piece.
fn images(folder: &Path, how: &[&str]) -> PathBuf {
    let path = folder.join(format!("images{}.h5", how.concat()));
    let job = folder.join("source.toml");
    let text = "[data]\nsource = \"synthetic\"\nshape = [3, 32, 32]\nclasses = 3\nsamples = 330\ntest_samples = 50\n\
                [model]\nlayers = [{ type = \"flatten\" }, { type = \"linear\", out_features = 3 }]\n[loss]\ntype = \"cross_entropy\"\n\
                [optimizer]\ntype = \"sgd\"\nlr = 0.1\n[train]\nepochs = 1\nbatch_size = 10";
    fs::write(&job, text).unwrap();
    ddl_ok(0, &[&["prepare", &job.display().to_string(), "--out", &path.display().to_string()], how].concat());
    path
}

/// 330 and 50 rows of 7 values with two targets, as others may write them: f64, packed in chunks of 16 or in one piece.
fn rows(folder: &Path, packed: bool) -> PathBuf {
    let path = folder.join(format!("rows-{packed}.h5"));
    let file = File::create(&path).unwrap();
    for (part, count) in [("train", 330), ("test", 50)] {
        let x =
            Array2::from_shape_fn((count, 7), |(i, j)| f64::from(value(count as u32, (i * 7 + j) as u32)) + j as f64);
        let y = Array2::from_shape_fn((count, 2), |(i, j)| x[[i, j]] - x[[i, 5]]);
        let builder = file.new_dataset_builder().with_data(&x);
        let builder = if packed { builder.chunk((16, 7)).shuffle().deflate(4) } else { builder };
        builder.create(format!("x_{part}").as_str()).unwrap();
        file.new_dataset_builder().with_data(&y).create(format!("y_{part}").as_str()).unwrap();
    }
    file.close().unwrap();
    path
}

#[test]
fn streamed_images_give_the_bits_of_resident_ones() {
    let folder = tempfile::tempdir().unwrap();
    let [whole, chunked, packed] = [&["--contiguous"][..], &[], &["--compress"]].map(|how| images(folder.path(), how));
    let mixed = "augment = [{ type = \"random_crop\", padding = 2 }, { type = \"mixup\", alpha = 0.4 }]\nnormalize = \"standard\"";
    for (shuffle, ranks) in [("true", [2, 3, 4]), ("\"blocks\"", [3, 1, 2])] {
        let data = format!("shuffle = {shuffle}\n{mixed}");
        let resident = train(folder.path(), &job(&whole, &data, true), 2, &RESIDENT);
        for (path, ranks) in [&whole, &chunked, &packed].into_iter().zip(ranks) {
            let streamed = train(folder.path(), &job(path, &data, true), ranks, &STREAMED);
            same(&resident, &streamed, &format!("shuffle {shuffle}, {} on {ranks} ranks", path.display()));
        }
    }
}

#[test]
fn streamed_rows_give_the_bits_of_resident_ones() {
    let folder = tempfile::tempdir().unwrap();
    for (packed, shuffle, normalize, ranks) in
        [(false, "true", "standard", 4), (true, "\"blocks\"", "minmax", 3), (true, "false", "standard", 2)]
    {
        let data = format!("shuffle = {shuffle}\nnormalize = \"{normalize}\"");
        let job = job(&rows(folder.path(), packed), &data, false);
        let resident = train(folder.path(), &job, 0, &RESIDENT);
        same(&resident, &train(folder.path(), &job, ranks, &STREAMED), &format!("{shuffle} on {ranks} ranks"));
        same(&resident, &train(folder.path(), &job, 0, &STREAMED), &format!("{shuffle} without mpirun"));
    }
}

#[test]
fn arrays_in_files_of_their_own_are_streamed_as_they_lie() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("arrays");
    fs::create_dir(&path).unwrap();
    let x = Array2::from_shape_fn((330, 7), |(i, j)| value(i as u32, j as u32));
    let y = Array2::from_shape_fn((330, 2), |(i, j)| f64::from(x[(i, j)] * x[(i, 2)]));
    let save = |name: &str, write: &dyn Fn(&Path)| write(&path.join(name));
    save("y_train.npy", &|path| ndarray_npy::write_npy(path, &y).unwrap());
    for (kind, write) in [
        ("f32", (&|path: &Path| ndarray_npy::write_npy(path, &x).unwrap()) as &dyn Fn(&Path)),
        ("f64", &|path: &Path| ndarray_npy::write_npy(path, &x.mapv(f64::from)).unwrap()),
        ("u8", &|path: &Path| ndarray_npy::write_npy(path, &x.mapv(|v| (100.0 * v.abs()) as u8)).unwrap()),
    ] {
        save("x_train.npy", write);
        let job = job(&path, "normalize = \"standard\"", false).replace("\"hdf5\"", "\"npz\"");
        let resident = train(folder.path(), &job, 0, &RESIDENT);
        same(&resident, &train(folder.path(), &job, 3, &STREAMED), kind);
    }
    // In another order than in memory they are read whole.
    save("x_train.npy", &|path| {
        ndarray_npy::write_npy(path, &Array2::from_shape_fn((330, 7).f(), |at| x[at])).unwrap()
    });
    let job = folder.path().join("turned.toml");
    fs::write(&job, self::job(&path, "resident = false", false).replace("\"hdf5\"", "\"npz\"")).unwrap();
    let output = command(0, &["train", job.to_str().unwrap(), "--dry-run"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

/// The last batch has 10 samples in three micro-batches, of which the fourth rank has none.
#[test]
fn a_rank_without_a_share_of_the_last_batch_reads_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let job = job(&rows(folder.path(), false), "", false)
        .replace("batch_size = 42", "batch_size = 20")
        .replace("validation = 0.15", "");
    let resident = train(folder.path(), &job, 0, &RESIDENT);
    same(&resident, &train(folder.path(), &job, 4, &STREAMED), "four ranks");
}

#[test]
fn a_streamed_run_goes_on_inside_an_epoch_on_other_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let path = images(folder.path(), &["--compress=1"]);
    let job = job(&path, "shuffle = \"blocks\"\naugment = [{ type = \"mixup\", alpha = 0.4 }]", true);
    let uninterrupted = train(folder.path(), &job, 0, &RESIDENT);
    let begun = train(folder.path(), &job, 2, &[&STREAMED[..], &["--set", "train.checkpoint_steps=3"]].concat());
    // As if it had been killed right after the checkpoint in the midst of the second epoch.
    let paths = checkpoint::list(&begun.out.join("checkpoints")).unwrap();
    let inside = |path: &&PathBuf| checkpoint::read(path).is_ok_and(|found| found.sample > 0 && found.epoch == 1);
    let kept = paths.iter().find(inside).expect("a checkpoint inside the second epoch");
    paths.iter().filter(|path| *path > kept).for_each(|path| fs::remove_file(path).unwrap());
    let ended = train_in(begun.out, &job, 3, &[&STREAMED[..], &["--resume"]].concat());
    same(&uninterrupted, &ended, "two ranks, then three");
}

#[test]
fn an_exact_shuffle_and_blocks_are_different_orders_of_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = rows(folder.path(), true);
    let order = |shuffle: &str, epoch| {
        let job = Job::parse(&job(&path, &format!("shuffle = {shuffle}"), false), "job", &[]).unwrap();
        let data = Dataset::open(&job.data, 7).unwrap();
        let mut order = vec![0; data.len(ddl::data::Part::Train)];
        data.order(7, epoch, &mut order);
        order
    };
    let (exact, blocks) = (order("true", 0), order("\"blocks\"", 0));
    assert!(exact != blocks && blocks != order("\"blocks\"", 1));
    let sorted = |mut order: Vec<u32>| {
        order.sort_unstable();
        order
    };
    assert_eq!(sorted(exact), sorted(blocks));
}

/// The file loses its end after the first checkpoint of a run that would go on for hours.
#[test]
fn a_file_that_becomes_shorter_ends_all_ranks_and_keeps_the_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let path = images(folder.path(), &["--contiguous"]);
    let text = job(&path, "", true).replace("epochs = 2", "epochs = 1000000\ncheckpoint_steps = 5");
    let (file, out) = (folder.path().join("job.toml"), folder.path().join("out"));
    fs::write(&file, text).unwrap();
    let checkpoints = out.join("checkpoints");
    let cut = std::thread::spawn({
        let checkpoints = checkpoints.clone();
        move || {
            while checkpoint::list(&checkpoints).unwrap_or_default().is_empty() {
                std::thread::sleep(Duration::from_millis(5));
            }
            fs::OpenOptions::new().write(true).open(path).unwrap().set_len(400_000).unwrap();
        }
    });
    let [file, out] = [file, out].map(|path| path.display().to_string());
    let run = ended(3, "", &[&["train", &file, "--out", &out][..], &STREAMED].concat(), Duration::from_secs(100));
    cut.join().unwrap();
    assert_eq!(run.codes, [65, 65, 65], "{run:?}");
    assert!(run.errors.len() == 1 && run.errors[0].contains("shorter"), "{run:?}");
    let newest = checkpoint::list(&checkpoints).unwrap().pop().expect("a checkpoint");
    assert!(checkpoint::read(&newest).is_ok());
}

#[test]
fn a_value_that_is_not_finite_ends_all_ranks() {
    let folder = tempfile::tempdir().unwrap();
    let path = rows(folder.path(), false);
    let file = hdf5::File::open_rw(&path).unwrap();
    file.dataset("x_train").unwrap().write_slice(&[f64::NAN], ndarray::s![77, 3..4]).unwrap();
    file.close().unwrap();
    let (job_file, out) = (folder.path().join("job.toml"), folder.path().join("out"));
    fs::write(&job_file, job(&path, "", false).replace("validation = 0.15", "")).unwrap();
    let [job_file, out] = [job_file, out].map(|path| path.display().to_string());
    for resident in [RESIDENT, STREAMED] {
        let run =
            ended(2, "", &[&["train", &job_file, "--out", &out][..], &resident].concat(), Duration::from_secs(100));
        assert_eq!(run.codes, [65, 65], "{run:?}");
        assert!(run.errors[0].contains("sample 77 of the training part"), "{run:?}");
    }
}

#[test]
fn cifar_records_are_streamed_from_their_files() {
    let folder = tempfile::tempdir().unwrap();
    let names = ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"];
    for (i, name) in names.into_iter().enumerate() {
        let byte = |at: usize| if at.is_multiple_of(3073) { at / 3073 % 3 } else { (at * (i + 3)) >> 5 & 255 };
        let records: Vec<u8> = (0..3073 * (20 + i)).map(|at| byte(at) as u8).collect();
        fs::write(folder.path().join(format!("{name}.bin")), records).unwrap();
    }
    let job = job(folder.path(), "normalize = \"standard\"", true)
        .replace("\"hdf5\"", "\"cifar10\"")
        .replace("features = 3", "features = 10");
    let resident = train(folder.path(), &job, 0, &RESIDENT);
    same(&resident, &train(folder.path(), &job, 2, &STREAMED), "CIFAR-10");
}

#[test]
fn what_streams_is_told_and_what_cannot_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = rows(folder.path(), true);
    let open = |resident: &str| {
        let job = Job::parse(&job(&path, &format!("resident = {resident}"), false), "job", &[]).unwrap();
        Dataset::open_unread(&job.data, 1).unwrap()
    };
    assert!(!open("true").should_stream(|_| false));
    assert!(open("false").should_stream(|_| true));
    let data = open("\"auto\"");
    assert!(!data.should_stream(|bytes| bytes == 380 * 7 * 4) && data.should_stream(|_| false));
    let job_file = folder.path().join("job.toml");
    fs::write(&job_file, job(&path, "", false)).unwrap();
    let job_file = job_file.display().to_string();
    let (told, _) = ddl_ok(0, &[&["train", &job_file, "--dry-run"][..], &STREAMED].concat());
    assert!(
        told.contains("stay in their files") && told.contains("chunks of 16") && told.contains("\"blocks\""),
        "{told}"
    );
    let made = job(&path, "shape = [4]\nvalues = 2", false).replace("\"hdf5\"", "\"synthetic\"");
    fs::write(&job_file, made).unwrap();
    let refused = command(0, &[&["train", &job_file, "--dry-run"][..], &STREAMED].concat()).output().unwrap();
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        refused.status.code() == Some(2) && stderr.contains("resident") && stderr.contains("ddl prepare"),
        "{stderr}"
    );
}

/// A block shuffle draws from some blocks, a balanced epoch from all samples.
#[test]
fn balanced_sampling_is_refused_with_a_block_shuffle() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.h5");
    let file = File::create(&path).unwrap();
    file.new_dataset_builder().with_data(&Array4::<u8>::zeros((40, 1, 4, 4))).create("x_train").unwrap();
    file.new_dataset_builder().with_data(&Array1::from_shape_fn(40, |i| (i % 3) as i32)).create("y_train").unwrap();
    file.close().unwrap();
    let config = |shuffle: &str| -> DataConfig {
        let data = format!("sampling = \"balanced\"\nshuffle = {shuffle}");
        Job::parse(&job(&path, &data, true), "job", &[]).unwrap().data
    };
    assert!(Dataset::open(&config("true"), 1).is_ok());
    let error = Dataset::open(&config("\"blocks\""), 1).err().expect("an error");
    assert!(error.exit_code() == 2 && error.to_string().contains("blocks"), "{error}");
}
