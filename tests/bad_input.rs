//! Broken input of every kind through the real program on two ranks: one line that names the place and the mend, the
//! same exit code on every rank, within seconds.

mod support;

use ndarray::{Array1, Array2, ArrayD};
use ndarray_npy::{NpzWriter, WriteNpyExt};
use safetensors::tensor::{Dtype, TensorView, serialize_to_file};
use std::fs::{self, File};
use std::io::Write;
use std::process::Command;
use support::broken::{Folder, JOB, LIMIT, refused};
use support::{Ended, ddl, ended, run};

#[test]
fn job_files() {
    let folder = Folder::new();
    refused(&folder.train(&["train.epoch=3"]), 2, &["--set train.epoch=3, train.epoch", "did you mean `epochs`"]);
    refused(&folder.train(&["model.layers.0.type=\"liner\""]), 2, &["--set model.layers.0", "did you mean \"linear\""]);
    refused(&folder.train(&["train.epochs=-1"]), 2, &["--set train.epochs=-1", "a whole number of at least 0"]);
    refused(&folder.train(&["optimizer.lr=nan"]), 2, &["optimizer.lr=nan, optimizer.lr", "is NaN", "give"]);
    refused(&folder.train(&["a\nb=1"]), 2, &["unknown key `a b`", "known: name, seed"]);
    refused(&folder.train(&["data.normalize=\"x\""]), 2, &["data.normalize", "use \"none\", \"standard\""]);
    let pooled = "model.layers=[{ type = \"conv2d\", out_channels = 2, kernel_size = -3 }]";
    refused(&folder.train(&[pooled]), 2, &["model.layers[0].kernel_size", "is no size: give one number"]);
    let image = "model.layers=[{ type = \"linear\", out_features = 3 }]";
    refused(&folder.train(&["data.shape=[3, 8, 8]", image]), 2, &["model.layers[0]", "an image 3x8x8", "flatten"]);
    folder.write("job.toml", "");
    refused(&folder.train(&[]), 2, &["job.toml, data", "has no `source`", "add source"]);
    folder.write("job.toml", "name = \"t\nseed = 1");
    refused(&folder.train(&[]), 2, &["job.toml:1:", "correct the TOML"]);
    folder.write("job.toml", format!("{JOB}#{}", "x".repeat(2 << 20)));
    refused(&folder.train(&[]), 2, &["larger than 1 MiB", "give a job file"]);
    folder.write("job.toml", b"name = \"\xe9\"");
    refused(&folder.train(&[]), 2, &["byte 8 is not UTF-8", "give a job file"]);
    let layers = "{ type = \"relu\" },".repeat(1001);
    folder.write("job.toml", JOB.replace("layers = [", &format!("layers = [{layers}")));
    refused(&folder.train(&[]), 2, &["model.layers", "1002 layers", "use fewer"]);
    let missing = folder.text("missing.toml");
    refused(&ended(2, "", &["train", &missing], LIMIT), 2, &["missing.toml", "no such job file"]);
    refused(&ended(2, "", &["train", "/dev/zero"], LIMIT), 2, &["/dev/zero", "not a regular file"]);
}

#[test]
fn more_ranks_than_micro_batches() {
    let folder = Folder::new();
    refused(&folder.train(&["train.micro_batch=16"]), 2, &["train.micro_batch", "2 ranks", "to at most 8"]);
}

/// Sizes beyond any memory are refused before anything is allocated or multiplied into an overflow.
#[test]
fn sizes_beyond_memory() {
    let folder = Folder::new();
    for size in ["1000000000", "1000000000000", "1000000000000000000", "9223372036854775807"] {
        for (shape, layer) in [
            ("[4]", format!("linear\", out_features = {size}")),
            ("[8, 2]", format!("lstm\", hidden_size = {size}")),
            ("[8, 2]", format!("lstm\", hidden_size = 4, num_layers = {size}")),
            ("[3, 8, 8]", format!("conv2d\", out_channels = {size}, kernel_size = 3")),
        ] {
            let (shape, layer) = (format!("data.shape={shape}"), format!("model.layers=[{{ type = \"{layer} }}]"));
            let output = ddl(0, &["train", &folder.text("job.toml"), "--dry-run", "--set", &shape, "--set", &layer]);
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{layer}: {text}");
            assert!(
                text.contains(size) | text.contains("GiB of memory, but") | text.contains("is more than"),
                "{text}"
            );
            assert!(text.contains("smaller"), "{text}");
        }
    }
    let wide = "{ type = \"linear\", out_features = 250000 }";
    let wide = format!("model.layers=[{wide}, {wide}]");
    refused(&folder.train(&[&wide]), 2, &["model.layers[1].out_features", "for each of the 2 ranks here"]);
    refused(&folder.train(&["data.samples=1000000000", "data.shape=[4]"]), 2, &["data.samples", "use fewer"]);
}

/// Packed files of a few kB that grow beyond what is there, and shapes that promise as much: each is refused when it comes to
/// the limit, here one on addresses, and takes no memory beyond it.
#[test]
fn data_beyond_memory() {
    let folder = Folder::new();
    let packed = |bytes: &[u8]| {
        let mut writer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        writer.write_all(bytes).unwrap();
        writer.finish().unwrap()
    };
    // What was packed once unpacks as often as it is there.
    let bomb = |name: &str, start: &[u8], again: &[u8]| {
        let again = packed(&again.repeat((1 << 22) / again.len()));
        folder.write(name, [packed(start), again.repeat(256)].concat());
    };
    let refused = |source: &str, name: &str, more: &str| {
        let data = format!("data={{ source = \"{source}\", path = \"{}\"{more} }}", folder.text(name));
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -v 400000; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_ddl"), "train"]);
        command.args([&folder.text("job.toml"), "--dry-run", "--set", &data]);
        let output = run(&mut command, LIMIT);
        let text = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(65), "{name}: {output:?}");
        assert!(text.contains(name) && text.contains("GiB are free") && text.lines().count() == 1, "{name}: {text}");
    };
    let mut header = tar::Header::new_ustar();
    header.set_path("data_batch_1.bin").unwrap();
    header.set_size(1 << 30);
    header.set_cksum();
    bomb("c.tar.gz", header.as_bytes(), &[0]);
    refused("cifar10", "c.tar.gz", "");
    bomb("d/train-images-idx3-ubyte.gz", &[0, 0, 8, 3, 0, 16, 0, 0, 0, 0, 0, 32, 0, 0, 0, 32], &[0]);
    bomb("d/train-labels-idx1-ubyte.gz", &[0, 0, 8, 1, 64, 0, 0, 0], &[0]);
    refused("mnist", "d", "");
    bomb("rows.csv.gz", b"a,y\n", b"1,2\n");
    refused("csv", "rows.csv.gz", ", target = \"y\"");
    bomb("line.csv.gz", b"a,y\n", b"1");
    refused("csv", "line.csv.gz", ", target = \"y\"");
    bomb("prices.csv.gz", b"date,close\n", b"2010-01-01,1\n");
    refused("stocks", "prices.csv.gz", "");
    let mut zip = zip::ZipWriter::new(File::create(folder.path("d.npz")).unwrap());
    let deflated = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    for (name, shape) in [("x_train.npy", vec![1 << 25, 4]), ("y_train.npy", vec![1 << 25])] {
        zip.start_file(name, deflated).unwrap();
        ArrayD::<u8>::zeros(shape).write_npy(&mut zip).unwrap();
    }
    zip.finish().unwrap();
    refused("npz", "d.npz", "");
    let rows = 200_000_000;
    let file = hdf5::File::create(folder.path("d.h5")).unwrap();
    file.new_dataset::<f32>().shape((rows, 1)).chunk((1000, 1)).create("x_train").unwrap();
    file.new_dataset::<i64>().shape(rows).chunk(1000).create("y_train").unwrap();
    file.new_dataset::<u8>().shape((rows / 2, 1)).chunk((1000, 1)).create("bytes").unwrap();
    file.close().unwrap();
    refused("hdf5", "d.h5", "");
    refused("hdf5", "d.h5", ", arrays = { x_train = \"bytes\", y_train = \"bytes\" }");
}

#[test]
fn idx_files() {
    let folder = Folder::new();
    let images = |count: u8| [&[0, 0, 8, 3, 0, 0, 0, count, 0, 0, 0, 2, 0, 0, 0, 2][..], &[7; 12]].concat();
    let labels = |third: u8| [0, 0, 8, 1, 0, 0, 0, 3, 0, 1, third];
    for part in ["train", "t10k"] {
        folder.write(&format!("d/{part}-images-idx3-ubyte"), images(3));
        folder.write(&format!("d/{part}-labels-idx1-ubyte"), labels(2));
    }
    folder.write("d/train-labels-idx1-ubyte", labels(10));
    refused(&folder.on("mnist", "d", ""), 65, &["train-labels-idx1-ubyte, byte 10", "label 10", "get the file anew"]);
    let smaller = [&[0, 0, 8, 3, 0, 0, 0, 3, 0, 0, 0, 2, 0, 0, 0, 1][..], &[7; 6]].concat();
    folder.write("d/train-labels-idx1-ubyte", labels(2));
    folder.write("d/t10k-images-idx3-ubyte", smaller);
    refused(&folder.on("mnist", "d", ""), 65, &["t10k-images-idx3-ubyte", "images of 2x1", "are 2x2", "one set"]);
    folder.write("d/t10k-images-idx3-ubyte", &images(0)[..16]);
    refused(&folder.on("mnist", "d", ""), 65, &["t10k-images-idx3-ubyte", "0 images of 2x2"]);
    folder.write("d/train-images-idx3-ubyte", images(200));
    refused(&folder.on("mnist", "d", ""), 65, &["train-images-idx3-ubyte, byte 28", "after 12 of the 800", "anew"]);
    folder.write("d/train-images-idx3-ubyte", "");
    refused(&folder.on("mnist", "d", ""), 65, &["train-images-idx3-ubyte, byte 0", "ends within its header"]);
    refused(&folder.on("mnist", "none", ""), 74, &["none", "set data.path", "ddl fetch mnist"]);
}

#[test]
fn cifar_files() {
    let folder = Folder::new();
    for batch in ["data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"] {
        folder.write(&format!("d/{batch}.bin"), [3; 3073]);
    }
    folder.write("d/data_batch_4.bin", [3; 3000]);
    refused(&folder.on("cifar10", "d", ""), 65, &["data_batch_4.bin", "anew"]);
    folder.write("d/data_batch_4.bin", [77; 3073]);
    refused(&folder.on("cifar10", "d", ""), 65, &["data_batch_4.bin", "byte 0", "label 77"]);
    folder.write("d/data_batch_4.bin", "");
    refused(&folder.on("cifar10", "d", ""), 65, &["data_batch_4.bin"]);
    fs::remove_file(folder.path("d/data_batch_4.bin")).unwrap();
    refused(&folder.on("cifar10", "d", ""), 74, &["data_batch_4.bin", "set data.path"]);
}

#[test]
fn csv_files() {
    let folder = Folder::new();
    let broken = |rows: &str, code: i32, parts: &[&str]| {
        folder.write("d.csv", rows);
        refused(&folder.on("stocks", "d.csv", ", window = 3"), code, parts);
    };
    broken("", 65, &["d.csv", "the file is empty", "give a CSV file"]);
    broken("date,Name\n2010-01-01,A\n", 65, &["d.csv:1", "no column \"close\"", "the columns are: date, Name"]);
    broken("date,close,Name\n2010-01-01,12a,A\n", 65, &["d.csv:2, column close", "\"12a\"", "correct the field"]);
    broken("date,close,Name\n2010-01-01,1\n", 65, &["d.csv:2", "2 fields where the header has 3", "correct it"]);
    broken("date,close,Name\n2010-01-01,1,A\n", 65, &["d.csv", "windows of 3 rows", "lower data.window"]);
    let days: String = (1..=20).map(|day| format!("2010-01-{day:02},{day}\n")).collect();
    folder.write("d.csv", format!("date,close\n{days}"));
    let keys = ", window = 3, horizon = 5, train_fraction = 0.9";
    refused(&folder.on("stocks", "d.csv", keys), 2, &["train_fraction", "0.9 leaves no test sample", "lower it"]);
    folder.write("d.csv", "a,y\n1,1\nx,1\n");
    refused(&folder.on("csv", "d.csv", ", target = \"y\""), 65, &["d.csv:3, column a", "\"x\"", "data.categories"]);
    refused(&folder.on("csv", "d.csv", ", target = \"z\""), 65, &["d.csv:1", "no column \"z\"", "a, y"]);
    refused(&folder.on("csv", "", ", target = \"z\", pat = 1"), 2, &["unknown key `pat`", "Known: target"]);
    for window in ["0", "1000000000000000000"] {
        let keys = format!(", window = {window}");
        refused(&folder.on("stocks", "d.csv", &keys), 2, &["data.window", "use 1 to"]);
    }
    refused(
        &folder.train(&["data={ source = \"csv\", path = \"\", target = \"y\" }"]),
        2,
        &["data.path", "set data.path"],
    );
}

/// A name or field of any length comes back as a line that can be read, from every parser.
#[test]
fn input_of_any_length_is_cut() {
    let folder = Folder::new();
    let long = "x y".repeat(1 << 20);
    let short = |ended: &Ended, code: i32, parts: &[&str]| {
        refused(ended, code, parts);
        assert!(ended.stderr.len() < 8000, "{} bytes", ended.stderr.len());
    };
    folder.write("d.csv", format!("a,y\n1,1\n{long},1\n"));
    short(&folder.on("csv", "d.csv", ", target = \"y\""), 65, &["d.csv:3, column a", "is no usable number", "correct"]);
    folder.write("d.csv", format!("a,{long}\n1,1\n1,z\n"));
    short(&folder.on("csv", "d.csv", ", target = \"a\""), 65, &["d.csv:3, column x yx", "\"z\" is no usable"]);
    short(&folder.on("csv", "d.csv", ", target = \"y\""), 65, &["d.csv:1", "no column \"y\"", "are: a, x yx"]);
    folder.write("d.csv", format!("date,close,Name\n2010-01-01,1,{long}\n"));
    short(&folder.on("stocks", "d.csv", ", window = 3"), 65, &["d.csv", "lower data.window"]);
    short(&folder.on("stocks", "d.csv", ", tickers = [\"A\"]"), 2, &["no ticker \"A\" in the data"]);
    folder.write("d.csv", format!("date,close,Name\n{long},1,A\n"));
    short(&folder.on("stocks", "d.csv", ""), 65, &["d.csv:2, column date", "is no date; write it"]);
    let mut zip = NpzWriter::new(File::create(folder.path("d.npz")).unwrap());
    zip.add_array(&long[..60_000], &Array1::<i64>::zeros(5)).unwrap();
    zip.finish().unwrap();
    short(&folder.on("npz", "d.npz", ""), 65, &["no array \"x_train\"", "there are: x yx"]);
    let text = &long[..1_000_000];
    folder.write("job.toml", JOB.replace("\"sgd\"", &format!("\"{text}\"")));
    short(&folder.train(&[]), 2, &["job.toml:14, optimizer", "unknown type", "known:"]);
    folder.write("job.toml", JOB.replace("lr = 0.1", &format!("\"{text}\" = 0.1")));
    short(&folder.train(&[]), 2, &["job.toml", "unknown key", "lr"]);
    folder.write("job.toml", JOB.replace("0.1", &format!("0.1{}", text.replace(' ', ""))));
    short(&folder.train(&[]), 2, &["job.toml:15", "correct the TOML"]);
}

#[test]
fn array_files() {
    let folder = Folder::new();
    let npz = |y: Array1<i64>| {
        let mut file = NpzWriter::new(File::create(folder.path("d.npz")).unwrap());
        file.add_array("x_train", &Array2::<f32>::zeros((8, 4))).unwrap();
        file.add_array("y_train", &y).unwrap();
        file.finish().unwrap();
    };
    npz(Array1::from_elem(8, -1));
    refused(&folder.on("npz", "d.npz", ""), 65, &["d.npz, array y_train", "class -1 of sample 0", "give classes"]);
    npz(Array1::zeros(5));
    refused(&folder.on("npz", "d.npz", ""), 65, &["array y_train", "5 targets for 8 samples", "one for each"]);
    npz(Array1::from_elem(8, 6));
    refused(&folder.on("npz", "d.npz", ""), 2, &["3 outputs", "7 classes", "out_features = 7"]);
    let bytes = fs::read(folder.path("d.npz")).unwrap();
    folder.write("cut.npz", &bytes[..bytes.len() / 2]);
    refused(&folder.on("npz", "cut.npz", ""), 65, &["cut.npz", "not an .npz file", "give a whole file"]);
}

/// What only one rank sees ends all of them alike.
#[test]
fn an_error_of_one_rank() {
    let folder = Folder::new();
    folder.write("good/d.csv", "a,y\n1,1\n2,2\n3,3\n4,4\n5,5\n6,6\n7,7\n8,8\n");
    folder.write("bad/d.csv", "a,y\n1,1\nx,2\n");
    fs::create_dir(folder.path("none")).unwrap();
    let (job, out) = (folder.text("job.toml"), folder.text("out"));
    let data = "data={ source = \"csv\", path = \"d.csv\", target = \"y\" }";
    let with = |zero: &str, one: &str| {
        let (zero, one) = (folder.text(zero), folder.text(one));
        let before = format!("if [ $OMPI_COMM_WORLD_RANK = 0 ]; then cd '{zero}'; else cd '{one}'; fi");
        ended(2, &before, &["train", &job, "--out", &out, "--set", data], LIMIT)
    };
    refused(&with("good", "bad"), 65, &["d.csv:3", "\"x\""]);
    refused(&with("good", "none"), 74, &["d.csv", "No such file"]);
    refused(&with("none", "good"), 74, &["d.csv", "No such file"]);
    refused(&with("bad", "none"), 65, &["d.csv:3", "\"x\""]);
    assert!(!folder.path("out").exists());
}

#[test]
fn weights_of_another_network() {
    let folder = Folder::new();
    let bytes = [0u8; 60];
    let view = |shape: &[usize], len: usize| TensorView::new(Dtype::F32, shape.to_vec(), &bytes[..4 * len]).unwrap();
    let path = folder.path("w.safetensors");
    serialize_to_file([("0.weight", view(&[3, 5], 15)), ("0.bias", view(&[3], 3))], None, &path).unwrap();
    let (job, out) = (folder.text("job.toml"), folder.text("out"));
    let init = |file: &str| ended(2, "", &["train", &job, "--out", &out, "--init", file], LIMIT);
    let file = folder.text("w.safetensors");
    refused(&init(&file), 2, &["w.safetensors", "0.weight has shape (3, 5)", "of another network"]);
    serialize_to_file([("2.weight", view(&[3, 4], 12))], None, &path).unwrap();
    refused(&init(&file), 2, &["w.safetensors", "0.weight", "2.weight", "of another network"]);
    let (mut weight, bias) = ([0u8; 48], [0u8; 12]);
    weight[20..24].copy_from_slice(&f32::NAN.to_le_bytes());
    let view = |shape: &[usize], bytes| TensorView::new(Dtype::F32, shape.to_vec(), bytes).unwrap();
    let tensors = [("0.weight", view(&[3, 4], &weight)), ("0.bias", view(&[3], &bias))];
    serialize_to_file(tensors, None, &path).unwrap();
    refused(&init(&file), 65, &["w.safetensors", "element 5 of tensor 0.weight is NaN", "use other weights"]);
    folder.write("w.safetensors", "not one");
    refused(&init(&file), 65, &["w.safetensors", "not a whole safetensors file"]);
    refused(&init(&folder.text("none.safetensors")), 74, &["none.safetensors", "No such file"]);
    assert!(!folder.path("out").exists());
}

#[test]
fn folders_that_cannot_be_written() {
    let folder = Folder::new();
    let job = folder.text("job.toml");
    for out in ["/dev/null/out", "/proc/out", &job] {
        let ended = ended(2, "", &["train", &job, "--out", out], LIMIT);
        refused(&ended, 74, &[out, "choose another folder with --out"]);
    }
}

/// Each command on files that are no use to it, or no files at all.
#[test]
fn files_of_the_wrong_kind() {
    let folder = Folder::new();
    folder.write("photo.h5", [0xff, 0xd8, 0xff, 0xe0, 0, 16, b'J', b'F', b'I', b'F']);
    folder.write("empty.h5", "");
    assert!(Command::new("mkfifo").arg(folder.path("pipe")).status().unwrap().success());
    let (folder_itself, to) = (folder.text("."), folder.text("to.safetensors"));
    let files = [
        (folder.text("photo.h5"), 65),
        (folder.text("empty.h5"), 65),
        (folder_itself, 74),
        (folder.text("pipe"), 74),
        ("/dev/null".to_owned(), 74),
        ("/dev/zero".to_owned(), 74),
        (folder.text("none.h5"), 74),
    ];
    for (file, code) in &files {
        let commands: [&[&str]; 4] = [
            &["inspect", file],
            &["evaluate", file],
            &["predict", file, "--input", file],
            &["export", file, "--to", &to],
        ];
        for args in commands {
            let output = run(Command::new(env!("CARGO_BIN_EXE_ddl")).args(args), LIMIT);
            let text = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(*code), "{args:?}: {text}");
            assert!(text.starts_with(&format!("error: {file}")) && text.lines().count() == 1, "{args:?}: {text}");
        }
    }
    refused(&ended(2, "", &["evaluate", &files[0].0], LIMIT), 65, &["photo.h5", "use another file"]);
    assert!(!folder.path("to.safetensors").exists());
}

#[test]
fn wrong_usage() {
    let folder = Folder::new();
    for change in ["", "=", "train.epochs", "a..b=1", "train.epochs=three", "model.layers.9.p=1", "train=1", "b=é"] {
        refused(&folder.train(&[change]), 2, &[]);
    }
    for args in
        [&["trian"][..], &["train", "--epochs", "3"], &["evaluate"], &["-q", "-v"], &["bench", "step", "--steps", "0"]]
    {
        refused(&ended(2, "", args, LIMIT), 2, &[]);
    }
    let output = ddl(2, &["train", &folder.text("job.toml"), "--set", "train.epoch=3"]);
    assert_eq!(output.status.code(), Some(2), "mpirun's own exit code");
}

#[test]
fn help_has_an_example() {
    for command in ["train", "evaluate", "predict", "export", "inspect", "bench step", "bench reduce"] {
        let args: Vec<&str> = command.split(' ').chain(["--help"]).collect();
        let output = ddl(0, &args);
        let text = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{command}");
        assert!(text.contains("Example") && text.contains(&format!("ddl {command} ")), "{text}");
    }
}

/// Without arguments the shipped sample is looked for here and beside the program; a copied program finds none.
#[test]
fn no_arguments_and_no_sample() {
    let folder = Folder::new();
    fs::copy(env!("CARGO_BIN_EXE_ddl"), folder.path("ddl")).unwrap();
    let output = run(Command::new(folder.path("ddl")).current_dir(folder.path("")), LIMIT);
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(74), "{text}");
    assert!(text.starts_with("error: data/mnist:") && text.contains("set data.path"), "{text}");
}
