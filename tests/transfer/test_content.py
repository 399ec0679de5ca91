"""New items start where their content says: learnt on warm items, chosen on held-out ones, by the right ids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hfrec import Bert4RecConfig, Bert4RecForMaskedLM, ItemTokenizer
from hfrec.transfer import add_items
from hfrec.transfer.content import (
    category_vectors,
    content_rows,
    fit_content_map,
    given_vectors,
    join_features,
    text_vectors,
)

WARM = [f"w{number}" for number in range(60)]
NEW = ["n0", "n1", "n2"]


@pytest.fixture
def tokenizer() -> ItemTokenizer:
    return ItemTokenizer.from_items(WARM)


@pytest.fixture
def model() -> Any:
    torch.manual_seed(0)
    return Bert4RecForMaskedLM(Bert4RecConfig(vocab_size=63, hidden_size=8, num_hidden_layers=1)).eval()


@pytest.fixture
def features() -> torch.Tensor:
    return torch.randn(63, 5, generator=torch.Generator().manual_seed(1))


def linear(model: Any, features: torch.Tensor) -> torch.Tensor:
    """Make the warm rows a linear function of their content; returns what the new items' rows then are."""
    weight = torch.randn(5, 9, generator=torch.Generator().manual_seed(2))
    rows = features @ weight + 3.0
    with torch.no_grad():
        model.decoder.weight[3:], model.decoder.bias[3:] = rows[:60, :-1], rows[:60, -1]
    return rows[60:]


def test_ridge_finds_a_linear_map_whatever_the_order(
    model: Any, tokenizer: ItemTokenizer, features: torch.Tensor
) -> None:
    """Features matched by place and not by id would teach the map each item from another's content."""
    expected = linear(model, features)
    order = torch.randperm(63, generator=torch.Generator().manual_seed(3)).tolist()
    items = [[*WARM, *NEW][row] for row in order]
    rows = content_rows(model, tokenizer, NEW, items, features[order])
    torch.testing.assert_close(rows.embeddings, expected[:, :-1], atol=0.05, rtol=0.0)
    torch.testing.assert_close(rows.biases, expected[:, -1], atol=0.05, rtol=0.0)
    grown = add_items(model, tokenizer, NEW, rows=rows)
    assert torch.equal(model.decoder.weight[63:], rows.embeddings)
    assert len(grown) == 66


def test_ridge_equals_least_squares_on_the_extended_system(features: torch.Tensor) -> None:
    """An intercept under the penalty, or features not centred, gives another map."""
    targets = torch.randn(63, 4, generator=torch.Generator().manual_seed(4))
    mapped = fit_content_map(features + 7.0, targets, ridges=[2.5])
    above = torch.cat([features + 7.0, torch.ones(63, 1)], dim=1)
    below = torch.cat([2.5**0.5 * torch.eye(5), torch.zeros(5, 1)], dim=1)  # the intercept is free
    system, right = torch.cat([above, below]).double(), torch.cat([targets, torch.zeros(5, 4)]).double()
    expected = above.double() @ torch.linalg.lstsq(system, right).solution
    torch.testing.assert_close(mapped(features + 7.0), expected.float(), atol=1e-4, rtol=0.0)


def test_the_ridge_is_chosen_on_held_out_items() -> None:
    """Chosen on the items it was fitted on, the weakest ridge always wins, and noise passes for knowledge."""
    generator = torch.Generator().manual_seed(5)
    features, noise = torch.randn(80, 40, generator=generator), torch.randn(80, 6, generator=generator)
    useless = fit_content_map(features, noise)
    assert useless.ridge >= 100
    assert useless.explained < 0.1
    useful = fit_content_map(features, features[:, :6] + 0.01 * noise)
    assert useful.ridge <= 1
    assert useful.explained > 0.9


def test_neighbours_are_near_by_content(model: Any, tokenizer: ItemTokenizer) -> None:
    """Ten items of the same category, and nothing of the others."""
    groups = torch.tensor([row // 10 for row in range(60)] + [0, 3, 5])
    features = torch.nn.functional.one_hot(groups).float()
    rows = content_rows(model, tokenizer, NEW, [*WARM, *NEW], features, start="neighbours")
    table = model.decoder.weight.detach()[3:]
    expected = torch.stack([table[10 * g : 10 * g + 10].mean(dim=0) for g in (0, 3, 5)])
    torch.testing.assert_close(rows.embeddings, expected)


@pytest.mark.parametrize("start", ["ridge", "neighbours"])
def test_items_without_content_start_near_the_mean(
    start: Any, model: Any, tokenizer: ItemTokenizer, features: torch.Tensor
) -> None:
    """The regression's answer to zeros would be taken for what the content says."""
    features[61] = 0.0
    rows = content_rows(model, tokenizer, NEW, [*WARM, *NEW], features, start=start)
    table = model.decoder.weight.detach()[3:]
    assert ((rows.embeddings[1] - table.mean(dim=0)).abs() < 0.5 * table.std(dim=0)).all()
    again = content_rows(model, tokenizer, NEW, [*WARM, *NEW], features, start=start)
    assert torch.equal(rows.embeddings, again.embeddings)


def test_spread_goes_from_the_estimate_to_that_of_the_warm_rows(
    model: Any, tokenizer: ItemTokenizer, features: torch.Tensor
) -> None:
    """A regression shrinks: left so, new items hardly ever come near the top, moved out in full they crowd it."""
    table = model.decoder.weight.detach()[3:]
    mean = table.mean(dim=0)
    rows = [content_rows(model, tokenizer, NEW, [*WARM, *NEW], features, spread=share) for share in (0.0, 0.5, 1.0)]
    distances = [(row.embeddings - mean).square().sum(dim=1).mean().sqrt() for row in rows]
    torch.testing.assert_close(distances[2], (table - mean).square().sum(dim=1).mean().sqrt())
    assert distances[0] < distances[1] < distances[2]
    torch.testing.assert_close(distances[1] / distances[0], distances[2] / distances[1])
    cosines = torch.cosine_similarity(rows[0].embeddings - mean, rows[2].embeddings - mean)
    torch.testing.assert_close(cosines, torch.ones(3))


def test_blocks_weigh_the_same_and_missing_content_stays_zero() -> None:
    """A text vector of norm 1 beside 500 attributes would not be heard."""
    big = torch.tensor([[100.0, 0.0], [0.0, 100.0], [100.0, 100.0], [0.0, 0.0]])
    small = torch.tensor([[0.01], [0.02], [0.0], [0.03]])
    joined = join_features(big, small)
    assert joined[3, :2].tolist() == [0.0, 0.0]
    assert joined[2, 2] == 0.0
    torch.testing.assert_close(joined[:3, :2].square().sum(dim=1).mean(), torch.tensor(1.0))
    torch.testing.assert_close(joined[[0, 1, 3], 2:].square().sum(dim=1).mean(), torch.tensor(1.0))


def test_categories_are_split_and_trimmed() -> None:
    """ "Sci-Fi" and " Sci-Fi" as two categories halve what each of them teaches."""
    assert category_vectors(["Sci-Fi, Drama", "Drama,Sci-Fi", ""], separator=",").tolist() == [[1, 1], [1, 1], [0, 0]]


@pytest.mark.parametrize(
    ("message", "values"),
    [
        ("widths \\[2, 3\\]", [[1, 2], [1, 2, 3]]),
        ("widths \\[\\]", [None]),
        ("finite", [[float("nan")]]),
        ("finite", [[None]]),
    ],
)
def test_given_vectors_of_no_or_different_widths_are_refused(message: str, values: Any) -> None:
    """Rows cut or padded to one width would compare the coordinates of different vectors."""
    with pytest.raises(ValueError, match=message):
        given_vectors(values)


def test_text_vectors_do_not_hang_on_batches_or_padding(encoder: Path) -> None:
    """Padding in the mean, or vectors in the order of the texts' lengths, gives items the content of others."""
    texts = ["red nail polish", "tea", None, "green tea", " "]
    together = text_vectors(texts, encoder)
    alone = [text_vectors([text], encoder) for text in ("red nail polish", "tea", "green tea")]
    torch.testing.assert_close(together[[0, 1, 3]], torch.cat(alone))
    torch.testing.assert_close(together.norm(dim=1), torch.tensor([1.0, 1.0, 0.0, 1.0, 0.0]))


def test_pooling_follows_the_sentence_transformers_files(encoder: Path, tmp_path: Path) -> None:
    """The mean of a model that was trained on its first token is another, worse vector."""
    from shutil import copytree

    folder = copytree(encoder, tmp_path / "cls")
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    kinds = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [{"type": f"sentence_transformers.models.{kind}", "path": path} for kind, path in kinds.items()]
    (folder / "modules.json").write_text(json.dumps(modules))
    assert not torch.allclose(text_vectors(["tea"], folder), text_vectors(["tea"], encoder))
    modules.append({"type": "sentence_transformers.models.Dense", "path": "3_Dense"})
    (folder / "modules.json").write_text(json.dumps(modules))
    with pytest.raises(ValueError, match="further layers Dense"):
        text_vectors(["tea"], folder)


def test_an_object_that_encodes_is_an_encoder() -> None:
    """A SentenceTransformer gives numpy rows in the order it was asked."""

    class Lengths:
        def encode(self, sentences: list[str]) -> Any:
            return np.array([[len(text), 1.0] for text in sentences])

    vectors = text_vectors(["aaa", None, "a"], Lengths())
    torch.testing.assert_close(vectors[0] / vectors[0, 1], torch.tensor([3.0, 1.0]))
    assert vectors[1].tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
    ("message", "change"),
    [
        ("must not be known: w1", {"new_items": ["n0", "w1"]}),
        ("cover the new items, missing: n9", {"new_items": ["n0", "n1", "n2", "n9"]}),
        ("neither known nor new: n2", {"new_items": ["n0", "n1"]}),
        ("'n0' twice", {"new_items": ["n0", "n0"]}),
        ("shape \\(63, width\\)", {"features": torch.zeros(62, 5)}),
        ("must be finite", {"features": torch.full((63, 5), float("nan"))}),
        ("`start` must be", {"start": "magic"}),
        ("`spread` must lie in \\[0, 1\\]", {"spread": 1.5}),
        ("at least 10 rows", {"features": torch.cat([torch.zeros(55, 5), torch.ones(8, 5)])}),
        ("at least 10 warm", {"features": torch.cat([torch.zeros(55, 5), torch.ones(8, 5)]), "start": "neighbours"}),
    ],
)
def test_bad_content_is_refused(
    message: str, change: dict[str, Any], model: Any, tokenizer: ItemTokenizer, features: torch.Tensor
) -> None:
    """Content that belongs to nobody is a sign that the ids are of another catalogue."""
    arguments: dict[str, Any] = {"new_items": NEW, "items": [*WARM, *NEW], "features": features, **change}
    with pytest.raises(ValueError, match=message):
        content_rows(model, tokenizer, **arguments)
