//! Random crops and flips, as one affine view of an image that is drawn from a sample's own stream.

use crate::config::{Augmentation, DataConfig};
use crate::error::Result;
use crate::rng::Stream;
use crate::shape::Shape;
use std::ops::Range;

/// Where the pixels of a changed image come from: output (y, x) shows input (y + dy, x + dx), or (y + dy, dx - x) if
/// mirrored, for y in `rows` and x in `columns`; every other pixel is padding.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct View {
    dy: isize,
    dx: isize,
    mirrored: bool,
    rows: Range<isize>,
    columns: Range<isize>,
}

impl View {
    /// The image as it is.
    fn whole(h: usize, w: usize) -> Self {
        Self { dy: 0, dx: 0, mirrored: false, rows: 0..h as isize, columns: 0..w as isize }
    }

    /// Draws what `steps`, in their order, do to an image of `h` rows and `w` columns.
    pub fn draw(steps: &[Augmentation], stream: &mut Stream, h: usize, w: usize) -> Self {
        let mut view = Self::whole(h, w);
        for step in steps {
            match *step {
                Augmentation::RandomCrop { padding } => {
                    let bound = 2 * padding as u32 + 1;
                    let down = stream.below(bound) as isize - padding as isize;
                    let right = stream.below(bound) as isize - padding as isize;
                    view.shift(down, right, h as isize, w as isize);
                }
                Augmentation::HorizontalFlip { p } => {
                    if stream.uniform() < p {
                        view.flip(w as isize);
                    }
                }
            }
        }
        view
    }

    /// Lets output (y, x) show what (y + down, x + right) showed.
    fn shift(&mut self, down: isize, right: isize, h: isize, w: isize) {
        self.dy += down;
        self.dx += if self.mirrored { -right } else { right };
        let moved = |range: &Range<isize>, by: isize, size: isize| {
            let start = (range.start - by).clamp(0, size);
            start..(range.end - by).clamp(start, size)
        };
        self.rows = moved(&self.rows, down, h);
        self.columns = moved(&self.columns, right, w);
    }

    /// Lets output (y, x) show what (y, w - 1 - x) showed.
    fn flip(&mut self, w: isize) {
        self.dx += if self.mirrored { -(w - 1) } else { w - 1 };
        self.mirrored = !self.mirrored;
        self.columns = w - self.columns.end..w - self.columns.start;
    }

    /// Writes one image (H, W, C) as this view shows it. `convert` turns pixels of a row into network input; `padding` is a
    /// row (W, C) of padding.
    pub fn apply<S>(&self, image: &[S], padding: &[f32], c: usize, y: &mut [f32], convert: impl Fn(&[S], &mut [f32])) {
        let width = padding.len();
        let (start, end) = (self.columns.start as usize * c, self.columns.end as usize * c);
        for (row, out) in y.chunks_exact_mut(width).enumerate() {
            if !self.rows.contains(&(row as isize)) {
                out.copy_from_slice(padding);
                continue;
            }
            out[..start].copy_from_slice(&padding[..start]);
            out[end..].copy_from_slice(&padding[end..]);
            if start == end {
                continue;
            }
            let first = if self.mirrored { self.dx - self.columns.end + 1 } else { self.dx + self.columns.start };
            let from = (row as isize + self.dy) as usize * width + first as usize * c;
            let shown = &mut out[start..end];
            convert(&image[from..from + shown.len()], shown);
            if self.mirrored {
                reverse_pixels(shown, c);
            }
        }
    }
}

/// Reverses the order of the pixels of a row, not of their channels.
fn reverse_pixels(row: &mut [f32], c: usize) {
    if c == 1 {
        return row.reverse();
    }
    let (mut left, mut right) = (0, row.len());
    while left + c < right {
        right -= c;
        let (head, tail) = row.split_at_mut(right);
        head[left..left + c].swap_with_slice(&mut tail[..c]);
        left += c;
    }
}

/// Checks a job's augmentations against the shape of its samples.
pub(super) fn check(config: &DataConfig, input: Shape) -> Result<()> {
    let error = |what: String, mend: &str| Err(config.source.error("augment", what, mend));
    let Shape::Image { h, w, .. } = input else {
        if config.augment.is_empty() {
            return Ok(());
        }
        return error(format!("samples of shape {input} are no images"), "remove data.augment");
    };
    for step in &config.augment {
        match *step {
            Augmentation::RandomCrop { padding } if padding >= h.min(w) => {
                return error(format!("padding {padding} could crop a {h}x{w} image away"), "use less, such as 4");
            }
            Augmentation::HorizontalFlip { p } if !(0.0..=1.0).contains(&p) => {
                return error(format!("p = {p} is no probability"), "use 0 to 1");
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::Purpose;

    /// The definition: pads and cuts, or mirrors, a whole image of one channel.
    fn naive(image: &[f32], h: isize, w: isize, from: impl Fn(isize, isize) -> (isize, isize)) -> Vec<f32> {
        let mut out = Vec::new();
        for y in 0..h {
            for x in 0..w {
                let (sy, sx) = from(y, x);
                let inside = (0..h).contains(&sy) && (0..w).contains(&sx);
                out.push(if inside { image[(sy * w + sx) as usize] } else { -1.0 });
            }
        }
        out
    }

    #[test]
    fn any_chain_equals_its_steps_one_by_one() {
        let (h, w) = (5isize, 6isize);
        let image: Vec<f32> = (0..h * w).map(|v| v as f32).collect();
        let mut stream = Stream::new(1, Purpose::Augment, 0, 0);
        for _ in 0..500 {
            let (mut view, mut expected) = (View::whole(5, 6), image.clone());
            for _ in 0..stream.below(5) {
                if stream.below(2) == 0 {
                    view.flip(w);
                    expected = naive(&expected, h, w, |y, x| (y, w - 1 - x));
                } else {
                    let (down, right) = (stream.below(9) as isize - 4, stream.below(9) as isize - 4);
                    view.shift(down, right, h, w);
                    expected = naive(&expected, h, w, |y, x| (y + down, x + right));
                }
            }
            let mut shown = vec![0.0; image.len()];
            view.apply(&image, &[-1.0; 6], 1, &mut shown, |from, to| to.copy_from_slice(from));
            assert_eq!(shown, expected, "{view:?}");
        }
    }

    #[test]
    fn a_flip_keeps_the_channels_of_a_pixel_together() {
        let mut view = View::whole(1, 3);
        view.flip(3);
        let mut shown = [0.0; 6];
        view.apply(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[0.0; 6], 2, &mut shown, |from, to| to.copy_from_slice(from));
        assert_eq!(shown, [5.0, 6.0, 3.0, 4.0, 1.0, 2.0]);
    }
}
