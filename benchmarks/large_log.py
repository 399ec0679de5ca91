"""Time and peak memory of `hfrec prepare --layout sequences` on a large log, and of DuckDB with the SQL of the docs.

python benchmarks/large_log.py --interactions 20000000 --output_dir outputs/large_log [--duckdb_python venv/bin/python]

The log is synthetic: a CSV in the order of time, heavy-tailed users and items, 100 interactions a user. Each run is a
process of its own with two threads, killed above `--cap_gb` of resident memory; in a round each engine runs once.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from hfrec.data.files import write_json

DOCS = Path(__file__).parents[1] / "docs" / "scaling.md"
PIECE = 2_000_000
USER_TAIL, ITEM_TAIL = 1.5, 3.0  # the first thousandth of the users has a hundredth of the log, of the items a tenth
DUCKDB = """
import duckdb, sys
log, sql, folder = sys.argv[1:]
engine = duckdb.connect(folder + "/work.duckdb")
engine.execute(f"SET memory_limit = '3GB'; SET threads = 2; SET temp_directory = '{folder}/spill'")
source = f"SELECT *, row_number() OVER () AS place FROM read_csv('{log}')"
engine.execute(f"CREATE VIEW log AS {source}")
engine.execute(open(sql).read())
for name in ("train", "validation", "test", "items"):
    engine.execute(f"COPY {name} TO '{folder}/{name}.parquet'")
"""


def write_log(path: Path, interactions: int) -> None:
    """The synthetic log, piece by piece."""
    draw = np.random.default_rng(0)
    num_users, num_items = interactions // 100, max(1000, interactions // 400)
    with path.open("wb") as file:
        for start in range(0, interactions, PIECE):
            size = min(PIECE, interactions - start)
            users = (num_users * draw.random(size) ** USER_TAIL).astype(np.int64)
            items = (num_items * draw.random(size) ** ITEM_TAIL).astype(np.int64)
            times = np.arange(start, start + size) // 10  # ties of ten
            piece = pl.DataFrame({"user_id": users, "item_id": items, "timestamp": times})
            piece.write_csv(file, include_header=start == 0)


def measure(command: list[str], cap: float) -> dict[str, float]:
    """Wall and CPU seconds and peak resident gigabytes of a command.

    Raises:
        RuntimeError: It failed, or went above `cap` gigabytes and was killed.
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "2", "POLARS_MAX_THREADS": "2"}
    start, peak = time.perf_counter(), 0.0
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        pages = int(Path(f"/proc/{process.pid}/statm").read_text(encoding="utf-8").split()[1])
        peak = max(peak, pages * os.sysconf("SC_PAGE_SIZE") / 1e9)
        if peak > cap:
            process.kill()
        time.sleep(0.05)
    if status:
        raise RuntimeError(f"{command[0]} ended with status {status} after a peak of {peak:.2f} GB.")
    wall = time.perf_counter() - start
    return {"wall_s": wall, "cpu_s": usage.ru_utime + usage.ru_stime, "peak_gb": usage.ru_maxrss * 1024 / 1e9}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--interactions", type=int, default=20_000_000)
    parser.add_argument("--output_dir", default="outputs/large_log")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cap_gb", type=float, default=4.0)
    parser.add_argument("--duckdb_python", help="Interpreter that has duckdb; hfrec alone without.")
    options = parser.parse_args()
    folder = Path(options.output_dir).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    log, made, query = folder / "log.csv", folder / "made", folder / "docs.sql"
    write_log(log, options.interactions)
    sql = re.search(r"```sql\n(.*?)```", DOCS.read_text(encoding="utf-8"), re.DOTALL)
    if sql is None:
        raise ValueError(f"Expected a block of SQL in {DOCS}, found none.")
    query.write_text(sql.group(1), encoding="utf-8")
    prepare = ["prepare", "--train_file", str(log), "--output_dir", str(made), "--layout", "sequences"]
    commands = {"hfrec": [str(Path(sys.executable).parent / "hfrec"), *prepare]}
    if options.duckdb_python:
        commands["duckdb"] = [options.duckdb_python, "-c", DUCKDB, str(log), str(query), str(made)]
    runs: list[dict[str, Any]] = []
    for _ in range(options.rounds):
        for engine, command in commands.items():
            shutil.rmtree(made, ignore_errors=True)
            made.mkdir()
            runs.append({"engine": engine, **measure(command, options.cap_gb)})
            print(runs[-1], flush=True)
    shutil.rmtree(made)
    write_json(folder / "large_log.json", {"csv_gb": log.stat().st_size / 1e9, **vars(options), "runs": runs})
    log.unlink()
    for engine in commands:
        group = [run for run in runs if run["engine"] == engine]
        values = (
            f"{name} {statistics.median(run[name] for run in group):.1f}" for name in ("wall_s", "cpu_s", "peak_gb")
        )
        print(engine, *values)


if __name__ == "__main__":
    main()
