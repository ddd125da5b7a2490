"""Conversing with drivers: steps, what performs them, where they come from."""
