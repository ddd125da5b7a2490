"""Vendor drivers: one that obeys every rule, and devices worth migrating."""
