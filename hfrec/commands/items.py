"""Change the catalogue of a saved checkpoint: add, remove or rename items, or go over to another catalogue.

hfrec items add out --items_file new.csv --output_dir grown
hfrec items align out --items_file catalogue.csv --match title --output_dir aligned
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

from ..data.columns import CONTENT_COLUMNS, content_columns
from .content import ContentArguments, read_content
from .parsing import parse_arguments

ACTIONS = {
    "add": "New rows for the items of the file that the checkpoint does not know.",
    "remove": "Take the items of the file out.",
    "rename": "Give items other ids, by a mapping file.",
    "adopt": "Go over to the catalogue of the file by the content of its items; the checkpoint need not know any.",
    "align": "Go over to the catalogue of the file: matched items keep their rows, others come new or are dropped.",
}


@dataclass(kw_only=True)
class ItemsArguments(ContentArguments):
    """The checkpoint, the items, how they are matched, where new ones start, and where the new checkpoint goes."""

    words: ClassVar[tuple[str, ...]] = ("model_name_or_path",)

    model_name_or_path: str = field(metadata={"help": "Checkpoint: a folder or a hub id."})
    output_dir: str | None = field(default=None, metadata={"help": "New or empty folder for the new checkpoint."})
    items_file: str | None = field(
        default=None, metadata={"help": "Table with a column of item ids and, for new items, titles and the like."}
    )
    mapping_file: str | None = field(
        default=None, metadata={"help": "Two columns, old id and new id (align, rename); then nothing else matches."}
    )
    match: Literal["id", "title"] = field(
        default="id", metadata={"help": "How align matches without a mapping: equal ids, or normalised title and year."}
    )
    item_column: str = field(default="item_id", metadata={"help": "Column of the item ids."})
    content_columns: list[str] = field(default_factory=list, metadata=CONTENT_COLUMNS)
    title_column: str = field(default="title", metadata={"help": "Column of the titles."})
    year_column: str = field(default="year", metadata={"help": "Column of the years, where there is one."})
    start: Literal["random", "mean", "neighbours", "ridge"] = field(
        default="random",
        metadata={"help": "Where new items start; the last two need content. Where items are made of content: there."},
    )
    spread: float = field(
        default=0.0, metadata={"help": "0: content's cautious estimate; 1: rows as far out as trained ones."}
    )
    dry_run: bool = field(default=False, metadata={"help": "Say what would be done and write nothing."})
    seed: int = field(default=0, metadata={"help": "Seed of the rows of new items."})
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit on the hub."})

    def __post_init__(self) -> None:
        if self.output_dir is None and not self.dry_run:
            raise ValueError("Expected `--output_dir` for the new checkpoint, or `--dry_run`.")


def parse(words: Sequence[str]) -> tuple[str, ItemsArguments]:
    """The action, and flags or a settings file into the dataclass."""
    if not words or words[0] not in ACTIONS:
        lines = [f"  {name:<8}{text}" for name, text in ACTIONS.items()]
        usage = "\n".join(["usage: hfrec items ACTION [--flags] | ACTION settings.yaml [--flags]", "", *lines])
        if words and words[0] in ("-h", "--help"):
            print(usage)
            raise SystemExit(0)
        raise ValueError(f"expected one of {', '.join(ACTIONS)}, found {words[0] if words else 'nothing'}.")
    (arguments,) = parse_arguments(f"items {words[0]}", (ItemsArguments,), words[1:])
    needed = "mapping_file" if words[0] == "rename" else "items_file"
    if getattr(arguments, needed) is None:
        raise ValueError(f"`items {words[0]}` needs `--{needed}`.")
    return words[0], arguments


def main(arguments: tuple[str, ItemsArguments]) -> dict[str, Any]:
    """Do the action and write the new checkpoint with `catalogue.json`, which says what became of each item."""
    import torch

    from ..data.files import check_new_folder, whole_files, write_json
    from ..hub.checkpoint import load_network
    from ..training.run import save_checkpoint
    from ..transfer.optimizers import OPTIMIZER, load_optimizer, save_optimizer

    action, settings = arguments
    if settings.output_dir is not None:
        check_new_folder(Path(settings.output_dir))
    model, tokenizer = load_network(settings.model_name_or_path, revision=settings.revision)
    generator = torch.Generator().manual_seed(settings.seed)
    source = Path(settings.model_name_or_path)
    optimizer = load_optimizer(model, source) if (source / OPTIMIZER).exists() else None
    changed, report, text = CHANGES[action](model, tokenizer, settings, generator=generator, optimizer=optimizer)
    print(text)
    if settings.dry_run:
        print("Dry run: nothing was written.")
        return report
    folder = Path(str(settings.output_dir))
    with whole_files(folder) as draft:
        save_checkpoint(model, changed, draft)
        write_json(draft / "catalogue.json", {"action": action, "from": settings.model_name_or_path, **report})
        if optimizer is not None:
            save_optimizer(optimizer, draft, source)
    print(f"{len(changed.items):,} items: {folder}")
    if optimizer is not None:
        print("The moments of the optimiser went with the items: `--resume_from_checkpoint` goes on from here.")
    return report


def add(model: Any, tokenizer: Any, settings: ItemsArguments, **kept: Any) -> tuple[Any, dict[str, Any], str]:
    """Rows for what the checkpoint does not know."""
    import pyarrow as pa

    from ..transfer.vocabulary import add_items

    table = items_table(settings)
    known = tokenizer.get_vocab()
    new = [item for item in table["item_id"].to_pylist() if item not in known]
    if not new:
        raise ValueError(f"{settings.items_file}: the checkpoint knows all {len(table)} items: nothing to add.")
    rows = None
    if model.config.item_representation != "id":
        rows = made_rows(model, new, table, settings)
    elif settings.start != "random":
        everything = pa.concat_tables([_missing(tokenizer.items, table), table], promote_options="default")
        rows = new_rows(model, known, new, everything, settings)
    changed = add_items(model, tokenizer, new, metadata=table, rows=rows, **kept)
    text = f"{len(new):,} items new, {len(table) - len(new):,} known already"
    return changed, {"num_new": len(new), "num_known": len(table) - len(new), "new": new}, text


def remove(model: Any, tokenizer: Any, settings: ItemsArguments, **kept: Any) -> tuple[Any, dict[str, Any], str]:
    """Take out what the file lists."""
    from ..transfer.vocabulary import remove_items

    items = items_table(settings)["item_id"].to_pylist()
    changed = remove_items(model, tokenizer, items, optimizer=kept["optimizer"])
    return changed, {"num_dropped": len(items), "dropped": items}, f"{len(items):,} items dropped"


def rename(model: Any, tokenizer: Any, settings: ItemsArguments, **kept: Any) -> tuple[Any, dict[str, Any], str]:
    """Other ids, by the mapping file."""
    from ..transfer.matching import read_mapping
    from ..transfer.vocabulary import rename_items

    mapping = read_mapping(str(settings.mapping_file))
    changed = rename_items(model, tokenizer, mapping)
    return changed, {"num_renamed": len(mapping), "renamed": mapping}, f"{len(mapping):,} items renamed"


def align(model: Any, tokenizer: Any, settings: ItemsArguments, **kept: Any) -> tuple[Any, dict[str, Any], str]:
    """Over to the catalogue of the file."""
    from ..transfer.matching import match_titles, plan_catalogue, read_mapping
    from ..transfer.vocabulary import align_catalogue, renamed_vocabulary

    table = items_table(settings)
    mapping = None if settings.mapping_file is None else read_mapping(settings.mapping_file)
    if mapping is None and settings.match == "title":
        columns = {"title_column": settings.title_column, "year_column": settings.year_column}
        mapping = match_titles(tokenizer.items, table, **columns)
        if not mapping:
            raise ValueError(f"{settings.items_file}: no item has title and year of one of the checkpoint's items.")
    items = table["item_id"].to_pylist()
    plan = plan_catalogue(tokenizer, items, mapping)
    matched = renamed_vocabulary(tokenizer, plan.matched, keep_others=False)
    rows = None
    if plan.new and plan.matched and model.config.item_representation != "id":
        rows = made_rows(model, plan.new, table, settings)
    elif plan.new and plan.matched and settings.start != "random":
        rows = new_rows(model, matched, plan.new, table, settings)
    changed = align_catalogue(model, tokenizer, items, mapping, metadata=table, rows=rows, **kept)
    return changed, plan.to_dict(), str(plan)


def adopt(model: Any, tokenizer: Any, settings: ItemsArguments, **kept: Any) -> tuple[Any, dict[str, Any], str]:
    """Over to the catalogue of the file, by content."""
    from ..transfer.adoption import adopt as adopt_items
    from ..transfer.specification import content_of

    table = items_table(settings)
    with content_of(settings.items_file):
        found = adopt_items(model, tokenizer, table, encoder=settings.encoder, optimizer=kept["optimizer"])
    return found.tokenizer, found.to_dict(), str(found)


CHANGES = {"adopt": adopt, "add": add, "remove": remove, "rename": rename, "align": align}


def made_rows(model: Any, new: list[str], table: Any, settings: ItemsArguments) -> Any:
    """Rows of the new items of a model whose items are made of content, as its own were."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from ..transfer.features import feature_rows, rows_of
    from ..transfer.specification import ContentSpecification, content_features, content_of

    theirs = table.filter(pc.is_in(table["item_id"], value_set=pa.array(new, pa.string())))
    specification = ContentSpecification.from_dict(model.config.item_content)
    with content_of(settings.items_file):
        features = content_features(specification, theirs, encoder=settings.encoder)
    return feature_rows(model, rows_of(new, theirs["item_id"].to_pylist(), features))


def new_rows(model: Any, vocabulary: Any, new: list[str], table: Any, settings: ItemsArguments) -> Any:
    """Rows of the new items from the content in `table`, which holds them and the warm ones."""
    import torch

    from ..transfer.content import content_rows, join_features
    from ..transfer.specification import content_of

    items = table["item_id"].to_pylist()
    if settings.start == "mean":
        features = torch.zeros(len(items), 1)  # no content
    else:
        with content_of(settings.items_file):
            features = join_features(*read_content(table, settings).values())
    start: Any = settings.start  # not "random": the callers see to it
    return content_rows(
        model, vocabulary, new, items, features, start=start, spread=settings.spread, seed=settings.seed
    )


def _missing(known: Any, table: Any) -> Any:
    """Rows of the known items that the table does not list, in the columns and types of the table."""
    import pyarrow.compute as pc

    rest = known.filter(pc.invert(pc.is_in(known["item_id"], value_set=table["item_id"])))
    rest = rest.select([name for name in table.column_names if name in rest.column_names])
    for index, name in enumerate(rest.column_names):
        rest = rest.set_column(index, name, rest[name].cast(table.schema.field(name).type, safe=False))
    return rest


def items_table(settings: ItemsArguments) -> Any:
    """The table of the items file, its columns named as the checkpoint's."""
    from ..data.item_tables import read_items, with_content_columns

    table = read_items(settings.items_file, settings.item_column, name="items_file")
    return with_content_columns(table, content_columns(settings.content_columns))
