"""Peak memory of item-kNN, as the final test of `hfrec pretrain` fits it, on logs of long histories.

OMP_NUM_THREADS=1 python benchmarks/item_knn_memory.py

Each log is a process of its own, in which item-kNN is tuned on validation. The peak is the resident memory that the
kernel reports; `beside imports` is what it is above that of the process before the log is made.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

import numpy as np

# users, items of each history, items of the catalogue
LOGS = {
    "100,000 interactions of 100 users": (100, 1000, 50_000),
    "510 users with 2,000 items each of a million": (510, 2000, 1_000_000),
}


def peak() -> float:
    """Largest resident GB of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def measure(users: int, length: int, items: int) -> dict[str, float]:
    """Tune item-kNN on a log of random items; the newest item of each user is its validation target."""
    from hfrec.evaluation.tuning import tune

    imported = peak()
    draw = np.random.default_rng(0)
    rows = [draw.choice(items, length, replace=False) + 3 for _ in range(users)]
    histories = [row[:-1] for row in rows]
    targets = [int(row[-1]) for row in rows]
    begin = time.process_time()
    tuned = tune("item_knn", histories, histories=histories, targets=targets, vocab_size=items + 3)
    seconds = time.process_time() - begin
    return {"peak": peak(), "beside": peak() - imported, "seconds": seconds, "trials": tuned.num_trials}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--log", choices=LOGS, help="Measure this one in this process.")
    options = parser.parse_args()
    if options.log:
        print(json.dumps(measure(*LOGS[options.log])))
        return
    print("| log | peak, GB | beside imports, GB | CPU s | settings tried |\n|---|---|---|---|---|")
    for name in LOGS:
        command = [sys.executable, __file__, "--log", name]
        row = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
        print(f"| {name} | {row['peak']:.2f} | {row['beside']:.2f} | {row['seconds']:.0f} | {row['trials']} |")


if __name__ == "__main__":
    main()
