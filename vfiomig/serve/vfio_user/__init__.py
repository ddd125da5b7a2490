"""A device as a vfio-user server: a socket, and one client of it after another.

::

    Server         accepts, and makes a driver for each client
      Session      answers its commands, in their order
        Channel        messages and fds of one connection, with limits on each wait
        ServedDevice   the device fd, and the file of its mapped data
        ClientMemory   what of the client's memory the device reaches
"""
