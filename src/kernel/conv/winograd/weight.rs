//! The transform of the weights and its adjoint; matrices as in [`transform`](super::transform).

use super::IN;
use crate::kernel::PANEL;
use crate::kernel::simd::{Simd, simd_entry};

/// The weights' constants in registers.
#[derive(Clone, Copy)]
struct Weights<S> {
    quarter: S,
    sixth: S,
    minus_sixth: S,
    twelfth: S,
    fourth: S,
}

impl<S: Simd> Weights<S> {
    /// # Safety
    /// The CPU has the instruction set of `S`.
    #[inline(always)]
    unsafe fn new() -> Self {
        // SAFETY: the caller's contract.
        unsafe {
            Self {
                quarter: S::splat(1.0 / 4.0),
                sixth: S::splat(1.0 / 6.0),
                minus_sixth: S::splat(-1.0 / 6.0),
                twelfth: S::splat(1.0 / 12.0),
                fourth: S::splat(1.0 / 24.0),
            }
        }
    }

    /// G g.
    #[inline(always)]
    fn straight(&self, [g0, g1, g2]: [S; 3]) -> [S; 6] {
        let (ends, middle) = ((g0 + g2) * self.minus_sixth, g1 * self.minus_sixth);
        let (ends2, middle2) = (self.fourth.mul_add(g0, self.sixth * g2), g1 * self.twelfth);
        [self.quarter * g0, ends + middle, ends - middle, ends2 + middle2, ends2 - middle2, g2]
    }

    /// Gᵀ u.
    #[inline(always)]
    fn adjoint(&self, [u0, u1, u2, u3, u4, u5]: [S; 6]) -> [S; 3] {
        let (s12, d12, s34, d34) = (u1 + u2, u2 - u1, u3 + u4, u3 - u4);
        [
            self.quarter.mul_add(u0, self.fourth * s34 - self.sixth * s12),
            self.sixth.mul_add(d12, self.twelfth * d34),
            self.sixth.mul_add(s34 - s12, u5),
        ]
    }
}

simd_entry! {
    /// U = G g Gᵀ for each element of the depth×O `panels` of a 3×3 convolution: `planes` of C×O panels, `plane` apart.
    ///
    /// # Safety
    /// The panels hold ⌈o / 32⌉ · 9 · c rows, and each plane ⌈o / 32⌉ · c.
    pub(super) unsafe fn weight_transform(c: usize, o: usize, panels: *const f32, planes: *mut f32, plane: usize) =
        weight_body
}

/// # Safety
/// As for [`weight_transform`]; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn weight_body<S: Simd>(c: usize, o: usize, panels: *const f32, planes: *mut f32, plane: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        let constants = Weights::<S>::new();
        for panel in 0..o.div_ceil(PANEL) {
            for channel in 0..c {
                for lane in (0..PANEL).step_by(S::LANES) {
                    let from = panels.add((panel * 9 * c + channel) * PANEL + lane);
                    let mut half = [[S::splat(0.0); IN]; 3];
                    for i in 0..3 {
                        let mut g = [S::splat(0.0); 3];
                        for j in 0..3 {
                            g[j] = S::load(from.add((3 * i + j) * c * PANEL));
                        }
                        half[i] = constants.straight(g);
                    }
                    let to = planes.add((panel * c + channel) * PANEL + lane);
                    for j in 0..IN {
                        let u = constants.straight([half[0][j], half[1][j], half[2][j]]);
                        for i in 0..IN {
                            u[i].store(to.add((i * IN + j) * plane));
                        }
                    }
                }
            }
        }
    }
}

simd_entry! {
    /// panels += Gᵀ dU G, the adjoint of [`weight_transform`]; columns past `o` stay as they are.
    ///
    /// # Safety
    /// As there.
    pub(super) unsafe fn weight_adjoint(c: usize, o: usize, panels: *mut f32, planes: *const f32, plane: usize) =
        weight_adjoint_body
}

/// # Safety
/// As for [`weight_adjoint`]; the CPU has the instruction set of `S`.
#[inline(always)]
unsafe fn weight_adjoint_body<S: Simd>(c: usize, o: usize, panels: *mut f32, planes: *const f32, plane: usize) {
    // SAFETY: the caller's contract.
    unsafe {
        let constants = Weights::<S>::new();
        for panel in 0..o.div_ceil(PANEL) {
            for channel in 0..c {
                for lane in (0..PANEL).step_by(S::LANES) {
                    let n = o.saturating_sub(panel * PANEL + lane);
                    if n == 0 {
                        continue;
                    }
                    let from = planes.add((panel * c + channel) * PANEL + lane);
                    let mut half = [[S::splat(0.0); 3]; IN];
                    for i in 0..IN {
                        let mut u = [S::splat(0.0); IN];
                        for j in 0..IN {
                            u[j] = S::load(from.add((i * IN + j) * plane));
                        }
                        half[i] = constants.adjoint(u);
                    }
                    for j in 0..3 {
                        let column = [half[0][j], half[1][j], half[2][j], half[3][j], half[4][j], half[5][j]];
                        let g = constants.adjoint(column);
                        for i in 0..3 {
                            let to = panels.add((panel * 9 * c + (3 * i + j) * c + channel) * PANEL + lane);
                            if n >= S::LANES {
                                (S::load(to) + g[i]).store(to);
                            } else {
                                (S::load_first(to, n) + g[i]).store_first(to, n);
                            }
                        }
                    }
                }
            }
        }
    }
}
