//! Thrift's compact protocol, in which Parquet writes its headers: enough of it to walk through what is not known.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::os::unix::fs::FileExt;

/// Structs in structs.
const MOST_DEPTH: u8 = 64;
/// Headers are short.
const BUFFER: usize = 1024;

/// Whether a list or map of truth values is in the struct at byte `start`. The crate `parquet` passes over such a one, where it
/// does not know the field, as over elements that take no bytes, as many as the file says: six bytes keep it counting to 2^31.
/// No header of Parquet has any. What else is wrong the crate finds itself.
pub fn counts_nothing(file: &File, start: u64) -> bool {
    let walk = Walk(BufReader::with_capacity(BUFFER, At { file, at: start })).value(STRUCT, MOST_DEPTH);
    matches!(walk, Err(Stop::CountsNothing))
}

const STRUCT: u8 = 12;

/// Why a walk ends before its end.
enum Stop {
    CountsNothing,
    Broken,
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Self {
        Stop::Broken
    }
}

/// A place in a file, whose own place stays.
struct At<'a> {
    file: &'a File,
    at: u64,
}

impl Read for At<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(to, self.at)?;
        self.at += count as u64;
        Ok(count)
    }
}

struct Walk<R>(R);

impl<R: Read> Walk<R> {
    fn byte(&mut self) -> Result<u8, Stop> {
        let mut byte = [0];
        self.0.read_exact(&mut byte)?;
        Ok(byte[0])
    }

    fn varint(&mut self) -> Result<u64, Stop> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Stop::Broken)
    }

    fn skip(&mut self, count: u64) -> Result<(), Stop> {
        let skipped = io::copy(&mut self.0.by_ref().take(count), &mut io::sink())?;
        if skipped == count { Ok(()) } else { Err(Stop::Broken) }
    }

    /// Walks over a value of a type.
    fn value(&mut self, kind: u8, depth: u8) -> Result<(), Stop> {
        let Some(depth) = depth.checked_sub(1) else { return Err(Stop::Broken) };
        let is_truth = |kind| kind == 1 || kind == 2;
        match kind {
            // A truth value of a struct is the type itself.
            1 | 2 => {}
            3 => self.skip(1)?,
            4..=6 => drop(self.varint()?),
            7 => self.skip(8)?,
            8 => {
                let count = self.varint()?;
                self.skip(count)?;
            }
            9 | 10 => {
                let head = self.byte()?;
                let count = if head >> 4 == 15 { self.varint()? } else { u64::from(head >> 4) };
                if count > 0 && is_truth(head & 15) {
                    return Err(Stop::CountsNothing);
                }
                for _ in 0..count {
                    self.value(head & 15, depth)?;
                }
            }
            11 => {
                let count = self.varint()?;
                let kinds = if count > 0 { self.byte()? } else { 0 };
                if is_truth(kinds >> 4) && is_truth(kinds & 15) {
                    return Err(Stop::CountsNothing);
                }
                for _ in 0..count {
                    self.value(kinds >> 4, depth)?;
                    self.value(kinds & 15, depth)?;
                }
            }
            STRUCT => loop {
                let head = self.byte()?;
                match (head >> 4, head & 15) {
                    (_, 0) => break,
                    // The field's number, which mostly is told by the distance to the last one.
                    (0, _) => drop(self.varint()?),
                    _ => {}
                }
                self.value(head & 15, depth)?;
            },
            13 => self.skip(16)?,
            _ => return Err(Stop::Broken),
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_truth_values_are_found_wherever_they_are() {
        let found = |bytes: &[u8]| {
            let file = tempfile::tempfile().unwrap();
            file.write_all_at(&[b"ab", bytes].concat(), 2).unwrap();
            counts_nothing(&file, 4)
        };
        let long = [0x19, 0xf1, 0xff, 0xff, 0xff, 0xff, 0x07];
        // Of a field, behind all other kinds, in a list of structs and in a map.
        assert!(found(&long) && found(&[0x19, 0x12]));
        let others = [&[0x11, 0x13, 9, 0x15, 0x80, 1, 0x18, 2, 7, 7, 0x05, 8, 3, 0x29, 0x25, 1, 1, 0x1b, 0], &long[..]];
        assert!(found(&others.concat()));
        assert!(found(&[&[0x19, 0x1c], &long[..]].concat()) && found(&[&[0x1b, 1, 0x1c], &long[..]].concat()));
        assert!(found(&[0x1b, 9, 0x12]));
        // Without any, cut off, of no type, or nested without end.
        for other in
            [&[0][..], &[0x11, 0x12, 0], &[0x19, 0x01, 0], &long[..1], &[0x1e], &[], &[0x1c; 500], &[0x18, 9, 1]]
        {
            assert!(!found(other), "{other:?}");
        }
    }
}
