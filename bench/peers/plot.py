"""Bars as SVG, by hand: one block a job, one bar a contestant, each block on a scale of its own."""

from html import escape

COLOURS = {"ddl": "#1b7f5c", "torch": "#d1603d", "tensorflow": "#e3a72f"}
BAR, GAP, LEFT, WIDTH, RIGHT = 18, 34, 410, 420, 130


def text(x, y, words, size=12, anchor="start", weight="normal"):
    return (f'<text x="{x:.0f}" y="{y:.0f}" font-size="{size}" text-anchor="{anchor}" font-weight="{weight}">'
            f"{escape(words)}</text>")


def bars(jobs, headline):
    """The whole picture; whiskers reach from the slowest round to the fastest."""
    unit = "seconds, process start to results on disk" if any("epochs" in job for job in jobs) else "samples/s"
    parts, y = [text(12, 24, f"{unit}: {headline}", 14, weight="bold")], 44
    for job in jobs:
        training = "epochs" in job
        lanes = [lane for lane in job.get("contestants", []) if "median" in lane]
        if not lanes:
            continue
        seen = (lambda v: 1 / v) if training else (lambda v: v)
        scale = WIDTH / max(max(seen(lane["minimum"]), seen(lane["maximum"])) for lane in lanes)
        y += GAP
        parts.append(text(12, y - 8, f"{job['job']}, batch {job['batch']}", 13, weight="bold"))
        for lane in lanes:
            length, middle = seen(lane["median"]) * scale, y + BAR / 2 - 1
            low, high = (LEFT + seen(lane[end]) * scale for end in ("minimum", "maximum"))
            label = f"{seen(lane['median']):,.1f}" if training else f"{lane['median']:,.0f}"
            label += f"   /{lane['ratio']:.2f}" if "ratio" in lane else ""
            shade = 1 if lane["same_batch"] else 0.45
            parts += [
                text(LEFT - 8, middle + 4, lane["name"], 11, "end"),
                f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="{BAR - 3}" fill="{COLOURS[lane["peer"]]}" '
                f'opacity="{shade}"/>',
                f'<path d="M{low:.1f} {middle:.1f}H{high:.1f}" stroke="#222" stroke-width="1.5"/>',
                text(max(LEFT + length, low, high) + 6, middle + 4, label, 11),
            ]
            y += BAR
    width, height = LEFT + WIDTH + RIGHT, y + 36
    parts.append(text(12, height - 12, "/x: ddl on as many cores is x times as fast. Lines: slowest to fastest round.", 11))
    return (f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="sans-serif">\n'
            f'<rect width="{width}" height="{height}" fill="white"/>\n' + "\n".join(parts) + "\n</svg>\n")
