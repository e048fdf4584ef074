"""From rows to medians and ratios, and from these to a JSON file, a table and a plot."""

import datetime
import json
import platform
import re
import statistics
import subprocess

import machine
import plot
from contestant import HELD_TO


def shown(row):
    """A row in one phrase."""
    if "samples_per_second" in row:
        return f"{row['samples_per_second']:>10,.0f} samples/s"
    return f"{row['seconds']:>8.1f} s, test accuracy {100 * row['test_accuracy']:.2f} %"


def value(row):
    """Samples a second, or for whole trainings their inverse duration: more is better."""
    return row.get("samples_per_second") or 1 / row["seconds"]


def summarise(entry):
    """Adds median, minimum and maximum to each contestant, and how many times as fast ddl on as many cores is: in f32, or
    against bf16 in whichever is faster."""
    lanes = [lane for lane in entry["contestants"] if lane["rows"]]
    for lane in lanes:
        values = [value(row) for row in lane["rows"]]
        lane.update(median=statistics.median(values), minimum=min(values), maximum=max(values))
    for lane in lanes:
        allowed = {"f32", lane["precision"]}
        ours = [d for d in lanes if d["peer"] == "ddl" and d["ranks"] == lane["ranks"] and d["precision"] in allowed]
        ddl = max(ours, key=lambda d: d["median"], default=None)
        if ddl and lane["peer"] != "ddl":
            by_round = [value(d) / value(p) for d, p in zip(ddl["rows"], lane["rows"])]
            lane.update(ratio=ddl["median"] / lane["median"], ratio_minimum=min(by_round), ratio_maximum=max(by_round))


def best_peers(entry):
    """The fastest peer that does the same work: one for each number of cores and precision."""
    best = {}
    for lane in sorted((l for l in entry["contestants"] if "ratio" in l and l["same_batch"]), key=lambda l: l["ratio"]):
        best.setdefault((lane["ranks"], lane["precision"]), lane)
    return best


class Result:
    """All that was measured; `save` writes it whole each time."""

    def __init__(self, a, before, tcmalloc, root):
        now, what = datetime.datetime.now(), (f"-{a.isa}" if a.isa else "") + (f"-train-{a.train}" if a.train else "")
        cpu = re.sub(r"\W+", "-", machine.cpu().lower()).strip("-")
        stem = f"{now:%Y-%m-%d}-{cpu}{what}{'-quick' if a.quick else ''}"
        taken = sum(1 for path in a.out.glob(f"{stem}*.json") if re.fullmatch(r"(\.\d+)?", path.stem[len(stem):]))
        self.stem, self.folder, self.jobs = f"{stem}.{taken + 1}" if taken else stem, a.out, []
        git = lambda *command: subprocess.run(["git", *command], cwd=root, text=True, capture_output=True).stdout.strip()
        self.facts = {
            "date": f"{now:%Y-%m-%d %H:%M}", "machine": machine.describe(), "before": before,
            "ddl": subprocess.check_output([a.ddl, "--version"], text=True).strip(),
            "commit": git("rev-parse", "--short", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else ""),
            "python": platform.python_version(), "tcmalloc": bool(tcmalloc),
            "rounds": a.rounds, "warmup": a.warmup, "held_to": HELD_TO.get(a.isa, {}),
        }

    def path(self, end):
        return self.folder / (self.stem + end)

    def save(self):
        for entry in self.jobs:
            summarise(entry)
        self.folder.mkdir(parents=True, exist_ok=True)
        self.path(".json").write_text(json.dumps(self.facts | {"jobs": self.jobs}, indent=1) + "\n")
        self.path(".md").write_text(self.markdown())
        self.path(".svg").write_text(plot.bars(self.jobs, self.headline()))

    def headline(self):
        m = self.facts["machine"]
        return f"{m['cpu']} (family {m['family']}, model {m['model']}), {self.facts['date']}"

    def noisy(self):
        """(measurements while others used the machine, all of them)"""
        rows = [row for entry in self.jobs for lane in entry.get("contestants", []) for row in lane["rows"]]
        return sum(row["others"] + row["stolen"] > machine.QUIET for row in rows), len(rows)

    def markdown(self):
        f, m = self.facts, self.facts["machine"]
        noisy, rows = self.noisy()
        versions = sorted({f"{lane['peer']} {row['version']}" for entry in self.jobs
                           for lane in entry["contestants"] for row in lane["rows"] if "version" in row})
        text = [
            f"# {self.headline()}", "",
            f"{f['ddl']} ({f['commit']}), {', '.join(versions)}, Python {f['python']}. {m['cores']} cores with "
            f"{', '.join(m['instructions'])}, {m['memory_gib']} GiB, Linux {m['kernel']}, huge pages {m['huge_pages']}. "
            f"Medians of {f['rounds']} round(s) in alternation; a process for each measurement.", "",
            *([f"With {' '.join(f'{k}={v}' for k, v in f['held_to'].items())}.", ""] if f["held_to"] else []),
            f"**Not quiet: others used more than {machine.QUIET} CPUs in {noisy} of {rows} measurements. Do not quote.**"
            if noisy else f"Quiet: others used at most {machine.QUIET} CPUs in each of {rows} measurements.", ""]
        for entry in self.jobs:
            text += self.table(entry)
        return "\n".join(text)

    def table(self, entry):
        training = "epochs" in entry
        length = f"{entry['epochs']} epochs" if training else f"{entry['steps']} steps"
        best = [id(lane) for lane in best_peers(entry).values()]
        unit = "seconds | test accuracy" if training else "samples/s"
        yield f"## {entry['job']}: batch {entry['batch']}, {entry['parameters']:,} parameters, {length}\n"
        yield f"| cores | | {unit} | minimum to maximum | ddl to this | minimum to maximum |"
        yield f"|---|---|{'---:|' if training else ''}---:|---:|---:|---:|"
        number = (lambda v: f"{1 / v:.1f}") if training else (lambda v: f"{v:,.0f}")
        for lane in entry["contestants"]:
            bold = "**" if lane["peer"] == "ddl" or id(lane) in best else ""
            name = f"| {lane['ranks']} | {bold}{lane['name']}{bold} |"
            if "median" not in lane:
                yield f"{name} {'|' if training else ''}failed | | | |"
                continue
            accuracy = statistics.median(row["test_accuracy"] for row in lane["rows"]) if training else 0
            ends = sorted([lane["minimum"], lane["maximum"]], reverse=training)
            cells = [number(lane["median"]), *([f"{100 * accuracy:.2f} %"] if training else []),
                     f"{number(ends[0])} to {number(ends[1])}"]
            cells += ([f"{bold}{lane['ratio']:.2f}{bold}", f"{lane['ratio_minimum']:.2f} to {lane['ratio_maximum']:.2f}"]
                      if "ratio" in lane else ["", ""])
            yield f"{name} {' | '.join(cells)} |"
        yield ""
