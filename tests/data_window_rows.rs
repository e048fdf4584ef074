//! What rows of windows are: in which order, with holes, with texts, as arrays of several columns.

#[path = "support/data_files.rs"]
mod data_files;

use data_files::{config, failure, fill};
use ddl::data::{Dataset, Part, open_inputs};
use ddl::error::Result;
use std::path::PathBuf;
use tempfile::TempDir;

fn write(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

#[test]
fn an_array_of_several_columns_is_a_series_of_each() -> Result<()> {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("traffic.h5");
    let file = ::hdf5::File::create(&path).unwrap();
    let values = ndarray::Array3::from_shape_fn((9, 2, 2), |(t, n, c)| (100 * t + 10 * n + c) as f32);
    file.new_dataset_builder().with_data(&values).create("data").unwrap();
    file.new_dataset_builder().with_data(&[1u8; 9]).create("day").unwrap();
    file.close().unwrap();
    let keys = "window = 2\ntest_fraction = 0.0\nnormalize = 'none'\n";
    let open = |more: &str| Dataset::open(&config("hdf5", &path, &format!("{keys}{more}")), 1);
    let first = |data: &Dataset| {
        let (x, targets) = fill(data, Part::Train, &[0]);
        (data.description().features, x, targets.values)
    };
    let all = open("targets = ['data']\nfeatures = ['data']")?;
    let (names, x, y) = first(&all);
    assert_eq!(names, ["data[0,0]", "data[0,1]", "data[1,0]", "data[1,1]"]);
    assert_eq!((x, y), (vec![0., 1., 10., 11., 100., 101., 110., 111.], vec![200., 201., 210., 211.]));
    let some = open("targets = ['data[1,0]']\nfeatures = ['data[1,0]', 'day']")?;
    assert_eq!(first(&some), (vec!["data[1,0]".into(), "day".into()], vec![10., 1., 110., 1.], vec![210.]));
    // Without a choice all that goes on as long.
    assert_eq!(first(&open("targets = ['day']")?).0.len(), 5);
    let keys = format!("{keys}targets = ['data[1,0]']\nfeatures = ['data[1,0]', 'day']");
    let again = open_inputs(&some.description(), &config("hdf5", &path, &keys), &path)?;
    assert_eq!(again.len(Part::Test), 8);
    assert_eq!(fill(&again, Part::Test, &[7]).0, [710., 1., 810., 1.]);
    let refused = |keys: &str, code: i32, says: &str| {
        let (found, text) = failure(&config("hdf5", &path, keys));
        assert!(found == code && text.contains(says), "{keys}: {found} {text}");
    };
    refused("window = 2", 2, "no array to predict is named");
    refused("targets = ['data']", 2, "targets: is of windows, and there is no window; set data.window");
    refused("window = 2\ntargets = ['date']", 65, "no array \"date\"; name columns of these");
    refused("window = 2\ntargets = ['data[2,0]']", 65, "no column \"data[2,0]\"");
    refused("window = 2\ntargets = ['day']\nclasses = 3", 2, "windows predict values, not classes");
    Ok(())
}

#[test]
fn a_text_named_as_a_feature_is_one_number_for_each() -> Result<()> {
    let folder = TempDir::new().unwrap();
    let sky = ["fair", "rain", "fair", "snow", "rain", "fair", "fair", "hail", "rain", "snow"];
    let line = |(i, sky): (usize, &&str)| format!("{i},{sky}\n");
    let path = write(&folder, "x.csv", "y,sky\n".to_owned() + &sky.iter().enumerate().map(line).collect::<String>());
    for normalize in ["standard", "window", "none"] {
        let keys = format!(
            "target = 'y'\nfeatures = ['sky', 'y']\nwindow = 2\ntest_fraction = 0.4\nnormalize = '{normalize}'"
        );
        let data = Dataset::open(&config("csv", &path, &keys), 1)?;
        let trained = data.description();
        // Those of the training part, which has no hail.
        assert_eq!(trained.features, ["sky=fair", "sky=rain", "sky=snow", "y"]);
        let texts = |x: &[f32]| -> Vec<f32> { x.chunks(4).flat_map(|row| row[..3].to_vec()).collect() };
        assert_eq!(texts(&fill(&data, Part::Train, &[1]).0), [0., 1., 0., 1., 0., 0.], "{normalize}");
        let again = open_inputs(&trained, &config("csv", &path, &keys), &path)?;
        assert_eq!(texts(&fill(&again, Part::Test, &[6]).0), [1., 0., 0., 0., 0., 0.], "hail is none of them");
        let last = (data.len(Part::Test) as u32 - 1, again.len(Part::Test) as u32 - 2);
        assert_eq!(fill(&data, Part::Test, &[last.0]).0, fill(&again, Part::Test, &[last.1]).0);
    }
    Ok(())
}

#[test]
fn rows_are_in_the_order_of_a_number_or_of_the_file() -> Result<()> {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "x.csv", "t,x\n10,1\n2,2\n-1,3\n2,4\n1e3,5\n30,6\n");
    let open = |keys: &str| {
        let keys =
            format!("target = 'x'\nfeatures = ['x']\nwindow = 2\ntest_fraction = 0.0\nnormalize = 'none'\n{keys}");
        Dataset::open(&config("csv", &path, &keys), 1)
    };
    let inputs = |data: &Dataset| fill(data, Part::Train, &(0..data.len(Part::Train) as u32).collect::<Vec<_>>());
    let file = open("")?;
    let (x, targets) = inputs(&file);
    assert_eq!((x, targets.values), (vec![1., 2., 2., 3., 3., 4., 4., 5.], vec![3., 4., 5., 6.]));
    assert_eq!(file.describe(Part::Train, 0).as_deref(), Some("2"));
    let sorted = open("time = 't'")?;
    let (x, targets) = inputs(&sorted);
    assert_eq!((x, targets.values), (vec![3., 2., 2., 1., 1., 6.], vec![1., 6., 5.]));
    assert!(sorted.notes()[1].starts_with("1 row of a t that was there already dropped"), "{:?}", sorted.notes());
    assert_eq!(sorted.notes()[0], "5 rows of 1 series, -1 to 1000");
    // A number is told as it is.
    assert_eq!(sorted.describe(Part::Train, 0).as_deref(), Some("10"));
    Ok(())
}

#[test]
fn holes_drop_rows_or_are_filled_alike_in_training_and_prediction() -> Result<()> {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "x.csv", "a,y\n1,10\n,20\n3,30\n4,\n5,50\n6,60\n");
    let of = |missing: &str| {
        let keys = "target = 'y'\nfeatures = ['a']\nwindow = 2\ntest_fraction = 0.0\nnormalize = 'none'\n";
        config("csv", &path, &format!("{keys}{missing}"))
    };
    let all = |data: &Dataset, part| {
        let (x, targets) = fill(data, part, &(0..data.len(part) as u32).collect::<Vec<_>>());
        (x, targets.values)
    };
    let dropped = Dataset::open(&of(""), 1)?;
    assert_eq!(all(&dropped, Part::Train), (vec![1., 3., 3., 5.], vec![50., 60.]));
    assert!(dropped.notes()[1].starts_with("2 rows without a or y dropped, of 1 series"), "{:?}", dropped.notes());
    // To predict from a row its target need not be known.
    let (x, y) = all(&open_inputs(&dropped.description(), &of(""), &path)?, Part::Test);
    assert_eq!(x, [1., 3., 3., 4., 4., 5., 5., 6.]);
    assert!(y[0].is_nan() && y[1..3] == [50., 60.] && y[3].is_nan(), "{y:?}");
    let filled = Dataset::open(&of("missing = -1"), 1)?;
    assert_eq!(all(&filled, Part::Train), (vec![1., -1., -1., 3., 3., 4., 4., 5.], vec![30., -1., 50., 60.]));
    let (x, y) = all(&open_inputs(&filled.description(), &of("missing = -1"), &path)?, Part::Test);
    assert_eq!(x, [1., -1., -1., 3., 3., 4., 4., 5., 5., 6.]);
    assert!(y[0] == 30. && y[1].is_nan(), "a target that is not known is not made up: {y:?}");
    Ok(())
}

#[test]
fn rows_of_several_series_are_not_taken_for_one() {
    let folder = TempDir::new().unwrap();
    let many = (0..30).map(|i| format!("{},{},{i}\n", ["a", "b", "c"][i % 3], i / 3)).collect::<String>();
    let path = write(&folder, "many.csv", "of,t,y\n".to_owned() + &many);
    let open =
        |keys: &str| failure(&config("csv", &path, &format!("target = 'y'\nfeatures = ['y']\nwindow = 2\n{keys}")));
    let (code, text) = open("time = 't'");
    let says = "20 of 30 rows have a t that another row has; set data.group";
    assert!(code == 2 && text.contains(says), "{code} {text}");
}
