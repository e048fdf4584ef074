//! Parameters, gradients and moments as one contiguous buffer each, with a shared [`Layout`] of named slots.

mod buffer;
mod storage;

pub use buffer::Buffer;
pub use storage::{PANEL, Storage};

use std::ops::Range;

/// Slots start at multiples of this many elements: a cache line of f32.
const ALIGN: usize = 16;

/// One named parameter (or state buffer) in an arena.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// The layer's key as in a `torch.nn.Sequential`: `0`, `12`, `3.layers.0`.
    pub layer: String,
    /// The parameter's name as in torch: `weight`, `bias_ih_l0`, `running_mean`.
    pub name: String,
    /// The shape as in torch.
    pub shape: Vec<usize>,
    /// How the elements lie in the arena.
    pub storage: Storage,
    /// Where they lie in the arena.
    pub range: Range<usize>,
}

impl Slot {
    /// `0.weight`.
    pub fn key(&self) -> String {
        format!("{}.{}", self.layer, self.name)
    }

    /// Elements of the torch tensor (the range may be longer: padding).
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether the tensor has no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tensor in torch's row-major order, read from `arena`.
    pub fn read<T: Copy + Default>(&self, arena: &[T]) -> Vec<T> {
        let mut out = vec![T::default(); self.len()];
        self.storage.unpack(&self.shape, &arena[self.range.clone()], &mut out);
        out
    }

    /// Writes a tensor in torch's row-major order into `arena`; padding becomes zero.
    pub fn write<T: Copy + Default>(&self, tensor: &[T], arena: &mut [T]) {
        let stored = &mut arena[self.range.clone()];
        stored.fill(T::default());
        self.storage.pack(&self.shape, tensor, stored);
    }
}

/// The named slots of an arena, in the order of the layers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Layout {
    slots: Vec<Slot>,
    len: usize,
}

impl Layout {
    /// Appends a slot and returns its range.
    pub fn push(&mut self, layer: &str, name: &str, shape: &[usize], storage: Storage) -> Range<usize> {
        let start = self.len.next_multiple_of(ALIGN);
        let range = start..start + storage.len(shape);
        self.len = range.end;
        self.slots.push(Slot {
            layer: layer.into(),
            name: name.into(),
            shape: shape.into(),
            storage,
            range: range.clone(),
        });
        range
    }

    /// All slots.
    pub fn slots(&self) -> &[Slot] {
        &self.slots
    }

    /// Elements of an arena with this layout, padding included, a multiple of a cache line.
    pub fn len(&self) -> usize {
        self.len.next_multiple_of(ALIGN)
    }

    /// Whether there is no slot.
    pub fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// Elements without padding: the number of parameters.
    pub fn elements(&self) -> usize {
        self.slots.iter().map(Slot::len).sum()
    }
}
