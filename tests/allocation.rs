//! A training step allocates nothing once warm: every layer, every optimizer, clipping, augmentation, ragged batches,
//! and sums that overlap the backward pass.

use ddl::comm::{Alone, Comm, Host, Solo};
use ddl::config::Job;
use ddl::data::{Dataset, Part};
use ddl::train::Trainer;
use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

/// The system's allocator, counting the calls of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<usize> = const { Cell::new(0) };
}

fn count() {
    // A thread that is ending has no counter any more.
    let _ = ALLOCATIONS.try_with(|allocations| allocations.set(allocations.get() + 1));
}

// SAFETY: all is handed on to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// One of two ranks whose other rank only ever has zeros to add.
struct WithSilentOther(usize);

impl Comm for WithSilentOther {
    fn rank(&self) -> usize {
        self.0
    }
    fn size(&self) -> usize {
        2
    }
    fn sum_f32(&self, _values: &mut [f32]) {}
    fn sum_f64(&self, _values: &mut [f64]) {}
    fn max(&self, value: i64) -> i64 {
        value
    }
    fn gather_f64(&self, values: &[f64]) -> Vec<f64> {
        values.to_vec()
    }
    fn gather_bytes(&self, bytes: &[u8]) -> Vec<Vec<u8>> {
        vec![bytes.to_vec()]
    }
    fn broadcast(&self, _root: usize, _bytes: &mut Vec<u8>) {}
    fn barrier(&self) {}
    fn host(&self, _bytes: Option<usize>) -> ddl::error::Result<Box<dyn Host>> {
        Ok(Box::new(Alone::new()))
    }
    fn library(&self) -> String {
        String::new()
    }
    unsafe fn start_sum(&self, _data: *mut f32, _len: usize) {}
    fn finish_sums(&self) {}
}

struct Network {
    name: &'static str,
    data: &'static str,
    layers: &'static str,
    loss: &'static str,
}

const IMAGES: &str = r#"source = "synthetic"
shape = [3, 12, 12]
classes = 5
samples = 150
test_samples = 0
augment = [{ type = "random_crop", padding = 2 }, { type = "horizontal_flip" }]"#;

const CHANGED: &str = r#"source = "synthetic"
shape = [3, 12, 12]
classes = 5
samples = 150
test_samples = 0
sampling = "balanced"
augment = [
  { type = "random_affine", degrees = 10, translate = [0.1, 0.1] }, { type = "random_rotation", degrees = 15 },
  { type = "vertical_flip" }, { type = "random_crop", padding = 2, padding_mode = "reflect" },
  { type = "color_jitter", brightness = 0.2, contrast = 0.2, saturation = 0.2 }, { type = "random_erasing" },
  { type = "mixup", alpha = 0.4 },
]"#;

const NETWORKS: [Network; 5] = [
    Network {
        name: "convolutions",
        data: IMAGES,
        layers: r#"
            { type = "conv2d", out_channels = 8, kernel_size = 3, padding = 1 }, { type = "batch_norm2d" },
            { type = "relu" }, { type = "avg_pool2d", kernel_size = 2 },
            { type = "residual", layers = [
                { type = "conv2d", out_channels = 12, kernel_size = 3, padding = 1, stride = 2 }, { type = "gelu" },
                { type = "dropout", p = 0.1 }, { type = "conv2d", out_channels = 12, kernel_size = 1 },
              ], shortcut = [
                { type = "conv2d", out_channels = 12, kernel_size = 1, stride = 2 }, { type = "batch_norm2d" },
              ] },
            { type = "leaky_relu" }, { type = "conv2d", out_channels = 16, kernel_size = 5, padding = 2 },
            { type = "max_pool2d", kernel_size = 2, stride = 1 }, { type = "dropout", p = 0.25 },
            { type = "adaptive_avg_pool2d", output_size = 1 }, { type = "flatten" },
            { type = "linear", out_features = 5 }"#,
        loss: "cross_entropy",
    },
    Network {
        name: "global pool",
        data: CHANGED,
        layers: r#"
            { type = "conv2d", out_channels = 16, kernel_size = 3, padding = 1 }, { type = "relu" },
            { type = "global_avg_pool2d" }, { type = "flatten" }, { type = "linear", out_features = 5 }"#,
        loss: "cross_entropy",
    },
    Network {
        name: "lstm",
        data: r#"source = "synthetic"
shape = [9, 3]
values = 2
samples = 150
test_samples = 0"#,
        layers: r#"
            { type = "lstm", hidden_size = 7, num_layers = 2, dropout = 0.3, bidirectional = true, return_sequences = true },
            { type = "gru", hidden_size = 5, num_layers = 2, dropout = 0.2, return_sequences = true },
            { type = "lstm", hidden_size = 16 }, { type = "layer_norm" }, { type = "linear", out_features = 2 }"#,
        loss: "huber",
    },
    Network {
        name: "mlp",
        data: r#"source = "synthetic"
shape = [40]
values = 1
samples = 150
test_samples = 0
augment = [{ type = "mixup", alpha = 1 }]"#,
        layers: r#"
            { type = "linear", out_features = 33 }, { type = "batch_norm1d" }, { type = "tanh" },
            { type = "linear", out_features = 16 }, { type = "sigmoid" }, { type = "linear", out_features = 1 }"#,
        loss: "mae",
    },
    Network {
        name: "one layer",
        data: r#"source = "synthetic"
shape = [40]
values = 3
samples = 150
test_samples = 0"#,
        layers: r#"{ type = "linear", out_features = 3, bias = false }"#,
        loss: "mse",
    },
];

const OPTIMIZERS: [&str; 6] = [
    "type = \"sgd\"\nlr = 0.01",
    "type = \"sgd\"\nlr = 0.01\nmomentum = 0.9\nnesterov = true\nweight_decay = 0.001",
    "type = \"adam\"\nlr = 0.001",
    "type = \"adamw\"\nlr = 0.001",
    "type = \"lars\"\nlr = 0.01\nmomentum = 0.9",
    "type = \"lamb\"\nlr = 0.001",
];

impl Network {
    fn job(&self, optimizer: &str, more: &str) -> Job {
        let Network { data, layers, loss, .. } = self;
        let text = format!(
            "[data]\n{data}\n[model]\nlayers = [{layers}]\n[loss]\ntype = \"{loss}\"\n[optimizer]\n{optimizer}\n\
             [schedule]\ntype = \"cosine\"\n[train]\nepochs = 3\nbatch_size = 40\nmicro_batch = 9\n{more}"
        );
        Job::parse(&text, self.name, &[]).unwrap()
    }

    /// Three warm-up steps, then ten, of which the last of each epoch is ragged.
    fn check(&self, job: &Job, comm: &dyn Comm) {
        let data = Dataset::open(&job.data, job.seed).unwrap();
        let mut trainer = Trainer::build(job, &data, comm).unwrap();
        let mut order = vec![0; data.len(Part::Train)];
        ddl::rng::shuffle(job.seed, 0, &mut order);
        let batches: Vec<&[u32]> = order.chunks(40).collect();
        assert_eq!(batches.last().unwrap().len(), 30, "the last batch is ragged");
        let mut run = |steps: std::ops::Range<u64>| {
            let before = ALLOCATIONS.get();
            for step in steps {
                let (epoch, batch) = (step / 4, batches[step as usize % 4]);
                let outcome = trainer.step(&data, batch, epoch, step, false);
                assert!(outcome.is_ok(), "{}: {outcome:?}", self.name);
            }
            ALLOCATIONS.get() - before
        };
        run(0..3);
        let place = || format!("{}, {:?}, rank {} of {}", self.name, job.optimizer.kind, comm.rank(), comm.size());
        assert_eq!(run(3..13), 0, "allocations in ten steps of {}", place());
    }
}

#[test]
fn a_warm_step_allocates_nothing() {
    for network in &NETWORKS {
        for optimizer in OPTIMIZERS {
            network.check(&network.job(optimizer, ""), &Solo);
            network.check(&network.job(optimizer, "clip_norm = 0.1"), &Solo);
            network.check(&network.job(optimizer, "[distributed]\nreduction = \"reproducible\""), &Solo);
            network.check(&network.job(optimizer, "precision = \"bf16\""), &Solo);
        }
    }
}

#[test]
fn a_warm_step_with_overlapping_sums_allocates_nothing() {
    for network in &NETWORKS {
        for rank in 0..2 {
            let overlap = "[distributed]\noverlap = true\nbucket_bytes = 256";
            network.check(&network.job(OPTIMIZERS[0], overlap), &WithSilentOther(rank));
        }
    }
}

/// Samples that stay in a file: the loader's buffers go round.
#[test]
fn a_warm_step_with_samples_from_a_file_allocates_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.h5");
    let file = hdf5::File::create(&path).unwrap();
    let x = ndarray::Array4::from_shape_fn((1000, 3, 6, 6), |(n, c, h, w)| (n * 7 + c * 5 + h * w) as u8);
    file.new_dataset_builder().with_data(&x).create("x_train").unwrap();
    let y = ndarray::Array1::from_shape_fn(1000, |n| (n % 5) as i32);
    file.new_dataset_builder().with_data(&y).create("y_train").unwrap();
    file.close().unwrap();
    let text = format!(
        "[data]\nsource = \"hdf5\"\npath = \"{}\"\naugment = [{{ type = \"mixup\", alpha = 1 }}]\n[model]\n\
         layers = [{{ type = \"flatten\" }}, {{ type = \"linear\", out_features = 5 }}]\n[loss]\ntype = \"cross_entropy\"\n\
         [optimizer]\ntype = \"sgd\"\nlr = 0.01\n[train]\nepochs = 1\nbatch_size = 16\nmicro_batch = 8",
        path.display()
    );
    let job = Job::parse(&text, "job", &[]).unwrap();
    let data = Dataset::open_unread(&job.data, job.seed).unwrap();
    let mut trainer = Trainer::build(&job, &data, &Solo).unwrap();
    let mut order = vec![0; data.len(Part::Train)];
    data.order(job.seed, 0, &mut order);
    let mut loader = trainer.loader(&data, &order, 16, 0);
    assert!(loader.streams());
    let (mut step, mut before) = (0, 0);
    while let Some(batch) = trainer.next(&mut loader) {
        trainer.step(&data, batch.unwrap(), 0, step, false).unwrap();
        step += 1;
        if step == 20 {
            before = ALLOCATIONS.get();
        }
    }
    assert_eq!((step, ALLOCATIONS.get() - before), (63, 0));
}

#[test]
fn the_counter_counts() {
    let before = ALLOCATIONS.get();
    std::hint::black_box(vec![0u8; 100]);
    assert!(ALLOCATIONS.get() > before);
}

#[test]
fn every_layer_loss_and_optimizer_is_checked() {
    let layers = NETWORKS.map(|network| network.layers).concat();
    for entry in ddl::layer::REGISTRY {
        assert!(layers.contains(&format!("\"{}\"", entry.name)), "add the layer {} to a network here", entry.name);
    }
    for entry in ddl::loss::REGISTRY {
        assert!(NETWORKS.iter().any(|network| network.loss == entry.name), "add the loss {}", entry.name);
    }
    for entry in ddl::optimizer::REGISTRY {
        assert!(OPTIMIZERS.concat().contains(&format!("\"{}\"", entry.name)), "add the optimizer {}", entry.name);
    }
}
