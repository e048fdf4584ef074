//! What kernels take: views of [`ndarray`] whose rows lie dense, made of slices at the door.
//!
//! Some are made for each plane and each tile, so they are made without ndarray's own checks, after one that is enough.

use ndarray::{ArrayBase, ArrayView2, ArrayView3, ArrayView4, ArrayViewMut2, ArrayViewMut3, ArrayViewMut4};
use ndarray::{Ix2, RawData, ShapeBuilder};

/// M rows of N elements.
pub type Rows<'a, T> = ArrayView2<'a, T>;
/// M rows of N elements, to be written.
pub type RowsMut<'a, T> = ArrayViewMut2<'a, T>;
/// Images (M, H, W, C).
pub type Images<'a, T> = ArrayView4<'a, T>;
/// Images (M, H, W, C), to be written.
pub type ImagesMut<'a, T> = ArrayViewMut4<'a, T>;

/// `m` rows of `n` elements, one after the other.
///
/// # Panics
/// Where `data` is shorter than that.
#[inline]
pub fn rows<T>(m: usize, n: usize, data: &[T]) -> Rows<'_, T> {
    rows_apart(m, n, n, data)
}

/// As [`rows`], to be written.
///
/// # Panics
/// As there.
#[inline]
pub fn rows_mut<T>(m: usize, n: usize, data: &mut [T]) -> RowsMut<'_, T> {
    rows_apart_mut(m, n, n, data)
}

/// `m` images (H, W, C), one after the other.
///
/// # Panics
/// Where `data` is shorter than that.
pub fn images<T>(m: usize, (h, w, c): (usize, usize, usize), data: &[T]) -> Images<'_, T> {
    ArrayView4::from_shape((m, h, w, c), &data[..m * h * w * c]).expect("a slice of this length has this shape")
}

/// As [`images`], to be written.
///
/// # Panics
/// As there.
pub fn images_mut<T>(m: usize, (h, w, c): (usize, usize, usize), data: &mut [T]) -> ImagesMut<'_, T> {
    ArrayViewMut4::from_shape((m, h, w, c), &mut data[..m * h * w * c]).expect("a slice of this length has this shape")
}

/// `m` sequences of `t` times of `f` features, one after the other; or, the time first, `m` times of `t` samples.
///
/// # Panics
/// Where `data` is shorter than that.
pub fn sequences<T>(m: usize, t: usize, f: usize, data: &[T]) -> ArrayView3<'_, T> {
    ArrayView3::from_shape((m, t, f), &data[..m * t * f]).expect("a slice of this length has this shape")
}

/// As [`sequences`], to be written.
///
/// # Panics
/// As there.
pub fn sequences_mut<T>(m: usize, t: usize, f: usize, data: &mut [T]) -> ArrayViewMut3<'_, T> {
    ArrayViewMut3::from_shape((m, t, f), &mut data[..m * t * f]).expect("a slice of this length has this shape")
}

/// `m` rows of `n` elements, `stride` apart.
///
/// # Panics
/// Where `data` is shorter than that, or the rows overlap.
#[inline]
pub fn rows_apart<T>(m: usize, n: usize, stride: usize, data: &[T]) -> Rows<'_, T> {
    assert!(rows_fit(data.len(), m, n, stride), "the rows do not fit");
    // SAFETY: the rows were just seen to lie within the slice.
    unsafe { ArrayView2::from_shape_ptr((m, n).strides((stride.max(n), 1)), data.as_ptr()) }
}

/// As [`rows_apart`], to be written.
///
/// # Panics
/// As there.
#[inline]
pub fn rows_apart_mut<T>(m: usize, n: usize, stride: usize, data: &mut [T]) -> RowsMut<'_, T> {
    assert!(rows_fit(data.len(), m, n, stride), "the rows do not fit");
    // SAFETY: the rows were just seen to lie within the slice, without overlapping.
    unsafe { ArrayViewMut2::from_shape_ptr((m, n).strides((stride.max(n), 1)), data.as_mut_ptr()) }
}

/// The rows of a view as slices, by number.
///
/// # Panics
/// Where rows do not lie dense; and what it returns, where there is no such row.
#[inline]
pub(super) fn slices<'a, T>(view: &Rows<'a, T>) -> impl Fn(usize) -> &'a [T] {
    let ((m, n), stride, first) = (view.dim(), stride(view), view.as_ptr());
    move |row| {
        assert!(row < m, "there is no row {row}");
        // SAFETY: the row is one of the view's, and lies dense.
        unsafe { std::slice::from_raw_parts(first.wrapping_add(row * stride), n) }
    }
}

/// The distance of a view's rows.
///
/// # Panics
/// Where the elements of a row do not lie one after the other: kernels read them so.
#[inline]
pub(super) fn stride<S: RawData>(view: &ArrayBase<S, Ix2>) -> usize {
    let [row, column] = [view.strides()[0], view.strides()[1]];
    if view.is_empty() {
        return view.ncols();
    }
    assert!(view.ncols() <= 1 || column == 1, "a row lies scattered");
    assert!(view.nrows() <= 1 || row >= view.ncols() as isize, "rows lie backwards or overlap");
    row.unsigned_abs()
}

/// Whether `rows` rows of `width` elements, `stride` apart, lie within `len` elements without overlapping.
#[inline]
fn rows_fit(len: usize, rows: usize, width: usize, stride: usize) -> bool {
    rows == 0 || width == 0 || (width <= len && (rows == 1 || (stride >= width && (len - width) / stride >= rows - 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_lie_where_they_are_said_to() {
        let data: Vec<usize> = (0..20).collect();
        assert_eq!(rows(3, 4, &data)[(2, 1)], 9);
        let apart = rows_apart(3, 4, 7, &data);
        assert_eq!((apart[(2, 3)], stride(&apart)), (17, 7));
        assert_eq!(stride(&rows(3, 4, &data).slice_move(ndarray::s![.., 1..3])), 4);
        assert_eq!(rows_apart(0, 4, 7, &data[..0]).nrows(), 0);
        assert_eq!(rows_apart(1, 4, 0, &data)[(0, 3)], 3);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let data = [0; 20];
        for (m, n, stride) in [(4, 4, 6), (3, 4, 3), (1, 21, 30)] {
            assert!(std::panic::catch_unwind(|| rows_apart(m, n, stride, &data).nrows()).is_err(), "{m} {n} {stride}");
        }
        let turned = rows(4, 5, &data).reversed_axes();
        assert!(std::panic::catch_unwind(|| stride(&turned)).is_err());
    }
}
