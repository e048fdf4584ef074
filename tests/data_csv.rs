//! The csv source: targets, classes, holes, splits, headers.

#[path = "support/data_files.rs"]
mod data_files;

use data_files::{config, csv, failure, fill};
use ddl::data::{Dataset, Part, Targets, Task, Unit, open_inputs};
use ddl::error::Result;
use ddl::shape::Shape;

#[test]
fn csv_values_are_standardised_on_the_training_rows() -> Result<()> {
    let (_folder, path) = csv("a;y;b\n1;10;5\n3;30;5\n1;;5\n1;10;5\n3;30;5\n100;50;6\n");
    let job = config("csv", &path, "target = 'Y'\ndelimiter = ';'");
    let data = Dataset::open(&job, 1)?;
    assert_eq!((data.input(), data.task()), (Shape::Vector { n: 2 }, &Task::Values(1)));
    assert_eq!((data.len(Part::Train), data.len(Part::Test)), (4, 1));
    assert_eq!(data.notes(), ["4 training and 1 test rows of 2 features", "1 rows with missing values dropped"]);
    let (x, targets) = fill(&data, Part::Train, &[1, 0]);
    assert_eq!((x, targets.values), (vec![1.0, 0.0, -1.0, 0.0], vec![1.0, -1.0]));
    let (x, targets) = fill(&data, Part::Test, &[0]);
    assert_eq!((x, targets.values), (vec![98.0, 1.0], vec![3.0]));
    assert_eq!(data.unit(Part::Test, 0, 0), Unit { scale: 10.0, offset: 20.0 });
    assert_eq!(data.target_value(Part::Test, 0, 0), Some(50.0));
    assert_eq!((data.is_series(), data.last_value(Part::Test, 0, 0)), (false, None));
    // Inputs in another order of columns, without the target.
    let inputs = path.with_file_name("new.csv");
    std::fs::write(&inputs, "b;a\n6;100\n").unwrap();
    let new = open_inputs(&data.description(), &job, &inputs)?;
    let (x, targets) = fill(&new, Part::Test, &[0]);
    assert_eq!(x, vec![98.0, 1.0]);
    assert!(targets.values[0].is_nan() && new.target_value(Part::Test, 0, 0).is_none());
    Ok(())
}

/// Some programs begin a file with a byte order mark, which is no part of the first column's name, quoted or not.
#[test]
fn a_byte_order_mark_is_no_part_of_the_header() -> Result<()> {
    for header in ["y,a", "\"y\",a", "\"y\",\"a\""] {
        let (_folder, path) = csv(&format!("\u{feff}{header}\n1,2\n3,4\n"));
        let data = Dataset::open(&config("csv", &path, "target = 'y'\ntest_fraction = 0"), 1)?;
        assert_eq!((data.len(Part::Train), data.target_value(Part::Train, 1, 0)), (2, Some(3.0)), "{header}");
    }
    Ok(())
}

/// White space around a field is no part of it: in the header, in quotes, and where there is nothing else.
#[test]
fn white_space_around_fields_does_not_count() -> Result<()> {
    let (_folder, path) = csv(" x ,\"y\t\", kind\n 1 ,\t2.5 , rose\n\" 3 \",4,iris\n5, \t,rose\n 7,8,\" rose \"\n");
    let keys = "target = 'kind'\ntask = 'classes'\nnormalize = 'none'\ntest_fraction = 0";
    let data = Dataset::open(&config("csv", &path, keys), 1)?;
    assert_eq!(data.task(), &Task::Classes(vec!["iris".into(), "rose".into()]));
    let (x, targets) = fill(&data, Part::Train, &[0, 1, 2]);
    assert_eq!((x, targets.classes), (vec![1.0, 2.5, 3.0, 4.0, 7.0, 8.0], vec![1, 0, 1]));
    Ok(())
}

#[test]
fn csv_classes_are_names_or_integers() -> Result<()> {
    let (_folder, path) = csv("kind,x\nrose,1\niris,2\nrose,3\nlily,4\n");
    let job = config("csv", &path, "target = 'kind'\ntask = 'classes'\ntest_fraction = 0.25\nnormalize = 'none'");
    let data = Dataset::open(&job, 1)?;
    assert_eq!(data.task(), &Task::Classes(vec!["iris".into(), "lily".into(), "rose".into()]));
    assert_eq!(fill(&data, Part::Train, &[0, 1, 2]).1.classes, [2, 0, 2]);
    assert_eq!(fill(&data, Part::Test, &[0]), (vec![4.0], Targets { classes: vec![1], ..Targets::default() }));
    let (_folder, path) = csv("x,kind\n1,10\n2,9\n3,-1\n");
    let other = path.with_file_name("test.csv");
    std::fs::write(&other, "kind,x\n9,7\n").unwrap();
    let keys = format!("target = 'kind'\ntask = 'classes'\nnormalize = 'none'\ntest_path = '{}'", other.display());
    let data = Dataset::open(&config("csv", &path, &keys), 1)?;
    assert_eq!(data.task(), &Task::Classes(vec!["-1".into(), "9".into(), "10".into()]));
    assert_eq!(fill(&data, Part::Test, &[0]), (vec![7.0], Targets { classes: vec![1], ..Targets::default() }));
    Ok(())
}

/// A row with a hole keeps its number and gets no sample; one whose target is not known is a sample all the same.
#[test]
fn csv_inputs_keep_the_numbers_of_their_rows() -> Result<()> {
    let (_folder, path) = csv("a,b,y\n1,2,3\n4,5,6\n7,8,9\n");
    let job = config("csv", &path, "target = 'y'\ntest_fraction = 0\nnormalize = 'none'");
    let data = Dataset::open(&job, 1)?;
    assert_eq!((data.rows(), data.len(Part::Train)), (0, 3));
    let inputs = path.with_file_name("new.csv");
    std::fs::write(&inputs, "y,a,b\n1,,1\n2,3,4\n,5,6\n3,,\n4,7,8\n5,9,\n").unwrap();
    let new = open_inputs(&data.description(), &job, &inputs)?;
    assert_eq!((new.len(Part::Test), new.rows()), (3, 6));
    assert_eq!([0, 1, 2].map(|sample| new.row(sample)), [1, 2, 4]);
    assert_eq!(fill(&new, Part::Test, &[0, 1, 2]).0, [3.0, 4.0, 5.0, 6.0, 7.0, 8.0]);
    assert_eq!([0, 1, 2].map(|sample| new.target_value(Part::Test, sample, 0)), [Some(2.0), None, Some(4.0)]);
    assert_eq!(new.notes(), ["3 of 6 rows have missing values, and no prediction"]);
    Ok(())
}

/// Rows sorted by class: the last ones are all of one, which is told; the other splits deal them out.
#[test]
fn csv_rows_are_split_as_the_job_says() -> Result<()> {
    let rows: String = (0..200).map(|row| format!("{row},{}\n", ["a", "b", "b", "c"][row / 50])).collect();
    let (_folder, path) = csv(&format!("x,y\n{rows}"));
    let open = |keys: &str, seed| {
        let keys = format!("target = 'y'\ntask = 'classes'\nnormalize = 'none'\n{keys}");
        Dataset::open(&config("csv", &path, &keys), seed)
    };
    let part = |data: &Dataset, part| fill(data, part, &(0..data.len(part) as u32).collect::<Vec<_>>());
    let last = open("", 1)?;
    assert_eq!(part(&last, Part::Test).1.classes, [2; 40]);
    let note = &last.notes()[1];
    assert!(note.contains("2 are in the training part only and 0 in the test part only"), "{note}");
    for (split, counts) in [("shuffled", None), ("stratified", Some([10, 20, 10]))] {
        let data = open(&format!("split = '{split}'"), 7)?;
        let (train, test) = (part(&data, Part::Train), part(&data, Part::Test));
        assert_eq!((data.len(Part::Train), data.len(Part::Test), data.notes().len()), (160, 40, 1));
        assert!(train.0.is_sorted() && test.0.is_sorted(), "both stay in order");
        let mut all = [train.0, test.0.clone()].concat();
        all.sort_by(f32::total_cmp);
        assert!(all.iter().zip(0..).all(|(&x, row)| x == row as f32), "each row is in one part");
        let class = |x: &f32| [0, 1, 1, 2][*x as usize / 50];
        assert_eq!(test.1.classes, test.0.iter().map(class).collect::<Vec<u32>>());
        let of = [0, 1, 2].map(|class| test.1.classes.iter().filter(|&&of| of == class).count());
        assert!(counts.is_none_or(|counts| counts == of) && of.iter().all(|&count| count > 3), "{split}: {of:?}");
        let again = open(&format!("split = '{split}'"), 7)?;
        assert_eq!(part(&again, Part::Test).0, test.0);
        assert_ne!(part(&open(&format!("split = '{split}'"), 8)?, Part::Test).0, test.0);
    }
    let refused = |keys: &str, part: &str| {
        let (code, message) = failure(&config("csv", &path, &format!("target = 'x'\n{keys}")));
        assert!(code == 2 && message.contains(part), "{message}");
    };
    refused("split = 'stratified'", "split: by classes, where the task is values");
    refused("split = 'random'", "unknown value \"random\"");
    refused("split = 'shuffled'\ntest_path = 't.csv'", "nothing is split where test_path is given");
    Ok(())
}
