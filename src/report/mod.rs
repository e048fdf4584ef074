//! Runs and studies as one page and as pictures, from their files alone.

mod picture;
mod text;

use crate::chart::{self, inline, page};
use crate::error::{Error, Result};
use crate::store::{RunSummary, read_run, write_file};
use picture::{Confusion, MOST_CLASSES, Phases};
use std::path::{Path, PathBuf};

/// The page's file.
pub const NAME: &str = "report.html";

/// A larger study file is none.
const MOST_BYTES: u64 = 1 << 26;

/// A run to be shown.
pub struct Run {
    /// Told apart from the others by it.
    pub name: String,
    /// What its file holds.
    pub found: RunSummary,
}

/// A scaling study.
pub struct Study {
    /// Its folder.
    pub name: String,
    /// `scale.json`.
    pub found: serde_json::Value,
    /// Its picture, as SVG; empty where it is gone.
    pub picture: String,
}

/// What is shown.
#[derive(Default)]
pub struct Shown {
    /// Runs, in the order given.
    pub runs: Vec<Run>,
    /// Likewise.
    pub studies: Vec<Study>,
}

impl Shown {
    /// Opens folders of runs and studies, or their files.
    ///
    /// # Errors
    /// `Usage` for what is neither, `Io` if a file cannot be read, `Data` if it is damaged.
    pub fn open(paths: &[PathBuf]) -> Result<Self> {
        let mut shown = Self::default();
        for path in paths {
            let inside = |name: &str| if path.is_dir() { path.join(name) } else { path.clone() };
            let (run, study) = (inside("run.h5"), inside("scale.json"));
            if study.is_file() && study.extension().is_some_and(|ending| ending == "json") {
                shown.studies.push(Study::open(&study)?);
            } else if run.exists() {
                shown.runs.push(Run { name: path.display().to_string(), found: read_run(&run)? });
            } else {
                let mend = "give the folder of a run (with run.h5) or of a scaling study (with scale.json)";
                return Err(Error::usage(path.display().to_string(), "there is neither a run nor a study", mend));
            }
        }
        shorten(&mut shown.runs);
        Ok(shown)
    }

    fn title(&self) -> String {
        let names = self.runs.iter().map(|run| &run.name).chain(self.studies.iter().map(|study| &study.name));
        let names: Vec<String> = names.cloned().collect();
        match &names[..] {
            [first, second, rest @ ..] if !rest.is_empty() => format!("{first}, {second} and {} more", rest.len()),
            names => names.join(" and "),
        }
    }
}

impl Study {
    fn open(path: &Path) -> Result<Self> {
        let unreadable = |e: std::io::Error| Error::io(path, e, "check the path");
        if path.metadata().map_err(unreadable)?.len() > MOST_BYTES {
            return Err(Error::data(path.display().to_string(), "too large for a study", "give a study's scale.json"));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        let found: serde_json::Value = serde_json::from_str(&text)
            .map_err(|e| Error::data(path.display().to_string(), e.to_string(), "run ddl scale --collect anew"))?;
        if !found["rows"].is_array() {
            let mend = "give a study's scale.json";
            return Err(Error::data(path.display().to_string(), "it holds no rows of a study", mend));
        }
        let picture = std::fs::read_to_string(path.with_extension("svg")).unwrap_or_default();
        let name = found["job"].as_str().map_or_else(|| path.display().to_string(), |job| format!("{job}, scaling"));
        Ok(Self { name, found, picture })
    }
}

/// Names by the last parts of the paths, as many as tell the runs apart; a run alone by its job.
fn shorten(runs: &mut [Run]) {
    let parts = |name: &str, count: usize| -> String {
        let all: Vec<&str> = name.trim_end_matches("/run.h5").split('/').filter(|part| !part.is_empty()).collect();
        all[all.len().saturating_sub(count)..].join("/")
    };
    if let [run] = runs {
        run.name = run.found.attribute("name").map_or_else(|| parts(&run.name, 1), str::to_owned);
        return;
    }
    let apart = |count: usize| {
        let mut names: Vec<String> = runs.iter().map(|run| parts(&run.name, count)).collect();
        names.sort();
        names.windows(2).all(|pair| pair[0] != pair[1])
    };
    let count = (1..8).find(|&count| apart(count)).unwrap_or(8);
    runs.iter_mut().for_each(|run| run.name = parts(&run.name, count));
}

/// Writes the page, and each picture as SVG and PNG, into `folder`; gives the page's path.
///
/// # Errors
/// `Io` when the folder cannot be written to.
pub fn write(shown: &Shown, folder: &Path) -> Result<PathBuf> {
    let mut body = text::summary(&shown.runs);
    let add = |body: &mut String, svg: String| *body += inline(&svg);
    if !shown.runs.is_empty() {
        add(&mut body, chart::write(&picture::curves(&shown.runs), folder, "curves")?);
    }
    for (number, run) in shown.runs.iter().enumerate() {
        let name = |of: &str| if shown.runs.len() == 1 { of.to_owned() } else { format!("{of}-{}", number + 1) };
        if shown.runs.len() > 1 {
            body += &text::heading(&run.name);
        }
        let answers = &run.found.answers;
        if (1..=MOST_CLASSES).contains(&answers.classes.len()) && !answers.confusion.is_empty() {
            add(&mut body, chart::write(&Confusion(answers), folder, &name("confusion"))?);
        }
        if !answers.confusion.is_empty() {
            body += &text::classes(answers);
        }
        if let Some(panels) = picture::forecasts(answers) {
            add(&mut body, chart::write(&panels, folder, &name("forecasts"))?);
        }
        body += &text::errors(answers);
        if let Some(phases) = Phases::of(run) {
            add(&mut body, chart::write(&phases, folder, &name("phases"))?);
        }
    }
    for study in &shown.studies {
        if !shown.runs.is_empty() || shown.studies.len() > 1 {
            body += &text::heading(&study.name);
        }
        add(&mut body, study.picture.clone());
        body += &text::study(study);
    }
    for run in &shown.runs {
        body += &text::about(run, shown.runs.len() > 1);
    }
    let path = folder.join(NAME);
    write_file(&path, page(&shown.title(), &body).as_bytes())?;
    Ok(path)
}
