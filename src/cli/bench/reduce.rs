//! `ddl bench reduce`.

use crate::comm::{Comm, agree};
use crate::error::{Error, Result};
use crate::resource::require_memory;
use crate::scale::statistics::Spread;
use crate::train::rehearsal::{Rehearsal, Way};
use crate::train::terminal::{say, table};
use bytesize::ByteSize;
use clap::Args;

/// Gradients from 1 KB to 64 MB; 4.6 MB is that of mnist-cnn.
const SIZES: &str = "1KB,16KB,256KB,1MB,4.6MB,16MB,64MB";
const MOST_BYTES: u64 = 100 * bytesize::GB;
/// A repeat moves about so many bytes of gradient, by as many steps as that takes within these bounds.
const BYTES_A_REPEAT: usize = 40_000_000;
const STEPS: [usize; 2] = [4, 100];

/// The sum of gradients over ranks and the update by SGD with momentum, alone, in four ways
///
/// allreduce is MPI_Allreduce and the whole update on every rank; shared is what ddl does: the ranks of a host sum in shared
/// memory and update one copy together; messages is the same with distributed.exchange = "mpi", reproducible with
/// distributed.reduction = "reproducible". A step's time is that of its slowest rank; writing the gradients is not in it.
#[derive(Args)]
#[command(after_help = "Examples:
  mpirun -n 2 ddl bench reduce
  mpirun -n 4 ddl bench reduce --sizes 100KB,4.6MB --micro-batches 1 --json")]
pub(super) struct Reduce {
    /// Bytes of the gradient, such as 1KB,4.6MB
    #[arg(long, value_name = "LIST", default_value = SIZES)]
    sizes: String,
    /// Repeats in alternation; the median counts
    #[arg(long, default_value_t = 7, value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    repeats: u64,
    /// Micro-batches of each rank in a step
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(1..=1000))]
    micro_batches: u64,
    /// Print one JSON object instead of a table
    #[arg(long)]
    json: bool,
}

/// What one size gave.
struct Row {
    bytes: usize,
    /// Microseconds a step of each of [`Way::ALL`], over repeats.
    micros: Vec<Spread>,
}

impl Reduce {
    pub(super) fn run(self, comm: &dyn Comm) -> Result<()> {
        let mut rows = Vec::new();
        for bytes in parse_sizes(&self.sizes)? {
            let row = self.measure(comm, bytes)?;
            rows.push(row);
        }
        if comm.rank() == 0 {
            say(&if self.json { self.as_json(comm.size(), &rows) } else { self.as_table(comm.size(), &rows) });
        }
        Ok(())
    }

    fn measure(&self, comm: &dyn Comm, bytes: usize) -> Result<Row> {
        let (elements, micro_batches) = (bytes.div_ceil(4), self.micro_batches as usize);
        // Three of allreduce; weights, momentum and gradients of the others, two of which keep micro-batches apart.
        let needed = 4.0 * elements as f64 * (3 + 3 + 5 + 2 + micro_batches.min(16)) as f64;
        agree(comm, require_memory("--sizes", needed, "measure smaller sizes"))?;
        let build = |(way, _): &(Way, _)| Rehearsal::build(comm, *way, elements, micro_batches);
        let mut rehearsals: Vec<Rehearsal> = Way::ALL.iter().map(build).collect::<Result<_>>()?;
        let steps = (BYTES_A_REPEAT / bytes).clamp(STEPS[0], STEPS[1]);
        let mut medians = vec![Vec::new(); rehearsals.len()];
        let mut seconds = vec![0.0; steps];
        // The first repeat warms up.
        for repeat in 0..=self.repeats {
            for (rehearsal, medians) in rehearsals.iter_mut().zip(&mut medians) {
                seconds.fill_with(|| rehearsal.step());
                let all = comm.gather_f64(&seconds);
                let slowest = |step: usize| all.iter().skip(step).step_by(steps).copied().fold(0.0, f64::max);
                if repeat > 0 && comm.rank() == 0 {
                    medians.push(1e6 * Spread::of((0..steps).map(slowest).collect()).median);
                }
            }
        }
        let [plain, others @ ..] = &rehearsals[..] else { unreachable!("there are several ways") };
        let differs = others.iter().map(|other| other.difference(plain)).fold(0.0, f32::max);
        let right = match differs {
            0.0..=1e-4 => Ok(()),
            _ => Err(Error::internal("ddl bench reduce", format!("weights differ by {differs:.1e}"))),
        };
        agree(comm, right)?;
        Ok(Row { bytes: 4 * elements, micros: medians.into_iter().map(Spread::of).collect() })
    }

    fn as_json(&self, ranks: usize, rows: &[Row]) -> String {
        let row = |row: &Row| {
            let ways: serde_json::Map<_, _> = Way::ALL
                .iter()
                .zip(&row.micros)
                .map(|((_, name), Spread { median, minimum, maximum })| {
                    let figures = serde_json::json!({
                        "median_us": median, "minimum_us": minimum, "maximum_us": maximum, "speedup": row.micros[0].median / median,
                    });
                    ((*name).to_owned(), figures)
                })
                .collect();
            serde_json::json!({ "bytes": row.bytes, "ways": ways })
        };
        serde_json::json!({
            "ranks": ranks, "micro_batches": self.micro_batches, "repeats": self.repeats,
            "instruction_set": crate::kernel::isa().name(), "sizes": rows.iter().map(row).collect::<Vec<_>>(),
        })
        .to_string()
    }

    fn as_table(&self, ranks: usize, rows: &[Row]) -> String {
        let mut header = vec!["gradient".to_owned()];
        header.extend(Way::ALL.iter().map(|(_, name)| format!("{name} µs")));
        header.extend(Way::ALL[1..].iter().map(|(_, name)| format!("{name} x")));
        let header: Vec<&str> = header.iter().map(String::as_str).collect();
        let mut cells = table(&header, 1);
        for Row { bytes, micros } in rows {
            let times = micros.iter().map(|spread| format!("{:.1}", spread.median));
            let ratios = micros[1..].iter().map(|spread| format!("{:.2}", micros[0].median / spread.median));
            cells.add_row([format!("{} KB", *bytes as f64 / 1e3)].into_iter().chain(times).chain(ratios));
        }
        format!(
            "{ranks} rank(s) of {} micro-batch(es), median of {} repeats; x: times as fast as allreduce\n\n{cells}",
            self.micro_batches, self.repeats
        )
    }
}

/// `4.6MB,800` as bytes.
fn parse_sizes(text: &str) -> Result<Vec<usize>> {
    let size = |part: &str| {
        let bytes = part.trim().parse().ok().map(|ByteSize(bytes)| bytes);
        bytes.filter(|bytes| (4..=MOST_BYTES).contains(bytes)).map(|bytes| bytes as usize).ok_or_else(|| {
            let what = format!("`{part}` is no size from 4 bytes to 100 GB");
            Error::usage(format!("--sizes {text}"), what, "write such as --sizes 1KB,4.6MB")
        })
    };
    text.split(',').map(size).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_units() {
        assert_eq!(parse_sizes("4, 1KB,4.6mb,2 GiB").unwrap(), [4, 1000, 4_600_000, 2 << 30]);
        assert_eq!(parse_sizes(SIZES).unwrap().len(), 7);
        for text in ["", "3", "1,,2", "x", "-1KB", "nan", "inf", "1e300", "101GB", "1PB", "5 apples"] {
            assert_eq!(parse_sizes(text).unwrap_err().exit_code(), 2, "{text}");
        }
    }
}
