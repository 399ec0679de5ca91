"""Taking a pretrained model to another catalogue."""

from .vocabulary import add_items

__all__ = ["add_items"]
