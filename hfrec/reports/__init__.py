"""Results as pages to look at: one file each, without scripts and without a network."""
