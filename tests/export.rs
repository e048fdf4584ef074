//! A trained network in the forms of others. What ONNX graphs compute is compared by onnxruntime, where Python has it
//! (`make test-export` sees to that).

mod support;

use ddl::config::{Component, Job};
use ddl::export::{self, Form};
use ddl::input::Input;
use ddl::layer::{Mode, Pass, REGISTRY};
use ddl::model::Model;
use ddl::shape::Shape;
use ddl::store::{Best, Checkpoint, EpochSums, Tensor};
use ndarray::ArrayD;
use ndarray_npy::{NpzReader, NpzWriter};
use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use support::{ddl, ddl_ok, value};
use tempfile::TempDir;

/// A network with made weights, as a checkpoint holds it, and as it computes.
struct Network {
    checkpoint: Checkpoint,
    layers: Vec<Component>,
    params: Vec<f32>,
    state: Vec<f32>,
}

fn job(layers: &[Component]) -> String {
    let text = "name = \"t\"\nseed = 1\n[data]\nsource = \"synthetic\"\n[loss]\ntype = \"mse\"\n[optimizer]\ntype = \"sgd\"\n\
                lr = 0.1\n[train]\nepochs = 1\nbatch_size = 8\n";
    let mut job: toml::Table = text.parse().unwrap();
    let layers: Vec<toml::Value> = layers.iter().map(|layer| layer.to_table("type").into()).collect();
    job.insert("model".into(), toml::Table::from_iter([("layers".to_owned(), layers.into())]).into());
    job.to_string()
}

impl Network {
    fn of(layers: Vec<Component>, input: Shape) -> Self {
        let model = Model::<f32>::build(&layers, input, 1).unwrap();
        let (mut params, mut state) = (vec![0.0; model.layout().len()], vec![0.0; model.state_layout().len()]);
        let mut tensors = Vec::new();
        for (layout, arena) in [(model.layout(), &mut params), (model.state_layout(), &mut state)] {
            for (number, slot) in layout.slots().iter().enumerate() {
                // A variance is above zero.
                let floor = if slot.name.ends_with("running_var") { 1.5 } else { 0.0 };
                // Sums of any length stay near 1, as trained networks keep them: else rounding is all that is compared.
                let fan = slot.shape.get(1..).map_or(1, |dims| dims.iter().product::<usize>().max(1)) as f32;
                let data = (0..slot.len() as u32).map(|i| floor + value(number as u32, i) / fan.sqrt());
                let data: Vec<f32> = data.collect();
                slot.write(&data, arena);
                tensors.push(Tensor { key: slot.key(), shape: slot.shape.clone(), data });
            }
        }
        let checkpoint = Checkpoint {
            step: 3,
            epoch: 1,
            sample: 0,
            sums: EpochSums::default(),
            best: Best::default(),
            seed: 1,
            ranks: 1,
            config: job(&layers),
            products: "f32".into(),
            input: Some(Input { shape: input, ..Input::default() }),
            model: tensors,
            optimizer: Vec::new(),
        };
        Self { checkpoint, layers, params, state }
    }

    /// Made inputs of `m` samples and the outputs, in torch's order.
    fn pass(&self, input: Shape, m: usize) -> [ArrayD<f32>; 2] {
        let mut model = Model::<f32>::build(&self.layers, input, m).unwrap();
        let x: Vec<f32> = (0..(m * input.len()) as u32).map(|i| 3.0 * value(77, i)).collect();
        let x = torch_order(x, input, m);
        model.stack.prepare(&self.params);
        model.stack.x(m).copy_from_slice(&x.1);
        let mut statistics = vec![0.0; self.state.len()];
        let micro = Pass { m, mode: Mode::Eval, params: &self.params };
        model.stack.forward(micro, &self.state, &mut statistics);
        let output = model.stack.output();
        let y = model.stack.y(m).to_vec();
        [x.0, from_memory(y, output, m)]
    }
}

fn dims(shape: Shape, m: usize) -> Vec<usize> {
    match shape {
        Shape::Image { c, h, w } => vec![m, c, h, w],
        Shape::Sequence { t, f } => vec![m, t, f],
        Shape::Vector { n } => vec![m, n],
    }
}

/// Values as an array in torch's order, and as they lie in ddl's memory.
fn torch_order(values: Vec<f32>, shape: Shape, m: usize) -> (ArrayD<f32>, Vec<f32>) {
    let array = ArrayD::from_shape_vec(dims(shape, m), values).unwrap();
    let memory = match shape {
        Shape::Image { .. } => array.view().permuted_axes(vec![0, 2, 3, 1]).iter().copied().collect(),
        _ => array.iter().copied().collect(),
    };
    (array, memory)
}

fn from_memory(values: Vec<f32>, shape: Shape, m: usize) -> ArrayD<f32> {
    match shape {
        Shape::Image { c, h, w } => {
            let last = ArrayD::from_shape_vec(vec![m, h, w, c], values).unwrap();
            last.permuted_axes(vec![0, 3, 1, 2]).as_standard_layout().into_owned()
        }
        _ => ArrayD::from_shape_vec(dims(shape, m), values).unwrap(),
    }
}

/// Writes a network as ONNX, with inputs of three batch sizes, and also of other lengths where those are free.
fn write(network: &Network, name: &str, folder: &Path, lengths: &[usize]) {
    let path = folder.join(format!("{name}.onnx"));
    export::write(&network.checkpoint, &path, Form::Onnx, false).unwrap();
    let mut arrays = NpzWriter::new(File::create(folder.join(format!("{name}.npz"))).unwrap());
    let input = network.checkpoint.input.as_ref().unwrap().shape;
    let mut inputs: Vec<(Shape, usize)> = [1, 3, 8].map(|m| (input, m)).to_vec();
    if let Shape::Sequence { f, .. } = input {
        inputs.extend(lengths.iter().map(|&t| (Shape::Sequence { t, f }, 2)));
    }
    for (number, (shape, m)) in inputs.into_iter().enumerate() {
        let [x, y] = network.pass(shape, m);
        arrays.add_array(format!("x{number}"), &x).unwrap();
        arrays.add_array(format!("y{number}"), &y).unwrap();
    }
    arrays.finish().unwrap();
}

fn component(kind: &str, keys: &str) -> Component {
    Component::new(kind, keys).unwrap()
}

#[test]
fn each_layer_alone_and_the_five_jobs_compute_the_same_in_onnxruntime() {
    let folder = TempDir::new().unwrap();
    let mut names = Vec::new();
    for entry in REGISTRY {
        for (number, example) in entry.examples.iter().enumerate() {
            let network = Network::of(vec![component(entry.name, example.keys)], example.input);
            let name = format!("{}-{number}", entry.name);
            let lengths: &[usize] = if entry.name == "flatten" { &[] } else { &[1, 9] };
            write(&network, &name, folder.path(), lengths);
            names.push(name);
        }
    }
    let recurrent = "hidden_size = 5\nnum_layers = 3\nbidirectional = true\nreturn_sequences = ";
    for kind in ["lstm", "gru"] {
        for sequences in ["true", "false"] {
            let layers =
                vec![component(kind, &format!("{recurrent}{sequences}")), component("linear", "out_features = 3")];
            write(
                &Network::of(layers, Shape::Sequence { t: 4, f: 2 }),
                &format!("{kind}-{sequences}"),
                folder.path(),
                &[2, 7],
            );
        }
    }
    let jobs = [
        ("cifar10-simplecnn", Shape::Image { c: 3, h: 32, w: 32 }),
        ("cifar10-bncnn", Shape::Image { c: 3, h: 32, w: 32 }),
        ("mnist-cnn", Shape::Image { c: 1, h: 28, w: 28 }),
        ("sp500-lstm", Shape::Sequence { t: 60, f: 1 }),
        ("sp500-mlp", Shape::Sequence { t: 60, f: 1 }),
    ];
    for (job, input) in jobs {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("jobs/{job}.toml"));
        let layers = Job::load(&file, &[]).unwrap().layers;
        let lengths: &[usize] = if job == "sp500-lstm" { &[30] } else { &[] };
        write(&Network::of(layers, input), job, folder.path(), lengths);
    }
    let python = std::env::var("DDL_PYTHON").unwrap_or_else(|_| "python3".into());
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/onnx/check.py");
    let Ok(ran) = Command::new(&python).arg(script).arg(folder.path()).output() else {
        assert!(std::env::var_os("DDL_PYTHON").is_none(), "{python} cannot be started");
        return eprintln!("skipped: needs {python}");
    };
    let said = String::from_utf8_lossy(&ran.stdout).into_owned() + &String::from_utf8_lossy(&ran.stderr);
    match ran.status.code() {
        Some(77) if std::env::var_os("DDL_PYTHON").is_none() => eprintln!("{said}"),
        code => assert_eq!(code, Some(0), "{said}"),
    }
    eprintln!("{said}");
}

/// A network trained on values: graph and weights from the command line, with normalisation inside.
#[test]
fn the_command_writes_each_form() {
    let folder = TempDir::new().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let row = |i: usize| format!("{},{},{}\n", 100 + i % 7, i % 5, 1000 * (i % 7) + i % 5);
    fs::write(path("data.csv"), "a,b,y\n".to_owned() + &(0..60).map(row).collect::<String>()).unwrap();
    let job = format!(
        "name = \"rows\"\nseed = 1\n[data]\nsource = \"csv\"\npath = \"{}\"\ntarget = \"y\"\n[model]\nlayers = [{{ type = \"linear\", \
         out_features = 4 }}, {{ type = \"tanh\" }}, {{ type = \"linear\", out_features = 1 }}]\n[loss]\ntype = \"mse\"\n[optimizer]\n\
         type = \"adam\"\nlr = 0.05\n[train]\nepochs = 3\nbatch_size = 16\n",
        path("data.csv")
    );
    fs::write(path("job.toml"), job).unwrap();
    ddl_ok(0, &["train", &path("job.toml"), "--out", &path("out")]);
    let checkpoint = ddl::store::checkpoint::list(&folder.path().join("out/checkpoints")).unwrap().pop().unwrap();
    let checkpoint = checkpoint.display().to_string();
    for to in ["w.npz", "w.safetensors", "n.onnx"] {
        let (said, _) = ddl_ok(2, &["export", &checkpoint, "--to", &path(to)]);
        assert!(said.contains("4 tensors"), "{said}");
    }
    ddl_ok(0, &["export", &checkpoint, "--to", &path("whole.onnx"), "--with-normalization"]);
    let mut arrays = NpzReader::new(File::open(path("w.npz")).unwrap()).unwrap();
    let model = ddl::store::checkpoint::read(Path::new(&checkpoint)).unwrap().model;
    for Tensor { key, shape, data } in &model {
        let array: ArrayD<f32> = arrays.by_name(&format!("{key}.npy")).unwrap();
        assert!(array.shape() == shape && array.iter().eq(data), "{key}");
    }
    let whole = fs::read(path("whole.onnx")).unwrap();
    for part in ["unit.offset", "input.mean", "in the graph", "\"a\",\"b\""] {
        assert!(whole.windows(part.len()).any(|bytes| bytes == part.as_bytes()), "{part}");
    }
    let refused = |args: &[&str], says: &str| {
        let output = ddl(0, &[&["export", &checkpoint], args].concat());
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() == Some(2) && text.contains(says), "{text}");
    };
    refused(&["--to", &path("w.pt")], "use the ending .safetensors, .npz or .onnx");
    refused(&["--to", &path("w.npz"), "--with-normalization"], "use it with the ending .onnx");
    refused(&["--to", &checkpoint.replace(".h5", ".onnx").replace(".onnx", ".h5")], "cannot write a .h5 file");
}
