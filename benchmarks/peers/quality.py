"""Time to equal quality: what each library reaches within a budget of CPU seconds, and when hfrec has reached that.

python benchmarks/peers/quality.py outputs/peers/quality.jsonl

The file holds runs with `--cpu_limit 300 --evaluations 20 --epochs 100000`, several seeds each. NDCG@10 of the test,
seen items left out, after the budget and at the epoch that is best on validation.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path
from typing import Any

import report


def at_end(run: dict[str, Any]) -> dict[str, float]:
    """The last point of a curve."""
    return run["curve"][-1]  # type: ignore[no-any-return]


def at_best(run: dict[str, Any]) -> dict[str, float]:
    """The point that is best on validation."""
    return max(run["curve"], key=lambda point: point["validation"])  # type: ignore[no-any-return]


def seconds_to(run: dict[str, Any], level: float, part: str) -> float | None:
    """CPU seconds at the first point that reaches a level, None where none does."""
    return next((point["cpu_s"] for point in run["curve"] if point[part] >= level), None)


def table(runs: report.Runs) -> str:
    """One row for each objective and library."""
    groups: dict[tuple[str, str], report.Runs] = {}
    for run in runs:
        groups.setdefault((run["model"], run["peer"]), []).append(run)
    rows = []
    for (model, peer), group in sorted(groups.items()):
        ends, bests = [at_end(run) for run in group], [at_best(run) for run in group]
        spent = statistics.median(point["cpu_s"] for point in ends)
        cells = [model, peer, str(len(group)), f"{spent:.0f}", report.spread([point["test"] for point in ends], 4)]
        cells += [
            report.spread([point[name] for point in bests], digits) for name, digits in (("test", 4), ("cpu_s", 0))
        ]
        rows.append(cells)
    head = "objective | library | seeds | CPU s | test NDCG@10 then | at best validation | CPU s until it"
    return report.markdown(head, rows)


def main() -> None:
    runs = report.read_runs(Path(sys.argv[1]))
    print(table(runs))
    for model in sorted({run["model"] for run in runs}):
        peers = [run for run in runs if run["model"] == model and run["peer"] != "hfrec"]
        names = {run["peer"] for run in peers}
        levels = {name: statistics.mean(at_end(run)["test"] for run in peers if run["peer"] == name) for name in names}
        if levels:
            best = max(levels, key=lambda name: levels[name])
            ours = [
                seconds_to(run, levels[best], "test") for run in runs if (run["model"], run["peer"]) == (model, "hfrec")
            ]
            print(f"\n{model}: {best} ends at {levels[best]:.4f}; hfrec is there after CPU s {ours}")


if __name__ == "__main__":
    main()
