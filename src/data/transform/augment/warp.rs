//! Rotation, scaling and shear: every output pixel looks at a place between four input pixels.

use super::canvas::Canvas;

/// Where an output pixel looks, about the image's centre: (x, y) sees (a x + b y + c, d x + e y + f).
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::data) struct Warp([f32; 6]);

impl Warp {
    /// Shows the image turned clockwise by `degrees`, sheared along x by `shear` degrees, made `scale` times as large and
    /// moved by (right, down), as torchvision's `affine`.
    pub fn new(degrees: f32, [right, down]: [f32; 2], scale: f32, shear: f32) -> Self {
        let (rot, shear) = (f64::from(degrees).to_radians(), f64::from(shear).to_radians());
        let (right, down, scale) = (f64::from(right), f64::from(down), f64::from(scale));
        let ((sin, cos), tan) = (libm::sincos(rot), libm::tan(shear));
        // The forward matrix is [cos, -cos·tan - sin; sin, -sin·tan + cos], of determinant 1.
        let inverse = [cos - sin * tan, cos * tan + sin, -sin, cos].map(|v| v / scale);
        let [a, b, d, e] = inverse;
        Self([a, b, -(a * right + b * down), d, e, -(d * right + e * down)].map(|v| v as f32))
    }

    /// Writes the image `from` (H, W, C) as it is seen through the warp; beyond its border it is black.
    pub fn apply(&self, canvas: &Canvas, from: &[f32], to: &mut [f32]) {
        let Canvas { h, w, c, .. } = *canvas;
        let [a, b, right, d, e, down] = self.0;
        let (middle_x, middle_y) = ((w - 1) as f32 * 0.5, (h - 1) as f32 * 0.5);
        let places = (0..h).flat_map(|y| (0..w).map(move |x| (x as f32 - middle_x, y as f32 - middle_y)));
        for (pixel, (x, y)) in to.chunks_exact_mut(c).zip(places) {
            let (x, y) = (a * x + b * y + right + middle_x, d * x + e * y + down + middle_y);
            // Not `x < ...`: a place that is no number is outside too.
            if !(x > -1.0 && y > -1.0 && x < w as f32 && y < h as f32) {
                pixel.copy_from_slice(&canvas.black[..c]);
                continue;
            }
            // Above -1, so that this rounds down, and quicker than `floor` where that is a call.
            let (left, top) = ((x + 1.0) as isize - 1, (y + 1.0) as isize - 1);
            let (to_right, to_bottom) = (x - left as f32, y - top as f32);
            let blend = |pixel: &mut [f32], [above, below]: [[&[f32]; 2]; 2]| {
                let along = |[left, right]: [&[f32]; 2], c: usize| left[c] + to_right * (right[c] - left[c]);
                for (channel, value) in pixel.iter_mut().enumerate() {
                    let (above, below) = (along(above, channel), along(below, channel));
                    *value = above + to_bottom * (below - above);
                }
            };
            if left >= 0 && top >= 0 && left + 1 < w as isize && top + 1 < h as isize {
                let at = (top as usize * w + left as usize) * c;
                let pair = |at: usize| [&from[at..][..c], &from[at + c..][..c]];
                blend(pixel, [pair(at), pair(at + w * c)]);
                continue;
            }
            let at = |y: isize, x: isize| {
                let inside = (0..h as isize).contains(&y) && (0..w as isize).contains(&x);
                if inside { &from[(y as usize * w + x as usize) * c..][..c] } else { &canvas.black[..c] }
            };
            blend(pixel, [[at(top, left), at(top, left + 1)], [at(top + 1, left), at(top + 1, left + 1)]]);
        }
    }
}
