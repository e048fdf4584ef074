//! The house rules that a compiler does not hold: who may use whom, what only one place names, and sizes.

use std::fs;
use std::path::Path;

/// Which of the crate's top-level modules each may name, beside itself. Of some only what stands after `::`.
const MAY_USE: &[(&str, &[&str])] = &[
    // The base.
    ("error", &[]),
    ("rng", &[]),
    ("shape", &[]),
    ("shard", &[]),
    ("arena", &[]),
    ("resource", &["error"]),
    // What a network must know of its input to predict.
    ("input", &["shape"]),
    // Arithmetic on slices; the arena for how weights are stored.
    ("kernel", &["arena"]),
    // A job's text; each component's keys and defaults belong to its registry.
    (
        "config",
        &[
            "error",
            "kernel::Precision",
            "data::Dataset",
            "layer::find",
            "loss::find",
            "optimizer::find",
            "optimizer::schedule",
        ],
    ),
    // What a network is made of: no data but the targets a loss sees, no ranks, no files.
    ("layer", &["arena", "config", "error", "kernel", "resource", "rng", "shape"]),
    ("loss", &["config", "data::Targets", "data::Task", "error", "kernel"]),
    ("optimizer", &["arena", "config", "error", "kernel"]),
    ("model", &["arena", "config", "error", "kernel", "layer", "rng", "shape"]),
    // Three that do not know each other, nor a layer. HDF5 data are read through the store's plain arrays and rows of them.
    ("data", &["config", "error", "input", "resource", "rng", "shape", "store::rows", "store::table"]),
    ("comm", &["arena", "error", "resource", "shard"]),
    ("store", &["arena", "error", "input", "resource", "shape"]),
    // What brings all together.
    (
        "train",
        &[
            "arena",
            "comm",
            "config",
            "data",
            "error",
            "kernel",
            "layer",
            "loss",
            "model",
            "optimizer",
            "reduction",
            "resource",
            "rng",
            "shard",
            "store",
        ],
    ),
    // Between ranks: buffers of gradients, whatever they mean.
    ("reduction", &["comm", "shard", "error", "kernel::sum"]),
    // Pictures, whatever they show.
    ("chart", &["error", "store::write_file"]),
    // A trained network in the forms of others.
    ("export", &["config::Job", "error", "input", "kernel", "layer", "model", "shape", "store"]),
    // Runs and studies on a page, from their files.
    ("report", &["chart", "config", "error", "scale::summary", "store"]),
    // What is in a data set.
    (
        "explore",
        &["chart", "comm", "data", "error", "resource", "shape", "shard", "store::write_file", "train::terminal"],
    ),
    // A data set as one file.
    ("prepare", &["comm", "data", "error", "resource", "shape", "store::prepared"]),
    // The machine: facts of all ranks, and what they mean.
    // What starts a training again.
    ("supervise", &["error", "store"]),
    // Where two runs differ, from their files.
    ("compare", &["config", "error", "store"]),
    ("doctor", &["comm", "error", "kernel", "resource", "store::hdf5_version", "train::COMMIT", "train::terminal"]),
    // Studies of many runs: they start the program, and read its run files.
    (
        "scale",
        &[
            "chart",
            "comm",
            "config",
            "data",
            "error",
            "kernel::sum",
            "reduction::Crossing",
            "resource",
            "rng",
            "store",
            "train",
        ],
    ),
    (
        "cli",
        &[
            "comm",
            "compare",
            "config",
            "data",
            "doctor",
            "error",
            "explore",
            "export",
            "kernel",
            "loss",
            "model::Row",
            "prepare",
            "report",
            "resource",
            "rng",
            "scale",
            "store",
            "supervise",
            "train",
        ],
    ),
];

/// A crate, and the only files that may name it.
const ONLY_IN: &[(&str, &str)] = &[
    ("mpi", "comm/mpi/"),
    ("hdf5", "store/"),
    ("hdf5_sys", "store/"),
    // The network, so that none of it is in a rank that trains.
    ("tokio", "data/storage/"),
    ("reqwest", "data/storage/"),
    ("object_store", "data/storage/"),
    ("hdfs_native", "data/storage/"),
];

/// Where `unsafe` may stand: files, or modules with all their files.
const UNSAFE: &[&str] = &[
    "arena/buffer",      // aligned memory
    "comm/barrier",      // threads stand for ranks in its test
    "comm/host",         // the messages that comm/mpi sends
    "comm/mod",          // a gradient's slice is given to MPI while others are computed
    "comm/mpi",          // MPI_IN_PLACE, MPI_Iallreduce, windows
    "comm/residue",      // its test maps a file
    "comm/segment",      // mapped memory
    "comm/shared",       // memory that ranks share: who writes when is told by barriers
    "comm/solo",         // as the trait says
    "comm/watch",        // records that ranks share; its thread takes no signals
    "kernel/activation", // instruction sets, from here on
    "kernel/column_sum",
    "kernel/conv/direct",
    "kernel/conv/epilogue",
    "kernel/conv/fused",
    "kernel/conv/patch",
    "kernel/conv/upstream",
    "kernel/conv/winograd",
    "kernel/gelu",
    "kernel/isa",
    "kernel/product",
    "kernel/recurrent/cell",
    "kernel/recurrent/sequence",
    "kernel/simd",
    "kernel/transpose",
    "kernel/view",        // views without ndarray's own checks
    "main",               // a handler before all else
    "reduction/crossing", // messages on their way
    "reduction/exchange", // each block is one rank's between two barriers
    "supervise/process",  // signals, and children of children
    "store/hdf",          // HDF5 is told to follow no link to another file
    "train/replica",      // likewise
    "store/prepared",     // chunks that ranks have packed
    "store/image",        // where HDF5 keeps a file in memory
    "train/signal",       // handlers of signals
];

const MOST_LINES: usize = 500;

/// Of a function in `kernel/` and `layer/`: more are not seen at a glance.
const MOST_PARAMETERS: usize = 7;

/// Names that say nothing.
const EMPTY_NAMES: &[&str] = &["util", "utils", "common", "helper", "helpers", "manager", "misc"];

/// A source file: its path below `src/`, and its lines without comments and texts.
struct Source {
    path: String,
    lines: Vec<String>,
}

impl Source {
    /// `layer` of `layer/relu.rs`, `model` of `model.rs`.
    fn module(&self) -> &str {
        let first = self.path.split('/').next().unwrap_or_default();
        first.strip_suffix(".rs").unwrap_or(first)
    }

    /// How many `super::` lead out of the top-level module: 1 for `layer/mod.rs`, 2 for `layer/relu.rs`.
    fn depth(&self) -> usize {
        let names = self.path.split('/').count();
        if self.path.ends_with("/mod.rs") { names - 1 } else { names }
    }
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut found = Vec::new();
    let mut folders = vec![root.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                let name = path.strip_prefix(&root).unwrap().to_string_lossy().replace('\\', "/");
                let text = fs::read_to_string(&path).unwrap();
                found.push(Source { path: name, lines: text.lines().map(code).collect() });
            }
        }
    }
    assert!(found.len() > 50, "only {} files found in {}", found.len(), root.display());
    found
}

/// A line without its comment and without what stands in quotation marks.
fn code(line: &str) -> String {
    let line = line.replace("\\\"", "").replace("'\"'", "");
    let mut code: String = line.split('"').step_by(2).collect::<Vec<_>>().join("\"\"");
    if let Some(comment) = code.find("//") {
        code.truncate(comment);
    }
    code
}

/// Where `name` stands as a whole word.
fn words<'a>(line: &'a str, name: &'a str) -> impl Iterator<Item = usize> + 'a {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(name)
        .map(|(at, _)| at)
        .filter(move |&at| !line[..at].ends_with(part) && !line[at + name.len()..].starts_with(part))
}

/// The paths behind each `prefix` in a line: `["data::Targets", "data::Task"]` of `crate::data::{Targets, Task}`.
fn paths_after(line: &str, prefix: &str) -> Vec<String> {
    let starts = words(line, prefix).map(|at| &line[at + prefix.len()..]);
    starts.filter_map(|rest| rest.strip_prefix("::")).flat_map(|rest| leaves(rest).0).collect()
}

/// The paths of a `use` tree, and what follows it.
fn leaves(text: &str) -> (Vec<String>, &str) {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        let mut found = Vec::new();
        loop {
            let (paths, after) = leaves(rest);
            found.extend(paths);
            match after.trim_start().strip_prefix(',') {
                Some(after) => rest = after,
                None => return (found, after.trim_start().trim_start_matches('}')),
            }
        }
    }
    let end = text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    match rest.strip_prefix("::") {
        Some(rest) => {
            let (paths, rest) = leaves(rest);
            (paths.iter().map(|path| format!("{name}::{path}")).collect(), rest)
        }
        None => (vec![name.to_owned()], rest),
    }
}

/// Whether `rule` (`error`, `store::table`) allows the path.
fn allows(rule: &str, path: &str) -> bool {
    path == rule || path.strip_prefix(rule).is_some_and(|rest| rest.starts_with("::"))
}

/// All of a file's `use` lines and paths, statements over several lines put into one.
fn statements(source: &Source) -> Vec<(usize, String)> {
    let mut statements: Vec<(usize, String)> = Vec::new();
    let mut open = false;
    for (number, line) in source.lines.iter().enumerate() {
        let begins_use = line.trim_start().starts_with("use ") || line.trim_start().starts_with("pub use ");
        if open {
            let (_, statement) = statements.last_mut().unwrap();
            statement.push_str(line.trim());
        } else {
            statements.push((number + 1, line.clone()));
        }
        open = (open || begins_use) && !line.contains(';');
    }
    statements
}

#[test]
fn modules_use_only_what_is_below_them() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| !["lib.rs", "main.rs"].contains(&source.path.as_str())) {
        let module = source.module();
        let Some((_, rules)) = MAY_USE.iter().find(|(name, _)| *name == module) else {
            wrong.push(format!("{}: the module {module} is new: say in MAY_USE what it may use", source.path));
            continue;
        };
        for (number, statement) in statements(source) {
            for path in paths_after(&statement, "crate") {
                let of_itself = path.split("::").next() == Some(module);
                if !of_itself && !rules.iter().any(|rule| allows(rule, &path)) {
                    wrong.push(format!("{}:{number}: {module} may not use {path}", source.path));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn no_path_leaves_its_module_by_super() {
    let mut wrong = Vec::new();
    for source in sources() {
        let mut inner = 0; // `mod tests` at the end of a file adds a level.
        for (number, line) in source.lines.iter().enumerate() {
            inner = inner.max(usize::from(words(line, "mod").next().is_some() && line.ends_with('{')));
            let most = source.depth() + inner;
            if line.contains(&"super::".repeat(most.max(1))) {
                wrong.push(format!("{}:{}: write crate::", source.path, number + 1));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn some_crates_are_named_in_one_place_each() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (name, place) in ONLY_IN.iter().filter(|(_, place)| !source.path.starts_with(place)) {
            for (number, line) in source.lines.iter().enumerate() {
                // `self::mpi::` is a module of ours.
                let named = words(line, name)
                    .any(|at| line[at + name.len()..].starts_with("::") && !line[..at].ends_with("self::"));
                let imported = line.trim_start().starts_with(&format!("use {name}"));
                if named || imported {
                    wrong.push(format!("{}:{}: only {place} may name {name}::", source.path, number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn unsafe_stands_only_where_it_is_known() {
    let mut found: Vec<&str> = Vec::new();
    for source in sources() {
        if source.lines.iter().any(|line| words(line, "unsafe").next().is_some()) {
            let path = source.path.strip_suffix(".rs").unwrap();
            let known = UNSAFE.iter().find(|known| path == **known || path.starts_with(&format!("{known}/")));
            assert!(known.is_some(), "{}: has unsafe code, and is not in the list UNSAFE", source.path);
            found.extend(known);
        }
    }
    assert!(found.contains(&"comm/mpi"), "the scan finds nothing");
}

#[test]
fn files_are_short() {
    let long: Vec<String> = sources()
        .iter()
        .filter(|source| source.lines.len() > MOST_LINES)
        .map(|source| format!("{}: {} lines, at most {MOST_LINES}", source.path, source.lines.len()))
        .collect();
    assert!(long.is_empty(), "\n{}", long.join("\n"));
}

/// Parameters of the functions that a file declares: the number, and where.
fn parameters(source: &Source) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    for (number, line) in source.lines.iter().enumerate() {
        for at in words(line, "fn") {
            let rest = [&line[at..], "\n"].into_iter().chain(source.lines[number + 1..].iter().map(String::as_str));
            // From the name's first bracket to the one that closes it; a comma in no deeper bracket divides. A comma at
            // the end stands before nothing.
            let (mut depth, mut angle, mut count, mut begun, mut named) = (0, 0, 0, false, false);
            'signature: for piece in rest.take(40) {
                let mut before = ' ';
                for c in piece.chars() {
                    match c {
                        '(' | '[' => depth += 1,
                        ')' | ']' => depth -= 1,
                        '<' => angle += 1,
                        '>' if before != '-' => angle -= 1,
                        '{' | ';' if depth == 0 => break 'signature,
                        _ => {}
                    }
                    if depth == 1 && angle == 0 && c == '(' {
                        named = true;
                    } else if named && depth == 0 {
                        break 'signature;
                    } else if depth == 1 && angle == 0 && c == ',' {
                        begun = false;
                    } else if named && !c.is_whitespace() && !begun {
                        (begun, count) = (true, count + 1);
                    }
                    before = c;
                }
            }
            found.push((count, number + 1));
        }
    }
    found
}

#[test]
fn functions_of_kernels_and_layers_take_few_parameters() {
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| ["kernel", "layer"].contains(&source.module())) {
        let many = parameters(source).into_iter().filter(|(count, _)| *count > MOST_PARAMETERS);
        wrong.extend(many.map(|(count, line)| format!("src/{}:{line}: {count} parameters", source.path)));
    }
    assert!(wrong.is_empty(), "give what belongs together a name:\n{}", wrong.join("\n"));
}

#[test]
fn the_scan_counts_parameters() {
    let lines = [
        "fn a(&self) {",
        "pub fn b<T: Fn(u8, u8)>(x: [u8; 2], (y, z): (A<B, C>, D), ",
        "    w: impl Fn(u8, u8),",
        ") -> (u8, u8) {",
    ];
    let source = Source { path: "x.rs".into(), lines: lines.map(str::to_owned).to_vec() };
    assert_eq!(parameters(&source), [(1, 1), (3, 2)]);
    assert_eq!(parameters(&Source { path: "x.rs".into(), lines: vec!["fn c() {}".into()] }), [(0, 1)]);
}

#[test]
fn names_say_something() {
    for source in sources() {
        for part in source.path.trim_end_matches(".rs").split('/') {
            let empty = part.split('_').find(|word| EMPTY_NAMES.contains(word));
            assert!(empty.is_none(), "{}: {part} says nothing; name what it is", source.path);
        }
    }
}

#[test]
fn the_scan_reads_use_trees() {
    let line = "use crate::{data::{self, Targets}, error::Result}; let x = crate::kernel::isa();";
    assert_eq!(paths_after(line, "crate"), ["data::self", "data::Targets", "error::Result", "kernel::isa"]);
    assert!(allows("data::Targets", "data::Targets") && allows("data", "data::Targets"));
    assert!(!allows("data::Targets", "data::TargetsOf") && !allows("data::Targets", "data"));
    assert_eq!(code(r#"let a = "mpi::x \" // no"; // mpi::"#), r#"let a = ""; "#);
}
