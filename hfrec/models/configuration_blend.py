"""Configuration of a blend."""

from typing import Any

from huggingface_hub.dataclasses import strict

from .configuration_bert4rec import CatalogueConfig

_NEEDED = {
    "network": ("architecture", "config"),
    "neighbours": ("scale", "decay", "num_neighbours", "longest_row"),
    "popularity": (),
}
_SCALES = ("log_share", "standardised")


@strict
class BlendConfig(CatalogueConfig):
    r"""Configuration of [`Blend`].

    Args:
        vocab_size (`int`): Items plus the three special tokens `[PAD] [MASK] [UNK]`, which come first.
        components (`list[dict]`): What is mixed, each with `name`, `kind` and `weight`. A `network` has its
            `architecture` and its own `config`; `neighbours` have `decay` (weight of an item against the one after
            it), `num_neighbours` (entries of the table), `longest_row` and `scale` (`"log_share"` or
            `"standardised"`); `popularity` has nothing more.
        floor (`float`): Share of all items alike in the log share of a table: an item without evidence has a score.
        max_position_embeddings (`int`): Longest history that is read; each network reads its own newest part.
        filter_seen (`bool`): Whether recommending leaves out the items of the history where nothing else is asked for.

    Example:
        >>> BlendConfig(vocab_size=5, components=[{"name": "popularity", "kind": "popularity", "weight": 1.0}]).floor
        0.01
    """

    model_type = "hfrec_blend"

    components: list[dict[str, Any]] | None = None
    floor: float = 0.01
    max_position_embeddings: int = 65_536

    def __post_init__(self, **kwargs: Any) -> None:
        if self.components is None:
            self.components = [{"name": "popularity", "kind": "popularity", "weight": 1.0}]
        super().__post_init__(**kwargs)

    def validate_sizes(self) -> None:
        """Refuse sizes that no blend can have."""
        if self.max_position_embeddings < 1:
            raise ValueError(f"`max_position_embeddings` must be above 0, found {self.max_position_embeddings}.")
        if not 0.0 < self.floor < 1.0:
            raise ValueError(f"`floor` must lie between 0 and 1, found {self.floor}.")

    def validate_components(self) -> None:
        """Refuse components that cannot be built, or none."""
        if self.components is None:
            return  # filled in after the first validation
        names = [str(component.get("name")) for component in self.components]
        if not names or len(set(names)) != len(names):
            raise ValueError(f"`components` must be one or more of different names, found {names or 'none'}.")
        for name, component in zip(names, self.components, strict=True):
            self._check(name, component)

    def _check(self, name: str, component: dict[str, Any]) -> None:
        kind = component.get("kind")
        if kind not in _NEEDED:
            raise ValueError(f"`kind` of component {name!r} must be one of {', '.join(_NEEDED)}, found {kind!r}.")
        missing = [key for key in ("weight", *_NEEDED[kind]) if key not in component]
        if missing:
            raise ValueError(f"component {name!r} of kind {kind} must have {', '.join(missing)}.")
        weight = component["weight"]
        if not isinstance(weight, (int, float)) or not 0.0 <= weight < float("inf"):
            raise ValueError(f"`weight` of component {name!r} must be a number of at least 0, found {weight!r}.")
        if kind == "network" and component["config"].get("vocab_size") != self.vocab_size:
            raise ValueError(
                f"`vocab_size` of component {name!r} is {component['config'].get('vocab_size')} and that of the blend "
                f"{self.vocab_size}: all parts must score the same items."
            )
        if kind == "neighbours":
            if not 0.0 <= component["decay"] <= 1.0:
                raise ValueError(f"`decay` of component {name!r} must lie in [0, 1], found {component['decay']}.")
            if component["scale"] not in _SCALES:
                raise ValueError(
                    f"`scale` of component {name!r} must be one of {_SCALES}, found {component['scale']!r}."
                )
            if not 1 <= component["longest_row"] <= min(component["num_neighbours"], self.vocab_size):
                raise ValueError(
                    f"component {name!r} claims {component['num_neighbours']} neighbours, at most "
                    f"{component['longest_row']} of one item, which do not fit {self.vocab_size} tokens."
                )


__all__ = ["BlendConfig"]
