"""Trials: a command under one fault, and what may come of it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
SECONDS = 300.0  # a trial that takes longer hangs; others may use the machine


@dataclass(frozen=True)
class Outcome:
    """How a command ended.

    Args:
        code: Exit code, negative for a signal; None where it hung.
        out, err: What it printed.
        events: Changes of files, where they were counted.
    """

    code: int | None
    out: str
    err: str
    events: tuple[str, ...] = ()

    @property
    def reason(self) -> str:
        """The last line on stderr."""
        lines = self.err.strip().splitlines()
        return lines[-1] if lines else ""

    def fault(self) -> str | None:
        """What is wrong with how it ended, whatever it did: None of success and of a refusal in one line."""
        if self.code is None:
            return "hangs"
        if "Traceback" in self.err:
            return f"traceback: {self.reason}"
        if self.code < 0:
            return f"died of signal {-self.code}"
        if self.code == 0 or self.code == 3:  # 3: the verdict of `hfrec refresh`
            return None
        if re.match(r"hfrec \w+: .{15,}", self.reason):
            return None
        return f"exit code {self.code} without a reason: {self.reason!r}"


class Server:
    """The warm process of `server.py`."""

    def __init__(self, folder: Path, **environment: str) -> None:
        self.folder, self.trials = folder, 0
        folder.mkdir(parents=True, exist_ok=True)
        settings = {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1"}
        settings |= {
            "TOKENIZERS_PARALLELISM": "false",
            "HF_HOME": str(folder / "home"),
            "HF_HUB_DISABLE_TELEMETRY": "1",
        }
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("server.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=(folder / "server.log").open("w"),
            text=True,
            env={**os.environ, **settings, **environment},
        )
        self._answer()

    def start(self, words: list[Any], **request: Any) -> tuple[int, Path]:
        """Run a command in a process of its own; its id and where its output goes."""
        self.trials += 1
        log = self.folder / f"{self.trials:05d}"
        given = {"words": [str(word) for word in words], "folder": str(self.folder), "log": str(log), **request}
        return self._ask(given), log

    def end(self, pid: int, log: Path, *, seconds: float = SECONDS) -> Outcome:
        """Wait for a command."""
        code = self._ask({"pid": pid, "seconds": seconds})
        texts = []
        for name in ("out", "err", "events"):
            path = log.with_name(f"{log.name}.{name}")
            texts.append(path.read_text(encoding="utf-8", errors="replace") if path.exists() else "")
            path.unlink(missing_ok=True)
        return Outcome(code, texts[0], texts[1], tuple(texts[2].splitlines()))

    def run(self, words: list[Any], **request: Any) -> Outcome:
        """Run a command to its end."""
        seconds = request.pop("seconds", SECONDS)
        return self.end(*self.start(words, **request), seconds=seconds)

    def close(self) -> None:
        """End the warm process, which has nothing to tidy up."""
        self.process.kill()
        self.process.wait(timeout=20)

    def _ask(self, request: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"the server died: {(self.folder / 'server.log').read_text()[-3000:]}")
        return json.loads(line)
