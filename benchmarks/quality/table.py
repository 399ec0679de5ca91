"""The README's table of results, made from the files in `results/`.

python benchmarks/quality/table.py   # writes it between the two markers of README.md
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
README = HERE.parents[1] / "README.md"
BEGIN, END = "<!-- results: benchmarks/quality/table.py -->", "<!-- end of results -->"


def table() -> str:
    """One row for each file of `reproduce.py`, beside the best of the same run's baselines and the best published."""
    published = json.loads((HERE / "published.json").read_text(encoding="utf-8"))
    lines = [
        "| recipe | NDCG@10, mean of seeds | each seed | HR@10 | best part or baseline | published, NDCG / HR "
        "| CPU min a seed |",
        "|---|---|---|---|---|---|---|",
    ]
    for path in sorted((HERE / "results").glob("*.json")):
        found = json.loads(path.read_text(encoding="utf-8"))
        lines.append(row(found, published.get(found["recipe"])))
    return "\n".join(lines)


def row(found: dict[str, Any], published: dict[str, Any] | None) -> str:
    """A row of the table."""
    setting = found["decided_by"]
    seeds = ", ".join(short(seed[setting]["ndcg@10"]) for seed in found["seeds"])
    name, best = max(found["baselines"].items(), key=lambda item: item[1]["ndcg@10"])
    known = "" if published is None else reference(published)
    spent = [seed["cpu_seconds"] for seed in found["seeds"] if seed["cpu_seconds"]]
    minutes = f"{sum(spent) / len(spent) / 60:.1f}" if spent else ""
    mean = found["mean"]
    cells = [f"`{found['recipe']}`", f"**{short(mean['ndcg@10'])}**", seeds, short(mean["hit_rate@10"])]
    return "| " + " | ".join([*cells, f"{name} {short(best['ndcg@10'])}", known, minutes]) + " |"


def reference(published: dict[str, Any]) -> str:
    """NDCG@10 and HR@10 of the best published, and whose it is."""
    hits = "" if published["hit_rate@10"] is None else f" / {short(published['hit_rate@10'])}"
    return f"{short(published['ndcg@10'])}{hits} ({published['what']})"


def short(value: float) -> str:
    """Four decimals without the zero before the point."""
    return f"{value:.4f}".removeprefix("0")


def with_table(readme: str) -> str:
    """The README with the table between its markers."""
    before, _, rest = readme.partition(BEGIN)
    return f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text(encoding="utf-8")), encoding="utf-8")
