//! The geometry of a convolution or a pooling.

/// Geometry of a 2-D window over NHWC images: of a convolution or a pooling.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Input channels.
    pub c: usize,
    /// Input height.
    pub h: usize,
    /// Input width.
    pub w: usize,
    /// Output channels (equal to `c` for pooling).
    pub o: usize,
    /// Kernel size (height, width).
    pub kernel: (usize, usize),
    /// Stride (height, width).
    pub stride: (usize, usize),
    /// Zero padding on both sides (height, width).
    pub padding: (usize, usize),
    /// Zero padding at the bottom and at the right beside that, as an even kernel needs it to keep a size.
    pub extra: (usize, usize),
    /// Distance of the kernel's taps (height, width).
    pub dilation: (usize, usize),
    /// Groups of channels that do not see each other.
    pub groups: usize,
}

impl Default for Window {
    /// A 1×1 window of one channel over one pixel, to be changed.
    fn default() -> Self {
        Self {
            c: 1,
            h: 1,
            w: 1,
            o: 1,
            kernel: (1, 1),
            stride: (1, 1),
            padding: (0, 0),
            extra: (0, 0),
            dilation: (1, 1),
            groups: 1,
        }
    }
}

impl Window {
    /// Height and width of an input image in its padding.
    pub fn padded(&self) -> (usize, usize) {
        (self.h + 2 * self.padding.0 + self.extra.0, self.w + 2 * self.padding.1 + self.extra.1)
    }

    /// Output height: floor((H + 2p - d·(k - 1) - 1) / s) + 1.
    pub fn out_h(&self) -> usize {
        (self.padded().0 - self.dilation.0 * (self.kernel.0 - 1) - 1) / self.stride.0 + 1
    }

    /// Output width.
    pub fn out_w(&self) -> usize {
        (self.padded().1 - self.dilation.1 * (self.kernel.1 - 1) - 1) / self.stride.1 + 1
    }

    /// Height, width and channels of an input image.
    pub fn input(&self) -> (usize, usize, usize) {
        (self.h, self.w, self.c)
    }

    /// Height, width and channels of an output image.
    pub fn output(&self) -> (usize, usize, usize) {
        (self.out_h(), self.out_w(), self.o)
    }

    /// Depth of the implicit product: taps × input channels of a group.
    pub fn depth(&self) -> usize {
        self.kernel.0 * self.kernel.1 * self.c / self.groups
    }

    /// The window of one group.
    pub fn of_group(&self) -> Self {
        Self { c: self.c / self.groups, o: self.o / self.groups, groups: 1, ..*self }
    }

    /// Whether zeros lie around the input.
    pub(super) fn is_padded(&self) -> bool {
        (self.padding, self.extra) != ((0, 0), (0, 0))
    }

    /// The input row or column under a tap, None in the padding.
    #[inline(always)]
    pub(super) fn under(&self, output: (usize, usize), tap: (usize, usize)) -> Option<(usize, usize)> {
        let row = (output.0 * self.stride.0 + tap.0 * self.dilation.0).wrapping_sub(self.padding.0);
        let column = (output.1 * self.stride.1 + tap.1 * self.dilation.1).wrapping_sub(self.padding.1);
        (row < self.h && column < self.w).then_some((row, column))
    }
}
