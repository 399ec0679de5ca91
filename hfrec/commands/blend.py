"""Mix trained checkpoints with classical methods fitted on the same log.

hfrec blend --model_name_or_path out --methods item_knn ease markov --dataset ml-1m --output_dir blended
hfrec blend interactions.csv --model_name_or_path masked causal --output_dir blended
hfrec blend interactions.csv --model_name_or_path shipped --final true --output_dir blended
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..classical.names import METHODS
from ..data.arguments import ProtocolArguments
from ..training.arguments import CardArguments, DataArguments
from .blends import BlendFinalArguments, Whole, finish
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
        metadata={"help": f"Of {', '.join(METHODS)}; none for the checkpoints alone."},
    )
    revision: str | None = field(default=None, metadata={"help": "Branch, tag or commit of the checkpoints on a hub."})
    tune: bool = field(default=True, metadata={"help": "Choose the methods' settings on each user's second-last item."})

    def __post_init__(self) -> None:
        self.methods = [method for method in self.methods if method != "none"]
        wrong = [method for method in self.methods if method not in METHODS]
        if wrong:
            raise ValueError(f"`methods` must be of {', '.join(METHODS)} or none, found {wrong[0]!r}.")


CLASSES = (DataArguments, ProtocolArguments, BlendArguments, CardArguments, BlendFinalArguments)


class Arguments(NamedTuple):
    """The dataclasses of the command."""

    data: DataArguments
    protocol: ProtocolArguments
    blend: BlendArguments
    card: CardArguments
    final: BlendFinalArguments


def parse(words: Sequence[str]) -> Arguments:
    """Flags or a settings file into the dataclasses."""
    return Arguments(*parse_arguments("blend", CLASSES, words))


def main(arguments: Arguments) -> dict[str, Any]:
    """Fit the methods, mix, test and save; returns what `all_results.json` holds."""
    from ..blending.run import fit_parts
    from ..data.files import VALIDATION_FOLDER, check_new_folder
    from ..training.rows import load_split

    data, protocol, blend, card, final = arguments
    check_new_folder(Path(blend.output_dir))
    trained = read_all_results(blend)
    check_kinds(trained, final.final)
    networks, tokenizer = load_networks(blend, VALIDATION_FOLDER if final.final else "")
    log, split = load_split(data, protocol)
    check_catalogue(tokenizer, split.train, blend.model_name_or_path[0])
    whole = None
    if final.final:
        shipped, vocabulary = load_networks(blend)
        check_fingerprints(trained, log)
        whole = Whole(log, vocabulary, shipped)
    methods: Any = blend.methods
    parts = fit_parts(split, tokenizer, methods, networks=networks, tuned=blend.tune)
    return finish(parts, tokenizer, split, whole, arguments=(data, protocol, card), output_dir=blend.output_dir)


def read_all_results(blend: BlendArguments) -> dict[str, dict[str, Any]]:
    """What training wrote of each checkpoint."""
    from ..hub.checkpoint import read_results

    return {path: read_results(path, revision=blend.revision) for path in blend.model_name_or_path}


def check_kinds(trained: dict[str, dict[str, Any]], final: bool) -> None:
    """Refuse checkpoints that have seen what the weights are fitted on, or that have no model which has not.

    Raises:
        ValueError: A checkpoint of `--final true` without that flag, or another one with it.
    """
    from ..data.files import VALIDATION_FOLDER

    for path, results in trained.items():
        trained_on_all = "final" in results
        if trained_on_all and not final:
            raise ValueError(
                f"`{path}` was trained on all rows, the items that a blend is fitted and tested on among them: give "
                f"`--final true`, which weighs the model in its {VALIDATION_FOLDER} folder and ships this one, or name "
                "that folder."
            )
        if final and not (trained_on_all and (Path(path) / VALIDATION_FOLDER / "config.json").is_file()):
            raise ValueError(
                f"`--final true` expects folders of `hfrec pretrain|finetune --final true`, with the model that was "
                f"tested in {VALIDATION_FOLDER}: found none in `{path}`. Train it with that flag, or leave it out here."
            )


def check_fingerprints(trained: dict[str, dict[str, Any]], log: Any) -> None:
    """Refuse networks that were trained on all rows of another log.

    Raises:
        ValueError: With the checkpoint.
    """
    for path, results in trained.items():
        if results.get("data", {}).get("train_fingerprint") != log.fingerprint:
            raise ValueError(
                f"`{path}` was trained on another log than this one, or with other filters: expected the same rows. "
                "Give the log and the filters that it was trained with."
            )


def load_networks(blend: BlendArguments, subfolder: str = "") -> tuple[dict[str, Any], Any]:
    """The checkpoints by the name of their folder, and the tokenizer that they share.

    Args:
        blend: Which ones.
        subfolder: Of each folder, where the checkpoint to load lies.

    Raises:
        ValueError: Two of them have different items.
    """
    from ..data.inputs import refuse_inputs
    from ..hub.checkpoint import load_network

    networks: dict[str, Any] = {}
    first: Any = None
    for path in blend.model_name_or_path:
        place = str(Path(path) / subfolder) if subfolder else path
        model, tokenizer = load_network(place, revision=blend.revision)
        refuse_inputs(model, "a blend")
        first = first or tokenizer
        if tokenizer.get_vocab() != first.get_vocab():
            raise ValueError(
                f"`{blend.model_name_or_path[0]}` and `{path}` have different items, {len(first.items):,} and "
                f"{len(tokenizer.items):,}, or another order of them: train both on one log with the same filters."
            )
        name = Path(path).resolve().name if Path(path).is_dir() else path.rpartition("/")[2]
        while name in networks or name in METHODS:
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
