//! How a tensor's elements lie in an arena.

/// Columns of a weight panel.
pub const PANEL: usize = 32;

/// The order of a tensor's elements in its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Storage {
    /// torch's row-major order.
    Plain,
    /// A weight (O, I) or (O, I, kh, kw) as panels of [`PANEL`] outputs: `[ceil(O / 32)][K][32]` with
    /// K = taps · I and k = tap · I + i. Unused columns of the last panel are zero and stay zero in training,
    /// since their gradients are zero. Products read it without packing.
    Panels,
    /// A tensor (C, H, W) as (H, W, C), the order of activations.
    ChannelsLast,
}

impl Storage {
    /// Elements that a tensor of `shape` takes.
    pub fn len(self, shape: &[usize]) -> usize {
        match self {
            Storage::Plain | Storage::ChannelsLast => shape.iter().product(),
            Storage::Panels => shape[0].next_multiple_of(PANEL) * shape[1..].iter().product::<usize>(),
        }
    }

    /// From torch's order into the slot; `stored` is zero where no element goes.
    pub fn pack<T: Copy>(self, shape: &[usize], tensor: &[T], stored: &mut [T]) {
        match self {
            Storage::Plain => stored.copy_from_slice(tensor),
            Storage::Panels => for_each_panel(shape, |plain, panel| stored[panel] = tensor[plain]),
            Storage::ChannelsLast => for_each_channels_last(shape, |plain, last| stored[last] = tensor[plain]),
        }
    }

    /// From the slot into torch's order.
    pub fn unpack<T: Copy>(self, shape: &[usize], stored: &[T], tensor: &mut [T]) {
        match self {
            Storage::Plain => tensor.copy_from_slice(stored),
            Storage::Panels => for_each_panel(shape, |plain, panel| tensor[plain] = stored[panel]),
            Storage::ChannelsLast => for_each_channels_last(shape, |plain, last| tensor[plain] = stored[last]),
        }
    }
}

/// Calls `visit(index in torch's order, index in panels)` for every element.
fn for_each_panel(shape: &[usize], mut visit: impl FnMut(usize, usize)) {
    let (outputs, inputs) = (shape[0], shape[1]);
    let taps: usize = shape[2..].iter().product();
    let depth = taps * inputs;
    for o in 0..outputs {
        let base = o / PANEL * depth * PANEL + o % PANEL;
        for i in 0..inputs {
            for tap in 0..taps {
                visit((o * inputs + i) * taps + tap, base + (tap * inputs + i) * PANEL);
            }
        }
    }
}

/// Calls `visit(index in (C, H, W), index in (H, W, C))` for every element.
fn for_each_channels_last(shape: &[usize], mut visit: impl FnMut(usize, usize)) {
    let (channels, pixels) = (shape[0], shape[1] * shape[2]);
    for c in 0..channels {
        for pixel in 0..pixels {
            visit(c * pixels + pixel, pixel * channels + c);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panels_round_trip_and_pad_with_zeros() {
        for shape in [vec![1, 1], vec![10, 7], vec![33, 5], vec![40, 3, 3, 2], vec![64, 1, 5, 5]] {
            let n: usize = shape.iter().product();
            let tensor: Vec<f32> = (1..=n).map(|v| v as f32).collect();
            let mut stored = vec![0.0; Storage::Panels.len(&shape)];
            Storage::Panels.pack(&shape, &tensor, &mut stored);
            assert_eq!(stored.iter().filter(|&&v| v != 0.0).count(), n);
            let mut back = vec![0.0; n];
            Storage::Panels.unpack(&shape, &stored, &mut back);
            assert_eq!(back, tensor);
        }
    }

    #[test]
    fn a_conv_weight_lies_as_taps_then_inputs() {
        let shape = [2, 3, 1, 2];
        let tensor: Vec<u32> = (0..12).collect();
        let mut stored = vec![99; Storage::Panels.len(&shape)];
        Storage::Panels.pack(&shape, &tensor, &mut stored);
        // Output 1, input 2, tap 1 is element 11; its row is k = 1 * 3 + 2.
        assert_eq!(stored[5 * PANEL + 1], 11);
    }
}
