"""`hfrec study` and `hfrec cold_items`, which are part of a checkout and not of the installed package."""
