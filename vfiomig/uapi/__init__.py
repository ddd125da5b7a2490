"""Layouts and numbers of the kernel's headers, named as in C; no behaviour."""
