//! Means and medians.

/// The arithmetic mean; None of nothing.
pub(super) fn mean(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.into_iter().fold((0.0, 0.0), |(sum, count), v| (sum + v, count + 1.0));
    (count > 0.0).then(|| sum / count)
}

/// What repeats gave; of nothing zeros.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Spread {
    /// The upper one of two.
    pub median: f64,
    /// The least.
    pub minimum: f64,
    /// The most.
    pub maximum: f64,
}

impl Spread {
    /// Of these.
    pub fn of(mut values: Vec<f64>) -> Self {
        values.sort_by(f64::total_cmp);
        match values[..] {
            [minimum, .., maximum] => Self { median: values[values.len() / 2], minimum, maximum },
            [value] => Self { median: value, minimum: value, maximum: value },
            [] => Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_few_and_of_many() {
        assert_eq!((mean([]), mean([1.0, 2.0, 6.0])), (None, Some(3.0)));
        assert_eq!(Spread::of(vec![]), Spread::default());
        assert_eq!(Spread::of(vec![2.0]), Spread { median: 2.0, minimum: 2.0, maximum: 2.0 });
        assert_eq!(Spread::of(vec![3.0, 1.0, 9.0, 2.0]), Spread { median: 3.0, minimum: 1.0, maximum: 9.0 });
    }
}
