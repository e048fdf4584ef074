//! Whether a CPU multiplies pairs of bf16 faster than numbers of f32.
//!
//! `vdpbf16ps` takes two products a lane where a multiply-add takes one, but not on every CPU at the same rate: AMD's since Zen 4
//! reach nearly twice the products of f32, Intel's with AMX half of them (120 of 244 GFLOP/s measured). Which of the two is
//! taken is one choice a process, so that the same job on the same CPU has the same bits.

use super::{LinearMap, Pairs, Product, Tiled, bf16};
use crate::kernel::view::{rows, rows_mut};
use crate::kernel::{Weight, isa, panels_len};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// Whether products of bf16 are to be made of pairs; else those of f32 are taken. `DDL_BF16=pairs` wants them, on any CPU,
/// `DDL_BF16=f32` never.
pub fn pays() -> bool {
    static PAYS: OnceLock<bool> = OnceLock::new();
    *PAYS.get_or_init(|| match std::env::var("DDL_BF16").as_deref() {
        Ok("pairs") => true,
        Ok("f32") => false,
        other => {
            if let Ok(other) = other {
                log::warn!("DDL_BF16={other} is neither pairs nor f32; taking what is faster");
            }
            bf16::native() && known().unwrap_or_else(|| measured() > GAIN)
        }
    })
}

/// Whether pairs are worth their packing in a product, where the CPU is fast with them (Zen 5, one core: 0.5 to 0.99 of f32's
/// rate below these sizes, 1.1 to 1.9 above).
pub(super) fn worth_packing(map: LinearMap) -> bool {
    map.rows >= 16 && map.inputs * map.outputs >= 1 << 12
}

/// What was measured of families of CPUs.
#[cfg(target_arch = "x86_64")]
fn known() -> Option<bool> {
    use std::arch::x86_64::__cpuid;
    let (vendor, signature) = (__cpuid(0), __cpuid(1).eax);
    let family = (signature >> 8 & 15) + if signature >> 8 & 15 == 15 { signature >> 20 & 255 } else { 0 };
    let model = (signature >> 4 & 15) | (signature >> 16 & 15) << 4;
    match (&vendor.ebx.to_le_bytes(), family, model) {
        // Zen 4 and 5.
        (b"Auth", 25 | 26, _) => Some(true),
        // Sapphire, Emerald and Granite Rapids.
        (b"Genu", 6, 143 | 207 | 173 | 174) => Some(false),
        _ => None,
    }
}

#[cfg(not(target_arch = "x86_64"))]
fn known() -> Option<bool> {
    None
}

/// Between the rates of the two kinds of CPU.
const GAIN: f64 = 1.25;

/// How many times as fast as f32 pairs are, in some two milliseconds: the fastest of several turns each, in alternation.
fn measured() -> f64 {
    let map = LinearMap { rows: 32, inputs: 256, outputs: 64 };
    let products: [Box<dyn Product<f32>>; 2] =
        [Box::new(Tiled { isa: isa(), map }), Box::new(Pairs { isa: isa(), map })];
    let LinearMap { rows: m, inputs: k, outputs: n } = map;
    let (x, panels, mut y) = (vec![0.5; m * k], vec![0.25; panels_len(k, n)], vec![0.0; m * n]);
    let mut fastest = [Duration::MAX; 2];
    let mut buffers = products.each_ref().map(|product| {
        let needs = product.needs();
        let mut packed = vec![0.0; needs.packed];
        product.prepare(&panels, &mut packed);
        (packed, vec![0.0; needs.scratch])
    });
    for _ in 0..40 {
        for ((product, (packed, scratch)), fastest) in products.iter().zip(&mut buffers).zip(&mut fastest) {
            let weight = Weight { panels: &panels, packed };
            let began = Instant::now();
            product.forward(rows(m, k, &x), weight, None, rows_mut(m, n, &mut y), scratch);
            *fastest = began.elapsed().min(*fastest);
        }
    }
    fastest[0].as_secs_f64() / fastest[1].as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_a_cpu_is_what_is_measured_on_it() {
        let found = measured();
        assert!(found.is_finite() && found > 0.0);
        if let Some(known) = known().filter(|_| bf16::native() && isa() == crate::kernel::Isa::Avx512) {
            // A busy machine slows both.
            assert_eq!(known, found > 1.0, "{found} times as fast");
        }
    }
}
