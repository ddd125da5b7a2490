"""rsocket as a transport: librdmacm's calls, a model of them, and ways to wait."""
