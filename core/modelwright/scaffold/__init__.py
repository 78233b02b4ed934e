"""Writes new plugins for their authors. Knows templates and names; knows no torch."""
