"""Drivers behind a vfio-user socket: as targets, in the place of Python objects."""
