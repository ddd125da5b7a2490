"""These tests run in the VM that `make test-rdma` starts, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_configure() -> None:
    """Refuse to run where nothing could be tested."""
    if not Path("/dev/infiniband/rdma_cm").exists():
        message = "no RDMA here: tests/rdma is for `make test-rdma`"
        raise pytest.UsageError(message)
