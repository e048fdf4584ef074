//! The well-known data sets: where they are, and what they must be.

use std::path::Path;

/// How a file is known to be right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sum {
    /// SHA-256 of its content, unpacked where it is a .gz: packing differs from place to place.
    Sha256(&'static str),
    /// The MD5 that its makers published, of the file as they give it.
    Md5(&'static str),
    /// Nobody published one.
    Unknown,
}

/// A file of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct File {
    /// Its name.
    pub name: &'static str,
    /// What it must be.
    pub sum: Sum,
}

/// An archive that holds the files of a data set.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Archive {
    /// A .tar.gz.
    pub file: File,
    /// Longer ones are not it.
    pub most_bytes: u64,
}

/// A data set that `ddl fetch` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Known {
    /// What it is called.
    pub name: &'static str,
    /// What it is, in a line.
    pub about: &'static str,
    /// The source that reads it.
    pub source: &'static str,
    /// The folder that the jobs expect it in.
    pub folder: &'static str,
    /// Where it is given to anybody, in the order in which they are tried.
    pub places: &'static [&'static str],
    /// What has to be done by hand where there is no such place.
    pub by_hand: &'static str,
    /// What is packed in one.
    pub archive: Option<Archive>,
    /// What it consists of.
    pub files: &'static [File],
}

const fn sha(name: &'static str, sum: &'static str) -> File {
    File { name, sum: Sum::Sha256(sum) }
}

const fn md5(name: &'static str, sum: &'static str) -> File {
    File { name, sum: Sum::Md5(sum) }
}

/// All of them.
pub const CATALOG: &[Known] = &[
    Known {
        name: "mnist",
        about: "60,000 and 10,000 handwritten digits, 28x28, 11 MB",
        source: "mnist",
        folder: "data/mnist-full",
        places: &[
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ],
        by_hand: "",
        archive: None,
        files: &[
            sha("train-images-idx3-ubyte.gz", "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db"),
            sha("train-labels-idx1-ubyte.gz", "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5"),
            sha("t10k-images-idx3-ubyte.gz", "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7"),
            sha("t10k-labels-idx1-ubyte.gz", "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2"),
        ],
    },
    Known {
        name: "fashion-mnist",
        about: "60,000 and 10,000 pictures of clothes in MNIST's form, 31 MB",
        source: "mnist",
        folder: "data/fashion-mnist",
        places: &[
            "https://github.com/zalandoresearch/fashion-mnist/raw/master/data/fashion/",
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        ],
        by_hand: "",
        archive: None,
        files: &[
            md5("train-images-idx3-ubyte.gz", "8d4fb7e6c68d591d4c3dfef9ec88bf0d"),
            md5("train-labels-idx1-ubyte.gz", "25c81989df183df01b3e8a0aad5dffbe"),
            md5("t10k-images-idx3-ubyte.gz", "bef4ecab320f06d8554ea6380940ec79"),
            md5("t10k-labels-idx1-ubyte.gz", "bb300cfdad3c16e7a12a480ee83cd310"),
        ],
    },
    Known {
        name: "cifar10",
        about: "50,000 and 10,000 colour pictures of 10 classes, 32x32, 162 MB",
        source: "cifar10",
        folder: "data/cifar10",
        // The second is where the first leads to since 2026.
        places: &["https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/"],
        by_hand: "",
        archive: Some(Archive {
            file: md5("cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"),
            most_bytes: 400_000_000,
        }),
        files: &[
            sha("data_batch_1.bin", "cee916563c9f80d84e3cc88e17fdc0941787f1244f00a67874d45b261883ada5"),
            sha("data_batch_2.bin", "a591ca11fa1708a91ee40f54b3da4784ccd871ecf2137de63f51ada8b3fa57ed"),
            sha("data_batch_3.bin", "bbe8596564c0f86427f876058170b84dac6670ddf06d79402899d93ceea26f67"),
            sha("data_batch_4.bin", "014e562d6e23c72197cc727519169a60359f5eccd8945ad5a09d710285ff4e48"),
            sha("data_batch_5.bin", "755304fc0b379caeae8c14f0dac912fbc7d6cd469eb67a1029a08a39453a9add"),
            sha("test_batch.bin", "8e2eb146ae340b09e24670f29cabc6326dba54da8789dab6768acf480273f65b"),
        ],
    },
    Known {
        name: "cifar100",
        about: "50,000 and 10,000 colour pictures of 100 classes, 32x32, 161 MB",
        source: "cifar100",
        folder: "data/cifar100",
        // The second is where the first leads to since 2026.
        places: &["https://www.cs.toronto.edu/~kriz/", "https://cave.cs.toronto.edu/kriz/"],
        by_hand: "",
        archive: Some(Archive {
            file: md5("cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"),
            most_bytes: 400_000_000,
        }),
        files: &[
            sha("train.bin", "f31298fc616915fa142368359df1c4ca2ae984d6915ca468b998a5ec6aeebf29"),
            sha("test.bin", "d8b1e6b7b3bee4020055f0699b111f60b1af1e262aeb93a0b659061746f8224a"),
            File { name: "fine_label_names.txt", sum: Sum::Unknown },
            File { name: "coarse_label_names.txt", sum: Sum::Unknown },
        ],
    },
    Known {
        name: "sp500",
        about: "daily prices of 505 companies of the S&P 500, 2013 to 2018, 29 MB",
        source: "stocks",
        folder: "data/stocks",
        places: &[],
        by_hand: "its official place, https://www.kaggle.com/datasets/camnugent/sandp500, gives it only to those who sign in: \
                  download all_stocks_5yr.csv there and put it into data/stocks, or name another place by --mirror, such as \
                  https://raw.githubusercontent.com/plotly/datasets/0c447c47b757ad74edecab31f0d72f849d2e67c2, where a copy is",
        archive: None,
        files: &[sha("all_stocks_5yr.csv.gz", "6aea253cd19de60b568143991aaf1fa482456565c389205658d236e595e716cf")],
    },
];

/// The set that a source expects at a path, and the folder to fetch it into: by the name of one of its files or of its folder,
/// else the first of the source that anybody can fetch.
pub fn known_at<'a>(source: &str, path: &'a Path) -> Option<(&'static Known, &'a Path)> {
    let of_source = || CATALOG.iter().filter(|set| set.source == source);
    let name = path.file_name()?.to_str()?;
    let is_file = |set: &&Known| {
        let archive = set.archive.iter().any(|archive| archive.file.name == name);
        archive || set.files.iter().any(|file| alternatives(file.name).iter().any(|known| known == name))
    };
    if let Some(set) = of_source().find(is_file) {
        return Some((set, path.parent()?));
    }
    let of_folder = of_source().find(|set| Path::new(set.folder).file_name() == path.file_name());
    let set = of_folder.or_else(|| of_source().find(|set| !set.places.is_empty()))?;
    Some((set, path))
}

/// A file's name, and the same packed or unpacked.
pub(super) fn alternatives(name: &str) -> Vec<String> {
    match name.strip_suffix(".gz") {
        Some(plain) => vec![name.to_owned(), plain.to_owned()],
        None => vec![name.to_owned(), format!("{name}.gz")],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_set_can_be_had_or_says_how() {
        for set in CATALOG {
            assert!(!set.places.is_empty() || !set.by_hand.is_empty(), "{}", set.name);
            assert!(set.places.iter().all(|place| place.ends_with('/')));
            let archive = set.archive.iter().map(|archive| archive.file);
            for file in set.files.iter().copied().chain(archive) {
                let (sum, len) = match file.sum {
                    Sum::Sha256(sum) => (sum, 64),
                    Sum::Md5(sum) => (sum, 32),
                    Sum::Unknown => continue,
                };
                assert!(sum.len() == len && sum.chars().all(|c| c.is_ascii_hexdigit()), "{}", file.name);
            }
        }
    }
}
