//! Crops and flips, in any order, as one affine view of an image: the pixels are copied once.

use std::ops::Range;

/// Where the rows, or the columns, of a changed image come from: output i shows input `offset + i`, or `offset - i` if
/// mirrored, for i in `shown`; every other one is padding. Beyond the border the input is reflected.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::data) struct Axis {
    size: isize,
    offset: isize,
    mirrored: bool,
    shown: Range<isize>,
}

/// A run of `len` outputs from `at` on that shows a run of inputs from `first` on, backwards if `mirrored`.
#[derive(Clone, Copy, Default)]
struct Piece {
    at: usize,
    len: usize,
    first: usize,
    mirrored: bool,
}

impl Axis {
    /// As it is.
    fn whole(size: usize) -> Self {
        Self { size: size as isize, offset: 0, mirrored: false, shown: 0..size as isize }
    }

    /// Whether all is shown and nothing but it.
    fn is_whole(&self) -> bool {
        self.shown == (0..self.size) && self.offset == if self.mirrored { self.size - 1 } else { 0 }
    }

    /// Lets output i show what i + `by` showed.
    fn shift(&mut self, by: isize) {
        self.offset += if self.mirrored { -by } else { by };
    }

    /// The same, with padding beyond the border.
    fn shift_padded(&mut self, by: isize) {
        self.shift(by);
        let start = (self.shown.start - by).clamp(0, self.size);
        self.shown = start..(self.shown.end - by).clamp(start, self.size);
    }

    /// Lets output i show what size - 1 - i showed.
    pub(in crate::data) fn flip(&mut self) {
        self.offset += if self.mirrored { 1 - self.size } else { self.size - 1 };
        self.mirrored = !self.mirrored;
        self.shown = self.size - self.shown.end..self.size - self.shown.start;
    }

    /// The input that output i shows.
    fn source(&self, i: isize) -> usize {
        let place = if self.mirrored { self.offset - i } else { self.offset + i };
        let inside = if place < 0 { -place } else { place };
        (if inside >= self.size { 2 * (self.size - 1) - inside } else { inside }) as usize
    }

    /// What is shown in runs: what is not reflected, what is at one border, and what is at the other.
    fn pieces(&self) -> [Piece; 3] {
        let first = if self.mirrored { self.offset - self.size + 1 } else { -self.offset };
        let Range { start, end } = self.shown;
        let (from, to) = (first.clamp(start, end), (first + self.size).clamp(start, end));
        [from..to, start..from, to..end].map(|at| {
            if at.is_empty() {
                return Piece::default();
            }
            let ends = [self.source(at.start), self.source(at.end - 1)];
            let (at, len) = (at.start as usize, at.len());
            Piece { at, len, first: ends[0].min(ends[1]), mirrored: ends[0] > ends[1] }
        })
    }
}

/// Where the pixels of a changed image come from.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::data) struct View {
    pub rows: Axis,
    pub columns: Axis,
}

impl View {
    /// The image as it is.
    pub fn whole(h: usize, w: usize) -> Self {
        Self { rows: Axis::whole(h), columns: Axis::whole(w) }
    }

    /// Whether a crop with reflections at the border may follow: after a crop that showed something beyond the border, its
    /// reflection would be another.
    pub fn may_reflect(&self) -> bool {
        self.rows.is_whole() && self.columns.is_whole()
    }

    /// Lets output (y, x) show what (y + down, x + right) showed.
    pub fn crop(&mut self, down: isize, right: isize) {
        self.rows.shift_padded(down);
        self.columns.shift_padded(right);
    }

    /// The same, reflected beyond the border; only where [`View::may_reflect`], and by less than the image's size.
    pub fn crop_reflected(&mut self, down: isize, right: isize) {
        self.rows.shift(down);
        self.columns.shift(right);
    }

    /// Writes one image (H, W, C) as this view shows it. `convert` turns pixels of a row into network input; `padding` is a
    /// row (W, C) of padding.
    pub fn apply<S>(&self, image: &[S], padding: &[f32], c: usize, y: &mut [f32], convert: impl Fn(&[S], &mut [f32])) {
        let width = padding.len();
        let (start, end) = (self.columns.shown.start as usize * c, self.columns.shown.end as usize * c);
        let pieces = self.columns.pieces();
        let runs = if pieces[1].len + pieces[2].len > 0 { &pieces[..] } else { &pieces[..1] };
        for (row, out) in y.chunks_exact_mut(width).enumerate() {
            if !self.rows.shown.contains(&(row as isize)) {
                out.copy_from_slice(padding);
                continue;
            }
            out[..start].copy_from_slice(&padding[..start]);
            out[end..].copy_from_slice(&padding[end..]);
            let from = &image[self.rows.source(row as isize) * width..][..width];
            for Piece { at, len, first, mirrored } in runs {
                let shown = &mut out[at * c..][..len * c];
                convert(&from[first * c..][..len * c], shown);
                if *mirrored {
                    reverse_pixels(shown, c);
                }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rng::{Purpose, Stream};

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

    /// numpy's "reflect".
    fn reflect(i: isize, size: isize) -> isize {
        let inside = i.abs();
        if inside >= size { 2 * (size - 1) - inside } else { inside }
    }

    #[test]
    fn any_chain_equals_its_steps_one_by_one() {
        let mut stream = Stream::new(1, Purpose::Augment, 0, 0);
        let mut reflected = 0;
        for _ in 0..3000 {
            let (h, w) = (1 + stream.below(7) as isize, 1 + stream.below(7) as isize);
            let most = h.min(w) - 1;
            let image: Vec<f32> = (0..h * w).map(|v| v as f32).collect();
            let (mut view, mut expected) = (View::whole(h as usize, w as usize), image.clone());
            for _ in 0..stream.below(5) {
                let mut draw = || stream.below(2 * most as u32 + 1) as isize - most;
                let (down, right) = (draw(), draw());
                match stream.below(4) {
                    0 => {
                        view.columns.flip();
                        expected = naive(&expected, h, w, |y, x| (y, w - 1 - x));
                    }
                    1 => {
                        view.rows.flip();
                        expected = naive(&expected, h, w, |y, x| (h - 1 - y, x));
                    }
                    2 if view.may_reflect() => {
                        view.crop_reflected(down, right);
                        expected = naive(&expected, h, w, |y, x| (reflect(y + down, h), reflect(x + right, w)));
                        reflected += 1;
                    }
                    _ => {
                        view.crop(down, right);
                        expected = naive(&expected, h, w, |y, x| (y + down, x + right));
                    }
                }
            }
            let mut shown = vec![0.0; image.len()];
            let padding = vec![-1.0; w as usize];
            view.apply(&image, &padding, 1, &mut shown, |from, to| to.copy_from_slice(from));
            assert_eq!(shown, expected, "{view:?}");
        }
        assert!(reflected > 500, "{reflected}");
    }

    #[test]
    fn a_flip_keeps_the_channels_of_a_pixel_together() {
        let mut view = View::whole(1, 3);
        view.columns.flip();
        let mut shown = [0.0; 6];
        view.apply(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], &[0.0; 6], 2, &mut shown, |from, to| to.copy_from_slice(from));
        assert_eq!(shown, [5.0, 6.0, 3.0, 4.0, 1.0, 2.0]);
    }
}
