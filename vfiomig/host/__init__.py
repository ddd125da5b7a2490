"""The kernel between the device fd and the vendor driver."""
