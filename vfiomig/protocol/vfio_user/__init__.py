"""vfio-user: what goes over the socket, both ways, as values; no socket is here."""
