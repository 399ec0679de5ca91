"""`hfrec serve` under load: requests a second and latency beside a bare FastAPI application, and a soak with swaps.

python benchmarks/serving.py --model_name_or_path out --train_file ml-100k --output_dir outputs/serving
python benchmarks/serving.py … --soak_seconds 600    # all figures of benchmarks/README.md, some 13 minutes

The load comes from wrk (Debian: `apt-get install wrk`) on loopback. The server has one core to itself where there are
two, wrk the other. Every request is `POST /recommend` with the newest `length` items of a user of the log, or of
`--histories` of them, ten items asked for. CPU seconds are the server's own, so that they hold on a busy machine too;
the hello-world is the same uvicorn with one route.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from hfrec import export_onnx, load_checkpoint, load_interactions
from hfrec.commands.parsing import parse_arguments
from hfrec.data.files import write_json
from hfrec.data.interactions import histories_of
from hfrec.serving.settings import TOKEN_VARIABLE

TOKEN = "benchmark"
SERVERS = ("hello-world", "ONNX", "PyTorch")
HELLO = """
import os, sys
import uvicorn
from fastapi import FastAPI, Request
app = FastAPI()

@app.post("/recommend")
async def hello(request: Request):
    await request.body()
    return {"hello": "world"}

sys.stdout.write("listening\\n"); sys.stdout.flush()
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False)
"""
# Reads a body a line and says what came of it as JSON.
LUA = """
local bodies, place = {}, 0
for line in io.lines(os.getenv("BODIES")) do bodies[#bodies + 1] = line end
wrk.method, wrk.headers["Content-Type"] = "POST", "application/json"
request = function() place = place % #bodies + 1; return wrk.format(nil, "/recommend", nil, bodies[place]) end
done = function(summary, latency)
  local e = summary.errors
  io.stderr:write(string.format(
    '{"requests":%d,"seconds":%f,"p50_ms":%f,"p95_ms":%f,"p99_ms":%f,"failed":%d}',
    summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3, latency:percentile(95) / 1e3,
    latency:percentile(99) / 1e3, e.connect + e.read + e.write + e.status + e.timeout))
end
"""


@dataclass
class ServingArguments:
    """The checkpoint, the log whose users ask, and how long."""

    model_name_or_path: str = field(metadata={"help": "Checkpoint folder."})
    train_file: str = field(metadata={"help": "Log whose users ask: a file or a named data set."})
    output_dir: str = field(metadata={"help": "Folder of the exports and of serving.json."})
    length: int = field(default=50, metadata={"help": "Newest items of a history."})
    histories: int = field(default=1, metadata={"help": "Of one request, each of another user."})
    seconds: int = field(default=10, metadata={"help": "Of each measurement."})
    rounds: int = field(default=3, metadata={"help": "Each server in turn, in every round."})
    servers: list[str] = field(
        default_factory=lambda: list(SERVERS), metadata={"help": "Which to measure; the hello-world is always there."}
    )
    clients: list[int] = field(default_factory=lambda: [1, 8, 64], metadata={"help": "Connections at a time."})
    soak_seconds: int = field(default=0, metadata={"help": "Also 64 clients this long, with swaps; 0 without."})
    reload_seconds: float = field(default=10.0, metadata={"help": "Seconds between the swaps of the soak."})
    port: int = field(default=8321, metadata={"help": "Port on loopback."})


def write_bodies(arguments: ServingArguments, known: set[str], path: Path) -> None:
    """Bodies of requests, a line each."""
    histories = histories_of(load_interactions(arguments.train_file).table)[1]
    rows = [[item for item in row if item in known][-arguments.length :] for row in histories]
    rows = [row for row in rows if len(row) == arguments.length]
    random.Random(0).shuffle(rows)
    groups = (rows[start : start + arguments.histories] for start in range(0, len(rows), arguments.histories))
    lines = (json.dumps({"histories": group, "top_k": 10}) for group in groups)
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")


@contextmanager
def server(words: Sequence[str], port: int) -> Iterator[tuple[int, dict[str, float]]]:
    """A server on the first core: its process id and the seconds, and CPU seconds, until it answered."""
    cores = sorted(os.sched_getaffinity(0))
    environment = {**os.environ, TOKEN_VARIABLE: TOKEN, "OMP_NUM_THREADS": "1", "HFREC_LOG_LEVEL": "ERROR"}
    began = time.perf_counter()
    process = subprocess.Popen(words, env=environment, stdout=subprocess.DEVNULL)
    os.sched_setaffinity(process.pid, cores[:1])
    try:
        for _ in range(1200):
            try:
                httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5)
                break
            except httpx.TransportError:
                time.sleep(0.05)
        yield process.pid, {"seconds": time.perf_counter() - began, "cpu_seconds": cpu_seconds(process.pid)}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)


def load(arguments: ServingArguments, clients: int, seconds: int, folder: Path) -> dict[str, Any]:
    """What wrk says of `clients` connections."""
    last = str(sorted(os.sched_getaffinity(0))[-1])
    words = ["taskset", "-c", last, "wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "10s"]
    words += ["-s", str(folder / "load.lua"), f"http://127.0.0.1:{arguments.port}"]
    environment = {**os.environ, "BODIES": str(folder / "bodies.jsonl")}
    result = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
    found: dict[str, Any] = json.loads(result.stderr)
    return found


def cpu_seconds(pid: int) -> float:
    """User and system time of a process so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def resident_mb(pid: int) -> float:
    """Memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def measure(arguments: ServingArguments, pid: int, folder: Path) -> dict[str, Any]:
    """Every number of clients, after a second that warms up."""
    load(arguments, 8, 1, folder)
    found = {}
    for clients in arguments.clients:
        before = cpu_seconds(pid)
        row = load(arguments, clients, arguments.seconds, folder)
        row["per_second"] = row["requests"] / row["seconds"]
        row["per_cpu_second"] = row["requests"] / (cpu_seconds(pid) - before)
        found[str(clients)] = row
    return found


def soak(arguments: ServingArguments, pid: int, folder: Path, exports: Sequence[str]) -> dict[str, Any]:
    """64 clients, a swap every `reload_seconds`, the memory meanwhile."""
    reloads, memory, stop = [], [], threading.Event()

    def swap() -> None:
        turn = 0
        while not stop.wait(arguments.reload_seconds):
            turn += 1
            answer = httpx.post(
                f"http://127.0.0.1:{arguments.port}/reload",
                json={"model_name_or_path": exports[turn % 2]},
                headers={"Authorization": f"Bearer {TOKEN}"},
                timeout=120,
            )
            reloads.append(answer.status_code)
            memory.append(resident_mb(pid))

    thread = threading.Thread(target=swap)
    thread.start()
    before = cpu_seconds(pid)
    found = load(arguments, 64, arguments.soak_seconds, folder)
    found["per_cpu_second"] = found["requests"] / (cpu_seconds(pid) - before)
    stop.set()
    thread.join()
    return {
        **found,
        "reloads": len(reloads),
        "failed_reloads": sum(status != 200 for status in reloads),
        "resident_mb": {"after each swap": memory, **thirds(memory)},
    }


def thirds(memory: Sequence[float]) -> dict[str, float]:
    """Means of the first, middle and last third of a series, and its highest value."""
    parts = [memory[len(memory) * part // 3 : len(memory) * (part + 1) // 3] or memory for part in range(3)]
    names = ("first third", "middle third", "last third")
    means = {name: sum(part) / len(part) for name, part in zip(names, parts, strict=True)}
    return {**means, "highest": max(memory)}


def table(results: dict[str, Any]) -> str:
    """The rounds as medians with ranges; CPU time also as times that of the hello-world, round by round."""
    lines = ["| server | clients | requests/s | per CPU second | × hello-world | p50 ms | p95 ms | p99 ms | failed |"]
    lines.append("|" + "---|" * 9)
    for name, rounds in results.items():
        for clients in rounds[0]:
            cells = [name, clients]
            for key, digits in (("per_second", 0), ("per_cpu_second", 0), ("p50_ms", 1), ("p95_ms", 1), ("p99_ms", 1)):
                values = sorted(row[clients][key] for row in rounds)
                middle = values[len(values) // 2]
                cells.append(f"{middle:.{digits}f} ({values[0]:.{digits}f}–{values[-1]:.{digits}f})")
            plain = results["hello-world"]
            costs = [
                p[clients]["per_cpu_second"] / r[clients]["per_cpu_second"] for p, r in zip(plain, rounds, strict=True)
            ]
            cells.insert(4, f"{sorted(costs)[len(costs) // 2]:.1f}")
            lines.append("| " + " | ".join([*cells, str(sum(row[clients]["failed"] for row in rounds))]) + " |")
    return "\n".join(lines)


def main(arguments: ServingArguments) -> dict[str, Any]:
    """Export twice, measure, and soak where it is asked for."""
    missing = [name for name in ("wrk", "taskset") if shutil.which(name) is None]
    if missing:
        raise ImportError(f"the load needs {', '.join(missing)}: apt-get install wrk util-linux")
    folder = Path(arguments.output_dir)
    folder.mkdir(parents=True, exist_ok=True)
    model, tokenizer = load_checkpoint(arguments.model_name_or_path)
    exports = [folder / "exported", folder / "exported-again"]
    for export in exports:
        shutil.rmtree(export, ignore_errors=True)
        export_onnx(model, tokenizer, export)
    write_bodies(arguments, set(tokenizer.items["item_id"].to_pylist()), folder / "bodies.jsonl")
    (folder / "load.lua").write_text(LUA, encoding="utf-8")
    port = str(arguments.port)
    serve = [sys.executable, "-m", "hfrec.serving", "--port", port, "--history_store", "none", "--model_name_or_path"]
    words = {
        "hello-world": [sys.executable, "-c", HELLO, port],
        "ONNX": [*serve, str(exports[0])],
        "PyTorch": [*serve, arguments.model_name_or_path],
    }
    servers = {name: words[name] for name in words if name == "hello-world" or name in arguments.servers}
    results: dict[str, Any] = {"start": {name: [] for name in servers}}
    results["load"] = {name: [] for name in servers}
    for turn in range(arguments.rounds):
        for name in list(servers)[:: 1 if turn % 2 == 0 else -1]:
            with server(servers[name], arguments.port) as (pid, start):
                results["start"][name].append(start)
                results["load"][name].append(measure(arguments, pid, folder))
    if arguments.soak_seconds:
        with server(words["ONNX"], arguments.port) as (pid, _):
            results["soak"] = soak(arguments, pid, folder, [str(export) for export in exports])
    write_json(folder / "serving.json", results)
    print(table(results["load"]))
    print(json.dumps({"start": results["start"], "soak": results.get("soak")}, indent=1))
    return results


if __name__ == "__main__":
    main(parse_arguments("serving", (ServingArguments,), sys.argv[1:])[0])
