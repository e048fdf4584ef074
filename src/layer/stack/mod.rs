//! Layers one after the other, and the one workspace that holds their activations, caches and scratch.

mod pass;

pub use pass::{Onto, Pass};

use super::{Element, Layer, Place, Plan, build};
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
    /// In the stack's parameters; with those of the layers it absorbs.
    params: Range<usize>,
    /// In the stack's state.
    state: Range<usize>,
    /// Whether a layer before does its work, and has its parameters and state.
    absorbed: bool,
    /// In the workspace.
    cache: Range<usize>,
    packed: Range<usize>,
    /// Output in the workspace.
    y: Range<usize>,
    /// Whether x and y are the same place.
    in_place: bool,
    input: Shape,
    /// Of the layer and those it absorbs.
    output: Shape,
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
    /// What is summed at a stop, where this stack's micro-batch is the whole batch.
    sums: Vec<f64>,
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
    pub fn build(components: &[Component], place: Place<'_>, prefix: &str) -> Result<Self> {
        Self::assemble(components, place, prefix, true)
    }

    /// Builds; only with `fuse` does a convolution take over what follows it.
    fn assemble(components: &[Component], place: Place<'_>, prefix: &str, fuse: bool) -> Result<Self> {
        let (mut layout, mut state_layout) = (Layout::default(), Layout::default());
        let (mut input, m) = (place.input, place.m);
        // The workspace as it would be without fusion: an upper bound.
        let (mut elements, mut widest, mut scratch) = (m * input.len(), input.len(), 0);
        let mut nodes: Vec<Node<T>> = Vec::with_capacity(components.len());
        for (index, component) in components.iter().enumerate() {
            let layer = build::<T>(component, Place { input, number: place.numbers.take(), ..place })?;
            let plan = layer.plan();
            let key = format!("{prefix}{index}");
            let params = push_all(&mut layout, plan.parameters.iter().map(|p| (&p.name, &p.shape, p.storage)), &key);
            let states = plan.states.iter().map(|s| (&s.name, &s.shape, crate::arena::Storage::Plain));
            let state = push_all(&mut state_layout, states, &key);
            let output = plan.output;
            elements += m * output.len() + plan.cache + plan.packed;
            (widest, scratch) = (widest.max(output.len()), scratch.max(plan.scratch));
            let all = elements + 2 * m * widest + scratch + 2 * layout.len();
            let mend = "use smaller layers, or a smaller train.micro_batch";
            require_memory(&component.place, (all * size_of::<T>()) as f64, mend)?;
            nodes.push(Node {
                key,
                kind: component.kind.clone(),
                params,
                state,
                absorbed: false,
                cache: 0..0,
                packed: 0..0,
                y: 0..0,
                in_place: false,
                input,
                output,
                layer,
            });
            input = output;
        }
        if fuse {
            (0..nodes.len()).for_each(|index| absorb(&mut nodes, index));
        }
        let mut planner = Planner::default();
        let x = planner.take(m * place.input.len());
        let (mut y, mut previous_reads) = (x.clone(), false);
        (widest, scratch) = (place.input.len(), 0);
        for node in &mut nodes {
            if !node.absorbed {
                let plan = node.layer.plan();
                node.in_place = plan.in_place && !previous_reads;
                if !node.in_place {
                    y = planner.take(m * node.output.len());
                }
                (node.cache, node.packed) = (planner.take(plan.cache), planner.take(plan.packed));
                (widest, scratch) = (widest.max(node.output.len()), scratch.max(plan.scratch));
                previous_reads = plan.reads_output;
            }
            node.y = y.clone();
        }
        let scratch = planner.take(scratch);
        let gradients = [planner.take(m * widest), planner.take(m * widest)];
        Ok(Self {
            sums: vec![0.0; nodes.iter().map(|node| node.layer.plan().sums).max().unwrap_or(0)],
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

    /// The parameters whose gradients layers [add to once](Plan::adds_once) in a backward pass.
    pub fn added_once(&self) -> Vec<Range<usize>> {
        let nodes = self.nodes.iter().filter(|node| node.layer.plan().adds_once && !node.params.is_empty());
        nodes.map(|node| node.params.clone()).collect()
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

    /// Behind which layer, key and kind, the last forward pass of `m` samples first has a number that is not finite; `input` for
    /// the input. An in-place layer is told by the one before it.
    pub fn first_not_finite(&self, m: usize) -> Option<(String, String)> {
        let broken = |range: &Range<usize>, len: usize| {
            self.workspace[range.start..][..m * len].iter().any(|value| !value.is_finite())
        };
        if broken(&self.x, self.input.len()) && self.nodes.first().is_none_or(|node| node.y != self.x) {
            return Some((String::new(), "input".into()));
        }
        let own = self.nodes.iter().filter(|node| !node.absorbed);
        let mut all = own.map(|node| (node, broken(&node.y, node.output.len())));
        all.find(|(_, broken)| *broken).map(|(node, _)| (node.key.clone(), node.kind.clone()))
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

    /// Where a pass in training stops for sums over the batch: it has one phase more.
    pub fn stops(&self) -> usize {
        self.nodes.iter().map(|node| node.layer.plan().stops).sum()
    }

    /// Values that are summed at a stop, at most.
    pub fn sums_len(&self) -> usize {
        self.sums.len()
    }

    fn y_range(&self) -> Range<usize> {
        self.nodes.last().map_or(self.x.clone(), |node| node.y.clone())
    }
}

/// Lets a layer take over what it can of those after it: it gets their parameters, state and output.
fn absorb<T: Element>(nodes: &mut [Node<T>], index: usize) {
    let (nodes, following) = nodes[index..].split_at_mut(1);
    let node = &mut nodes[0];
    if node.absorbed {
        return;
    }
    let steps = following.iter().map_while(|next| next.layer.plan().step.clone().map(|step| (step, next)));
    let steps: Vec<_> = steps.map(|(step, next)| (step, next.params.start.saturating_sub(node.params.start))).collect();
    let taken = node.layer.absorb(&steps);
    for next in &mut following[..taken] {
        next.absorbed = true;
        node.output = next.output;
        for (own, its) in [(&mut node.params, &mut next.params), (&mut node.state, &mut next.state)] {
            let its = std::mem::take(its);
            if its.end > 0 {
                *own = if own.end > 0 { own.start..its.end } else { its };
            }
        }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::Mode;
    use crate::rng::{Numbers, Purpose, Stream};

    fn numbers(index: u64, n: usize) -> Vec<f32> {
        let mut stream = Stream::new(7, Purpose::Synthetic, 0, index);
        (0..n).map(|_| stream.uniform() * 2.0 - 1.0).collect()
    }

    /// Output, statistics, gradients of parameters and of the input, after a full micro-batch and a ragged one.
    fn run(layers: &[Component], input: Shape, fuse: bool, train: bool) -> Vec<Vec<f32>> {
        let m = 5;
        let place = Place { input, m, number: 0, numbers: &Numbers::default(), precision: Default::default() };
        let mut stack = Stack::<f32>::assemble(layers, place, "", fuse).unwrap();
        assert_eq!(stack.nodes.iter().any(|node| node.absorbed), fuse);
        let params = numbers(1, stack.layout().len());
        let state: Vec<f32> = numbers(2, stack.state_layout().len()).iter().map(|v| v.abs() + 0.5).collect();
        let (mut statistics, mut grads) = (vec![0.0; state.len()], vec![0.25; params.len()]);
        let mut results = Vec::new();
        stack.prepare(&params);
        for (index, m) in [m, m - 2].into_iter().enumerate() {
            let mode = Mode::Train { seed: 5, step: 3, first: 5 * index as u64, share: m as f64 / 8.0 };
            let mode = if train { mode } else { Mode::Eval };
            stack.x(m).copy_from_slice(&numbers(3 + index as u64, m * input.len()));
            let micro = Pass { m, mode, params: &params };
            stack.forward(micro, &state, &mut statistics);
            results.push(stack.y(m).to_vec());
            let dy = stack.y_and_dy(m).1;
            dy.copy_from_slice(&numbers(9, dy.len()));
            if train {
                let mut stretches = 0;
                stack.backward(micro, &mut grads, Onto::Add, true, 1, &mut |_| stretches += 1);
                let mut handed = 0;
                stack.hand_over(&mut grads, 1, &mut |_| handed += 1);
                assert_eq!(stretches, handed);
                results.push(stack.dx(m).to_vec());
            }
        }
        results.extend([statistics, grads]);
        results
    }

    #[test]
    fn the_first_layer_that_gives_no_numbers_is_named() {
        let layers = [("linear", "out_features = 4"), ("tanh", ""), ("linear", "out_features = 2")];
        let layers = layers.map(|(kind, keys)| Component::new(kind, keys).unwrap());
        let input = Shape::Vector { n: 3 };
        let place = Place { input, m: 2, number: 0, numbers: &Numbers::default(), precision: Default::default() };
        let mut stack = Stack::<f32>::build(&layers, place, "").unwrap();
        let mut first = |at: Option<(usize, f32)>, x: f32| {
            let mut params = numbers(1, stack.layout().len());
            if let Some((layer, value)) = at {
                stack.layout().slots()[layer].write(&vec![value; stack.layout().slots()[layer].len()], &mut params);
            }
            stack.prepare(&params);
            stack.x(2).fill(x);
            stack.forward(Pass { m: 2, mode: Mode::Eval, params: &params }, &[], &mut []);
            stack.first_not_finite(2).map(|(key, kind)| format!("{key} {kind}"))
        };
        assert_eq!(first(None, 0.5), None);
        assert_eq!(first(None, f32::NAN).as_deref(), Some(" input"));
        assert_eq!(first(Some((0, f32::NAN)), 0.5).as_deref(), Some("0 linear"));
        assert_eq!(first(Some((2, f32::INFINITY)), 0.5).as_deref(), Some("2 linear"));
    }

    #[test]
    fn fused_layers_give_what_they_give_one_by_one() {
        let conv = |o: usize, more: &str| ("conv2d", format!("out_channels = {o}\nkernel_size = 3\n{more}"));
        let plain = |kind: &'static str| (kind, String::new());
        let pool = || ("max_pool2d", "kernel_size = 2".to_owned());
        let dropout = || ("dropout", "p = 0.3".to_owned());
        let networks = [
            vec![
                conv(8, ""),
                plain("relu"),
                conv(20, "padding = 1"),
                plain("relu"),
                pool(),
                dropout(),
                plain("flatten"),
            ],
            vec![conv(17, "padding = 1"), plain("batch_norm2d"), plain("relu"), conv(18, ""), plain("batch_norm2d")],
            vec![
                conv(16, ""),
                plain("batch_norm2d"),
                plain("relu"),
                pool(),
                dropout(),
                conv(16, "bias = false"),
                pool(),
            ],
            vec![conv(16, "stride = 2"), pool(), plain("relu"), plain("tanh"), conv(3, "padding = 2"), plain("relu")],
            vec![conv(4, ""), plain("batch_norm2d"), pool(), plain("relu"), plain("relu"), plain("sigmoid")],
        ];
        for (case, network) in networks.iter().enumerate() {
            let layers: Vec<_> = network.iter().map(|(kind, keys)| Component::new(kind, keys).unwrap()).collect();
            for (h, w) in [(13, 14), (16, 11)] {
                for train in [true, false] {
                    let input = Shape::Image { c: 3, h, w };
                    let (fused, plain) = (run(&layers, input, true, train), run(&layers, input, false, train));
                    for (part, (fused, plain)) in fused.iter().zip(&plain).enumerate() {
                        let scale = plain.iter().fold(1f32, |most, v| most.max(v.abs()));
                        for (at, (a, b)) in fused.iter().zip(plain).enumerate() {
                            assert!(
                                (a - b).abs() <= 2e-5 * scale,
                                "network {case}, {h}x{w}, train {train}, part {part}, element {at}: {a}, expected {b}"
                            );
                        }
                    }
                }
            }
        }
    }
}
