"""Lending simulated devices to other processes."""
