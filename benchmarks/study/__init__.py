"""The harness of the studies of transfer and of cold items; it is no part of the installed package."""
