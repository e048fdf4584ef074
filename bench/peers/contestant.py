"""Who runs: ddl and each peer in the configurations that are its best somewhere."""

import dataclasses
import os
import sys
from pathlib import Path

import machine

HERE = Path(__file__).resolve().parent
HELD_TO = {  # an instruction set: what holds ddl, torch and oneDNN (in torch and TensorFlow) to it
    "avx2": {"DDL_ISA": "avx2", "ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"},
}


@dataclasses.dataclass
class Contestant:
    """One program in one configuration. `command` lacks the pinning, which `pinned` adds."""

    name: str
    peer: str  # ddl, torch or tensorflow
    ranks: int  # cores in use
    command: list
    precision: str = "f32"
    env: dict = dataclasses.field(default_factory=dict)
    same_batch: bool = True  # whether a step is of the job's batch

    def pinned(self):
        """The command on the last `ranks` cores (interrupts mostly go to the first), or free if there are fewer."""
        cores = machine.cores()
        if self.ranks > len(cores):
            return self.command
        return ["taskset", "-c", ",".join(map(str, cores[-self.ranks:])), *self.command]


class Field:
    """Makes the contestants for one job."""

    def __init__(self, ddl, torch, tensorflow, tcmalloc, isa=None):
        self.ddl, self.torch, self.tensorflow, self.tcmalloc = ddl, torch, tensorflow, tcmalloc
        self.held = HELD_TO[isa] if isa else {}

    def ddl_on(self, ranks, arguments, bf16=False):
        """ddl on so many ranks, alone without MPI."""
        launch = ["mpirun", "-n", str(ranks)] if ranks > 1 else []
        if ranks > len(machine.cores()):
            launch.append("--oversubscribe")
        precision = "bf16" if bf16 else "f32"
        command = [*launch, str(self.ddl), *arguments, f"--set=train.precision={precision}"]
        name = f"ddl{' bf16' if bf16 else ''}, {_count(ranks, 'rank')}"
        return Contestant(name, "ddl", ranks, command, precision, _mpi() | self.held)

    def torch_on(self, name, ranks, options, arguments, tuned=True, processes=1, bf16=False):
        """torch on so many cores: one process with a thread each, or as many processes of DDP."""
        python = [str(self.torch / "bin/python")]
        if processes > 1:
            python += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
        threads = ranks // processes
        command = [*python, str(HERE / "torch_step.py"), *arguments, f"--threads={threads}", *options]
        precision = "bf16" if bf16 else "f32"
        command += ["--bf16"] if bf16 else []
        same = "--weak" not in options
        return Contestant(name, "torch", ranks, command, precision, self._env(threads, tuned), same)

    def tensorflow_on(self, name, ranks, options, arguments, bf16=False):
        """TensorFlow in one process with a thread for each core."""
        command = [str(self.tensorflow / "bin/python"), str(HERE / "tf_step.py"), *arguments, f"--threads={ranks}"]
        command += [*options, *(["--bf16"] if bf16 else [])]
        return Contestant(name, "tensorflow", ranks, command, "bf16" if bf16 else "f32", self._env(ranks, True))

    def _env(self, threads, tuned):
        env = {"OMP_NUM_THREADS": str(threads)} | self.held
        return env | ({"LD_PRELOAD": self.tcmalloc} if tuned and self.tcmalloc else {})

    def steps(self, job, ranks, bf16, quick, ddl, peer):
        """Contestants of the step benchmark on `ranks` cores; `ddl` and `peer` are the programs' arguments."""
        words = (["channels_last"] if job.images else []) + ["fused"] + (["tcmalloc"] if self.tcmalloc else [])
        best, tuned = ["--fused", *(["--channels-last"] if job.images else [])], ", ".join(words)
        cores = _count(ranks, "thread")
        yield self.ddl_on(ranks, ddl)
        if bf16:
            yield self.ddl_on(ranks, ddl, bf16=True)
        if self.torch:
            yield self.torch_on(f"torch, {cores}, {tuned}", ranks, best, peer)
            if ranks == 1 and not quick:
                yield self.torch_on("torch, 1 thread, as it comes", 1, [], peer, tuned=False)
            # Compiling made the convolutional networks slower, and torch 2.15 fails to compile the training of an LSTM.
            if not (job.images or job.recurrent or quick):
                yield self.torch_on(f"torch, {cores}, compile", ranks, [*best, "--compile"], peer)
            if ranks > 1 and job.batch % ranks == 0:
                ddp = f"torch DDP, {ranks} x 1 thread, {tuned}"
                yield self.torch_on(ddp, ranks, best, peer, processes=ranks)
                if not quick:
                    yield self.torch_on(f"{ddp}, batch x {ranks}", ranks, [*best, "--weak"], peer, processes=ranks)
            if bf16:
                yield self.torch_on(f"torch bf16, {cores}, {tuned}", ranks, best, peer, bf16=True)
        if self.tensorflow:
            yield self.tensorflow_on(f"TensorFlow, {cores}", ranks, [], peer)
            if not quick:
                yield self.tensorflow_on(f"TensorFlow, {cores}, XLA", ranks, ["--xla"], peer)
            if bf16:
                yield self.tensorflow_on(f"TensorFlow bf16, {cores}", ranks, [], peer, bf16=True)

    def trainings(self, job, ranks, ddl, peer):
        """Contestants of whole trainings on `ranks` cores."""
        best = ["--fused", "--channels-last"]
        yield self.ddl_on(ranks, ddl)
        if self.torch:
            yield self.torch_on(f"torch, {_count(ranks, 'thread')}", ranks, best, peer)
            if ranks > 1 and job.batch % ranks == 0:
                yield self.torch_on(f"torch DDP, {ranks} x 1 thread", ranks, best, peer, processes=ranks)


def _count(n, what):
    return f"{n} {what}{'' if n == 1 else 's'}"


def _mpi():
    """Open MPI refuses to run as root unless told twice."""
    root = {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    return root if os.geteuid() == 0 else {}


if sys.version_info < (3, 11):
    raise SystemExit("bench/peers needs Python 3.11 or later, which reads TOML")
