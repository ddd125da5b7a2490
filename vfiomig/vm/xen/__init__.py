"""A Xen guest: the page it shares with its host, and the store they meet in."""
