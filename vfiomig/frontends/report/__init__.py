"""Renderers of a run: each lays the same facts out, none finds new ones."""
