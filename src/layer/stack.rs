//! Layers one after the other, and the one workspace that holds their activations, caches and scratch.

use super::{Backward, Element, Forward, Layer, Mode, Place, Plan, build};
use crate::arena::{Buffer, Layout};
use crate::config::Component;
use crate::error::Result;
use crate::resource::require_memory;
use crate::shape::Shape;
use std::ops::Range;

/// One layer and where its things lie.
struct Node<T> {
    key: String,
    kind: String,
    layer: Box<dyn Layer<T>>,
    /// In the stack's parameters.
    params: Range<usize>,
    /// In the stack's state.
    state: Range<usize>,
    /// In the workspace.
    cache: Range<usize>,
    packed: Range<usize>,
    /// Output in the workspace.
    y: Range<usize>,
    /// Whether x and y are the same place.
    in_place: bool,
    input: Shape,
}

/// A list of layers built for one input shape and micro-batch size. Nothing is allocated after that.
pub struct Stack<T> {
    nodes: Vec<Node<T>>,
    input: Shape,
    output: Shape,
    layout: Layout,
    state_layout: Layout,
    workspace: Buffer<T>,
    x: Range<usize>,
    scratch: Range<usize>,
    /// The gradients of activations go to and fro between these.
    gradients: [Range<usize>; 2],
    /// Which of them holds dy now.
    at: usize,
}

/// Hands out ranges of the workspace.
#[derive(Default)]
struct Planner(usize);

impl Planner {
    fn take(&mut self, len: usize) -> Range<usize> {
        let start = self.0;
        self.0 += len.next_multiple_of(16);
        start..start + len
    }
}

impl<T: Element> Stack<T> {
    /// Builds `components` for micro-batches of at most `place.m` samples; `prefix` goes before each layer's key.
    ///
    /// # Errors
    /// A component that no layer answers to, wrong keys, or shapes that do not fit; the layer is named.
    pub fn build(components: &[Component], place: Place, prefix: &str) -> Result<Self> {
        let mut planner = Planner::default();
        let (mut layout, mut state_layout) = (Layout::default(), Layout::default());
        let m = place.m;
        let x = planner.take(m * place.input.len());
        let (mut input, mut y, mut previous_reads) = (place.input, x.clone(), false);
        let (mut widest, mut scratch) = (input.len(), 0);
        let mut nodes: Vec<Node<T>> = Vec::with_capacity(components.len());
        for (index, component) in components.iter().enumerate() {
            let number = place.number.wrapping_mul(1000).wrapping_add(index as u32);
            let layer = build::<T>(component, Place { input, m, number, ..place })?;
            let plan = layer.plan();
            let key = format!("{prefix}{index}");
            let params = push_all(&mut layout, plan.parameters.iter().map(|p| (&p.name, &p.shape, p.storage)), &key);
            let states = plan.states.iter().map(|s| (&s.name, &s.shape, crate::arena::Storage::Plain));
            let state = push_all(&mut state_layout, states, &key);
            let in_place = plan.in_place && !previous_reads;
            if !in_place {
                y = planner.take(m * plan.output.len());
            }
            let (cache, packed) = (planner.take(plan.cache), planner.take(plan.packed));
            (widest, scratch) = (widest.max(plan.output.len()), scratch.max(plan.scratch));
            // The workspace so far, and parameters with their gradient.
            let elements = planner.0 + 2 * m * widest + scratch + 2 * layout.len();
            let mend = "use smaller layers, or a smaller train.micro_batch";
            require_memory(&component.place, (elements * size_of::<T>()) as f64, mend)?;
            let output = plan.output;
            previous_reads = plan.reads_output;
            nodes.push(Node {
                key,
                kind: component.kind.clone(),
                params,
                state,
                cache,
                packed,
                y: y.clone(),
                in_place,
                input,
                layer,
            });
            input = output;
        }
        let scratch = planner.take(scratch);
        let gradients = [planner.take(m * widest), planner.take(m * widest)];
        Ok(Self {
            nodes,
            input: place.input,
            output: input,
            layout,
            state_layout,
            workspace: Buffer::zeros(planner.0),
            x,
            scratch,
            gradients,
            at: 0,
        })
    }

    /// Shape of one input sample.
    pub fn input(&self) -> Shape {
        self.input
    }

    /// Shape of one output sample.
    pub fn output(&self) -> Shape {
        self.output
    }

    /// Where the parameters lie in an arena.
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Where the state buffers lie in an arena.
    pub fn state_layout(&self) -> &Layout {
        &self.state_layout
    }

    /// Elements of the workspace.
    pub fn workspace_len(&self) -> usize {
        self.workspace.len()
    }

    /// Key, kind, input shape and plan of each layer.
    pub fn plans(&self) -> impl Iterator<Item = (&str, &str, Shape, &Plan)> {
        self.nodes.iter().map(|node| (node.key.as_str(), node.kind.as_str(), node.input, node.layer.plan()))
    }

    /// The input of the next forward pass, to be filled: (m, input).
    pub fn x(&mut self, m: usize) -> &mut [T] {
        &mut self.workspace[self.x.clone()][..m * self.input.len()]
    }

    /// The output of the last forward pass: (m, output).
    pub fn y(&self, m: usize) -> &[T] {
        &self.workspace[self.y_range()][..m * self.output.len()]
    }

    /// The output of the last forward pass and the place for its gradient: both (m, output).
    pub fn y_and_dy(&mut self, m: usize) -> (&[T], &mut [T]) {
        self.at = 0;
        let len = m * self.output.len();
        let ranges = [self.y_range(), self.gradients[0].clone()];
        let [y, dy] = disjoint(&mut self.workspace, ranges);
        (&y[..len], &mut dy[..len])
    }

    /// The gradient of the input after a backward pass that was asked for it: (m, input).
    pub fn dx(&self, m: usize) -> &[T] {
        &self.workspace[self.gradients[self.at].clone()][..m * self.input.len()]
    }

    /// Once a step, after the weights changed.
    pub fn prepare(&mut self, params: &[T]) {
        for node in &mut self.nodes {
            node.layer.prepare(&params[node.params.clone()], &mut self.workspace[node.packed.clone()]);
        }
    }

    /// Runs the layers over the `m` samples in [`Stack::x`]. `statistics` is laid out as `state`.
    pub fn forward(&mut self, m: usize, mode: Mode, params: &[T], state: &[T], statistics: &mut [T]) {
        let mut x = self.x.clone();
        for node in &mut self.nodes {
            let plan = node.layer.plan();
            let (x_len, y_len) = (m * node.input.len(), m * plan.output.len());
            if plan.in_place && !node.in_place {
                self.workspace.copy_within(x.start..x.start + x_len, node.y.start);
            }
            let x_range = if plan.in_place { x.end..x.end } else { x };
            let ranges = [x_range, node.y.clone(), node.cache.clone(), self.scratch.clone(), node.packed.clone()];
            let in_place = plan.in_place;
            let [xs, y, cache, scratch, packed] = disjoint(&mut self.workspace, ranges);
            node.layer.forward(Forward {
                m,
                mode,
                x: if in_place { &[] } else { &xs[..x_len] },
                y: &mut y[..y_len],
                params: &params[node.params.clone()],
                packed,
                state: &state[node.state.clone()],
                statistics: &mut statistics[node.state.clone()],
                cache,
                scratch,
            });
            x = node.y.clone();
        }
    }

    /// Runs the layers backward from the gradient in [`Stack::y_and_dy`], adding to `grads` (laid out as the
    /// parameters). `finished` gets each stretch of at least `bucket` elements of `grads` as soon as nothing will be
    /// added to it any more, from the tail on, and at last the rest. With `need_dx`, [`Stack::dx`] then holds the gradient of the input.
    pub fn backward<'g>(
        &mut self,
        m: usize,
        mode: Mode,
        params: &[T],
        mut grads: &'g mut [T],
        need_dx: bool,
        bucket: usize,
        finished: &mut dyn FnMut(&'g mut [T]),
    ) {
        for index in (0..self.nodes.len()).rev() {
            let x = if index == 0 { self.x.clone() } else { self.nodes[index - 1].y.clone() };
            let wants_dx = need_dx || self.nodes[..index].iter().any(|node| !node.params.is_empty());
            let node = &mut self.nodes[index];
            if !wants_dx && node.params.is_empty() {
                break;
            }
            let plan = node.layer.plan();
            let (x_len, y_len, in_place) = (m * node.input.len(), m * plan.output.len(), plan.in_place);
            let x_range = if in_place { x.end..x.end } else { x };
            let ranges = [
                x_range,
                node.y.clone(),
                node.cache.clone(),
                self.scratch.clone(),
                node.packed.clone(),
                self.gradients[self.at].clone(),
                self.gradients[1 - self.at].clone(),
            ];
            let [xs, y, cache, scratch, packed, dy, dx] = disjoint(&mut self.workspace, ranges);
            let (start, end) = (node.params.start, node.params.end);
            node.layer.backward(Backward {
                m,
                mode,
                x: if in_place { &[] } else { &xs[..x_len] },
                y: &y[..y_len],
                dy: &mut dy[..y_len],
                dx: (wants_dx && !in_place).then(|| &mut dx[..x_len]),
                params: &params[node.params.clone()],
                packed,
                dparams: &mut grads[start..end],
                cache,
                scratch,
            });
            if !in_place && wants_dx {
                self.at = 1 - self.at;
            }
            if !node.params.is_empty() && grads.len() - start >= bucket {
                let tail;
                (grads, tail) = grads.split_at_mut(start);
                finished(tail);
            }
        }
        finished(grads);
    }

    /// Hands out `grads` in the stretches that [`Stack::backward`] does, without a backward pass.
    pub fn hand_over<'g>(&self, mut grads: &'g mut [T], bucket: usize, finished: &mut dyn FnMut(&'g mut [T])) {
        for node in self.nodes.iter().rev().filter(|node| !node.params.is_empty()) {
            if grads.len() - node.params.start >= bucket {
                let tail;
                (grads, tail) = grads.split_at_mut(node.params.start);
                finished(tail);
            }
        }
        finished(grads);
    }

    fn y_range(&self) -> Range<usize> {
        self.nodes.last().map_or(self.x.clone(), |node| node.y.clone())
    }
}

/// Appends slots and returns the range from the first to the last; empty when there is none.
fn push_all<'a>(
    layout: &mut Layout,
    slots: impl Iterator<Item = (&'a String, &'a Vec<usize>, crate::arena::Storage)>,
    key: &str,
) -> Range<usize> {
    let mut whole: Option<Range<usize>> = None;
    for (name, shape, storage) in slots {
        let range = layout.push(key, name, shape, storage);
        whole = Some(whole.map_or(range.clone(), |whole| whole.start..range.end));
    }
    whole.unwrap_or(0..0)
}

/// Several ranges of one buffer at once; whoever planned them made them disjoint.
pub(super) fn disjoint<T, const N: usize>(workspace: &mut [T], ranges: [Range<usize>; N]) -> [&mut [T]; N] {
    workspace.get_disjoint_mut(ranges).expect("planned ranges are disjoint")
}
