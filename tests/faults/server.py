"""A warm process that forks one child for each trial: torch is imported once, a trial costs what it does.

One line of JSON in, one out. `start` forks a child that runs `hfrec WORDS` under the faults asked for and gives its
process id; `wait` gives its exit code, negative for a signal as `subprocess` has it.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import signal
import sys
import time
import traceback
from typing import Any

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = ("os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.truncate", "os.utime")


class Events:
    """Counts the changes of files below a folder, and kills this process at the n-th."""

    def __init__(self, root: str, kill_at: int | None, log: str) -> None:
        self.root, self.kill_at, self.count = root, kill_at, 0
        self.log = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & WRITES:
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if isinstance(path, (str, os.PathLike)) and os.path.abspath(path).startswith(self.root):
            self.count += 1
            os.write(self.log, f"{event} {os.path.relpath(path, self.root)}\n".encode())
            if self.count == self.kill_at:
                os.kill(os.getpid(), signal.SIGKILL)


def jump_clock(seconds: float, after: int) -> None:
    """From the given call of `time.time` on, it is another time."""
    real, calls = time.time, 0

    def jumped() -> float:
        nonlocal calls
        calls += 1
        return real() + (seconds if calls > after else 0)

    time.time = jumped


def child(request: dict[str, Any]) -> int:
    """What one trial does, in its own process."""
    for number, name in ((1, "out"), (2, "err")):
        os.dup2(os.open(f"{request['log']}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.chdir(request["folder"])
    os.environ.update(request.get("environment", {}))
    for kind in ("FSIZE", "AS"):
        if kind in request:
            limit = getattr(resource, f"RLIMIT_{kind}")
            resource.setrlimit(limit, (request[kind], resource.getrlimit(limit)[1]))
    if "FSIZE" in request:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)  # the write fails, as on a full disk
    if "clock" in request:
        jump_clock(*request["clock"])
    if "events" in request:
        sys.addaudithook(Events(request["events"], request.get("kill_at"), f"{request['log']}.events"))
    from hfrec_command import main

    return main(request["words"])


def start(request: dict[str, Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 70
    try:
        code = child(request)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def wait(pid: int, seconds: float) -> int | None:
    """Exit code of a child; None where it had to be killed because it did not end in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def warm() -> None:
    """Import what the commands import, but what does not survive a fork (Polars)."""
    import datasets  # noqa: F401
    import torch
    import torch._dynamo
    import transformers.trainer  # noqa: F401

    import hfrec.commands.evaluate
    import hfrec.commands.finetune
    import hfrec.commands.prepare
    import hfrec.commands.recommend
    import hfrec.evaluation.table
    import hfrec.hub.model_card
    import hfrec.hub.push  # noqa: F401

    torch.set_num_threads(1)
    gc.collect()
    gc.freeze()  # each training ends with a full collection, which would walk all of this, and copy its pages


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    warm()
    print(json.dumps("ready"), file=answers, flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = start(request) if "words" in request else wait(request["pid"], request["seconds"])
        print(json.dumps(answer), file=answers, flush=True)


if __name__ == "__main__":
    main()
