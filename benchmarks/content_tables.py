"""The tables of a card from the ranks that `content_transfer.py` left, of all its seeds, averaged user by user.

python benchmarks/content_tables.py outputs/beauty-toys
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.content_arms import NETWORKS, SCRATCH
from hfrec import paired_bootstrap
from hfrec.evaluation.metrics.bootstrap import mean_interval
from hfrec.evaluation.metrics.functions import METRIC, pooled_values
from hfrec.evaluation.verdict import with_ends

Found = dict[str, dict[str, list[NDArray[np.int64]]]]
AGAINST_SCRATCH = ("item-kNN", "EASE", "item-kNN + cosine of content", "ids from scratch")


def read(folder: Path) -> Found:
    """Ranks `(num_users,)` of each seed, by where and by arm."""
    found: Found = {}
    for path in sorted(folder.glob("ranks-*.json")):
        for where, arms in json.loads(path.read_text()).items():
            for name, seeds in arms.items():
                ranks = [np.asarray(one).reshape(-1) for one in seeds]
                found.setdefault(where, {}).setdefault(name, []).extend(ranks)
    return found


def pairs(arms: dict[str, Any]) -> list[tuple[str, str]]:
    """Which arms are compared."""
    tuned = [name for name in NETWORKS if name.startswith("fine-tuned")]
    wanted = [(SCRATCH, name) for name in AGAINST_SCRATCH] + [(name, SCRATCH) for name in tuned]
    wanted += [("fine-tuned, L2-SP", "fine-tuned"), ("fine-tuned", "fine-tuned, shuffled source")]
    wanted += [("source, zero-shot", "cosine of content"), ("source, zero-shot", "shuffled, zero-shot")]
    return [(one, other) for one, other in wanted if one in arms and other in arms]


def tables(found: Found) -> str:
    """NDCG@10 of every arm, and paired differences, with 95 % intervals over users."""
    places = [where for where in found if where.startswith("target")]
    names = list(dict.fromkeys(name for where in places for name in found[where]))
    head = [f"| NDCG@10 | {' | '.join(place.removeprefix('target').strip() or 'none' for place in places)} |"]
    head.append("|---" * (len(places) + 1) + "|")
    rows = [[cell_of(found[place].get(name)) for place in places] for name in names]
    lines = head + [f"| {name} | {' | '.join(row)} |" for name, row in zip(names, rows, strict=True)]
    lines += ["", head[0].replace("NDCG@10", "paired difference"), head[1]]
    for one, other in dict.fromkeys(pair for place in places for pair in pairs(found[place])):
        row = [
            difference_of(arms[one], arms[other]) if one in arms and other in arms else ""
            for arms in (found[place] for place in places)
        ]
        lines.append(f"| {one} − {other} | {' | '.join(row)} |")
    seeds = {place: max(map(len, found[place].values())) for place in places}
    return "\n".join([*lines, "", f"Seeds: {seeds}"])


def cell_of(ranks: list[NDArray[np.int64]] | None) -> str:
    """The mean of an arm and its interval; nothing where it was not run."""
    if ranks is None:
        return ""
    mean, *ends = mean_interval(pooled_values(ranks, METRIC))
    return with_ends(mean, ends)


def difference_of(ranks: list[NDArray[np.int64]], others: list[NDArray[np.int64]]) -> str:
    """How far an arm is above another on the same users, and its interval."""
    found = paired_bootstrap(ranks, others)
    return with_ends(found["difference"], found["difference_ci"], "+").replace("-", "−")


if __name__ == "__main__":
    print(tables(read(Path(sys.argv[1]))))
