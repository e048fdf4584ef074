//! `ddl bench reduce`.

mod support;

use support::{ddl, ddl_ok};

/// Each way is measured at each size, alone and on ranks some of which have no block to update, also in many messages; that
/// all end with the same weights the program checks itself.
#[test]
fn every_way_of_summing_is_measured() {
    for ranks in [0, 1, 3] {
        let args = ["bench", "reduce", "--sizes", "4,1KB,100KB,4MB", "--repeats", "2", "--json"];
        let (stdout, _) = ddl_ok(ranks, &args);
        let found: serde_json::Value = serde_json::from_str(&stdout).unwrap_or_else(|e| panic!("{e}: {stdout}"));
        assert_eq!(found["ranks"], ranks.max(1));
        let sizes = found["sizes"].as_array().expect("sizes");
        let bytes: Vec<_> = sizes.iter().filter_map(|size| size["bytes"].as_u64()).collect();
        assert_eq!(bytes, [4, 1000, 100_000, 4_000_000]);
        for size in sizes {
            assert_eq!(size["ways"]["allreduce"]["speedup"], 1.0);
            for way in ["allreduce", "shared", "messages", "reproducible"] {
                let micros = |key: &str| size["ways"][way][key].as_f64().unwrap_or(f64::NAN);
                let ascending = [0.0, micros("minimum_us"), micros("median_us"), micros("maximum_us")];
                assert!(ascending[1] > 0.0 && ascending.is_sorted(), "{way}: {ascending:?}");
            }
        }
    }
}

#[test]
fn the_table_has_a_row_a_size() {
    let (stdout, _) = ddl_ok(2, &["bench", "reduce", "--sizes", "8KB,1KB", "--repeats", "1", "--micro-batches", "6"]);
    let rows: Vec<&str> = stdout.lines().filter(|line| line.contains(" KB ")).collect();
    assert!(rows.len() == 2 && rows[0].starts_with("8 KB") && rows[1].starts_with("1 KB"), "{stdout}");
}

#[test]
fn sizes_that_cannot_be_are_refused() {
    for sizes in ["", "0", "1KB,", "ten", "90GB", "90000MB"] {
        let output = ddl(0, &["bench", "reduce", "--sizes", sizes]);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(2) && stderr.contains("--sizes"), "{sizes}: {stderr}");
    }
}
