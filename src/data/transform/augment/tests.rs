use super::*;
use crate::config::Component;
use crate::data::transform::normalize::Scaling;
use crate::rng::Purpose;
use proptest::prelude::*;

/// One step as in a job.
fn step(text: &str) -> Augmentation {
    let mut data = Component::new("synthetic", &format!("augment = [{{ type = {text} }}]")).unwrap();
    data.take::<Vec<Augmentation>>("augment").unwrap().unwrap().remove(0)
}

fn canvas(h: usize, w: usize, c: usize) -> Canvas {
    Canvas::new((h, w, c), &Scaling { mean: vec![0.0; c], std: vec![1.0; c] }, true)
}

fn changed(canvas: &Canvas, steps: &[Augmentation], key: u64, image: &[f32]) -> Vec<f32> {
    let (mut y, mut room) = (vec![f32::NAN; image.len()], vec![f32::NAN; image.len()]);
    let stream = Stream::new(1, Purpose::Augment, 0, key);
    Change { steps, stream, room: &mut room }.apply(canvas, image, &mut y, |from, to| to.copy_from_slice(from));
    y
}

/// Values in 0 to 1 without two alike.
fn image(len: usize) -> Vec<f32> {
    (0..len).map(|i| (1 + i * 7 % len) as f32 / (len + 1) as f32).collect()
}

fn close(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5)
}

#[test]
fn flips_mirror() {
    let image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
    let canvas = canvas(2, 3, 1);
    assert_eq!(changed(&canvas, &[step("'horizontal_flip', p = 1")], 0, &image), [3.0, 2.0, 1.0, 6.0, 5.0, 4.0]);
    assert_eq!(changed(&canvas, &[step("'vertical_flip', p = 1")], 0, &image), [4.0, 5.0, 6.0, 1.0, 2.0, 3.0]);
}

#[test]
fn a_reflected_crop_is_a_window_of_the_mirrored_image() {
    let image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0];
    let wide = [[3, 2, 1, 2, 3, 2, 1], [6, 5, 4, 5, 6, 5, 4], [9, 8, 7, 8, 9, 8, 7]];
    let tall = [2, 1, 0, 1, 2, 1, 0].map(|row| wide[row]);
    let mut windows = Vec::new();
    for (top, left) in (0..5).flat_map(|top| (0..5).map(move |left| (top, left))) {
        let window = (0..9).map(|i| tall[top + i / 3][left + i % 3] as f32);
        windows.push(window.collect::<Vec<_>>());
    }
    // Two rows down shows what two up does.
    windows.sort_by(|a, b| a.partial_cmp(b).unwrap());
    windows.dedup();
    assert_eq!(windows.len(), 16);
    let mut seen = vec![0; windows.len()];
    for key in 0..1000 {
        let shown =
            changed(&canvas(3, 3, 1), &[step("'random_crop', padding = 2, padding_mode = 'reflect'")], key, &image);
        seen[windows.iter().position(|window| *window == shown).expect("a window")] += 1;
    }
    assert!(seen.iter().all(|&count| count > 5), "{seen:?}");
}

#[test]
fn a_quarter_turn_is_counter_clockwise() {
    let image = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0].map(|v| v / 10.0);
    let turned = [3.0, 6.0, 9.0, 2.0, 5.0, 8.0, 1.0, 4.0, 7.0].map(|v| v / 10.0);
    let back = [7.0, 4.0, 1.0, 8.0, 5.0, 2.0, 9.0, 6.0, 3.0].map(|v| v / 10.0);
    let canvas = canvas(3, 3, 1);
    assert!(close(&changed(&canvas, &[step("'random_rotation', degrees = [90, 90]")], 0, &image), &turned));
    // As in torchvision, which turns the other way here.
    assert!(close(&changed(&canvas, &[step("'random_affine', degrees = [90, 90]")], 0, &image), &back));
    assert_eq!(changed(&canvas, &[step("'random_rotation', degrees = 0")], 0, &image), image);
}

#[test]
fn an_affine_step_moves_by_whole_pixels_scales_and_shears() {
    let (h, w) = (5usize, 7usize);
    let canvas = canvas(h, w, 1);
    let ramp: Vec<f32> = (0..h * w).map(|i| 0.1 + 0.02 * (i / w) as f32 + 0.1 * (i % w) as f32).collect();
    let value = |y: f32, x: f32| 0.1 + 0.02 * y + 0.1 * x;
    let mut seen = std::collections::HashSet::new();
    for key in 0..300 {
        let moved = changed(&canvas, &[step("'random_affine', degrees = 0, translate = [0.3, 0.2]")], key, &ramp);
        let shift = (-1..=1).flat_map(|down| (-2..=2).map(move |right| (down, right))).find(|(down, right)| {
            (0..(h * w) as i32).all(|i| {
                let (y, x) = (i / 7 - down, i % 7 - right);
                let inside = (0..5).contains(&y) && (0..7).contains(&x);
                (moved[i as usize] - if inside { value(y as f32, x as f32) } else { 0.0 }).abs() < 1e-5
            })
        });
        seen.insert(shift.expect("a shift by whole pixels"));
    }
    assert_eq!(seen.len(), 15, "{seen:?}");
    let larger = changed(&canvas, &[step("'random_affine', degrees = 0, scale = [2, 2]")], 0, &ramp);
    let expected: Vec<f32> =
        (0..h * w).map(|i| value(2.0 + ((i / w) as f32 - 2.0) / 2.0, 3.0 + ((i % w) as f32 - 3.0) / 2.0)).collect();
    assert!(close(&larger, &expected), "{larger:?}");
    let sheared = changed(&canvas, &[step("'random_affine', degrees = 0, shear = [45, 45]")], 0, &ramp);
    for (i, shown) in sheared.iter().enumerate() {
        let (y, x) = ((i / w) as f32, (i % w) as f32 + (i / w) as f32 - 2.0);
        let expected = if (0.0..=6.0).contains(&x.round()) { value(y, x) } else { 0.0 };
        assert!((shown - expected).abs() < 1e-4, "{i}: {shown}, {expected}");
    }
}

#[test]
fn erasing_paints_one_rectangle_of_the_share_asked_for() {
    let (h, w, c) = (12, 9, 3);
    let mut canvas = canvas(h, w, c);
    canvas.bounded = false;
    let mut areas = Vec::new();
    for key in 0..500 {
        let image = image(h * w * c);
        let steps = [step("'random_erasing', p = 1, scale = [0.1, 0.3], ratio = [0.5, 2], value = 2")];
        let painted = changed(&canvas, &steps, key, &image);
        let erased: Vec<usize> = (0..h * w).filter(|&i| painted[i * c] == 2.0).collect();
        for i in 0..h * w * c {
            assert_eq!(painted[i], if erased.contains(&(i / c)) { 2.0 } else { image[i] });
        }
        let range = |of: &dyn Fn(usize) -> usize| {
            let values = || erased.iter().map(|&i| of(i));
            values().max().unwrap() - values().min().unwrap() + 1
        };
        assert_eq!(erased.len(), range(&|i| i / w) * range(&|i| i % w), "a rectangle");
        areas.push(erased.len() as f64 / (h * w) as f64);
    }
    let mean = areas.iter().sum::<f64>() / areas.len() as f64;
    assert!((0.17..0.23).contains(&mean), "{mean}");
    assert!(areas.iter().all(|area| (0.05..0.4).contains(area)), "{areas:?}");
    let image = image(h * w * c);
    let none = (0..1000).filter(|&key| changed(&canvas, &[step("'random_erasing'")], key, &image) == image).count();
    assert!((430..570).contains(&none), "half are left as they are: {none}");
}

#[test]
fn colours_move_away_from_black_mean_and_grey() {
    // Normalised, so that what is computed must be in raw values.
    let canvas = Canvas::new((1, 2, 3), &Scaling { mean: vec![0.5, 0.4, 0.3], std: vec![0.2, 0.25, 0.5] }, true);
    let raw = [0.2f32, 0.4, 0.6, 0.1, 0.3, 0.9];
    let paint = |raw: [f32; 6]| std::array::from_fn::<f32, 6, _>(|i| canvas.paint(i % 3, raw[i]));
    let grey = |i: usize| 0.2989 * raw[i] + 0.587 * raw[i + 1] + 0.114 * raw[i + 2];
    let mean = 0.5 * (grey(0) + grey(3));
    for (keys, expected) in [
        ("brightness = [0.5, 0.5]", raw.map(|v| 0.5 * v)),
        ("brightness = [2, 2]", raw.map(|v| (2.0 * v).min(1.0))),
        ("contrast = [0, 0]", [mean; 6]),
        ("contrast = [3, 3]", raw.map(|v| (3.0 * v - 2.0 * mean).clamp(0.0, 1.0))),
        ("saturation = [0, 0]", [grey(0), grey(0), grey(0), grey(3), grey(3), grey(3)]),
        ("saturation = [1, 1]", raw),
    ] {
        let found = changed(&canvas, &[step(&format!("'color_jitter', {keys}"))], 3, &paint(raw));
        assert!(close(&found, &paint(expected)), "{keys}: {found:?}, {:?}", paint(expected));
    }
    let jitter = step("'color_jitter', brightness = 0.5");
    let factors: Vec<f32> = (0..500)
        .map(|key| {
            (changed(&canvas, std::slice::from_ref(&jitter), key, &paint(raw))[0] - canvas.black[0]) / raw[0] * 0.2
        })
        .collect();
    let (least, most) = factors.iter().fold((9f32, 0f32), |(a, b), &f| (a.min(f), b.max(f)));
    assert!(least > 0.499 && least < 0.53 && most < 1.501 && most > 1.47, "{least} {most}");
}

/// All kinds of steps, by number.
fn kind(which: u32, padding: usize) -> Augmentation {
    match which {
        0 => step(&format!("'random_crop', padding = {padding}")),
        1 => step(&format!("'random_crop', padding = {padding}, padding_mode = 'reflect'")),
        2 => step("'horizontal_flip'"),
        3 => step("'vertical_flip'"),
        4 => step("'random_erasing', p = 0.8, scale = [0, 1], ratio = [0.01, 100]"),
        5 => step("'random_rotation', degrees = 360"),
        6 => step("'random_affine', degrees = 20, translate = [1, 1], scale = [0.001, 1000], shear = 89"),
        _ => step("'color_jitter', brightness = 1, contrast = 1, saturation = [0, 10]"),
    }
}

proptest! {
    /// No step reads or writes beyond an image, whatever its size, and none makes a number that is none or out of range.
    #[test]
    fn no_chain_leaves_the_image(
        h in 1usize..12, w in 1usize..12, rgb in any::<bool>(), key in any::<u64>(),
        kinds in proptest::collection::vec((0u32..8, 0usize..12), 0..6),
    ) {
        let c = if rgb { 3 } else { 1 };
        let canvas = canvas(h, w, c);
        let steps: Vec<_> = kinds.into_iter().map(|(which, padding)| kind(which, padding % h.min(w))).collect();
        let allowed = |step: &Augmentation| {
            fault(step, h, w, c).is_none() || (!rgb && matches!(step, Augmentation::ColorJitter { .. }))
        };
        prop_assert!(steps.iter().all(allowed));
        let image = image(h * w * c);
        let out = changed(&canvas, &steps, key, &image);
        prop_assert!(out.iter().all(|v| (-1e-5..=1.00001).contains(v)), "{:?}: {:?}", steps, out);
        prop_assert_eq!(out, changed(&canvas, &steps, key, &image));
    }
}

#[test]
fn wrong_keys_are_told() {
    for (text, words) in [
        ("'random_crop', padding = 4, padding_mode = 'reflect'", "could crop"),
        ("'vertical_flip', p = -0.1", "no probability"),
        ("'random_erasing', p = 2", "no probability"),
        ("'random_erasing', scale = [0.5, 0.1]", "scale = [0.5, 0.1]"),
        ("'random_erasing', ratio = [0, 1]", "ratio = [0, 1]"),
        ("'random_erasing', value = nan", "value"),
        ("'random_rotation', degrees = -3", "degrees = -3"),
        ("'random_rotation', degrees = [3, nan]", "degrees = [3, NaN]"),
        ("'random_affine', degrees = 0, translate = [0.1, 1.1]", "translate of 1.1"),
        ("'random_affine', degrees = 0, scale = [0, 1]", "scale = [0, 1]"),
        ("'random_affine', degrees = 0, shear = 90", "shear = 90"),
        ("'color_jitter', brightness = -1", "brightness"),
        ("'color_jitter', contrast = [1, 0.5]", "contrast"),
        ("'color_jitter', saturation = 0.5", "three channels"),
    ] {
        let (what, mend) = fault(&step(text), 4, 5, 1).unwrap_or_else(|| panic!("{text} passes"));
        assert!(what.contains(words) && !mend.is_empty(), "{text}: {what}");
    }
}

/// What the documentation lists is what there is, with the defaults it tells.
#[test]
fn every_kind_is_documented() {
    for (name, _, keys) in Augmentation::KINDS {
        let required = ["padding", "degrees", "alpha"].iter().find(|key| keys.starts_with(**key));
        let required = required.map(|key| format!(", {key} = 1")).unwrap_or_default();
        let plain = keys.replace("padding, ", "").replace("degrees, ", "").replace("alpha", "");
        let defaults = plain.split(" (").next().unwrap();
        let told = if defaults.contains('=') { format!(", {defaults}") } else { String::new() };
        assert_eq!(step(&format!("'{name}'{required}{told}")), step(&format!("'{name}'{required}")));
    }
}
