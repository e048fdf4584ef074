//! What the activations share: a function of each element, done in place where nobody needs the input.

use super::{Backward, Forward, Layer, Op, Plan, Step};
use crate::kernel::Real;
use crate::shape::Shape;

/// y = f(x) for each element, with dx from dy and y alone; the input is overwritten.
pub(super) struct FromOutput<T> {
    plan: Plan,
    len: usize,
    forward: Forwards<T>,
    backward: Backwards<T>,
}

type Forwards<T> = Box<dyn Fn(&mut [T]) + Send>;
type Backwards<T> = Box<dyn Fn(&[T], &mut [T]) + Send>;

impl<T: Real> FromOutput<T> {
    /// `forward(x becomes y)` and `backward(y, dy becomes dx)`.
    pub(super) fn new(
        op: Op,
        shape: Shape,
        forward: impl Fn(&mut [T]) + Send + 'static,
        backward: impl Fn(&[T], &mut [T]) + Send + 'static,
    ) -> Self {
        let plan = Plan { in_place: true, reads_output: true, ..Plan::new(op, shape) };
        Self { plan, len: shape.len(), forward: Box::new(forward), backward: Box::new(backward) }
    }

    /// Says what a convolution may do instead.
    pub(super) fn step(mut self, step: Step) -> Self {
        self.plan.step = Some(step);
        self
    }
}

impl<T: Real> Layer<T> for FromOutput<T> {
    fn plan(&self) -> &Plan {
        &self.plan
    }

    fn forward(&mut self, io: Forward<'_, T>) {
        (self.forward)(&mut io.y[..io.m * self.len]);
    }

    fn backward(&mut self, io: Backward<'_, T>) {
        (self.backward)(&io.y[..io.m * self.len], io.dy);
    }
}
