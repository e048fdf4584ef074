//! What NPY arrays hold beside numbers: texts (`U`, `S`) and times (`M8`), as texts.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Bytes of an element, of the types that [`text`] knows.
pub(super) fn element_bytes(kind: &str) -> Option<usize> {
    let (kind, rest) = letter(kind)?;
    match kind {
        'U' => rest.parse::<usize>().ok()?.checked_mul(4),
        'S' | 'a' => rest.parse().ok(),
        'M' => nanoseconds(rest).map(|_| 8),
        _ => None,
    }
}

/// The letter of a type and what is behind it.
fn letter(kind: &str) -> Option<(char, &str)> {
    let kind = kind.trim_start_matches(['<', '>', '|', '=']);
    Some((kind.chars().next()?, kind.get(1..)?))
}

/// Of `8[ms]`, the nanoseconds of a unit.
fn nanoseconds(rest: &str) -> Option<i128> {
    let (number, unit) = {
        let inside = rest.strip_prefix("8[")?.strip_suffix(']')?;
        inside.split_at(inside.find(|c: char| !c.is_ascii_digit())?)
    };
    let number: i128 = if number.is_empty() { 1 } else { number.parse().ok()? };
    const SECOND: i128 = 1_000_000_000;
    let of_one = match unit {
        "W" => 7 * 86_400 * SECOND,
        "D" => 86_400 * SECOND,
        "h" => 3_600 * SECOND,
        "m" => 60 * SECOND,
        "s" => SECOND,
        "ms" => 1_000_000,
        "us" => 1_000,
        "ns" => 1,
        _ => return None,
    };
    number.checked_mul(of_one)
}

/// An element as text; empty where there is no time, none where it is no text.
pub(super) fn text(kind: &str, element: &[u8]) -> Option<String> {
    let big = kind.starts_with('>');
    let (letter, rest) = letter(kind)?;
    match letter {
        'U' => {
            let letter = |code: &[u8]| {
                let code: [u8; 4] = code.try_into().ok()?;
                char::from_u32(if big { u32::from_be_bytes(code) } else { u32::from_le_bytes(code) })
            };
            let text = element.chunks_exact(4).map(letter).collect::<Option<String>>()?;
            Some(text.trim_end_matches('\0').to_owned())
        }
        'M' => {
            let bytes: [u8; 8] = element.try_into().ok()?;
            let count = if big { i64::from_be_bytes(bytes) } else { i64::from_le_bytes(bytes) };
            if count == i64::MIN {
                return Some(String::new());
            }
            let time = Timestamp::from_nanosecond(i128::from(count).checked_mul(nanoseconds(rest)?)?).ok()?;
            Some(time.to_zoned(TimeZone::UTC).datetime().to_string())
        }
        _ => {
            let end = element.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
            String::from_utf8(element[..end].to_vec()).ok()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_times_of_numpy() {
        assert_eq!(element_bytes("<U3"), Some(12));
        assert_eq!(element_bytes("|S3"), Some(3));
        assert_eq!(element_bytes("<M8[ns]"), Some(8));
        for other in ["<f4", "<M8[M]", "<M8[]", "<U", "O", "", "<m8[s]", "<é8", "<U99999999999999999999"] {
            assert_eq!(element_bytes(other), None, "{other}");
        }
        assert_eq!(text("<U2", b"a\0\0\0\xe9\0\0\0").as_deref(), Some("aé"));
        assert_eq!(text(">U2", b"\0\0\0a\0\0\0\0").as_deref(), Some("a"));
        assert_eq!(text("<U1", b"\0\0\xff\xff"), None);
        assert_eq!(text("|S3", b"ab\0").as_deref(), Some("ab"));
        assert_eq!(text("|S3", b"\xff\xfe\0"), None);
        assert_eq!(text("<M8[D]", &1i64.to_le_bytes()).as_deref(), Some("1970-01-02T00:00:00"));
        assert_eq!(text(">M8[ms]", &1500i64.to_be_bytes()).as_deref(), Some("1970-01-01T00:00:01.5"));
        assert_eq!(text("<M8[15m]", &2i64.to_le_bytes()).as_deref(), Some("1970-01-01T00:30:00"));
        assert_eq!(text("<M8[s]", &i64::MIN.to_le_bytes()).as_deref(), Some(""));
        assert_eq!(text("<M8[s]", &i64::MAX.to_le_bytes()), None);
    }
}
