//! What a power cut may leave: at any moment, what was not synced is there, is not, or is there in part. A run's calls are
//! recorded, all that can be left is made from them, and the run goes on from each.

mod support;

use ddl::store::{RunFile, RunInfo, RunSummary, checkpoint, read_run};
use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use support::run;

const JOB: &str = r#"name = "t"
seed = 1
[data]
source = "synthetic"
shape = [8]
values = 1
samples = 64
test_samples = 16
[model]
layers = [{ type = "linear", out_features = 4 }, { type = "relu" }, { type = "linear", out_features = 1 }]
[loss]
type = "mse"
[optimizer]
type = "adam"
[train]
epochs = 1
batch_size = 16
validation = 0.25
checkpoint_steps = 2
keep_checkpoints = 1
"#;

#[derive(Clone, Copy, PartialEq)]
enum Node {
    File(usize),
    Folder(usize),
}

type Entries = BTreeMap<String, Node>;

/// A file's bytes, or a folder's entries: as last synced, and as they are.
#[derive(Default)]
struct Known<T> {
    synced: T,
    now: T,
}

/// A disk of which it is known what is surely on it. Folder 0 is the root.
struct Disk {
    files: Vec<Known<Vec<u8>>>,
    folders: Vec<Known<Entries>>,
    /// Folders between which something was renamed that is not synced: that happens in both or in none.
    joined: Vec<[usize; 2]>,
    inodes: BTreeMap<String, usize>,
}

/// What becomes of bytes that are not synced.
#[derive(Clone, Copy)]
enum Bytes {
    Lost,
    /// The file has its length, and zeros.
    Zeros,
    Half,
    There,
}

/// What becomes of a folder's changes that are not synced.
#[derive(Clone, Copy)]
enum Names {
    Lost,
    There,
    /// Of this folder alone, and of those joined to it.
    Of(usize),
}

impl Disk {
    fn new() -> Self {
        Self { files: Vec::new(), folders: vec![Known::default()], joined: Vec::new(), inodes: BTreeMap::new() }
    }

    /// A folder and those that are synced with it.
    fn group(&self, folder: usize) -> Vec<usize> {
        let others = self.joined.iter().filter(|pair| pair.contains(&folder)).flatten().copied();
        others.chain([folder]).collect()
    }

    fn folder(&self, path: &str) -> usize {
        path.split('/').filter(|name| !name.is_empty() && *name != ".").fold(0, |at, name| {
            match self.folders[at].now.get(name) {
                Some(Node::Folder(folder)) => *folder,
                _ => panic!("no folder {path}"),
            }
        })
    }

    /// The entries of the folder of a path, and the name there.
    fn place<'a>(&mut self, path: &'a str) -> (&mut Entries, &'a str) {
        let (folder, name) = path.rsplit_once('/').unwrap_or(("", path));
        let folder = self.folder(folder);
        (&mut self.folders[folder].now, name)
    }

    fn enter(&mut self, path: &str, node: Node) {
        let (entries, name) = self.place(path);
        entries.insert(name.into(), node);
    }

    fn happens(&mut self, event: &str) {
        let words: Vec<&str> = event.split(' ').collect();
        match words[..] {
            ["mkdir", path] => {
                self.folders.push(Known::default());
                self.enter(path, Node::Folder(self.folders.len() - 1));
            }
            ["new", inode, path] => {
                self.files.push(Known::default());
                self.inodes.insert(inode.into(), self.files.len() - 1);
                self.enter(path, Node::File(self.files.len() - 1));
            }
            ["size", inode, len] => self.files[self.inodes[inode]].now.resize(len.parse().unwrap(), 0),
            ["write", inode, at, hex] => {
                let bytes: Vec<u8> =
                    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap()).collect();
                let (file, at) = (&mut self.files[self.inodes[inode]].now, at.parse::<usize>().unwrap());
                file.resize(file.len().max(at + bytes.len()), 0);
                file[at..at + bytes.len()].copy_from_slice(&bytes);
            }
            ["sync", inode] => {
                let file = &mut self.files[self.inodes[inode]];
                file.synced.clone_from(&file.now);
            }
            ["folder-sync", path] => {
                let group = self.group(self.folder(path));
                for number in &group {
                    let folder = &mut self.folders[*number];
                    folder.synced.clone_from(&folder.now);
                }
                self.joined.retain(|pair| !group.contains(&pair[0]));
            }
            ["rename", from, to] => {
                let (entries, name) = self.place(from);
                let node = entries.remove(name).unwrap();
                self.enter(to, node);
                let [from, to] = [from, to].map(|path| self.folder(path.rsplit_once('/').unwrap_or_default().0));
                if from != to {
                    self.joined.push([from, to]);
                }
            }
            ["link", from, to] => {
                let (entries, name) = self.place(from);
                let node = entries[name];
                self.enter(to, node);
            }
            ["unlink", path] => {
                let (entries, name) = self.place(path);
                entries.remove(name).unwrap();
            }
            _ => panic!("{event:.80}"),
        }
    }

    /// The files that are left.
    fn left(&self, bytes: Bytes, names: Names) -> BTreeMap<PathBuf, Vec<u8>> {
        let (mut files, mut folders) = (BTreeMap::new(), vec![(PathBuf::new(), 0)]);
        while let Some((path, number)) = folders.pop() {
            let Known { synced, now } = &self.folders[number];
            let there = match names {
                Names::Lost => false,
                Names::There => true,
                Names::Of(only) => self.group(only).contains(&number),
            };
            for (name, node) in if there { now } else { synced } {
                match *node {
                    Node::Folder(folder) => folders.push((path.join(name), folder)),
                    Node::File(file) => drop(files.insert(path.join(name), self.files[file].left(bytes))),
                }
            }
        }
        files
    }

    /// Some of all that may be left now.
    fn all_left(&self) -> Vec<BTreeMap<PathBuf, Vec<u8>>> {
        let names = (0..self.folders.len()).map(Names::Of).chain([Names::Lost, Names::There]);
        let bytes = [Bytes::Lost, Bytes::Zeros, Bytes::Half, Bytes::There];
        names.flat_map(|names| bytes.map(|bytes| self.left(bytes, names))).collect()
    }
}

impl Known<Vec<u8>> {
    fn left(&self, bytes: Bytes) -> Vec<u8> {
        let (synced, now) = (&self.synced, &self.now);
        match bytes {
            Bytes::There => now.clone(),
            Bytes::Lost => synced.clone(),
            Bytes::Half => now[..now.len().min(synced.len()) + now.len().saturating_sub(synced.len()) / 2].to_vec(),
            Bytes::Zeros => {
                let mut bytes = synced.clone();
                bytes.resize(now.len(), 0);
                bytes
            }
        }
    }
}

fn laid_out(files: &BTreeMap<PathBuf, Vec<u8>>) -> tempfile::TempDir {
    // In memory, where syncing takes no time.
    let root = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap();
    for (path, bytes) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }
    root
}

/// The history that a run which goes on from there begins with.
fn resumed(path: &Path, epochs: u64, steps: u64) -> RunSummary {
    let info = RunInfo { name: "t", config: "", ranks: 1, commit: "", environment: &[] };
    RunFile::resume(path, &info, epochs, steps).unwrap().finish("done").unwrap();
    read_run(path).unwrap()
}

/// The greatest step of a good checkpoint in the folders of a run and of those before it. Each one's history is whole in the same
/// folder, or, where a run is being moved aside, in the other.
fn found(out: &Path) -> u64 {
    let mut folders = vec![out.to_path_buf()];
    folders.extend(fs::read_dir(out).into_iter().flatten().map(|entry| entry.unwrap().path()));
    folders.retain(|folder| folder.is_dir());
    let has_history = |folder: &&PathBuf| ["run.h5", "run.journal"].iter().any(|name| folder.join(name).exists());
    let with_history: Vec<&PathBuf> = folders.iter().filter(has_history).collect();
    let mut most = 0;
    for folder in folders.iter().filter(|folder| folder.join("checkpoints").exists()) {
        let best = folder.join("checkpoints").join(checkpoint::BEST);
        if best.exists() {
            checkpoint::read(&best).unwrap();
        }
        let (newest, damaged) = checkpoint::newest_good(&folder.join("checkpoints")).unwrap();
        assert!(damaged.is_empty(), "{damaged:?}");
        let Some((_, newest)) = newest else { continue };
        let at = if has_history(&folder) { folder } else { *with_history.first().expect("a history") };
        let history = resumed(&at.join("run.h5"), newest.epoch, newest.step);
        let steps = history.step_column("step").unwrap_or_default().len() as u64;
        let epochs = history.epoch_column("epoch").unwrap_or_default().len() as u64;
        assert!((steps, epochs) == (newest.step, newest.epoch), "{steps} steps and {epochs} epochs of {}", newest.step);
        most = most.max(newest.step);
    }
    most
}

/// The step of a checkpoint that gets its name, and of one that gives way, which is when the newer one is counted on.
fn step_of(path: &str) -> Option<u64> {
    path.rsplit_once("/step-")?.1.strip_suffix(".h5")?.parse().ok()
}

#[test]
fn a_power_cut_at_any_moment_loses_nothing_that_was_synced() {
    let folder = tempfile::tempdir().unwrap();
    let [library, job, log, root] = ["record_io.so", "job.toml", "log", "root"].map(|name| folder.path().join(name));
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/record_io.c");
    let built = Command::new("cc").args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library).arg(source).output();
    if !built.is_ok_and(|output| output.status.success()) {
        eprintln!("no C compiler: not tested");
        return;
    }
    fs::create_dir(&root).unwrap();
    fs::write(&job, JOB).unwrap();
    // A run, its continuation, and another one that moves it aside.
    for more in [&[][..], &["--resume", "--set", "train.epochs=3"], &["--set", "optimizer.lr=0.002"]] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ddl"));
        command.arg("train").arg(&job).arg("--out").arg(root.join("a/out")).args(more);
        command.env("LD_PRELOAD", &library).env("RECORD_BELOW", &root).env("RECORD_TO", &log);
        let output = run(&mut command, Duration::from_secs(60));
        assert!(output.status.success(), "{output:?}");
        fs::write(&log, fs::read_to_string(&log).unwrap() + "end\n").unwrap();
    }
    let log = fs::read_to_string(&log).unwrap();
    let (mut disk, mut tried) = (Disk::new(), HashSet::new());
    let (mut named, mut safe, mut begun, mut ends) = (0, 0, 0, Vec::new());
    for (number, event) in log.lines().enumerate() {
        match event.split(' ').collect::<Vec<_>>()[..] {
            ["end"] => {
                ends.push(named);
                safe = safe.max(named);
                continue;
            }
            ["rename", _, to] => named = step_of(to).unwrap_or(named),
            // The older one goes: the newer one must be safe by now.
            ["unlink", path] if step_of(path).is_some() => safe = safe.max(named),
            _ => {}
        }
        disk.happens(event);
        // However long the checkpoint takes and whatever ends it: its history comes first.
        if let ["new", _, path] = event.split(' ').collect::<Vec<_>>()[..]
            && let Some(step) = path.strip_suffix(".tmp").and_then(step_of)
        {
            let left = laid_out(&disk.left(Bytes::Lost, Names::Lost));
            let history = resumed(&left.path().join("a/out/run.h5"), u64::MAX, step);
            assert_eq!(history.step_column("step").unwrap().last(), Some(&(step as f64)));
            begun += 1;
        }
        for files in disk.all_left() {
            if !tried.insert((safe, files.clone())) {
                continue;
            }
            let left = laid_out(&files);
            let found = found(&left.path().join("a/out"));
            assert!(
                found >= safe,
                "after event {number} ({event:.80}): step {found} is found, {safe} was safe: {:?}",
                files.keys()
            );
        }
    }
    // 48 samples to train on: 3 steps an epoch.
    assert_eq!((ends, safe), (vec![3, 9, 3], 9));
    assert!(begun >= 6, "{begun} checkpoints were begun");
    assert!(tried.len() > 200, "{} states", tried.len());
}
