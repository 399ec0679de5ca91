"""Who is who in two catalogues: by a mapping file, or by title and year."""

from __future__ import annotations

import os
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pytest

from hfrec.data.readers import read_file
from hfrec.transfer import match_titles, read_mapping

DATA = Path(os.environ.get("HFREC_TEST_DATA", "no data"))


def table(**columns: list[object]) -> pa.Table:
    return pa.table({"item_id": [str(row) for row in range(len(next(iter(columns.values()))))], **columns})


def test_titles_match_across_spellings() -> None:
    """Articles, accents, brackets and punctuation differ between two catalogues of the same films."""
    old = table(
        title=["Matrix, The", "Amélie", "Die Hard: With a Vengeance", "Seven (a.k.a. Se7en)", "Boys Life"],
        year=[1999, 2001, 1995, 1995, 1997],
    )
    new = table(
        title=["the matrix (1999)", "AMELIE", "Die Hard - with a vengeance", "Seven", "Boy's Life"],
        year=[None, 2001, 1995, 1995, 1997],
    )
    assert match_titles(old, new) == {row: row for row in "01234"}


def test_another_year_or_an_ambiguous_title_is_no_match() -> None:
    """A remake is another film, and one of two twins would be a guess."""
    old = table(title=["Psycho", "Twin", "Twin", "Copy", None, "No year"], year=[1960, 2000, 2000, 2001, 2002, None])
    new = table(title=["Psycho", "Twin", "Copy", "Copy", None, "No year"], year=[1998, 2000, 2001, 2001, 2002, None])
    assert match_titles(old, new) == {"5": "5"}


def test_a_table_without_titles_is_refused() -> None:
    """Matching nothing would look like two catalogues that share nothing."""
    with pytest.raises(ValueError, match="`new` needs the columns 'item_id' and 'title'"):
        match_titles(table(title=["a"]), table(name=["a"]))


def test_a_mapping_file_keeps_ids_as_they_are_written(tmp_path: Path) -> None:
    """Ids read as numbers lose their zeros and match nothing."""
    path = tmp_path / "map.csv"
    path.write_text("old,new,note\n007,b 1,x\n8,c,y\n")
    assert read_mapping(path) == {"007": "b 1", "8": "c"}


@pytest.mark.parametrize(
    ("message", "content"),
    [
        ("needs two columns", "old\n1\n"),
        ("must hold at least one", "old,new\n"),
        ("row 2 has no 'new'", "old,new\n1,a\n2,\n"),
        ("old id '1' has more than one row", "old,new\n1,a\n1,b\n"),
        ("leads 1, 2 onto the one item 'a'", "old,new\n1,a\n2,a\n"),
    ],
)
def test_bad_mapping_files_say_what_is_wrong(message: str, content: str, tmp_path: Path) -> None:
    """Two source items on one target would leave it to chance which row it gets."""
    path = tmp_path / "map.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=message):
        read_mapping(path)


@pytest.mark.skipif(
    not (DATA / "pair_ml1m_ml100k.csv").is_file(), reason="HFREC_TEST_DATA names no folder with ml-1m and ml-100k"
)
def test_titles_find_the_films_that_two_movielens_share() -> None:
    """1,467 films are in both; the 18 that ML-100K lists twice are ambiguous, all others are found."""
    items = {
        name: read_file(DATA / name / "items.csv.gz", string_columns=("item_id",)) for name in ("ml-1m", "ml-100k")
    }
    log = read_file(DATA / "ml-1m" / "interactions.csv.gz", string_columns=("item_id",))
    used = items["ml-1m"].filter(pc.is_in(items["ml-1m"]["item_id"], value_set=pc.unique(log["item_id"])))
    truth = read_mapping(DATA / "pair_ml1m_ml100k.csv")
    found = match_titles(used, items["ml-100k"])
    assert len(truth) == 1467
    assert len(found.items() & truth.items()) == 1449
    # Beyond the truth: an apostrophe ("Boy's Life 2"), and a year that stands in the title only. Both are right.
    assert len(found) == 1451
    assert len(found.keys() - truth.keys()) == 2
