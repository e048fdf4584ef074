//! The type of a column of texts: numbers, dates or categories.

use jiff::civil::Date;

/// What all texts of a column are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// There is none but empty ones.
    Empty,
    /// Numbers.
    Number,
    /// Dates such as 2013-02-08, which become days since 1970.
    Date,
    /// Anything else.
    Category,
}

impl Kind {
    /// Of one text.
    pub fn of(text: &str) -> Self {
        if text.is_empty() {
            Kind::Empty
        } else if number(text).is_some() {
            Kind::Number
        } else if days(text).is_some() {
            Kind::Date
        } else {
            Kind::Category
        }
    }

    /// Of a column that holds both.
    pub fn join(self, other: Self) -> Self {
        match (self, other) {
            (Kind::Empty, kind) | (kind, Kind::Empty) => kind,
            (a, b) if a == b => a,
            _ => Kind::Category,
        }
    }

    /// What a text of a column of this kind counts as; NaN where it is empty, or none of it.
    pub fn value(self, text: &str) -> f64 {
        let value = if self == Kind::Date { days(text) } else { number(text) };
        value.unwrap_or(f64::NAN)
    }

    /// The word for it in a report.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Empty => "empty",
            Kind::Number => "numbers",
            Kind::Date => "dates",
            Kind::Category => "texts",
        }
    }
}

/// A finite number that f32 can hold.
fn number(text: &str) -> Option<f64> {
    text.parse::<f64>().ok().filter(|value| value.abs() <= f64::from(f32::MAX))
}

/// Days since 1970.
fn days(text: &str) -> Option<f64> {
    let date: Date = text.get(..10).filter(|_| text.len() == 10)?.parse().ok()?;
    let since = date.since(Date::constant(1970, 1, 1)).ok()?;
    Some(f64::from(since.get_days()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_told_by_all_texts() {
        let of = |texts: &[&str]| texts.iter().fold(Kind::Empty, |kind, text| kind.join(Kind::of(text)));
        for (texts, kind) in [
            (&["1", "", "-2.5e1"][..], Kind::Number),
            (&["1970-01-02", "", "2000-03-01"], Kind::Date),
            (&["", ""], Kind::Empty),
            (&["1", "x"], Kind::Category),
            (&["1", "1970-01-02"], Kind::Category),
            (&["nan"], Kind::Category),
            (&["1e300"], Kind::Category),
            (&["1970-13-02"], Kind::Category),
            (&["é970-01-02"], Kind::Category),
        ] {
            assert_eq!(of(texts), kind, "{texts:?}");
        }
        assert_eq!((Kind::Number.value("-2.5e1"), Kind::Date.value("2000-03-01")), (-25.0, 11017.0));
        assert!(Kind::Number.value("").is_nan() && Kind::Date.value("").is_nan());
    }
}
