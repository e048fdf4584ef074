//! A run's folder: held by one run at a time, and never with the files of two runs in it.

use crate::config::Job;
use crate::error::{Error, Result};
use crate::store::{FolderLock, checkpoint, protect, remove_abandoned};
use std::path::{Path, PathBuf};

/// What a run keeps in its folder beside its lock.
const KEPT: [&str; 4] = ["run.h5", "run.journal", "run.toml", "checkpoints"];

const MEND: &str = "choose another folder with --out, or free it";

/// The folder of a run that is going on, held until this is dropped.
pub(super) struct Folder {
    out: PathBuf,
    _lock: FolderLock,
}

impl Folder {
    /// Makes a run's folder and takes it, and removes what a killed run was writing there.
    ///
    /// # Errors
    /// `Usage` if another run holds it, or one of the inputs is a file that the run would write.
    pub fn take(out: &Path, job: &Job, init: Option<&Path>) -> Result<Self> {
        let inputs = || [Some(Path::new(&job.file)), job.data.path.as_deref(), init].into_iter().flatten();
        for name in &KEPT[..3] {
            protect("--out", &out.join(name), inputs())?;
        }
        let checkpoints = out.join("checkpoints");
        std::fs::create_dir_all(&checkpoints)
            .map_err(|e| Error::io(&checkpoints, format!("cannot be made: {e}"), MEND))?;
        let lock = FolderLock::take(out)?;
        remove_abandoned(out)?;
        Ok(Self { out: out.to_path_buf(), _lock: lock })
    }

    /// A fresh run does not go on in a folder with another run's files, lest --resume later picks the wrong checkpoint: the
    /// earlier run moves to `earlier-1/`, `earlier-2/` and so on.
    ///
    /// # Errors
    /// `Io`.
    pub fn move_earlier_run_aside(&self) -> Result<()> {
        let holds_checkpoint = !checkpoint::list(&self.out.join("checkpoints"))?.is_empty();
        if !holds_checkpoint && !KEPT[..2].iter().any(|name| self.out.join(name).exists()) {
            return Ok(());
        }
        let free = (1..).map(|n| self.out.join(format!("earlier-{n}"))).find(|path| !path.exists());
        let aside = free.unwrap_or_default();
        let failed = |e: std::io::Error| {
            Error::io(
                &self.out,
                format!("an earlier run cannot be moved aside: {e}"),
                "choose another folder with --out",
            )
        };
        std::fs::create_dir(&aside).map_err(failed)?;
        for name in KEPT {
            if self.out.join(name).exists() {
                std::fs::rename(self.out.join(name), aside.join(name)).map_err(failed)?;
            }
        }
        std::fs::create_dir(self.out.join("checkpoints")).map_err(failed)?;
        log::warn!("the run that was here is kept in {}; use --resume to go on with a run", aside.display());
        Ok(())
    }
}
