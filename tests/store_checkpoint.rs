//! Checkpoints: whole or absent, every damage found, the newest good one used.

use ddl::arena::{Layout, Storage};
use ddl::input::Input;
use ddl::store::Best;
use ddl::store::Progress;
use ddl::store::checkpoint::{self, Checkpoint};
use std::fs;
use std::path::{Path, PathBuf};

struct Arenas {
    params: (Layout, Vec<f32>),
    state: (Layout, Vec<f32>),
}

/// A small network with a padded weight, a nested layer key, and a state buffer.
fn arenas(value: f32) -> Arenas {
    let mut params = Layout::default();
    params.push("0", "weight", &[5, 3, 2, 2], Storage::Panels);
    params.push("0", "bias", &[5], Storage::Plain);
    params.push("1", "weight", &[5], Storage::Plain);
    params.push("3.layers.0", "weight", &[4, 4], Storage::Plain);
    params.push("10", "weight", &[2, 7], Storage::Panels);
    let mut state = Layout::default();
    state.push("1", "running_mean", &[5], Storage::Plain);
    let fill = |layout: &Layout, offset: f32| {
        let mut arena = vec![0.0; layout.len()];
        for slot in layout.slots() {
            let tensor: Vec<f32> = (0..slot.len()).map(|i| value + offset + i as f32).collect();
            slot.write(&tensor, &mut arena);
        }
        arena
    };
    let (p, s) = (fill(&params, 0.0), fill(&state, 0.5));
    Arenas { params: (params, p), state: (state, s) }
}

fn write(dir: &Path, step: u64, config: &str) -> ddl::error::Result<PathBuf> {
    let Arenas { params, state } = arenas(step as f32);
    let progress = Progress {
        step,
        epoch: 2,
        sample: 64,
        sums: [0.5, 3.0, 0.25, 8.0].into(),
        best: Best::default(),
        input: &Input::default(),
        seed: u64::MAX,
        ranks: 4,
        config,
        products: "f32",
    };
    let v: Vec<f32> = params.1.iter().map(|x| x * x).collect();
    let slots = [("v", v.as_slice()), ("m", params.1.as_slice())];
    checkpoint::write(dir, &progress, (&params.0, &params.1), (&state.0, &state.1), &slots)
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<String> =
        fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_checkpoint_reads_back() {
    let dir = tempfile::tempdir().unwrap();
    let config = "name = \"größer\"\n".repeat(12_500);
    assert!(config.len() > 200_000);
    let path = write(&dir.path().join("checkpoints"), 42, &config).unwrap();
    assert_eq!(path.file_name().unwrap(), "step-00000042.h5");
    let found = checkpoint::read(&path).unwrap();
    let Checkpoint { step, epoch, sample, seed, ranks, .. } = found;
    assert_eq!((step, epoch, sample, seed, ranks), (42, 2, 64, u64::MAX, 4));
    assert_eq!(found.config, config);
    let keys: Vec<&str> = found.model.iter().map(|t| t.key.as_str()).collect();
    assert_eq!(keys, ["0.bias", "0.weight", "1.running_mean", "1.weight", "3.layers.0.weight", "10.weight"]);
    let Arenas { params, state } = arenas(42.0);
    for (layout, arena) in [&params, &state] {
        for slot in layout.slots() {
            let tensor = found.model.iter().find(|t| t.key == slot.key()).unwrap();
            assert_eq!((&tensor.shape, &tensor.data), (&slot.shape, &slot.read(arena)));
        }
    }
    let slots: Vec<&str> = found.optimizer.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(slots, ["m", "v"]);
    let (m, v) = (&found.optimizer[0].1, &found.optimizer[1].1);
    assert_eq!(m.len(), params.0.slots().len());
    assert!(m.iter().zip(v).all(|(m, v)| m.key == v.key && m.data.iter().zip(&v.data).all(|(m, v)| m * m == *v)));
}

#[test]
fn values_that_are_no_numbers_keep_their_bits() {
    let dir = tempfile::tempdir().unwrap();
    let mut layout = Layout::default();
    layout.push("0", "bias", &[4], Storage::Plain);
    layout.push("1", "empty", &[0, 3], Storage::Plain);
    layout.push("2", "scalar", &[], Storage::Plain);
    let mut arena = vec![0.0; layout.len()];
    arena[..4].copy_from_slice(&[f32::NAN, f32::NEG_INFINITY, -0.0, f32::MIN_POSITIVE / 4.0]);
    let progress = Progress {
        step: 1,
        epoch: 0,
        sample: 0,
        sums: [0.5, 3.0, 0.25, 8.0].into(),
        best: Best::default(),
        input: &Input::default(),
        seed: 0,
        ranks: 1,
        config: "a\0b",
        products: "f32",
    };
    let none = Layout::default();
    let path = checkpoint::write(dir.path(), &progress, (&layout, &arena), (&none, &[]), &[]).unwrap();
    let found = checkpoint::read(&path).unwrap();
    let bits: Vec<u32> = found.model[0].data.iter().map(|v| v.to_bits()).collect();
    assert_eq!(bits, arena[..4].iter().map(|v| v.to_bits()).collect::<Vec<_>>());
    assert_eq!((found.model[1].shape.as_slice(), found.model[1].data.len()), (&[0, 3][..], 0));
    assert_eq!((found.model[2].shape.len(), found.model[2].data.as_slice()), (0, &[0.0][..]));
    assert!(found.optimizer.is_empty());
}

#[test]
fn an_arena_of_another_layout_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let Arenas { params, state } = arenas(0.0);
    let progress = Progress {
        step: 1,
        epoch: 0,
        sample: 0,
        sums: [0.5, 3.0, 0.25, 8.0].into(),
        best: Best::default(),
        input: &Input::default(),
        seed: 0,
        ranks: 1,
        config: "",
        products: "f32",
    };
    let short = &params.1[..params.1.len() - 1];
    let error = checkpoint::write(dir.path(), &progress, (&params.0, &params.1), (&state.0, &state.1), &[("m", short)]);
    assert_eq!(error.unwrap_err().exit_code(), 70);
}

/// A linear congruential generator (Knuth's MMIX constants), for positions.
fn positions(seed: u64, below: usize) -> impl Iterator<Item = usize> {
    let mut x = seed;
    std::iter::repeat_with(move || {
        x = x.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (x >> 33) as usize % below
    })
}

#[test]
fn every_flipped_byte_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), 7, "seed = 1").unwrap();
    let good = fs::read(&path).unwrap();
    // The seal and HDF5's superblock byte by byte, then anywhere.
    for (n, at) in (0..640).chain(positions(3, good.len()).take(400)).enumerate() {
        let mut bad = good.clone();
        bad[at] ^= 1 << (n % 8);
        fs::write(&path, &bad).unwrap();
        let error = checkpoint::read(&path).unwrap_err();
        assert_eq!(error.exit_code(), 65, "byte {at}");
        assert!(error.to_string().contains("step-00000007.h5"), "{error}");
    }
    fs::write(&path, &good).unwrap();
    checkpoint::read(&path).unwrap();
}

#[test]
fn every_cut_and_every_addition_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let path = write(dir.path(), 7, "seed = 1").unwrap();
    let good = fs::read(&path).unwrap();
    let lengths = [0, 1, 8, 14, 100, 511, 512, 513, 600].into_iter().chain(positions(5, good.len()).take(60));
    for length in lengths.chain([good.len() - 1]) {
        fs::write(&path, &good[..length]).unwrap();
        assert_eq!(checkpoint::read(&path).unwrap_err().exit_code(), 65, "{length} bytes");
    }
    fs::write(&path, [good.as_slice(), b"x"].concat()).unwrap();
    assert_eq!(checkpoint::read(&path).unwrap_err().exit_code(), 65);
}

#[test]
fn other_files_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("x.h5");
    for (content, said) in
        [(&b""[..], "empty"), (b"hello", "not a ddl checkpoint"), (b"\x89HDF\r\n\x1a\n", "without the seal")]
    {
        fs::write(&path, content).unwrap();
        let error = checkpoint::read(&path).unwrap_err();
        assert_eq!(error.exit_code(), 65);
        assert!(error.to_string().contains(said) && error.to_string().contains("x.h5"), "{error}");
    }
    assert_eq!(checkpoint::read(&dir.path().join("missing.h5")).unwrap_err().exit_code(), 74);
    assert_eq!(checkpoint::read(dir.path()).unwrap_err().exit_code(), 74);
}

#[test]
fn the_newest_good_one_is_used_and_damaged_ones_are_named() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(checkpoint::newest_good(&dir.path().join("none")).unwrap(), (None, vec![]));
    for step in [9, 10, 100_000_000, 11] {
        write(dir.path(), step, "").unwrap();
    }
    fs::write(dir.path().join("step-00000099.h5.tmp"), "left over").unwrap();
    fs::write(dir.path().join("notes.txt"), "mine").unwrap();
    fs::write(dir.path().join("step-100000000.h5"), "rubbish").unwrap();
    let newer = dir.path().join("step-00000011.h5");
    let bytes = fs::read(&newer).unwrap();
    fs::write(&newer, &bytes[..bytes.len() / 2]).unwrap();
    let (found, damaged) = checkpoint::newest_good(dir.path()).unwrap();
    let (path, found) = found.unwrap();
    assert_eq!((path.file_name().unwrap().to_str(), found.step), (Some("step-00000010.h5"), 10));
    assert_eq!(damaged.len(), 2);
    assert!(damaged[0].contains("step-100000000.h5") && damaged[1].contains("step-00000011.h5"), "{damaged:?}");
}

#[test]
fn pruning_keeps_the_newest_and_what_is_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    for step in 1..=5 {
        write(dir.path(), step, "").unwrap();
    }
    fs::write(dir.path().join("step-00000009.h5.tmp"), "left over").unwrap();
    for name in ["notes.txt", "step-1.h5", "step-00000001.h5.bak", "model.tmp"] {
        fs::write(dir.path().join(name), "mine").unwrap();
    }
    checkpoint::prune(dir.path(), 2).unwrap();
    let mine = ["model.tmp", "notes.txt", "step-00000001.h5.bak", "step-1.h5"];
    let kept = |more: &[&str]| {
        let mut all: Vec<String> = mine.iter().chain(more).map(|s| s.to_string()).collect();
        all.sort();
        all
    };
    assert_eq!(names(dir.path()), kept(&["step-00000004.h5", "step-00000005.h5"]));
    checkpoint::prune(dir.path(), 0).unwrap();
    assert_eq!(names(dir.path()), kept(&["step-00000005.h5"]));
    checkpoint::prune(&dir.path().join("none"), 1).unwrap();
}

#[test]
fn what_stands_in_the_way_is_an_io_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let error = write(&file, 1, "").unwrap_err();
    assert_eq!(error.exit_code(), 74);
    assert!(error.to_string().contains("check"), "{error}");
    assert_eq!(checkpoint::newest_good(&file).unwrap_err().exit_code(), 74);
    fs::create_dir(dir.path().join("step-00000002.h5")).unwrap();
    assert_eq!(write(dir.path(), 2, "").unwrap_err().exit_code(), 74);
    assert_eq!(names(dir.path()), ["file", "step-00000002.h5"]);
}
