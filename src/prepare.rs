//! Any data set as one HDF5 file that the source `hdf5` reads. The ranks fill and pack the pieces in turn, rank 0 writes them in
//! order: the file is the same at any number of ranks.

use crate::comm::{Comm, on_root};
use crate::data::{Dataset, Part, Raw, Targets, Task};
use crate::error::{Error, Result};
use crate::resource::require_memory;
use crate::shape::Shape;
use crate::store::prepared::{Attributes, Element, Layout, Piece, Storage, write};
use std::collections::VecDeque;
use std::path::Path;

/// What one array of the file holds.
struct Content {
    part: Part,
    /// The inputs, or else the targets.
    is_input: bool,
    layout: Layout,
}

/// The arrays of a data set, those without samples left out.
fn contents(data: &Dataset) -> Vec<Content> {
    let sample = match data.input() {
        Shape::Image { c, h, w } => vec![c, h, w],
        Shape::Sequence { t, f } => vec![t, f],
        Shape::Vector { n } => vec![n],
    };
    let inputs = match data.raw(Part::Train, 0) {
        Raw::Pixels(_) => Element::U8,
        Raw::Floats(_) | Raw::Window(_) => Element::F32,
    };
    let (targets, width) = match data.task() {
        Task::Classes(_) => (Element::I32, Vec::new()),
        Task::Values(1) => (Element::F64, Vec::new()),
        Task::Values(n) => (Element::F64, vec![*n]),
    };
    let mut contents = Vec::new();
    for (part, names) in [(Part::Train, ["x_train", "y_train"]), (Part::Test, ["x_test", "y_test"])] {
        let arrays = [(inputs, &sample), (targets, &width)];
        for (name, (element, of_one)) in names.into_iter().zip(arrays).filter(|_| data.len(part) > 0) {
            let shape = [&[data.len(part)], &of_one[..]].concat();
            let is_input = name.starts_with('x');
            let statistics = Some(data.statistics()).filter(|text| is_input && part == Part::Train && !text.is_empty());
            contents.push(Content { part, is_input, layout: Layout { name, element, shape, statistics } });
        }
    }
    contents
}

/// Some consecutive samples as they will be in the file.
fn fill(data: &Dataset, content: &Content, samples: std::ops::Range<usize>) -> Vec<u8> {
    let samples = samples.start as u32..samples.end as u32;
    let part = content.part;
    let (mut rows, mut x, mut targets) = (Vec::new(), vec![0.0; data.input().len()], Targets::default());
    for sample in samples {
        match (content.is_input, data.raw(part, sample)) {
            (true, Raw::Pixels(pixels)) => append_planes(pixels, data.input(), &mut rows),
            (true, Raw::Floats(values)) => append_planes(values, data.input(), &mut rows),
            // A series has a scale of its own, which an array cannot say: windows are kept as a network sees them.
            (_, Raw::Window(_)) => {
                data.fill(part, &[sample], None, &mut x, &mut targets);
                match content.is_input {
                    true => rows.extend_from_slice(bytemuck::cast_slice(&x)),
                    false => targets.values.iter().for_each(|&value| rows.extend(f64::from(value).to_ne_bytes())),
                }
            }
            (false, _) => match data.task() {
                Task::Classes(_) => rows.extend((data.class(part, sample).unwrap_or(0) as i32).to_ne_bytes()),
                Task::Values(n) => (0..*n).for_each(|output| {
                    let value = data.target_value(part, sample, output).unwrap_or(f64::NAN);
                    rows.extend(value.to_ne_bytes());
                }),
            },
        }
    }
    rows
}

/// Images from (H, W, C) to (C, H, W); anything else is in order.
fn append_planes<T: bytemuck::Pod>(values: &[T], shape: Shape, rows: &mut Vec<u8>) {
    match shape {
        Shape::Image { c, .. } if c > 1 => {
            (0..c).for_each(|channel| {
                values
                    .iter()
                    .skip(channel)
                    .step_by(c)
                    .for_each(|value| rows.extend_from_slice(bytemuck::bytes_of(value)));
            });
        }
        _ => rows.extend_from_slice(bytemuck::cast_slice(values)),
    }
}

/// The pieces of all arrays in order, of which each rank makes one in a round.
struct Rounds<'a> {
    comm: &'a dyn Comm,
    data: &'a Dataset,
    contents: &'a [Content],
    storage: Storage,
    /// Array and first sample of each piece.
    pieces: Vec<(usize, usize)>,
    done: usize,
    waiting: VecDeque<Piece>,
}

impl Rounds<'_> {
    fn is_over(&self) -> bool {
        self.done >= self.pieces.len()
    }

    /// Each rank makes a piece; rank 0 gets all. Collective.
    fn next(&mut self) {
        let mine = self.pieces.get(self.done + self.comm.rank()).map(|&(array, start)| {
            let content = &self.contents[array];
            let end = content.layout.shape[0].min(start + content.layout.rows_per_piece());
            Piece::pack(&content.layout, self.storage, fill(self.data, content, start..end))
        });
        self.done += self.comm.size();
        let mut message = Vec::new();
        if let Some(Piece { rows, packed }) = mine {
            message.extend((rows.len() as u64).to_ne_bytes());
            message.extend(rows);
            message.extend(packed);
        }
        for message in self.comm.gather_bytes(&message) {
            if let Some((len, rest)) = message.split_first_chunk::<8>() {
                let (rows, packed) = rest.split_at(u64::from_ne_bytes(*len) as usize);
                self.waiting.push_back(Piece { rows: rows.to_vec(), packed: packed.to_vec() });
            }
        }
    }
}

/// Writes a data set whose samples are in memory to `path`, with `about` as the file's attributes (rank 0's count). Collective.
///
/// # Errors
/// Too little memory for the file, which is made in memory first, or it cannot be written; on every rank.
pub fn prepare(data: &Dataset, path: &Path, storage: Storage, about: &Attributes, comm: &dyn Comm) -> Result<()> {
    let contents = contents(data);
    let layouts: Vec<Layout> = contents.iter().map(|content| content.layout.clone()).collect();
    let bytes: usize = layouts.iter().map(Layout::bytes).sum();
    on_root(comm, || require_memory(&format!("--out {}", path.display()), 1.1 * bytes as f64, "prepare less data"))?;
    let pieces = layouts.iter().enumerate().flat_map(|(array, layout)| {
        (0..layout.shape[0]).step_by(layout.rows_per_piece()).map(move |start| (array, start))
    });
    let pieces = pieces.collect();
    let mut rounds = Rounds { comm, data, contents: &contents, storage, pieces, done: 0, waiting: VecDeque::new() };
    let mut written = Ok(());
    if comm.rank() == 0 {
        written = write(path, &layouts, storage, about, &mut || {
            if rounds.waiting.is_empty() && !rounds.is_over() {
                rounds.next();
            }
            rounds.waiting.pop_front().ok_or_else(|| Error::internal("the pieces of a file", "there are too few"))
        });
    }
    // The others' way; and rank 0's, too, where its file failed before all pieces were there.
    while !rounds.is_over() {
        rounds.next();
        rounds.waiting.clear();
    }
    on_root(comm, || written)
}
