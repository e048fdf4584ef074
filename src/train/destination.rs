//! Where a run goes. With `--out URL` that is a folder of this machine all the same; rank 0 copies it to the URL when the run has
//! ended, and fetches back what goes on there.

use super::folder::Folder;
use super::terminal::{self, say};
use crate::comm::{Comm, on_root, watch};
use crate::config::Job;
use crate::data::storage::{Depot, Parcel, Staging, is_remote};
use crate::error::{Error, Result};
use crate::store::{checkpoint, write_file};
use std::path::{Path, PathBuf};

/// Where runs lie.
const RESULTS: &str = "results";
/// The job as it was resolved: put there when the run starts, so that it is known that something can be put there.
const JOB: &str = "run.toml";
const RUN: &str = "run.h5";
const BEST: &str = "checkpoints/best.h5";

/// A run's folder, and its place elsewhere.
pub(super) struct Destination {
    /// On this machine.
    pub folder: PathBuf,
    far: Option<Depot>,
}

impl Destination {
    /// Of `--out`, by default `results/<name>`; a URL's folder is `results/<scheme>/<host>/<path>`.
    ///
    /// # Errors
    /// `Usage`: a URL that cannot be written to, or the data are among what would be written there.
    pub fn of(out: Option<&Path>, job: &Job, show: bool) -> Result<Self> {
        let Some(out) = out else { return Ok(Self { folder: Path::new(RESULTS).join(&job.name), far: None }) };
        if !is_remote(out) {
            return Ok(Self { folder: out.to_path_buf(), far: None });
        }
        let depot = Depot::new(&out.to_string_lossy(), Staging { show, ..Staging::default() })?;
        let data = job.data.path.as_deref().map(Path::to_string_lossy).unwrap_or_default();
        let written = data
            .strip_prefix(depot.url())
            .is_some_and(|name| [RUN, JOB].contains(&name) || name.starts_with("checkpoints"));
        if written || format!("{data}/") == depot.url() {
            let place = format!("--out {}", depot.url());
            return Err(Error::usage(place, "the data of the job are there", "choose another folder"));
        }
        Ok(Self { folder: depot.folder_in(Path::new(RESULTS)), far: Some(depot) })
    }

    /// Looks at the far place: a run that is there is gone on with by `--resume`, and never replaced by another one.
    ///
    /// # Errors
    /// `Usage`: there is a run, and this one is a new one; `Io`. On all ranks.
    pub fn look(&self, resume: bool, comm: &dyn Comm) -> Result<()> {
        let Some(far) = &self.far else { return Ok(()) };
        on_root(comm, || found(far, resume).map(|_| ()))
    }

    /// Before a run starts in the folder, which it holds: fetches what is newer elsewhere, and tries whether something can be
    /// put there.
    ///
    /// # Errors
    /// As [`look`](Self::look). On all ranks.
    pub fn prepare(&self, resume: bool, config: &str, folder: Option<&Folder>, comm: &dyn Comm) -> Result<()> {
        let Some(far) = &self.far else { return Ok(()) };
        on_root(comm, || {
            let there = found(far, resume)?;
            let newest = there.iter().filter_map(|name| Some((step_of(name)?, name))).max();
            let here = checkpoint::list(&self.folder.join("checkpoints"))?;
            let here = here.iter().filter_map(|path| step_of(&format!("checkpoints/{}", path.file_name()?.to_str()?)));
            if let Some((step, newest)) = newest.filter(|(step, _)| Some(*step) > here.max()) {
                if let Some(folder) = folder {
                    folder.move_earlier_run_aside()?;
                }
                let also = [RUN, BEST].map(str::to_owned).into_iter().filter(|name| there.contains(name));
                let names: Vec<String> = also.chain([newest.clone()]).collect();
                far.get(&names, &self.folder)?;
                terminal::tell(&format!(
                    "fetched the run at step {step} from {} to {}",
                    far.url(),
                    self.folder.display()
                ));
            }
            let job = self.folder.join(JOB);
            write_file(&job, config.as_bytes())?;
            far.put(&[(JOB.into(), job)]).map(|_| ())
        })
    }

    /// Copies the run there, now that it has ended as it has.
    ///
    /// # Errors
    /// How the run ended; `Io` if it ended well, or stopped with a checkpoint, and could not be copied. On all ranks.
    pub fn copy(&self, ended: Result<()>, comm: &dyn Comm) -> Result<()> {
        let Some(far) = &self.far else { return ended };
        if !matches!(ended, Ok(()) | Err(Error::Stopped { .. } | Error::Diverged { .. })) {
            return ended;
        }
        // The others wait for as long as it takes.
        watch::configure(0, 0);
        let copied = on_root(comm, || {
            let parcels = self.parcels()?;
            let sent = far.put(&parcels).map_err(|error| self.not_copied(far, &ended, &error))?;
            say(&format!("copied       {} files to {}, {} MB of them now", parcels.len(), far.url(), sent / 1_000_000));
            Ok(())
        });
        match (ended, copied) {
            (Err(error @ Error::Diverged { .. }), Err(copy)) => {
                log::warn!("{copy}");
                Err(error)
            }
            (ended, copied) => copied.and(ended),
        }
    }

    /// What is copied, the run file last: where it is, the rest is too.
    fn parcels(&self) -> Result<Vec<Parcel>> {
        let checkpoints = checkpoint::list(&self.folder.join("checkpoints"))?;
        let named = checkpoints.into_iter().filter_map(|path| {
            let name = path.file_name()?.to_str()?;
            Some((format!("checkpoints/{name}"), path))
        });
        let mut parcels: Vec<Parcel> = named.collect();
        let rest = [BEST, RUN].map(|name| (name.to_owned(), self.folder.join(name)));
        parcels.extend(rest.into_iter().filter(|(_, path)| path.exists()));
        Ok(parcels)
    }

    fn not_copied(&self, far: &Depot, ended: &Result<()>, error: &Error) -> Error {
        let (what, mend) = error.parts();
        let how = match ended {
            Err(Error::Stopped { step, .. }) => format!("stopped at step {step}, and the run"),
            _ => "the run".to_owned(),
        };
        let what = format!("{how} was not copied there: {what}");
        let mend = format!(
            "{mend}; everything lies whole in {}: the same command with --resume copies it again",
            self.folder.display()
        );
        Error::io(Path::new(far.url()), what, mend)
    }
}

/// The names of what is there.
fn found(far: &Depot, resume: bool) -> Result<Vec<String>> {
    let names: Vec<String> = far.list()?.into_iter().map(|(name, _)| name).collect();
    if !resume && names.iter().any(|name| name == RUN || step_of(name).is_some()) {
        let mend = "go on with it by --resume, or choose another --out";
        return Err(Error::usage(format!("--out {}", far.url()), "a run is there already", mend));
    }
    Ok(names)
}

/// The step of a checkpoint's name.
fn step_of(name: &str) -> Option<u64> {
    name.strip_prefix("checkpoints/step-")?.strip_suffix(".h5")?.parse().ok()
}
