"""Mix trained checkpoints with classical methods fitted on the same log.

hfrec blend --model_name_or_path out --methods item_knn ease markov --dataset ml-1m --output_dir blended
hfrec blend interactions.csv --model_name_or_path masked causal --output_dir blended
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..data.arguments import ProtocolArguments
from ..training.arguments import CardArguments, DataArguments
from .baseline import CLASSICAL, finish
from .parsing import parse_arguments


@dataclass
class BlendArguments:
    """What is mixed, and where it goes."""

    model_name_or_path: list[str] = field(
        metadata={"help": "Checkpoints that were trained on this log: folders or hub ids."}
    )
    output_dir: str = field(metadata={"help": "New or empty folder of the blend."})
    methods: list[str] = field(
        default_factory=lambda: ["markov", "item_knn", "ease"],
        metadata={"help": f"Of {', '.join(CLASSICAL)}; none for the checkpoints alone."},
    )
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the checkpoints on a hub."})
    tune: bool = field(default=True, metadata={"help": "Choose the methods' settings on each user's second-last item."})

    def __post_init__(self) -> None:
        self.methods = [method for method in self.methods if method != "none"]
        wrong = [method for method in self.methods if method not in CLASSICAL]
        if wrong:
            raise ValueError(f"`methods` must be of {', '.join(CLASSICAL)} or none, found {wrong[0]!r}.")


Arguments = tuple[DataArguments, ProtocolArguments, BlendArguments, CardArguments]


def parse(words: Sequence[str]) -> Arguments:
    """Flags or a settings file into the dataclasses."""
    classes = (DataArguments, ProtocolArguments, BlendArguments, CardArguments)
    data, protocol, blend, card = parse_arguments("blend", classes, words)
    return data, protocol, blend, card


def main(arguments: Arguments) -> dict[str, Any]:
    """Fit the methods, mix, test and save; returns what `all_results.json` holds."""
    from ..blending.run import fit_parts
    from ..data.files import check_new_folder
    from ..training.rows import load_split

    data, protocol, blend, card = arguments
    check_new_folder(Path(blend.output_dir))
    networks, tokenizer = load_networks(blend)
    _, split = load_split(data, protocol)
    check_catalogue(tokenizer, split.train, blend.model_name_or_path[0])
    methods: Any = blend.methods
    parts = fit_parts(split, tokenizer, methods, networks=networks, tuned=blend.tune)
    return finish(parts, tokenizer, split, arguments=(data, protocol, card), output_dir=blend.output_dir)


def load_networks(blend: BlendArguments) -> tuple[dict[str, Any], Any]:
    """The checkpoints by the name of their folder, and the tokenizer that they share.

    Raises:
        ValueError: Two of them have different items.
    """
    from ..hub.checkpoint import load_network

    networks: dict[str, Any] = {}
    first: Any = None
    for path in blend.model_name_or_path:
        model, tokenizer = load_network(path, revision=blend.revision)
        first = first or tokenizer
        if tokenizer.get_vocab() != first.get_vocab():
            raise ValueError(
                f"`{blend.model_name_or_path[0]}` and `{path}` have different items, {len(first.items):,} and "
                f"{len(tokenizer.items):,}, or another order of them: train both on one log with the same filters."
            )
        name = Path(path).resolve().name if Path(path).is_dir() else path.rpartition("/")[2]
        while name in networks or name in CLASSICAL:
            name += "_network"
        networks[name] = model
    return networks, first


def check_catalogue(tokenizer: Any, train: Any, name: str) -> None:
    """Refuse a checkpoint that does not know all training items of the log.

    Raises:
        ValueError: With how many it knows.
    """
    import pyarrow.compute as pc

    items = pc.unique(train.table["item_id"])
    missing = tokenizer.encode_column(items, unknown="drop").null_count
    if missing:
        raise ValueError(
            f"`{name}` knows {len(items) - missing:,} of the {len(items):,} training items of this log: expected all. "
            "Blend it with the log that it was trained on, with the same filters, or fine-tune it on this one first."
        )
