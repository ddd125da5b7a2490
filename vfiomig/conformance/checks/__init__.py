"""The checks of v1, a module for each section of the catalogue."""
