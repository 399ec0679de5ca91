"""hfrec and other libraries on the same work: rounds in which each runs once, one after the other.

python benchmarks/bench_peers.py --data interactions.csv --output_dir outputs/peers

`--data` is a file or the name of a data set; without it, MovieLens-100K is taken. With `--requests 0` the whole script
is imports, reading, training and one evaluation of validation and test users. Each run is a process of its own with one
thread. A run that is in the results already is not run again, so that an interrupted call goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "peers"))

import install
import prepare
import report

RUNNERS = Path(__file__).parent / "peers"


def python_of(library: str, folder: Path) -> str:
    """The interpreter that has the library."""
    return sys.executable if library == "hfrec" else str(folder / library / "bin" / "python")


def done(path: Path) -> set[tuple[Any, ...]]:
    """Keys of the runs whose results are there."""
    return {report.key_of(run) for run in report.read_runs(path)}


def run_one(library: str, case: dict[str, Any], folder: Path, *, options: argparse.Namespace) -> None:
    """Run a library once in a process of its own; a failure is said and leaves the others alone."""
    draft, logs = folder / f"{options.name}_last.jsonl", folder / "logs"
    draft.unlink(missing_ok=True)
    logs.mkdir(exist_ok=True)
    command = [python_of(library, folder), str(RUNNERS / f"run_{library}.py"), "--out", str(draft)]
    command += [word for name, value in case.items() if name != "round" for word in (f"--{name}", str(value))]
    if library == "hfrec":
        command += shlex.split(options.hfrec_flags)
    log = logs / f"{options.name}_{library}_{case['model']}_{case['length']}.log"
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    with log.open("w") as output:
        try:
            subprocess.run(
                command, stdout=output, stderr=output, cwd=folder, env=environment, check=True, timeout=options.timeout
            )
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            print(f"{library} failed, see {log}: {error}", flush=True)
            return
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    whole = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    result = {**json.loads(draft.read_text(encoding="utf-8")), "round": case["round"], "whole_cpu_s": whole}
    with (folder / f"{options.name}.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(result) + "\n")


def measure(data: Path, folder: Path, options: argparse.Namespace) -> None:
    """All rounds: in each, every case, and in it every library, in turn from the front and from the back."""
    for number in range(options.rounds):
        for length in options.lengths:
            for model in options.models:
                order = options.libraries if number % 2 == 0 else options.libraries[::-1]
                for library in order:
                    case = {
                        "data": str(data),
                        "model": model,
                        "length": length,
                        "epochs": options.epochs,
                        "requests": options.requests,
                        "round": number,
                    }
                    if report.key_of({"peer": library, **case}) not in done(folder / f"{options.name}.jsonl"):
                        run_one(library, case, folder, options=options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default=os.environ.get("HFREC_BENCH_DATA") or "ml-100k", help="Log, or its name.")
    parser.add_argument("--output_dir", default="outputs/peers")
    parser.add_argument("--name", default="speed", help="Of the files with the results.")
    parser.add_argument("--libraries", nargs="+", default=["hfrec", *install.PEERS])
    parser.add_argument("--hfrec_flags", default="", help="Further flags of peers/run_hfrec.py, in one word.")
    parser.add_argument("--models", nargs="+", default=["masked", "causal"])
    parser.add_argument("--lengths", type=int, nargs="+", default=[50, 200])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4, help="The first of them warms up and does not count.")
    parser.add_argument("--requests", type=int, default=200, help="Single requests timed; 0: no inference is timed.")
    parser.add_argument("--min_interactions", type=int, default=1, help="Users and items with fewer are dropped.")
    parser.add_argument("--timeout", type=int, default=1800, help="Seconds after which a run is given up.")
    options = parser.parse_args()
    folder = Path(options.output_dir).absolute()
    # Logs of other folders, or filtered in another way, may have the same name.
    source, core = Path(options.data), f"{options.min_interactions}-core" if options.min_interactions > 1 else ""
    name = "-".join(filter(None, [source.parent.name, source.name.split(".")[0], core]))
    data = folder / "data" / f"{name}.csv"
    if not data.exists():
        prepare.write_log(options.data, data, options.min_interactions)
    for library in options.libraries:
        if library != "hfrec":
            install.install(library, folder / library)
    measure(data, folder, options)
    report.write(folder, options.name)


if __name__ == "__main__":
    main()
