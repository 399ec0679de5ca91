"""From a raw log to training rows: read, split, turn into sequences, collate. Import from the modules or `hfrec`."""
