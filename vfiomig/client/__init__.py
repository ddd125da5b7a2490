"""The user application's half of the protocol, on any device handle."""
