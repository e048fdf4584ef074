//! A host whose weights part from the others' is found and named.

use ddl::comm::connect;
use ddl::config::Job;
use ddl::data::Dataset;
use ddl::train::Trainer;
use std::process::Command;

/// Set in the processes that this test starts under mpirun: which tensor rank 2 spoils, or none.
const SPOIL: &str = "SENTINEL_SPOILS";

const JOB: &str = r#"
[data]
source = "synthetic"
shape = [1, 8, 8]
samples = 64
[model]
layers = [
  { type = "conv2d", out_channels = 4, kernel_size = 3 }, { type = "batch_norm2d" }, { type = "flatten" },
  { type = "linear", out_features = 10 },
]
[loss]
type = "cross_entropy"
[optimizer]
type = "adam"
[train]
epochs = 1
batch_size = 16
micro_batch = 4
[distributed]
exchange = "mpi"
"#;

/// What one rank of a job does: some steps, then perhaps a bit of rank 2 flips.
fn rank(spoilt: &str) {
    let comm = connect().unwrap();
    let job = Job::parse(JOB, "job.toml", &[]).unwrap();
    let data = Dataset::open(&job.data, job.seed).unwrap();
    let mut trainer = Trainer::build(&job, &data, &*comm).unwrap();
    let samples: Vec<u32> = (0..64).collect();
    for (step, batch) in samples.chunks(16).enumerate() {
        trainer.step(&data, batch, 0, step as u64, false).unwrap();
    }
    if let (2, Ok(at)) = (comm.rank(), spoilt.parse::<usize>()) {
        let first = trainer.model().layout().slots()[at].range.start;
        let last = if at == 0 { 1 } else { trainer.replica.params.len() };
        // Of the named tensor and all behind it one bit each, so that the first must be named.
        for element in first..last {
            // SAFETY: each rank counts as a host here, so that nobody else sees its memory.
            let element = unsafe { trainer.replica.params.part_mut(element..element + 1) };
            element[0] = f32::from_bits(element[0].to_bits() ^ 1);
        }
    }
    let found = trainer.compare_hosts(4);
    println!("rank {} says: {}", comm.rank(), found.map_or_else(|e| e.to_string(), |()| "all alike".into()));
}

#[test]
fn a_rank_that_parts_is_named_on_all_ranks() {
    if let Ok(spoilt) = std::env::var(SPOIL) {
        return rank(&spoilt);
    }
    for (spoilt, expected) in
        [("none", "all alike"), ("4", "step 4: 3.weight on rank 2 "), ("0", "step 4: 0.weight on rank 2 ")]
    {
        let mut mpirun = Command::new("mpirun");
        mpirun.args(["-n", "4", "--oversubscribe", "--bind-to", "none"]).arg(std::env::current_exe().unwrap());
        mpirun.args(["--nocapture", "--exact", "a_rank_that_parts_is_named_on_all_ranks"]).env(SPOIL, spoilt);
        mpirun.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        let output = mpirun.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
        for rank in 0..4 {
            let line = format!("rank {rank} says: {expected}");
            assert!(said.contains(&line), "{spoilt}: {line} is not in\n{said}");
        }
    }
}
