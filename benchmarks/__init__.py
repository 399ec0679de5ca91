"""Measurements: scripts that stand alone, and the package `study`."""
