//! Small pieces of a training step, each run once for `scripts/instructions`, which has callgrind count the instructions of
//! [`counted_run`]. Prints the instruction set, then the names of the pieces in the order of their runs. Nothing here
//! depends on a clock, on other ranks or on chance, so that a count is the same on every machine.

use ddl::config::Job;
use ddl::data::{AugmentKey, Dataset, Part, Targets};
use ddl::kernel::sum::{add, add_with_squares, squares};
use ddl::layer::{Mode, Onto, Pass};
use ddl::model::Model;
use ddl::optimizer::{self, Update};
use ddl::{loss, rng};
use std::hint::black_box;

const IMAGES: &str = "source = \"synthetic\"\nsamples = 64\ntest_samples = 0";

/// Layers on their own or as they are fused: name, shape of a sample, samples, layers, more of `[train]`.
const LAYERS: &[(&str, &str, usize, &str, &str)] = &[
    ("conv 1->8 relu", "1, 12, 12", 4, "{CONV, out_channels = 8 }, { type = \"relu\" }", ""),
    ("conv 3->32 relu pool", "3, 16, 16", 2, "{CONV, out_channels = 32, padding = 1 }, RELU_POOL", ""),
    ("conv 32->32 relu pool", "32, 8, 8", 2, "{CONV, out_channels = 32, padding = 1 }, RELU_POOL", ""),
    ("conv 32->64 norm relu", "32, 8, 8", 2, "{CONV, out_channels = 64, padding = 1 }, NORM, { type = \"relu\" }", ""),
    ("conv 16->16 norm relu pool", "16, 8, 8", 2, "{CONV, out_channels = 16, padding = 1 }, NORM, RELU_POOL", ""),
    ("conv 20->24", "20, 7, 7", 3, "{CONV, out_channels = 24 }", ""),
    ("conv 16->16 5x5", "16, 6, 6", 2, "{ type = \"conv2d\", kernel_size = 5, padding = 2, out_channels = 16 }", ""),
    ("conv 16->16 stride 2", "16, 8, 8", 2, "{CONV, stride = 2, padding = 1, out_channels = 16 }", ""),
    ("conv 16->32 1x1", "16, 6, 6", 2, "{ type = \"conv2d\", kernel_size = 1, out_channels = 32 }", ""),
    ("linear 96->64", "96", 32, "{ type = \"linear\", out_features = 64 }", ""),
    ("linear 100->33", "100", 9, "{ type = \"linear\", out_features = 33 }", ""),
    ("linear 96->64 bf16", "96", 16, "{ type = \"linear\", out_features = 64 }", "precision = \"bf16\""),
    ("lstm 8->32 x6", "6, 8", 16, "{ type = \"lstm\", hidden_size = 32 }", ""),
    ("lstm 5->20 x4", "4, 5", 7, "{ type = \"lstm\", hidden_size = 20 }", ""),
    ("lstm 8->32 x4 bf16", "4, 8", 8, "{ type = \"lstm\", hidden_size = 32 }", "precision = \"bf16\""),
    ("batch_norm 16", "16, 8, 8", 4, "NORM", ""),
    ("layer_norm 64", "64", 32, "{ type = \"layer_norm\" }", ""),
    ("max_pool 3 stride 2", "16, 9, 9", 4, "{ type = \"max_pool2d\", kernel_size = 3, stride = 2 }", ""),
    ("avg_pool 2", "16, 8, 8", 4, "{ type = \"avg_pool2d\", kernel_size = 2 }", ""),
    ("dropout", "1024", 4, "{ type = \"dropout\" }", ""),
    ("relu", "1024", 4, "{ type = \"relu\" }", ""),
    ("gelu", "1024", 4, "{ type = \"gelu\" }", ""),
    ("sigmoid", "1024", 4, "{ type = \"sigmoid\" }", ""),
    ("tanh", "1024", 4, "{ type = \"tanh\" }", ""),
];

const OPTIMIZERS: &[(&str, &str)] = &[
    ("sgd", "type = \"sgd\"\nlr = 0.01"),
    ("sgd momentum", "type = \"sgd\"\nlr = 0.01\nmomentum = 0.9"),
    ("adam", "type = \"adam\""),
    ("adamw", "type = \"adamw\""),
    ("lamb", "type = \"lamb\""),
    ("lars", "type = \"lars\"\nlr = 0.01"),
];

const MODE: Mode = Mode::Train { seed: 1, step: 0, first: 0, share: 1.0 };

/// What callgrind counts, from its call to its return.
#[inline(never)]
fn counted_run(run: &mut dyn FnMut()) {
    run();
    black_box(()); // Or else the call would be a jump, which does not return here.
}

/// Once to warm up, once counted.
fn count(name: &str, mut run: impl FnMut()) {
    run();
    println!("{name}");
    counted_run(&mut run);
}

fn job(data: &str, layers: &str, optimizer: &str, train: &str) -> Job {
    let layers = layers
        .replace("{CONV", "{ type = \"conv2d\", kernel_size = 3")
        .replace("NORM", "{ type = \"batch_norm2d\" }")
        .replace("RELU_POOL", "{ type = \"relu\" }, { type = \"max_pool2d\", kernel_size = 2 }");
    let text = format!(
        "[data]\n{data}\n[model]\nlayers = [{layers}]\n[loss]\ntype = \"cross_entropy\"\n[optimizer]\n{optimizer}\n\
         [train]\nepochs = 1\nbatch_size = 32\n{train}"
    );
    Job::parse(&text, "instructions", &[]).expect("a job")
}

fn layers() {
    for (name, shape, m, layers, train) in LAYERS {
        let job = job(&format!("{IMAGES}\nshape = [{shape}]"), layers, OPTIMIZERS[0].1, train);
        let data = Dataset::open(&job.data, job.seed).expect("data");
        let mut model =
            Model::<f32>::with_precision(job.train.precision, &job.layers, data.input(), *m).expect("a model");
        let mut params = vec![0.0; model.layout().len()];
        let mut grads = params.clone();
        let mut state = vec![0.0; model.state_layout().len()];
        let mut statistics = state.clone();
        model.initialise(job.seed, &mut params, &mut state);
        let samples: Vec<u32> = (0..*m as u32).collect();
        let mut targets = Targets::default();
        data.fill(Part::Train, &samples, None, model.stack.x(*m), &mut targets);
        if !params.is_empty() {
            count(&format!("{name}: weights packed"), || model.stack.prepare(&params));
        }
        let micro = Pass { m: *m, mode: MODE, params: &params };
        count(&format!("{name}: forward"), || model.stack.forward(micro, &state, &mut statistics));
        model.stack.y_and_dy(*m).1.fill(0.01);
        count(&format!("{name}: backward"), || {
            model.stack.backward(micro, &mut grads, Onto::Add, true, usize::MAX, &mut |_| {});
        });
    }
}

/// Filling a micro-batch, the loss, sums and updates.
fn around_the_layers() {
    let layers = "{ type = \"flatten\" }, { type = \"linear\", out_features = 10 }";
    for (name, augment) in [
        ("plain", ""),
        ("cropped and flipped", "{ type = \"random_crop\", padding = 2 }, { type = \"horizontal_flip\" }"),
    ] {
        let data = format!("{IMAGES}\nshape = [3, 16, 16]\naugment = [{augment}]");
        let job = job(&data, layers, OPTIMIZERS[0].1, "");
        let data = Dataset::open(&job.data, job.seed).expect("data");
        let mut samples = vec![0; 16];
        rng::shuffle(job.seed, 0, &mut samples);
        let (mut x, mut targets) = (vec![0.0; 16 * 3 * 16 * 16], Targets::default());
        let key = AugmentKey { seed: job.seed, epoch: 0 };
        count(&format!("batch of images, {name}"), || {
            data.fill(Part::Train, &samples, Some(key), &mut x, &mut targets);
        });
        let loss = loss::build(&job.loss, data.task(), 10).expect("a loss");
        let mut dy = vec![0.0; 16 * 10];
        if augment.is_empty() {
            count("cross_entropy", || {
                black_box(loss.evaluate(16, 10, &x[..160], &targets, 1.0 / 16.0, Some(&mut dy)));
            });
        }
    }
    for (name, optimizer) in OPTIMIZERS {
        let job = job(&format!("{IMAGES}\nshape = [3, 16, 16]"), layers, optimizer, "");
        let data = Dataset::open(&job.data, job.seed).expect("data");
        let model = Model::<f32>::build(&job.layers, data.input(), 16).expect("a model");
        let optimizer = optimizer::build(&job.optimizer).expect("an optimizer");
        let len = model.layout().len();
        let [mut params, mut grads, mut first, mut second] = [0.5, 0.1, 0.2, 0.3].map(|value| vec![value; len]);
        let slots = optimizer.slots().len();
        count(&format!("{name} update"), || {
            let moments = [&mut first[..len * slots.min(1)], &mut second[..len * (slots / 2)]];
            optimizer.update(Update {
                layout: model.layout(),
                first: 0,
                params: &mut params,
                grads: &mut grads,
                moments,
                lr: 0.01,
                momentum: None,
                step: 3,
                grad_scale: 0.5,
            });
        });
    }
    let (mut to, from) = (vec![1.0f32; 8192], vec![2.0f32; 8192]);
    count("sum of gradients", || add(&mut to, &from));
    count("sum of gradients and its norm", || {
        black_box(add_with_squares(&mut to, &from));
    });
    count("norm of gradients", || {
        black_box(squares(&to));
    });
}

fn main() {
    println!("{}", ddl::kernel::isa().name());
    layers();
    around_the_layers();
}
