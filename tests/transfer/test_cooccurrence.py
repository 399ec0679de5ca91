"""Item embeddings from co-occurrence: counts by hand, the factorisation against a dense one, and bounded memory."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
import torch

from hfrec import Bert4RecConfig, Bert4RecForCausalLM, ItemTokenizer, add_items
from hfrec.transfer import cooccurrence
from hfrec.transfer.cooccurrence import (
    CooccurrenceSettings,
    cooccurrence_rows,
    count_pairs,
    log_counts,
    neighbour_rows,
    positive_pmi,
    set_item_rows,
)

COUNTS = np.array([0, 0, 0, 1, 1, 1, 1])


def _counts(histories: pa.Array, vocab_size: int) -> np.ndarray:
    return np.bincount(histories.flatten().to_numpy(), minlength=vocab_size)


def _groups(num_users: int = 60) -> pa.Array:
    """Histories of items of one half of the catalogue each, 3..22 or 23..42."""
    draw = np.random.default_rng(0)
    return pa.array([(3 + 20 * (user % 2) + draw.integers(0, 20, 12)).tolist() for user in range(num_users)])


def test_pairs_are_weighted_by_their_distance_up_to_the_window() -> None:
    """A window off by one, or a weight that forgets the distance, changes every start and no other test."""
    pairs = count_pairs([pa.array([[3, 4, 5, 6]])], COUNTS, settings=CooccurrenceSettings(window=2)).toarray()
    assert pairs.tolist() == [[0, 1, 0.5, 0], [1, 0, 1, 0.5], [0.5, 1, 0, 1], [0, 0.5, 1, 0]]


def test_pairs_end_with_the_history() -> None:
    """Histories lie one behind the other: the last item of one user is no neighbour of the first of the next."""
    pairs = count_pairs([pa.array([[3, 4], [5, 6]]), pa.array([[3]])], COUNTS).toarray()
    assert pairs[1, 2] == 0 and pairs[3, 0] == 0 and pairs[0, 1] == 1 and pairs[2, 3] == 1


def test_repeats_and_special_tokens_make_no_pairs() -> None:
    """An item beside itself would make the diagonal, and [UNK] a column that belongs to no item."""
    pairs = count_pairs([pa.array([[3, 3, 2, 4]])], COUNTS).toarray()
    assert np.diag(pairs).tolist() == [0, 0, 0, 0] and pairs[0, 1] == pytest.approx(1 + 1 / 2)


def test_positive_pmi_is_the_formula() -> None:
    """Counts by hand: n = 8, rows 4 and 4 but for the cell that is rarer than chance."""
    from scipy import sparse

    counts = np.array([[0, 3, 1], [3, 0, 0], [1, 0, 0]], dtype=np.float32)
    found = positive_pmi(sparse.csr_array(counts)).toarray()
    sums, total = counts.sum(axis=1), counts.sum()
    assert found[0, 1] == pytest.approx(np.log(3 * total / (sums[0] * sums[1])))
    assert found[0, 2] == pytest.approx(np.log(1 * total / (sums[0] * sums[2])))
    assert found[1, 2] == 0


@pytest.mark.parametrize("exact", [True, False])
def test_embeddings_are_the_truncated_factors_of_the_matrix(exact: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The iterations for large catalogues give what a dense decomposition gives, up to the sign of a column."""
    monkeypatch.setattr(cooccurrence, "EXACT_CELLS", 10**9 if exact else 0)
    histories = _groups()
    counts = _counts(histories, 43)
    rows = cooccurrence_rows([histories], counts, size=4, settings=CooccurrenceSettings(row_norm=2.0)).embeddings
    matrix = positive_pmi(count_pairs([histories], counts)).toarray()
    left, values, _ = np.linalg.svd(matrix)
    wanted = left[:, :4] * np.sqrt(values[:4])
    wanted *= 2.0 / np.linalg.norm(wanted, axis=1, keepdims=True)
    products, expected = rows.numpy() @ rows.numpy().T, wanted @ wanted.T
    if exact:
        assert np.abs(products - expected).max() < 1e-3
    assert np.corrcoef(products.ravel(), expected.ravel())[0, 1] > 0.95  # noise in directions of like values
    assert torch.allclose(rows.norm(dim=1), torch.tensor(2.0))


def test_a_catalogue_smaller_than_the_embeddings_starts_too() -> None:
    """ARPACK refuses as many values as there are items; a shop of 4 items must not fail for that."""
    rows = cooccurrence_rows([pa.array([[3, 4], [5, 6]])], COUNTS, size=16)
    assert rows.embeddings.shape == (4, 16) and bool(torch.isfinite(rows.embeddings).all())


def test_items_without_a_neighbour_start_at_random_rows_of_the_same_length() -> None:
    """A row of zeros has no direction and, behind a norm, no gradient that tells items apart."""
    histories = pa.array([[3, 4], [5], [6]])
    found = cooccurrence_rows([histories], COUNTS, size=8, seed=1).embeddings
    assert torch.allclose(found.norm(dim=1), torch.tensor(0.5)) and not torch.allclose(found[2], found[3])
    assert torch.equal(found, cooccurrence_rows([histories], COUNTS, size=8, seed=1).embeddings)


def test_a_long_log_is_sampled_by_whole_histories() -> None:
    """Without the bound a large log would take all memory; without the seed two processes would start apart."""
    histories = _groups(2000)
    counts = _counts(histories, 43)
    settings = CooccurrenceSettings(max_pairs=int(counts.sum()) * 10 // 4)
    whole, part = count_pairs([histories], counts), count_pairs([histories], counts, settings=settings)
    assert 0.2 < part.sum() / whole.sum() < 0.3
    assert (part != count_pairs([histories], counts, settings=settings)).nnz == 0


def test_biases_are_centred_log_counts() -> None:
    """A bias that is not centred moves all scores; one without the one more is minus infinity for a new item."""
    found = log_counts(np.array([9, 9, 9, 0, 1, 3]))
    logs = np.log([1, 2, 4])
    assert found.tolist() == pytest.approx((logs - logs.mean()).tolist())


def test_new_items_start_beside_the_items_they_go_together_with() -> None:
    """New rows far from their neighbours, or old rows that move, would undo what the checkpoint learnt."""
    tokenizer = ItemTokenizer.from_items([f"i{number}" for number in range(38)])
    model = Bert4RecForCausalLM(Bert4RecConfig(vocab_size=len(tokenizer), hidden_size=8, head_transform=False))
    table = model.get_input_embeddings().weight
    with torch.no_grad():
        table[3:23] = torch.randn(8) + 0.1 * torch.randn(20, 8)
        table[23:] = torch.randn(8) + 0.1 * torch.randn(18, 8)
    tokenizer = add_items(model, tokenizer, ["n0", "n1"])  # tokens 41 and 42, of the second half
    old = model.get_input_embeddings().weight[:41].clone()
    histories = _groups()
    rows = neighbour_rows([histories], _counts(histories, 43), model=model, new=np.arange(40) >= 38)
    set_item_rows(model, rows, np.arange(40) >= 38)
    weight = model.get_input_embeddings().weight
    assert torch.equal(weight[:41], old)
    cosine = torch.nn.functional.cosine_similarity
    assert (
        float(cosine(weight[41], old[23:].mean(0), dim=0)) > 0.9 > float(cosine(weight[41], old[3:23].mean(0), dim=0))
    )
    assert rows.biases is not None and rows.embeddings.shape == (2, 8)


@pytest.mark.parametrize("wrong", [{"window": 0}, {"row_norm": 0.0}, {"max_pairs": -1}])
def test_settings_out_of_range_are_refused(wrong: dict[str, float]) -> None:
    """A window of 0 counts nothing and starts everything at random, in silence."""
    with pytest.raises(ValueError, match=next(iter(wrong))):
        CooccurrenceSettings(**wrong)  # type: ignore[arg-type]
