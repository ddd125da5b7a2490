"""The files of /dev/vfio for an unmodified program, by seccomp user notification.

The program runs under a filter that hands a few of its system calls to us: each open,
and ioctl, pread, pwrite and close on the fds that we gave it.  All others, and memory
that it maps of a data section, run at full speed.  No root, no kernel module.

The program is not trusted.  Nothing that it says is believed, and what it does wrong
gets the kernel's errno.
"""
