//! PNG files, and files within text.

use flate2::Compression;
use flate2::write::ZlibEncoder;
use std::io::Write;

/// A PNG file of pixels of red, green and blue, `width` to a row.
pub fn encode(rgb: &[u8], width: usize) -> Vec<u8> {
    let height = rgb.len() / (3 * width).max(1);
    let mut rows = ZlibEncoder::new(Vec::new(), Compression::default());
    for row in rgb.chunks_exact((3 * width).max(1)) {
        // No filter. Into memory nothing fails.
        let _ = rows.write_all(&[0]).and_then(|()| rows.write_all(row));
    }
    let mut file = b"\x89PNG\r\n\x1a\n".to_vec();
    let size = [(width as u32).to_be_bytes(), (height as u32).to_be_bytes()].concat();
    // 8 bits of each of three colours.
    chunk(&mut file, b"IHDR", &[&size[..], &[8, 2, 0, 0, 0]].concat());
    chunk(&mut file, b"IDAT", &rows.finish().unwrap_or_default());
    chunk(&mut file, b"IEND", &[]);
    file
}

fn chunk(file: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    file.extend((data.len() as u32).to_be_bytes());
    let start = file.len();
    file.extend(kind);
    file.extend(data);
    let sum = crc32fast::hash(&file[start..]);
    file.extend(sum.to_be_bytes());
}

/// Bytes as text (RFC 4648).
pub fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let bits = (0..3).fold(0, |bits, i| bits << 8 | usize::from(three.get(i).copied().unwrap_or(0)));
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            text.push(if digit > three.len() { '=' } else { char::from(DIGITS[value]) });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn base64_is_that_of_the_standard() {
        for (bytes, text) in [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }

    #[test]
    fn png_holds_the_pixels() {
        let file = encode(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12], 2);
        assert_eq!(file[16..24], [0, 0, 0, 2, 0, 0, 0, 2]);
        let start = 8 + 25 + 8;
        let mut rows = Vec::new();
        flate2::read::ZlibDecoder::new(&file[start..]).read_to_end(&mut rows).unwrap();
        assert_eq!(rows, [0, 1, 2, 3, 4, 5, 6, 0, 7, 8, 9, 10, 11, 12]);
    }
}
