"""The machine that measures: what it is, and how quiet it is."""

import ctypes.util
import os
import platform
import re
import resource
import time
from pathlib import Path

QUIET = 0.1  # CPUs that others may use during a measurement that is to be quoted


def cores():
    """The CPUs that this process may use."""
    return sorted(os.sched_getaffinity(0))


def cpu():
    """Name of the CPU."""
    found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.M)
    return found.group(1).strip() if found else platform.machine()


def describe():
    """Facts to keep beside the figures."""
    info = Path("/proc/cpuinfo").read_text()
    number = lambda key: (re.search(rf"^{key}\s*:\s*(\d+)$", info, re.M) or [None, "?"])[1]
    flags = set((re.search(r"^flags\s*:\s*(.+)$", info, re.M) or ["", ""])[1].split())
    pages = Path("/sys/kernel/mm/transparent_hugepage/enabled")
    chosen = re.search(r"\[(\w+)\]", pages.read_text()) if pages.exists() else None
    return {
        "cpu": cpu(), "family": number("cpu family"), "model": number("model"), "cores": len(cores()),
        "instructions": sorted(flags & {"avx2", "fma", "avx512f", "avx512_bf16", "amx_bf16"}),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(), "huge_pages": chosen.group(1) if chosen else "none",
    }


def tcmalloc():
    """Path of libtcmalloc_minimal.so.4, or None."""
    folders = ["/usr/lib", "/usr/lib64", "/usr/local/lib", *map(str, Path("/usr/lib").glob("*-linux-gnu"))]
    for folder in folders:
        path = Path(folder) / "libtcmalloc_minimal.so.4"
        if path.exists():
            return str(path)
    return ctypes.util.find_library("tcmalloc_minimal")


def _busy():
    """(busy, stolen) CPU seconds of the whole machine since it started."""
    t = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    user, nice, system, _idle, _wait, irq, softirq, steal = t
    tick = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + softirq) / tick, steal / tick


def _own():
    """CPU seconds of this process and of its children that have ended."""
    uses = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(use.ru_utime + use.ru_stime for use in uses)


class Watch:
    """How many CPUs others used since it was made."""

    def __init__(self):
        self.wall, self.own, (self.busy, self.stolen) = time.perf_counter(), _own(), _busy()

    def read(self):
        """Seconds, and CPUs used by other programs and taken by the host; read when the children have ended."""
        wall, (busy, stolen) = time.perf_counter() - self.wall, _busy()
        others = max(0.0, busy - self.busy - (_own() - self.own)) / wall
        return {"seconds": round(wall, 3), "others": round(others, 3), "stolen": round((stolen - self.stolen) / wall, 3)}


def idle_check(seconds=2):
    """CPUs in use now by others, and the load average of the last minute."""
    watch = Watch()
    time.sleep(seconds)
    return {"others": watch.read()["others"], "load_average": round(os.getloadavg()[0], 2)}
