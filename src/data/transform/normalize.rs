//! From raw values to network input, per channel: (raw - mean) / std, fitted on the training part.

use crate::config::data::NormalizeMethod;
use crate::config::{DataConfig, Normalize};
use crate::error::Result;
use crate::input::Input;

/// What one channel's training values look like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::data) struct Summary {
    pub mean: f64,
    /// Of the population.
    pub std: f64,
    pub min: f64,
    pub max: f64,
}

impl Summary {
    /// Of values with weights, in two passes (stable where the mean is large against the deviation).
    pub fn of(values: impl Iterator<Item = (f64, f64)> + Clone) -> Self {
        let (mut total, mut sum) = (0.0, 0.0);
        let (mut min, mut max) = (f64::INFINITY, f64::NEG_INFINITY);
        for (value, weight) in values.clone().filter(|&(_, weight)| weight > 0.0) {
            total += weight;
            sum += value * weight;
            min = min.min(value);
            max = max.max(value);
        }
        if total == 0.0 {
            return Self { mean: 0.0, std: 0.0, min: 0.0, max: 0.0 };
        }
        if min == max {
            // Not left to rounding, which would make a deviation of 1e-16 of it.
            return Self { mean: min, std: 0.0, min, max };
        }
        let mean = sum / total;
        let squares: f64 = values.map(|(value, weight)| (value - mean) * (value - mean) * weight).sum();
        Self { mean, std: (squares / total).sqrt(), min, max }
    }

    /// Of every channel of values whose last axis is the channels.
    pub fn of_channels(values: &[f32], channels: usize) -> Vec<Self> {
        let channel = |c: usize| values.iter().skip(c).step_by(channels).map(|&v| (f64::from(v), 1.0));
        (0..channels).map(|c| Self::of(channel(c))).collect()
    }

    /// [`Summary::of_channels`], to the bit, of values that `all` hands over block by block, whole rows in order, each of the
    /// two times it is called.
    ///
    /// # Errors
    /// Those of `all`.
    pub fn of_blocks(channels: usize, all: impl Fn(&mut dyn FnMut(&[f32])) -> Result<()>) -> Result<Vec<Self>> {
        let mut found = vec![Self { mean: 0.0, std: 0.0, min: f64::INFINITY, max: f64::NEG_INFINITY }; channels];
        let mut total = 0.0;
        all(&mut |values| {
            for row in values.chunks_exact(channels) {
                total += 1.0;
                for (of, &value) in found.iter_mut().zip(row) {
                    let value = f64::from(value);
                    // A sum for now.
                    of.mean += value;
                    of.min = of.min.min(value);
                    of.max = of.max.max(value);
                }
            }
        })?;
        if total == 0.0 {
            return Ok(Self::of_channels(&[], channels));
        }
        found.iter_mut().for_each(|of| of.mean /= total);
        all(&mut |values| {
            for row in values.chunks_exact(channels) {
                for (of, &value) in found.iter_mut().zip(row) {
                    of.std += (f64::from(value) - of.mean) * (f64::from(value) - of.mean);
                }
            }
        })?;
        for of in &mut found {
            *of = match of.min == of.max {
                true => Self { mean: of.min, std: 0.0, ..*of },
                false => Self { std: (of.std / total).sqrt(), ..*of },
            };
        }
        Ok(found)
    }

    /// As an attribute of a file: each channel a line.
    pub fn text(of: &[Self]) -> String {
        let lines = of.iter().map(|of| format!("{:?} {:?} {:?} {:?}", of.mean, of.std, of.min, of.max));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// From that text, to the bit; None where it is none, or not of so many channels.
    pub fn from_text(text: &str, channels: usize) -> Option<Vec<Self>> {
        let line = |line: &str| {
            let numbers: Option<Vec<f64>> =
                line.split(' ').map(|number| number.parse().ok().filter(|number: &f64| number.is_finite())).collect();
            match numbers?[..] {
                [mean, std, min, max] if std >= 0.0 && min <= max => Some(Self { mean, std, min, max }),
                _ => None,
            }
        };
        text.lines().map(line).collect::<Option<Vec<_>>>().filter(|of| of.len() == channels)
    }
}

/// Normalised = (raw - mean) / std, for each channel.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::data) struct Scaling {
    pub mean: Vec<f64>,
    pub std: Vec<f64>,
}

impl Scaling {
    /// The scaling that `normalize` asks for, with the training part's summary of each channel (`summaries` is asked only
    /// where needed). A constant channel is only shifted. Errors: those of
    /// `summaries`, `window`, wrong lengths, a std that is not above 0.
    pub fn new(
        config: &DataConfig,
        normalize: &Normalize,
        channels: usize,
        summaries: impl FnOnce() -> Result<Vec<Summary>>,
    ) -> Result<Self> {
        let one_if_constant = |spread: f64| if spread > 0.0 { spread } else { 1.0 };
        match normalize {
            Normalize::Named(NormalizeMethod::None) => Ok(Self { mean: vec![0.0; channels], std: vec![1.0; channels] }),
            Normalize::Named(NormalizeMethod::Standard) => {
                let of = summaries()?;
                Ok(Self {
                    mean: of.iter().map(|s| s.mean).collect(),
                    std: of.iter().map(|s| one_if_constant(s.std)).collect(),
                })
            }
            Normalize::Named(NormalizeMethod::Minmax) => {
                let of = summaries()?;
                Ok(Self {
                    mean: of.iter().map(|s| s.min).collect(),
                    std: of.iter().map(|s| one_if_constant(s.max - s.min)).collect(),
                })
            }
            Normalize::Named(NormalizeMethod::Window) => {
                let what = format!("\"window\" is for series of prices, which \"{}\" is not", config.source.kind);
                Err(config.source.error("normalize", what, "use none, standard, minmax or { mean, std }"))
            }
            Normalize::Given { mean, std } => {
                Ok(Self { mean: given(config, "mean", mean, channels)?, std: given(config, "std", std, channels)? })
            }
        }
    }

    /// That of a trained network's input.
    pub fn of(input: &Input) -> Self {
        Self { mean: input.mean.clone(), std: input.std.clone() }
    }

    /// Whether it changes nothing.
    pub fn is_identity(&self) -> bool {
        self.mean.iter().all(|&mean| mean == 0.0) && self.std.iter().all(|&std| std == 1.0)
    }

    /// One value of a channel.
    pub fn apply(&self, channel: usize, raw: f64) -> f32 {
        ((raw - self.mean[channel]) / self.std[channel]) as f32
    }
}

/// A given list of means or deviations: one for all channels, or one for each.
fn given(config: &DataConfig, name: &str, values: &[f32], channels: usize) -> Result<Vec<f64>> {
    let error = |what: String, mend: String| Err(config.source.error("normalize", what, mend));
    if values.len() != 1 && values.len() != channels {
        let what = format!("{name} has {} values for {channels} channels", values.len());
        return error(what, format!("give 1 or {channels}"));
    }
    if values.iter().any(|v| !v.is_finite() || (name == "std" && *v <= 0.0)) {
        return error(format!("{name} holds a value that cannot be used"), "std must be above 0, both finite".into());
    }
    let values: Vec<f64> = values.iter().map(|&v| f64::from(v)).collect();
    Ok(if values.len() == channels { values } else { vec![values[0]; channels] })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Component;

    fn config() -> Result<DataConfig> {
        DataConfig::from_component(Component::new("npz", "")?)
    }

    #[test]
    fn methods_fit_each_channel() -> Result<()> {
        let values = [1.0, 5.0, 3.0, 5.0];
        let fit =
            |method| Scaling::new(&config()?, &Normalize::Named(method), 2, || Ok(Summary::of_channels(&values, 2)));
        let standard = fit(NormalizeMethod::Standard)?;
        assert_eq!(standard, Scaling { mean: vec![2.0, 5.0], std: vec![1.0, 1.0] });
        assert_eq!(standard.apply(0, 3.0), 1.0);
        let minmax = fit(NormalizeMethod::Minmax)?;
        assert_eq!(minmax, Scaling { mean: vec![1.0, 5.0], std: vec![2.0, 1.0] });
        assert!(fit(NormalizeMethod::None)?.is_identity());
        assert_eq!(fit(NormalizeMethod::Window).map_err(|e| e.exit_code()), Err(2));
        Ok(())
    }

    #[test]
    fn blocks_give_the_bits_of_the_whole() -> Result<()> {
        let values: Vec<f32> =
            (0..3 * 1001).map(|i| if i % 3 == 1 { 0.1 } else { (i as f32 * 0.37).sin() + 9.0 }).collect();
        let whole = Summary::of_channels(&values, 3);
        for rows in [1, 7, 500, 2000] {
            let blocks = |each: &mut dyn FnMut(&[f32])| {
                values.chunks(3 * rows).for_each(each);
                Ok(())
            };
            assert_eq!(Summary::of_blocks(3, blocks)?, whole);
        }
        assert_eq!(Summary::of_blocks(2, |_| Ok(()))?, Summary::of_channels(&[], 2));
        assert_eq!(Summary::from_text(&Summary::text(&whole), 3), Some(whole.clone()));
        assert_eq!(Summary::from_text(&Summary::text(&whole), 2), None);
        for bad in ["", "1 2 3", "1 -2 3 4", "1 2 4 3", "nan 2 3 4", "1 2 3 inf", "a b c d"] {
            assert_eq!(Summary::from_text(bad, 1), None, "{bad}");
        }
        Ok(())
    }

    #[test]
    fn given_lists_are_checked() -> Result<()> {
        let given = |mean: &[f32], std: &[f32]| {
            Scaling::new(&config()?, &Normalize::Given { mean: mean.into(), std: std.into() }, 3, || Ok(Vec::new()))
        };
        assert_eq!(given(&[0.5], &[2.0])?, Scaling { mean: vec![0.5; 3], std: vec![2.0; 3] });
        for (mean, std) in [(&[0.5, 1.0][..], &[1.0][..]), (&[0.0], &[]), (&[0.0], &[0.0]), (&[f32::NAN], &[1.0])] {
            assert_eq!(given(mean, std).map_err(|e| e.exit_code()), Err(2));
        }
        Ok(())
    }
}
