"""The guest: its memory, who wrote to it, and what it does by virtual time."""
