"""QEMU's migration stream: the framing, and the sections of VFIO devices."""
