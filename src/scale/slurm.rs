//! The study as Slurm scripts: one a point, one that collects, one that submits them all.

use super::launch::{program, train_arguments};
use super::plan::Point;
use crate::error::{Error, Result};
use crate::store;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// Words as a shell's line that means them.
fn line<'a>(words: impl IntoIterator<Item = &'a OsStr>) -> Result<String> {
    let words: Vec<_> = words.into_iter().map(OsStr::to_string_lossy).collect();
    let quoted = shlex::try_join(words.iter().map(|word| &**word));
    quoted.map_err(|e| Error::usage("--slurm", format!("a shell cannot be told {words:?}: {e}"), "use other names"))
}

fn header(name: &str, tasks: usize, log: &Path) -> String {
    let log = log.display();
    format!(
        "#!/bin/bash\n#SBATCH --job-name={name}\n#SBATCH --ntasks={tasks}\n#SBATCH --cpus-per-task=1\n#SBATCH --time=01:00:00\n\
         #SBATCH --output={log}/%x-%j.out\n# Change these lines to your cluster, and load its MPI and HDF5 if they are modules.\n\
         # For times that can be compared, add: #SBATCH --exclusive\nset -e\n"
    )
}

/// Writes the scripts into `folder` and the points' jobs beside their results. `collect` is the command line that
/// collects. Returns the script that submits them all.
///
/// # Errors
/// `Io` when a folder cannot be written to.
pub fn write(name: &str, points: &[Point], more: &[String], collect: &[String], folder: &Path) -> Result<PathBuf> {
    let here = std::env::current_dir().map_err(|e| Error::io(Path::new("."), e, "start in a folder that exists"))?;
    let go = format!("cd {}\n", line([here.as_os_str()])?);
    let log = here.join(folder);
    let mut submit =
        format!("#!/bin/bash\n# Submits the points of {name}, and what collects them once they have ended.\nset -e\n");
    submit += &format!("cd {}\njobs=()\n", line([log.as_os_str()])?);
    let program = program()?;
    for point in points {
        store::write_file(&point.job_file(), point.job.as_bytes())?;
        let script = format!("ranks-{}-repeat-{}.sbatch", point.ranks, point.repeat);
        let mpi = if more.iter().any(|arg| arg.starts_with("--mpi")) { "" } else { " --mpi=pmix" };
        let arguments = train_arguments(point);
        let words = more.iter().map(OsStr::new).chain([program.as_os_str()]).chain(arguments.iter().map(|arg| &**arg));
        let text = header(&format!("{name}-{}-{}", point.ranks, point.repeat), point.ranks, &log);
        let text = format!("{text}{go}srun -n {}{mpi} {}\n", point.ranks, line(words)?);
        store::write_file(&folder.join(&script), text.as_bytes())?;
        submit += &format!("jobs+=(\"$(sbatch --parsable {script})\")\n");
    }
    let collect = line([program.as_os_str()].into_iter().chain(collect.iter().map(OsStr::new)))?;
    let text = format!("{}{go}{collect}\n", header(&format!("{name}-collect"), 1, &log));
    store::write_file(&folder.join("collect.sbatch"), text.as_bytes())?;
    submit += "sbatch --dependency=\"afterany$(printf ':%s' \"${jobs[@]%%;*}\")\" collect.sbatch\n";
    let path = folder.join("submit.sh");
    store::write_file(&path, submit.as_bytes())?;
    let executable = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(&path, executable).map_err(|e| Error::io(&path, e, "check the folder"))?;
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn scripts_are_good_bash_and_name_their_points() {
        let dir = tempfile::tempdir().unwrap();
        let of = |ranks| Point {
            ranks,
            repeat: 1,
            folder: dir.path().join(format!("it's {ranks}")),
            job: "name = \"n\"".into(),
        };
        let scripts = dir.path().join("scripts");
        let collect = ["scale", "n.toml", "--collect"].map(str::to_owned);
        let submit =
            write("n", &[of(1), of(2)], &["--exact".to_owned(), "--comment=it's $x".to_owned()], &collect, &scripts)
                .unwrap();
        let read = |name: &str| std::fs::read_to_string(scripts.join(name)).unwrap();
        let two = read("ranks-2-repeat-1.sbatch");
        assert!(two.contains("#SBATCH --ntasks=2") && two.contains("srun -n 2 --mpi=pmix --exact"), "{two}");
        let command = two.lines().find(|line| line.starts_with("srun")).unwrap();
        let words = shlex::split(command).unwrap();
        assert_eq!(words[5], "--comment=it's $x");
        assert_eq!(words[7..], train_arguments(&of(2)).map(|word| word.into_string().unwrap()));
        assert!(read("collect.sbatch").contains("scale n.toml --collect"));
        assert_eq!(std::fs::read_to_string(of(2).job_file()).unwrap(), "name = \"n\"");
        for name in ["ranks-1-repeat-1.sbatch", "ranks-2-repeat-1.sbatch", "collect.sbatch", "submit.sh"] {
            let checked = Command::new("bash").arg("-n").arg(scripts.join(name)).output().unwrap();
            assert!(checked.status.success(), "{name}: {}", String::from_utf8_lossy(&checked.stderr));
        }
        // A sbatch that gives its script a number: what would be submitted, after what.
        let fake = dir.path().join("sbatch");
        std::fs::write(&fake, "#!/bin/sh\nif [ \"$1\" = --parsable ]; then echo \"7;cluster\"; else echo \"$@\"; fi\n")
            .unwrap();
        std::fs::set_permissions(&fake, std::fs::Permissions::from_mode(0o755)).unwrap();
        let path = format!("{}:{}", dir.path().display(), std::env::var("PATH").unwrap());
        let output = Command::new(&submit).env("PATH", path).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "--dependency=afterany:7:7 collect.sbatch");
    }
}
