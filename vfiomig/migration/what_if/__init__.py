"""What a migration would do: the same loop, over handlers that send only sizes."""
