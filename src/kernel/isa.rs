//! The instruction set, detected once.

use std::sync::OnceLock;

/// Instruction sets with kernels of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// Plain Rust, any machine.
    Portable,
    /// AVX2 and FMA.
    Avx2,
    /// AVX-512 F, BW, DQ and VL.
    Avx512,
}

impl Isa {
    /// As `DDL_ISA` spells it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
        }
    }

    /// The best one this CPU has.
    pub fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq")
                && is_x86_feature_detected!("avx512vl");
            if avx512 && avx2 {
                return Isa::Avx512;
            }
            if avx2 {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    }
}

/// The instruction set in use: the best there is, or a lower one by `DDL_ISA=avx2` or `portable`.
pub fn isa() -> Isa {
    static CHOSEN: OnceLock<Isa> = OnceLock::new();
    *CHOSEN.get_or_init(|| {
        let best = Isa::detect();
        match std::env::var("DDL_ISA").as_deref() {
            Ok("portable") => Isa::Portable,
            Ok("avx2") => best.min(Isa::Avx2),
            Ok("avx512") | Err(_) => best,
            Ok(other) => {
                log::warn!("DDL_ISA={other} is not avx512, avx2 or portable; using {}", best.name());
                best
            }
        }
    })
}

/// Defines a function, plain or generic over [`Real`](super::Real), whose body is compiled once for each instruction set, so that
/// its plain loops vectorise to the full width, and which picks one when called.
macro_rules! dispatch {
    ($(#[$meta:meta])* $vis:vis fn $name:ident $(<$T:ident>)? ($($arg:ident : $ty:ty),* $(,)?) $(-> $ret:ty)? $body:block) => {
        $(#[$meta])*
        $vis fn $name$(<$T: $crate::kernel::Real>)?($($arg: $ty),*) $(-> $ret)? {
            #[inline(always)]
            fn body$(<$T: $crate::kernel::Real>)?($($arg: $ty),*) $(-> $ret)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
                fn avx512$(<$T: $crate::kernel::Real>)?($($arg: $ty),*) $(-> $ret)? {
                    body$(::<$T>)?($($arg),*)
                }
                #[target_feature(enable = "avx2,fma")]
                fn avx2$(<$T: $crate::kernel::Real>)?($($arg: $ty),*) $(-> $ret)? {
                    body$(::<$T>)?($($arg),*)
                }
                match $crate::kernel::isa() {
                    // SAFETY: `isa()` is Avx512 only where the CPU was seen to have these features.
                    $crate::kernel::Isa::Avx512 => return unsafe { avx512$(::<$T>)?($($arg),*) },
                    // SAFETY: as above, for Avx2.
                    $crate::kernel::Isa::Avx2 => return unsafe { avx2$(::<$T>)?($($arg),*) },
                    $crate::kernel::Isa::Portable => {}
                }
            }
            body$(::<$T>)?($($arg),*)
        }
    };
}
pub(crate) use dispatch;
