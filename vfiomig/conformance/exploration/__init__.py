"""The parts of the explorer: keys, steps, and the holding of many conversations."""
