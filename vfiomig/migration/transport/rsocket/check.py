"""One suite for rsocket's calls, run on librdmacm itself and on its model.

A claim is a function named for what it claims; the sentences are of rdma-core 44.0 as
measured over soft-RoCE, less the times.  Each gets sockets of its own.  None calls
rrecv(), rsend() or riowrite() where 44.0 itself would crash or never return: on a
socket that was never connected, on a number of which it has none near, beyond the end
of a mapping.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from vfiomig.migration.transport.rsocket.bench import Claim, Patience, RsocketBench
from vfiomig.migration.transport.rsocket.claims import CLAIMS_OF_CALLS
from vfiomig.migration.transport.rsocket.flow_claims import CLAIMS_OF_FLOW

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from vfiomig.migration.transport.rsocket.library import Address, RsocketLibrary

__all__ = ["CLAIMS", "Claim", "check_rsocket", "name_of"]

CLAIMS: Final = CLAIMS_OF_CALLS + CLAIMS_OF_FLOW


def check_rsocket(
    library: RsocketLibrary,
    make_address: Callable[[], Address],
    *,
    claims: Sequence[Claim] | None = None,
    wait_seconds: float = 10.0,
    quiet_seconds: float = 0.3,
) -> None:
    """Hold a library to what rsocket's calls do.

    ``make_address`` returns where a socket may be bound: an address that the library
    knows, and port 0 for any. ``claims`` are some of `CLAIMS`, by default all.
    ``wait_seconds`` is how long what must happen may take, ``quiet_seconds`` for how
    long nothing is waited for. Needs no test runner and prints nothing. Raises
    AssertionError that names the broken claim.
    """
    patience = Patience(wait_seconds, quiet_seconds)
    for claim in CLAIMS if claims is None else claims:
        bench = RsocketBench(library, make_address, patience)
        try:
            claim(bench)
        except Exception as error:
            saw = error if isinstance(error, AssertionError) else repr(error)
            message = f"{name_of(claim)}: {saw}"
            raise AssertionError(message) from error
        finally:
            bench.close_all()


def name_of(claim: Claim) -> str:
    """Return the claim as a sentence."""
    return claim.__name__.strip("_").replace("_", " ")
