//! What products multiply in, the same on all ranks.

use crate::comm::Comm;
use crate::config::Precision;
use crate::kernel::{bf16_is_native, bf16_pays};

/// bf16 where the job wants it and it is faster than f32 on the CPU of every rank. Collective.
pub fn agreed(wanted: Precision, comm: &dyn Comm) -> Precision {
    let slow = wanted == Precision::Bf16 && !bf16_pays();
    if comm.max(i64::from(slow)) > 0 { Precision::F32 } else { wanted }
}

/// A word on what became of a job's wish for bf16.
pub fn told(wanted: Precision, taken: Precision) -> Option<&'static str> {
    match (wanted, taken) {
        (Precision::F32, _) => None,
        (_, Precision::F32) => {
            Some("no faster than f32 on these CPUs, so products are f32 (DDL_BF16=pairs makes them bf16 all the same)")
        }
        _ if bf16_is_native() => Some(
            "products of linear, lstm and gru layers, by AVX-512 BF16 where they are large enough; weights and sums are f32",
        ),
        _ => Some(
            "products of linear, lstm and gru layers, as DDL_BF16=pairs wants, slowly: this CPU has no such instruction",
        ),
    }
}
