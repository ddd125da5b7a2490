"""The v1 migration region protocol, as states, sequences and requests."""
