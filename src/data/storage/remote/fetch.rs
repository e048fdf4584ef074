//! Brings the bytes of objects into files: pieces of them at once, each tried again where it broke off, and noted when it is
//! done, so that what was cut off is gone on with.

use super::progress::Progress;
use super::trouble::Trouble;
use super::{Digest, Listing, Object, Remote, Staging, Tries, in_time, sign_in};
use crate::config::address::{redacted, scheme};
use crate::error::{Error, Result};
use futures_util::{StreamExt, TryStreamExt, stream};
use md5::Digest as _;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::{Read, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Bytes of a piece.
const PIECE: u64 = 8 << 20;
/// Pieces under way at once.
const AT_ONCE: usize = 8;
/// So many bytes make a try one that got further.
const FURTHER: u64 = 64 << 10;

const MEND: &str = "see that there is space and the folder may be written";

/// A far place and what was found there.
pub(super) struct Source<'a> {
    pub remote: &'a Remote,
    pub url: &'a str,
    pub listing: &'a Listing,
}

/// Why a piece did not come.
enum Failure {
    Far(Trouble),
    Near(Error),
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        Failure::Far(trouble)
    }
}

impl Source<'_> {
    /// The error of trouble with an object.
    pub fn error(&self, object: &Object, trouble: Trouble) -> Error {
        let kind = scheme(self.url).unwrap_or_default();
        if self.listing.single {
            return trouble.at(self.url, &sign_in(&kind));
        }
        // A folder's query, if any, is no part of what is shown.
        let folder = redacted(self.url.split(['?', '#']).next().unwrap_or_default());
        trouble.at(&format!("{}/{}", folder.trim_end_matches('/'), object.name), &sign_in(&kind))
    }

    /// Brings all objects into `work/data`, with `work/journal` beside it, and checks them. Gives how many bytes came now.
    ///
    /// # Errors
    /// `Io`. What has come stays, to be gone on with.
    pub async fn bring(&self, work: &Path, how: &Staging) -> Result<u64> {
        let mut journal = Journal::open(work, &self.listing.objects)?;
        let label = redacted(self.url);
        let progress = RefCell::new(Progress::start(label, self.listing.size(), journal.done(), how.show));
        let all: Vec<usize> = (0..self.listing.objects.len()).collect();
        let mut came = self.bring_some(&all, &mut journal, &progress, how).await?;
        // What is not what the server says comes a second time.
        let mut first: HashMap<usize, Vec<u8>> = HashMap::new();
        for &i in &all {
            if let Some(found) = self.differs(i, work)? {
                journal.again(i)?;
                progress.borrow_mut().take_back(self.listing.objects[i].size);
                first.insert(i, found);
            }
        }
        let mut wrong: Vec<usize> = first.keys().copied().collect();
        wrong.sort_unstable();
        came += self.bring_some(&wrong, &mut journal, &progress, how).await?;
        for i in wrong {
            let object = &self.listing.objects[i];
            match self.differs(i, work)? {
                Some(found)
                    if matches!(object.digest, Some(Digest::PerhapsMd5(_))) && first.get(&i) == Some(&found) =>
                {
                    log::info!("{}: the same came twice, so the store's tag is no checksum", object.name);
                }
                Some(_) => {
                    journal.again(i)?;
                    let what = "what comes is not what the server's checksum says".to_owned();
                    return Err(self.error(object, Trouble::Broken(what)));
                }
                None => {}
            }
        }
        Ok(came)
    }

    async fn bring_some(
        &self,
        objects: &[usize],
        journal: &mut Journal,
        progress: &RefCell<Progress>,
        how: &Staging,
    ) -> Result<u64> {
        let missing: Vec<(usize, u64)> = objects
            .iter()
            .flat_map(|&i| (0..pieces(&self.listing.objects[i])).map(move |piece| (i, piece)))
            .filter(|piece| !journal.pieces.contains(piece))
            .collect();
        for &i in objects {
            journal.file(i)?;
        }
        let paths = journal.paths.clone();
        let mut running = stream::iter(missing)
            .map(|(i, piece)| {
                let (object, path) = (&self.listing.objects[i], &paths[i]);
                async move {
                    let range = range_of(object, piece);
                    let len = range.end - range.start;
                    let sum = self.piece(object, range, path, progress, how).await?;
                    Ok::<_, Error>((i, piece, sum, len))
                }
            })
            .buffer_unordered(AT_ONCE);
        let mut came = 0;
        while let Some((i, piece, sum, len)) = running.try_next().await? {
            journal.note(i, piece, sum)?;
            came += len;
        }
        Ok(came)
    }

    /// One piece, as long as tries get further. Gives its checksum.
    async fn piece(
        &self,
        object: &Object,
        range: Range<u64>,
        path: &Path,
        progress: &RefCell<Progress>,
        how: &Staging,
    ) -> Result<u32> {
        let failed = |e: std::io::Error| Error::io(path, format!("cannot be written: {e}"), MEND);
        let file = File::options().write(true).open(path).map_err(failed)?;
        let mut tries = Tries::new(&how.patience);
        let (mut got, mut sum) = (0, crc32fast::Hasher::new());
        loop {
            let before = got;
            let ended = self.some(object, &range, &file, &mut got, &mut sum, progress, how).await;
            match ended {
                Ok(()) => return Ok(sum.finalize()),
                Err(Failure::Near(error)) => return Err(error),
                Err(Failure::Far(trouble)) => {
                    if got >= before + FURTHER && object.ranges {
                        tries.got_further();
                    }
                    tries.another_after(trouble).await.map_err(|trouble| self.error(object, trouble))?;
                }
            }
            if !object.ranges {
                progress.borrow_mut().take_back(got);
                (got, sum) = (0, crc32fast::Hasher::new());
            }
        }
    }

    /// What comes of a piece in one try, from where the one before broke off.
    async fn some(
        &self,
        object: &Object,
        range: &Range<u64>,
        file: &File,
        got: &mut u64,
        sum: &mut crc32fast::Hasher,
        progress: &RefCell<Progress>,
        how: &Staging,
    ) -> Result<(), Failure> {
        let (wanted, silence) = (range.end - range.start, how.patience.silence);
        if *got == wanted {
            return Ok(());
        }
        let mut bytes = in_time(silence, self.remote.read(object, range.start + *got..range.end)).await??;
        while let Some(some) = in_time(silence, bytes.next()).await? {
            let some = some?;
            let len = some.len() as u64;
            if *got + len > wanted {
                return Err(Trouble::Broken("the server sends more than it was asked for".into()).into());
            }
            file.write_all_at(&some, range.start + *got).map_err(|e| {
                Failure::Near(Error::io(Path::new(&object.name), format!("cannot be written: {e}"), MEND))
            })?;
            sum.update(&some);
            *got += len;
            progress.borrow_mut().add(len);
        }
        match *got == wanted {
            true => Ok(()),
            false => Err(Trouble::Broken(format!("the connection ended after {got} of {wanted} bytes")).into()),
        }
    }

    /// The checksum of what came, if it is not the one that the server tells.
    fn differs(&self, object: usize, work: &Path) -> Result<Option<Vec<u8>>> {
        let object = &self.listing.objects[object];
        let path = work.join("data").join(&object.name);
        let (found, told) = match &object.digest {
            None => return Ok(None),
            Some(Digest::Md5(told) | Digest::PerhapsMd5(told)) => (md5_of(&path)?, told),
            Some(Digest::Sha256(told)) => (sha256_of(&path)?, told),
        };
        Ok((found != *told).then_some(found))
    }
}

/// How many pieces an object comes in.
fn pieces(object: &Object) -> u64 {
    if object.ranges { object.size.div_ceil(PIECE) } else { object.size.min(1) }
}

fn range_of(object: &Object, piece: u64) -> Range<u64> {
    if object.ranges { piece * PIECE..((piece + 1) * PIECE).min(object.size) } else { 0..object.size }
}

/// Which pieces are there, each with a checksum, so that none counts that a crash kept from the disk.
struct Journal {
    file: File,
    path: PathBuf,
    pieces: HashSet<(usize, u64)>,
    sizes: Vec<u64>,
    paths: Vec<PathBuf>,
    done: u64,
}

impl Journal {
    fn open(work: &Path, objects: &[Object]) -> Result<Self> {
        let path = work.join("journal");
        let failed = |e: std::io::Error| Error::io(&path, format!("cannot be written: {e}"), MEND);
        fs::create_dir_all(work).map_err(failed)?;
        let text = fs::read_to_string(&path).unwrap_or_default();
        let file = File::options().create(true).append(true).open(&path).map_err(failed)?;
        let paths: Vec<PathBuf> = objects.iter().map(|object| work.join("data").join(&object.name)).collect();
        let sizes = objects.iter().map(|object| object.size).collect();
        let mut noted: HashMap<(usize, u64), u32> = HashMap::new();
        for line in text.lines() {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["again", object] => noted.retain(|(i, _), _| i.to_string() != object),
                [object, piece, sum, "."] => {
                    if let (Ok(object), Ok(piece), Ok(sum)) = (object.parse(), piece.parse(), sum.parse()) {
                        noted.insert((object, piece), sum);
                    }
                }
                _ => {}
            }
        }
        let (mut whole, mut done) = (HashSet::new(), 0);
        for ((i, piece), sum) in noted {
            let Some(object) = objects.get(i).filter(|object| piece < pieces(object)) else { continue };
            let range = range_of(object, piece);
            if sum_of(&paths[i], &range) == Some(sum) {
                whole.insert((i, piece));
                done += range.end - range.start;
            }
        }
        Ok(Self { file, path, pieces: whole, sizes, paths, done })
    }

    fn done(&self) -> u64 {
        self.done
    }

    /// Makes an object's file at its full length, which also finds out whether there is space.
    fn file(&self, object: usize) -> Result<()> {
        let path = &self.paths[object];
        let failed = |e: std::io::Error| Error::io(path, format!("cannot be made: {e}"), MEND);
        fs::create_dir_all(path.parent().unwrap_or(Path::new("."))).map_err(failed)?;
        let file = File::options().create(true).truncate(false).write(true).open(path).map_err(failed)?;
        file.set_len(self.sizes[object]).map_err(failed)
    }

    fn write(&mut self, line: &str) -> Result<()> {
        let failed = |e: std::io::Error| Error::io(&self.path, format!("cannot be written: {e}"), MEND);
        self.file.write_all(line.as_bytes()).map_err(failed)
    }

    fn note(&mut self, object: usize, piece: u64, sum: u32) -> Result<()> {
        self.pieces.insert((object, piece));
        self.write(&format!("{object} {piece} {sum} .\n"))
    }

    fn again(&mut self, object: usize) -> Result<()> {
        self.pieces.retain(|(i, _)| *i != object);
        self.write(&format!("again {object}\n"))
    }
}

/// The checksum of a range of a file, None if it cannot be read.
fn sum_of(path: &Path, range: &Range<u64>) -> Option<u32> {
    let mut file = File::open(path).ok()?;
    file.seek(SeekFrom::Start(range.start)).ok()?;
    let mut sum = crc32fast::Hasher::new();
    let read = each_part(&mut file.take(range.end - range.start), &mut |part| sum.update(part)).ok()?;
    (read == range.end - range.start).then(|| sum.finalize())
}

fn each_part(reader: &mut impl Read, each: &mut dyn FnMut(&[u8])) -> std::io::Result<u64> {
    let (mut buffer, mut total) = (vec![0; 1 << 18], 0);
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(total),
            Ok(read) => {
                each(&buffer[..read]);
                total += read as u64;
            }
            Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn read_all(path: &Path, each: &mut dyn FnMut(&[u8])) -> Result<()> {
    let failed = |e: std::io::Error| Error::io(path, format!("cannot be read back: {e}"), "check the disk");
    each_part(&mut File::open(path).map_err(failed)?, each).map_err(failed).map(|_| ())
}

/// The MD5 of a file.
pub(super) fn md5_of(path: &Path) -> Result<Vec<u8>> {
    let mut sum = md5::Md5::new();
    read_all(path, &mut |part| sum.update(part))?;
    Ok(sum.finalize().to_vec())
}

/// The SHA-256 of a file.
pub(super) fn sha256_of(path: &Path) -> Result<Vec<u8>> {
    use sha2::Digest;
    let mut sum = sha2::Sha256::new();
    read_all(path, &mut |part| sum.update(part))?;
    Ok(sum.finalize().to_vec())
}
