//! Tables and records.

use super::Room;
use super::source::{data, trained};

/// A table as numbers and as classes.
pub fn csv(room: &Room, bytes: &[u8]) {
    const NUMBERS: &str = "target = 'y'\nfeatures = ['x']";
    const CLASSES: &str = "target = 'name'\nfeatures = ['x', 'y']\ntask = 'classes'\nsplit = 'stratified'";
    let good = room.put("good.csv", include_bytes!("../corpus/csv/table.csv"));
    let name = if bytes.starts_with(b"\x1f\x8b") { "a.csv.gz" } else { "a.csv" };
    let path = room.put(name, bytes);
    for keys in [NUMBERS, CLASSES] {
        data(room, "csv", keys, &path, Some(&trained("csv", keys, &good)));
    }
    data(room, "csv", "target = 'y'\ndelimiter = ';'\nsplit = 'shuffled'", &path, None);
}

/// Prices of tickers by day.
pub fn stocks(room: &Room, bytes: &[u8]) {
    const KEYS: &str = "window = 3\nhorizon = 2\ntrain_fraction = 0.7";
    let good = trained("stocks", KEYS, &room.put("good.csv", include_bytes!("../corpus/stocks/two.csv")));
    let name = if bytes.starts_with(b"\x1f\x8b") { "a.csv.gz" } else { "a.csv" };
    let path = room.put(name, bytes);
    data(room, "stocks", KEYS, &path, Some(&good));
    data(room, "stocks", "window = 2\nnormalize = 'window'", &path, None);
}

/// Columns of numbers and texts, lists, and pictures in bytes.
pub fn parquet(room: &Room, bytes: &[u8]) {
    let path = room.put("a.parquet", bytes);
    let columns = "features = ['i8', 'u32', 'i64', 'f16', 'f64', 'flag', 'day', 'at', 'price', 'color', 'size']";
    for keys in [
        &format!("target = 'y'\nmissing = 'mean'\n{columns}"),
        "target = 'y'\nfeatures = ['list']",
        "target = 'label'\nbytes = 'image'\nfeatures = ['image']",
        "target = 'label'",
    ] {
        data(room, "parquet", keys, &path, None);
    }
}

const PIXELS: &str = "target = 'label'\nfeatures = { label = { type = 'int64' }, image_raw = { type = 'bytes', dtype = \
                      'uint8', shape = [28, 28, 1] } }";
const PICTURE: &str = "target = 'label'\nfeatures = { label = { type = 'int64' }, image = { type = 'image' } }";
const COLUMNS: &str = "target = 'f'\nmissing = 'mean'\nfeatures = { f = { type = 'float' }, i = { type = 'int64' }, t = \
                       { type = 'text' }, fs = { type = 'float', shape = [3] }, is = { type = 'int64', shape = [2, 2] } }";

/// Framing, plain or packed.
pub fn tfrecord(room: &Room, bytes: &[u8]) {
    let path = room.put("a.tfrecord", bytes);
    data(room, "tfrecord", PIXELS, &path, None);
}

/// A message in two records with right checksums.
pub fn example(room: &Room, bytes: &[u8]) {
    let path = room.put("a.tfrecord", &record(bytes).repeat(2));
    for keys in [PIXELS, PICTURE, COLUMNS] {
        data(room, "tfrecord", keys, &path, None);
    }
}

fn record(data: &[u8]) -> Vec<u8> {
    let masked = |bytes: &[u8]| crc32c::crc32c(bytes).rotate_right(15).wrapping_add(0xa282_ead8).to_le_bytes();
    let length = (data.len() as u64).to_le_bytes();
    [&length[..], &masked(&length), data, &masked(data)].concat()
}
