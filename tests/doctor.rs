//! The doctor alone, under mpirun, and where the processes are no job.

mod support;

use std::time::Duration;
use support::{command, ddl, ended, run};

/// Serious or not depends on the machine; the report is whole in any case.
fn report(stdout: &str) {
    for subject in
        ["job", "libraries", "cores", "binding", "instructions", "CPU quota", "/dev/shm", "huge pages", "disk"]
    {
        assert!(stdout.contains(subject), "no {subject} in\n{stdout}");
    }
    assert_eq!(stdout.matches("serious, ").count(), 1, "one report in\n{stdout}");
}

#[test]
fn it_works_alone_and_on_ranks() {
    for ranks in [0, 1, 3] {
        let output = ddl(ranks, &["doctor"]);
        let text = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes).into_owned());
        report(&text[0]);
        let serious = text[0].lines().any(|line| line.starts_with("serious"));
        let expected = if serious { [Some(2), Some(74)] } else { [Some(0), Some(0)] };
        assert!(expected.contains(&output.status.code()), "{}: {text:?}", output.status);
        assert_eq!(text[1].contains("error: ddl doctor"), serious, "{text:?}");
    }
}

#[test]
fn ranks_on_one_cpu_are_found() {
    let ended = ended(2, "taskset -cp 0 $$ > /dev/null", &["doctor"], Duration::from_secs(60));
    assert_eq!(ended.codes, [2, 2], "{}\n{}", ended.stdout, ended.stderr);
    report(&ended.stdout);
    assert!(ended.stdout.contains("ranks 0 and 1") && ended.stdout.contains("--bind-to core"), "{}", ended.stdout);
    assert_eq!(ended.errors.len(), 1, "{}", ended.stderr);
}

#[test]
fn processes_of_another_mpi_are_found() {
    // As MPICH's mpiexec starts them; this program's Open MPI sees a job of one.
    if !String::from_utf8_lossy(&ddl(1, &["doctor"]).stdout).contains("Open MPI") {
        return;
    }
    let started = |rank: &str| {
        let mut command = command(0, &["doctor"]);
        command.env("PMI_RANK", rank).env("PMI_SIZE", "2");
        command.env("OMPI_ALLOW_RUN_AS_ROOT", "1").env("OMPI_ALLOW_RUN_AS_ROOT_CONFIRM", "1");
        run(&mut command, Duration::from_secs(60))
    };
    let (first, second) = (started("0"), started("1"));
    let text = String::from_utf8_lossy(&first.stdout);
    report(&text);
    assert!(text.contains("started 2 processes") && text.contains("mpicc --version"), "{text}");
    assert_eq!((first.status.code(), second.status.code()), (Some(2), Some(2)));
    assert!(second.stdout.is_empty(), "{}", String::from_utf8_lossy(&second.stdout));
}
