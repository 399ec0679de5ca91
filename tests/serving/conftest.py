"""Two small models as checkpoints and exports, and the application around one of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from hfrec.serving.settings import TOKEN_VARIABLE, ServeArguments

NUM_ITEMS = 200  # ids "1" to "200", item "1" the most popular, every fifth without a category
TOKEN = "a-token-of-the-tests"


@dataclass(frozen=True)
class Films:
    """A checkpoint and its export."""

    checkpoint: Path
    exported: Path


def make_films(folder: Path, seed: int) -> Films:
    import torch

    from hfrec import Bert4RecConfig, Bert4RecForMaskedLM, ItemTokenizer, export_onnx

    ids = [str(number) for number in range(1, NUM_ITEMS + 1)]
    metadata = pa.table(
        {
            "item_id": ids,
            "title": [f"Film {item} (19{int(item) % 100:02})" for item in ids],
            "category": [None if int(item) % 5 == 0 else "Comedy|Drama" if int(item) % 2 else "Drama" for item in ids],
        }
    )
    tokenizer = ItemTokenizer.from_items(ids, metadata=metadata, counts={item: 1000 - int(item) for item in ids})
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "max_position_embeddings": 8, "initializer_range": 0.5}
    model = Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=len(tokenizer), **sizes)).eval()
    model.save_pretrained(folder / "checkpoint")
    tokenizer.save_pretrained(folder / "checkpoint")
    export_onnx(model, tokenizer, folder / "exported", top_k=50, histories=[["1", "2"], ["3"]])
    return Films(folder / "checkpoint", folder / "exported")


@pytest.fixture(scope="session")
def films(tmp_path_factory: pytest.TempPathFactory) -> Films:
    return make_films(tmp_path_factory.mktemp("films"), seed=0)


@pytest.fixture(scope="session")
def other_films(tmp_path_factory: pytest.TempPathFactory) -> Films:
    """Other weights for the same items."""
    return make_films(tmp_path_factory.mktemp("other"), seed=1)


Opens = Callable[..., Any]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Opens:
    """A client of an application that runs within the block."""
    from fastapi.testclient import TestClient

    from hfrec.serving.app import create_app
    from hfrec.serving.service import Service

    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)

    @contextmanager
    def open_app(model: Path, **settings: Any) -> Iterator[Any]:
        arguments = ServeArguments(str(model), **{"history_store": "none", **settings})
        service = Service(arguments)
        with TestClient(create_app(service), raise_server_exceptions=False) as client:
            client.service = service  # type: ignore[attr-defined]
            yield client

    return open_app
