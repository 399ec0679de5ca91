"""What the runs say: a table in Markdown, the same as JSON, and a picture."""

from __future__ import annotations

import json
import statistics
from pathlib import Path
from typing import Any

Runs = list[dict[str, Any]]


def read_runs(path: Path) -> Runs:
    """Results of a JSON-lines file; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def key_of(run: dict[str, Any]) -> tuple[Any, ...]:
    """What makes two runs the same."""
    return run["peer"], Path(run["data"]).stem, run["model"], run["length"], run["round"]


def seconds_of(run: dict[str, Any], clock: str) -> float:
    """Median seconds of an epoch, the first left out where there are more; a whole one, where some batches were run."""
    return statistics.median(run[clock][1:] or run[clock]) * float(run.get("epoch_factor", 1.0))


def spread(values: list[float], digits: int = 2) -> str:
    """Median and, of several, the range."""
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def summarise(runs: Runs) -> list[dict[str, Any]]:
    """One row for each data set, objective, length and library, with its ratio to hfrec in the same rounds."""
    groups: dict[tuple[Any, ...], Runs] = {}
    for run in runs:
        groups.setdefault(key_of(run)[:4], []).append(run)
    rows = []
    for (peer, data, model, length), group in groups.items():
        ours = {run["round"]: run for run in groups.get(("hfrec", data, model, length), [])}
        ratios = [
            seconds_of(run, "cpu") / seconds_of(ours[run["round"]], "cpu") for run in group if run["round"] in ours
        ]
        row = {"data": data, "model": model, "length": length, "library": peer, "rounds": len(group)}
        row["cpu_s"] = [seconds_of(run, "cpu") for run in group]
        row["wall_s"] = [seconds_of(run, "wall") for run in group]
        row["to_hfrec"] = ratios
        row["sequences"] = group[0]["sequences"]
        row["tokens"], row["slots"] = group[0]["tokens"], group[0]["slots"]
        row["epochs"], row["requests"] = group[0]["epochs"], group[0]["requests"]
        row["whole_cpu_s"] = [float(run["whole_cpu_s"]) for run in group]
        row["peak_mb"] = [float(run["peak_mb"]) for run in group]
        row["gflops"] = [float(run[name]) for run in group for name in ("gflops_before", "gflops_after")]
        for path in ("bare", "public"):
            timed = [run[path] for run in group if path in run]
            for name in timed[0] if timed else ():
                row[f"{path}_{name}"] = [float(values[name]) for values in timed]
        rows.append(row)
    return sorted(rows, key=lambda row: (row["data"], row["model"], row["length"], statistics.median(row["cpu_s"])))


def markdown(head: str, rows: list[list[str]]) -> str:
    """A table."""
    rule = "|" + "---|" * head.count("|")
    return "\n".join([f"| {head} |", rule, *("| " + " | ".join(row) + " |" for row in rows)])


def speed_table(rows: list[dict[str, Any]]) -> str:
    """Seconds of an epoch."""
    head = (
        "data | objective | length | library | rounds | CPU s an epoch | times hfrec's | wall s | sequences"
        " | real tokens of slots | epochs | whole script CPU s | peak MB | GFLOP/s"
    )
    cells = [
        [
            *(str(row[name]) for name in ("data", "model", "length", "library", "rounds")),
            spread(row["cpu_s"]),
            spread(row["to_hfrec"]) if row["to_hfrec"] else "–",
            spread(row["wall_s"]),
            str(row["sequences"]),
            f"{row['tokens']:,} of {row['slots']:,}",
            str(row["epochs"]),
            spread(row["whole_cpu_s"], 1),
            spread(row["peak_mb"], 0),
            f"{min(row['gflops']):.0f}–{max(row['gflops']):.0f}",
        ]
        for row in rows
    ]
    return markdown(head, cells)


def inference_table(rows: list[dict[str, Any]]) -> str:
    """Users a second and single requests, by a call of the model and by what the library offers."""
    head = (
        "data | objective | length | library | users a CPU second, model call | library's way"
        " | request p50 CPU ms, model call | library's way | wall ms, model call | library's way"
    )
    cells = [
        [
            *(str(row[name]) for name in ("data", "model", "length", "library")),
            *(
                spread(row[f"{path}_{name}"], digits)
                for name, digits in (("users_per_cpu_s", 0), ("request_cpu_ms", 2), ("request_ms", 2))
                for path in ("bare", "public")
            ),
        ]
        for row in rows
        if "bare_request_ms" in row
    ]
    return markdown(head, cells)


def picture(rows: list[dict[str, Any]], path: Path) -> None:
    """CPU seconds of an epoch as bars, on a logarithmic axis."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    cases = list(dict.fromkeys((row["data"], row["model"], row["length"]) for row in rows))
    libraries = sorted({row["library"] for row in rows}, key=lambda name: (name != "hfrec", name))
    figure, axes = pyplot.subplots(figsize=(1.5 + 1.6 * len(cases), 4), layout="constrained")
    width = 0.8 / len(libraries)
    for place, library in enumerate(libraries):
        found = {(row["data"], row["model"], row["length"]): row for row in rows if row["library"] == library}
        where = [number for number, case in enumerate(cases) if case in found]
        values = [found[cases[number]]["cpu_s"] for number in where]
        middles = [statistics.median(value) for value in values]
        errors = [
            [middle - min(value) for middle, value in zip(middles, values, strict=True)],
            [max(value) - middle for middle, value in zip(middles, values, strict=True)],
        ]
        axes.bar([number + place * width for number in where], middles, width, yerr=errors, label=library)
    axes.set_yscale("log")
    axes.set_ylabel("CPU seconds an epoch, one thread")
    axes.set_xticks([number + 0.4 - width / 2 for number in range(len(cases))])
    axes.set_xticklabels([f"{data}\n{model}, {length}" for data, model, length in cases])
    axes.legend()
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def installs(folder: Path) -> str:
    """What installing took."""
    rows = []
    for path in sorted(folder.glob("*/install.json")):
        took = json.loads(path.read_text(encoding="utf-8"))
        rows.append([path.parent.name, *(str(took[name]) for name in ("seconds", "megabytes", "packages"))])
    return markdown("library | seconds | MB | packages", rows)


def write(folder: Path, name: str) -> None:
    """Write the table as .json and .md and the picture as .png beside the .jsonl of this name."""
    rows = summarise(read_runs(folder / f"{name}.jsonl"))
    (folder / f"{name}.json").write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    tables = [speed_table(rows), inference_table(rows), installs(folder)]
    (folder / f"{name}.md").write_text("\n\n".join(tables) + "\n", encoding="utf-8")
    picture(rows, folder / f"{name}.png")
    print(tables[0])
