//! 2-D convolutions over NHWC images: planned once.
//!
//! A method is a file and an arm in [`plan`]; layers see [`Conv`], and [`Fused`] for what may follow on the way.

mod depthwise;
mod direct;
mod epilogue;
mod fused;
mod gather;
mod grouped;
mod patch;
mod upstream;
mod window;
mod winograd;

pub use epilogue::{Activation, Norm};
pub use fused::{Fused, Sink};
pub use upstream::{Normalised, Upstream};
pub use window::Window;

use super::column_sum::column_sums;
use super::product::tiled;
use super::transpose::transpose_panels;
use super::view::{Images, ImagesMut, rows, rows_mut};
use super::{Isa, Needs, Weight, panels_len};
use depthwise::Depthwise;
use direct::{Gradient, Output};
use epilogue::Epilogue;
use gather::Gather;
use grouped::Grouped;
use std::sync::OnceLock;
use upstream::Source;

/// Where a backward pass puts gradients.
#[derive(Debug)]
pub struct ConvGradients<'a, T> {
    /// Of the input, (M, H, W, C): overwritten; None where nobody needs it.
    pub dx: Option<ImagesMut<'a, T>>,
    /// Of the weights, as panels: added to.
    pub dpanels: &'a mut [T],
    /// Of the bias (O): added to.
    pub dbias: Option<&'a mut [T]>,
}

/// The passes of a planned convolution.
///
/// # Panics
/// All of it, where views do not have the planned shapes or do not lie dense.
pub trait Conv<T>: Send {
    /// How it convolves, for people.
    fn method(&self) -> &'static str;
    /// Sizes of the buffers it is given.
    fn needs(&self) -> Needs;
    /// Once a step: the weights `panels` (depth×O) in the forms that the passes want.
    fn prepare(&self, _panels: &[T], _packed: &mut [T]) {}
    /// y(M, OH, OW, O) = conv(x(M, H, W, C)) + b.
    fn forward(
        &self,
        x: Images<'_, T>,
        weight: Weight<'_, T>,
        bias: Option<&[T]>,
        y: ImagesMut<'_, T>,
        scratch: &mut [T],
    );
    /// The gradients, from x as forward had it and dy(M, OH, OW, O).
    fn backward(
        &self,
        x: Images<'_, T>,
        dy: Images<'_, T>,
        weight: Weight<'_, T>,
        gradients: ConvGradients<'_, T>,
        scratch: &mut [T],
    );
    /// The same with what follows done on the way, where there is such a way.
    fn fused(&self) -> Option<&dyn Fused<T>> {
        None
    }
}

/// How a window is convolved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Method {
    /// Each output pixel reads a contiguous run of its own: a product, whose rows are `rows` an image.
    Product { rows: usize },
    /// Register tiles over the image.
    Direct,
    /// Fewer multiplications, a little less exact.
    Winograd,
}

impl Method {
    /// The one for a window.
    fn of(window: &Window) -> Method {
        match Self::fastest(window) {
            Method::Winograd if only_direct() => Method::Direct,
            method => method,
        }
    }

    fn fastest(window: &Window) -> Method {
        let Window { h, w, kernel, stride, .. } = *window;
        if !window.is_padded() && kernel == (1, 1) && stride == (1, 1) {
            Method::Product { rows: h * w }
        } else if !window.is_padded() && kernel == (h, w) {
            Method::Product { rows: 1 }
        } else if winograd::suits(window) {
            Method::Winograd
        } else {
            Method::Direct
        }
    }
}

/// Whether `DDL_CONV=direct` forbids Winograd, for who needs the last digits of f32.
fn only_direct() -> bool {
    static DIRECT: OnceLock<bool> = OnceLock::new();
    *DIRECT.get_or_init(|| match std::env::var("DDL_CONV").as_deref() {
        Ok("direct") => true,
        Ok(other) => {
            log::warn!("DDL_CONV={other} is not direct; convolutions take the fastest way");
            false
        }
        Err(_) => false,
    })
}

/// A convolution of f32, planned for an instruction set.
struct FastConv {
    isa: Isa,
    window: Window,
    method: Method,
}

/// The fastest way to convolve f32 on an instruction set.
pub(super) fn plan(isa: Isa, window: Window) -> Box<dyn Conv<f32>> {
    let Window { c, o, kernel, stride, groups, .. } = window;
    // A kernel of one tap has no distance of taps.
    let spread = (kernel.0 > 1 && window.dilation.0 > 1) || (kernel.1 > 1 && window.dilation.1 > 1);
    if groups > 1 && groups == c && c == o {
        return Box::new(Depthwise { isa, window });
    }
    if groups > 1 {
        return Box::new(Grouped::new(isa, window, plan(isa, window.of_group())));
    }
    if spread || (kernel == (1, 1) && stride != (1, 1)) {
        return Box::new(Gather { isa, window });
    }
    Box::new(FastConv { isa, window, method: Method::of(&window) })
}

impl FastConv {
    /// The elements of images of `x`, and how many images these are.
    fn images<'a>(&self, x: Images<'a, f32>) -> (&'a [f32], usize) {
        let Window { h, w, c, .. } = self.window;
        let m = x.dim().0;
        assert!(x.dim() == (m, h, w, c), "x has another shape");
        (x.to_slice().expect("images lie dense"), m)
    }

    fn check(&self, weight: &Weight<'_, f32>, bias: Option<&[f32]>) {
        let Window { o, .. } = self.window;
        assert!(weight.panels.len() >= panels_len(self.window.depth(), o), "the panels are too short");
        assert!(weight.packed.len() >= self.needs().packed, "the packed weights are too short");
        assert!(bias.is_none_or(|bias| bias.len() >= o), "the bias is too short");
    }

    fn check_gradients(&self, m: usize, gradients: &ConvGradients<'_, f32>) {
        let Window { h, w, c, o, .. } = self.window;
        assert!(gradients.dpanels.len() >= panels_len(self.window.depth(), o), "the gradient's panels are too short");
        assert!(gradients.dbias.as_ref().is_none_or(|dbias| dbias.len() >= o), "the bias's gradient is too short");
        assert!(gradients.dx.as_ref().is_none_or(|dx| dx.dim() == (m, h, w, c)), "dx has another shape");
    }

    fn outputs(&self, m: usize) -> (usize, usize, usize, usize) {
        (m, self.window.out_h(), self.window.out_w(), self.window.o)
    }
}

impl Conv<f32> for FastConv {
    fn method(&self) -> &'static str {
        match self.method {
            Method::Product { .. } => "f32 product",
            Method::Direct => "f32 direct",
            Method::Winograd => "f32 Winograd",
        }
    }

    fn needs(&self) -> Needs {
        let window = &self.window;
        let needs = match self.method {
            Method::Product { .. } => Needs { packed: panels_len(window.o, window.depth()), ..Needs::default() },
            Method::Direct => direct::needs(window),
            Method::Winograd => winograd::needs(window),
        };
        // Whatever the environment forbids: what is chosen by it must be the same everywhere.
        let fastest = Method::fastest(window);
        Needs { work: (fastest == Method::Winograd).then(|| winograd::work(window)), ..needs }
    }

    fn prepare(&self, panels: &[f32], packed: &mut [f32]) {
        let (isa, window) = (self.isa, &self.window);
        match self.method {
            Method::Product { .. } => transpose_panels(isa, window.depth(), window.o, panels, packed),
            Method::Direct => direct::prepare(isa, window, panels, packed),
            Method::Winograd => winograd::prepare(isa, window, panels, packed),
        }
    }

    fn forward(
        &self,
        x: Images<'_, f32>,
        weight: Weight<'_, f32>,
        bias: Option<&[f32]>,
        mut y: ImagesMut<'_, f32>,
        scratch: &mut [f32],
    ) {
        let (isa, window) = (self.isa, &self.window);
        let (flat, m) = self.images(x);
        self.check(&weight, bias);
        assert!(y.dim() == self.outputs(m), "y has another shape");
        let y = y.as_slice_mut().expect("images lie dense");
        match self.method {
            Method::Product { rows: each } => {
                let (m, depth) = (m * each, window.depth());
                tiled::product(isa, rows(m, depth, flat), weight.panels, bias, rows_mut(m, window.o, y));
            }
            Method::Direct => direct::forward(isa, window, x, weight.panels, bias, Output::Plain(y), scratch),
            Method::Winograd => {
                let epilogue = Epilogue::store(window, m, y);
                winograd::forward(isa, window, x, weight.packed, bias, &epilogue, scratch);
            }
        }
    }

    fn backward(
        &self,
        x: Images<'_, f32>,
        dy: Images<'_, f32>,
        weight: Weight<'_, f32>,
        gradients: ConvGradients<'_, f32>,
        scratch: &mut [f32],
    ) {
        let (isa, window) = (self.isa, &self.window);
        let (flat, m) = self.images(x);
        self.check_gradients(m, &gradients);
        assert!(dy.dim() == self.outputs(m), "dy has another shape");
        let dy = dy.to_slice().expect("images lie dense");
        match self.method {
            Method::Product { rows: each } => {
                let (m, depth) = (m * each, window.depth());
                let (x, dy) = (rows(m, depth, flat), rows(m, window.o, dy));
                if let Some(dbias) = gradients.dbias {
                    column_sums(isa, dy, true, dbias);
                }
                tiled::outer(isa, x, dy, true, gradients.dpanels);
                if let Some(mut dx) = gradients.dx {
                    let dx = rows_mut(m, depth, dx.as_slice_mut().expect("images lie dense"));
                    tiled::product(isa, dy, weight.packed, None, dx);
                }
            }
            Method::Direct => direct::backward(isa, window, x, Gradient::Plain(dy), weight.packed, gradients, scratch),
            Method::Winograd => {
                let source = Source::plain(window, m, dy);
                winograd::backward(isa, window, x, &source, weight.packed, gradients, scratch);
            }
        }
    }

    fn fused(&self) -> Option<&dyn Fused<f32>> {
        (!matches!(self.method, Method::Product { .. })).then_some(self)
    }
}

#[cfg(test)]
mod tests;
