//! Vectors of NEON, for aarch64.

use super::*;
use std::arch::aarch64::*;

/// Eight lanes as two NEON registers.
#[derive(Clone, Copy)]
pub(crate) struct Neon([float32x4_t; 2]);

operators! { Neon, a, b,
    Add add [vaddq_f32(a[0], b[0]), vaddq_f32(a[1], b[1])];
    Sub sub [vsubq_f32(a[0], b[0]), vsubq_f32(a[1], b[1])];
    Mul mul [vmulq_f32(a[0], b[0]), vmulq_f32(a[1], b[1])];
    Div div [vdivq_f32(a[0], b[0]), vdivq_f32(a[1], b[1])];
}

// SAFETY of the blocks below: memory by the caller's contract; every aarch64 CPU has NEON.
#[allow(clippy::undocumented_unsafe_blocks, unused_unsafe)]
impl Simd for Neon {
    const LANES: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        unsafe { Neon([vdupq_n_f32(x); 2]) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        unsafe { Neon([vld1q_f32(from), vld1q_f32(from.add(4))]) }
    }

    #[inline(always)]
    unsafe fn load_first(from: *const f32, n: usize) -> Self {
        if n >= 8 {
            return unsafe { Self::load(from) };
        }
        let mut lanes = [0.0f32; 8];
        for lane in 0..n {
            lanes[lane] = unsafe { *from.add(lane) };
        }
        unsafe { Self::load(lanes.as_ptr()) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        unsafe {
            vst1q_f32(to, self.0[0]);
            vst1q_f32(to.add(4), self.0[1]);
        }
    }

    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, n: usize) {
        if n >= 8 {
            return unsafe { self.store(to) };
        }
        let mut lanes = [0.0f32; 8];
        unsafe { self.store(lanes.as_mut_ptr()) };
        for lane in 0..n {
            unsafe { *to.add(lane) = lanes[lane] };
        }
    }

    #[inline(always)]
    fn mul_add(self, b: Self, c: Self) -> Self {
        let (a, b, c) = (self.0, b.0, c.0);
        unsafe { Neon([vfmaq_f32(c[0], a[0], b[0]), vfmaq_f32(c[1], a[1], b[1])]) }
    }

    #[inline(always)]
    fn min(self, other: Self) -> Self {
        let (a, b) = (self.0, other.0);
        // Not vminq: it makes a NaN of either operand win, the trait promises `other`.
        unsafe { Neon([vbslq_f32(vcltq_f32(a[0], b[0]), a[0], b[0]), vbslq_f32(vcltq_f32(a[1], b[1]), a[1], b[1])]) }
    }

    #[inline(always)]
    fn max(self, other: Self) -> Self {
        let (a, b) = (self.0, other.0);
        unsafe { Neon([vbslq_f32(vcgtq_f32(a[0], b[0]), a[0], b[0]), vbslq_f32(vcgtq_f32(a[1], b[1]), a[1], b[1])]) }
    }

    #[inline(always)]
    fn select_less(self, bound: Self, then: Self, otherwise: Self) -> Self {
        Neon(std::array::from_fn(|half| unsafe {
            vbslq_f32(vcltq_f32(self.0[half], bound.0[half]), then.0[half], otherwise.0[half])
        }))
    }

    #[inline(always)]
    fn select_above(self, bound: Self, then: Self, otherwise: Self) -> Self {
        Neon(std::array::from_fn(|half| unsafe {
            let number = vceqq_f32(self.0[half], self.0[half]);
            let above = vornq_u32(vcgtq_f32(self.0[half], bound.0[half]), number);
            vbslq_f32(above, then.0[half], otherwise.0[half])
        }))
    }

    #[inline(always)]
    fn select_equal(self, other: Self, then: Self, otherwise: Self) -> Self {
        Neon(std::array::from_fn(|half| unsafe {
            vbslq_f32(vceqq_f32(self.0[half], other.0[half]), then.0[half], otherwise.0[half])
        }))
    }

    #[inline(always)]
    fn exp2_integral(self) -> Self {
        let bias = unsafe { vdupq_n_s32(127) };
        Neon(self.0.map(|n| unsafe { vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(vcvtq_s32_f32(n), bias))) }))
    }
}
