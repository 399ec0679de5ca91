"""Taking a pretrained model to another catalogue."""

from .matching import CataloguePlan, match_titles, plan_catalogue, read_mapping
from .rows import ItemRows
from .vocabulary import add_items, align_catalogue, remove_items, rename_items, renamed_vocabulary

__all__ = [
    "CataloguePlan",
    "ItemRows",
    "add_items",
    "align_catalogue",
    "match_titles",
    "plan_catalogue",
    "read_mapping",
    "remove_items",
    "rename_items",
    "renamed_vocabulary",
]
