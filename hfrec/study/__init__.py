"""The transfer study: arms that start from a pretrained model or not, on ever larger shares of a target's users."""
