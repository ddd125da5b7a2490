"""What the parties say to one another: values in, values out, and no I/O."""
