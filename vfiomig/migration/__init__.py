"""Moving devices from a source to a destination, in virtual time."""
