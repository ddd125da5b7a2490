"""RISC-V harts: what KVM and QEMU keep of them, and a guest that really runs."""
