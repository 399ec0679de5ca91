"""A hub on 127.0.0.1, a client process that knows no other, and a checkpoint to push."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.hub.loopback import Hub

ROOT = Path(__file__).parents[2]
TOKEN = "hf_writewritewritewrite"
READ_TOKEN = "hf_readreadreadreadread"
OTHER_TOKEN = "hf_otherotherotherother"
BAD_TOKEN = "hf_badbadbadbadbadbadbad"


class ClientError(Exception):
    """An error of the client process: names of its class and parents, and its message."""

    def __init__(self, kinds: list[str], message: str) -> None:
        super().__init__(f"{kinds[0]}: {message}")
        self.kinds, self.message = kinds, message


def client_environment(hub: Hub, home: Path, **extra: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
    settings = {"HF_ENDPOINT": hub.url, "HF_TOKEN": TOKEN, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    settings |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_UPDATE_DOWNLOAD_COUNTS": "0", "OMP_NUM_THREADS": "1"}
    settings |= {"DISABLE_SAFETENSORS_CONVERSION": "1", "NO_PROXY": "127.0.0.1,localhost", "PYTHONPATH": str(ROOT)}
    settings |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return {**kept, **settings, **extra}


class Client:
    """The unmodified huggingface_hub in a process of its own; `client(name, …)` runs a function of `programs.py`."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self.log = log
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("programs.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log.open("w"),
            text=True,
            env=environment,
            cwd=log.parent,
        )

    def __call__(self, name: str, *args: Any, **kwargs: Any) -> Any:
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None and stdout is not None
        stdin.write(json.dumps({"name": name, "args": args, "kwargs": kwargs}) + "\n")
        stdin.flush()
        line = stdout.readline()
        if not line:
            pytest.fail(f"the client process died:\n{self.log.read_text()[-3000:]}")
        answer = json.loads(line)
        if "error" in answer:
            raise ClientError(answer["error"], answer["message"])
        return answer["result"]

    def printed(self) -> str:
        """Everything printed and logged so far."""
        return self.log.read_text()

    def close(self) -> None:
        self.process.kill()  # every answer was written; an orderly end takes seconds
        self.process.wait(timeout=20)


@pytest.fixture(scope="session")
def hub_server() -> Iterator[Hub]:
    hub = Hub({TOKEN: ("ann", "write"), READ_TOKEN: ("ann", "read"), OTHER_TOKEN: ("bob", "write")}).start()
    yield hub
    hub.stop()


@pytest.fixture
def hub(hub_server: Hub) -> Iterator[Hub]:
    """The hub without faults and with an empty log; repositories stay over the tests."""
    hub_server.clear()
    yield hub_server
    hub_server.clear()


@pytest.fixture(scope="session")
def client(hub_server: Hub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    folder = tmp_path_factory.mktemp("client")
    client = Client(client_environment(hub_server, folder / "home"), folder / "log.txt")
    yield client
    client.close()


ITEMS = [f"item {index}" for index in range(20)]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as a run leaves it: the checkpoint, and beside it what must not travel."""
    folder = tmp_path_factory.mktemp("run") / "films"
    make_checkpoint(folder, seed=0)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n\n# Films\n")
    (folder / "all_results.json").write_text("{}\n")
    (folder / ".eval_results").mkdir()
    (folder / ".eval_results" / "hfrec.yaml").write_text("[]\n")
    (folder / "test_ranks.parquet").write_bytes(b"user ids")
    (folder / "training_args.bin").write_bytes(b"a pickle")
    (folder / "checkpoint-5").mkdir()
    (folder / "checkpoint-5" / "optimizer.pt").write_bytes(b"a pickle")
    (folder / "checkpoint-5" / "model.safetensors").write_bytes(b"older weights")
    return folder


@pytest.fixture(scope="session")
def log_file(write_log: Callable[..., Path]) -> Path:
    """Interactions of 60 users."""
    return write_log("shop.csv", num_users=60, num_items=30, min_length=5)


def make_checkpoint(folder: Path, *, seed: int) -> None:
    import torch  # here and above: pytest reads this file before it starts its workers, which import in parallel

    from hfrec import Bert4RecConfig, Bert4RecForMaskedLM, ItemTokenizer

    torch.manual_seed(seed)
    tokenizer = ItemTokenizer.from_items(ITEMS)
    config = Bert4RecConfig(vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, max_position_embeddings=8)
    Bert4RecForMaskedLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
