"""Starts Patroni with TCP_NODELAY on its connections to etcd.

Patroni's etcd3 client replaces the socket options that it is handed, TCP_NODELAY among them. Each request goes out in
two segments, so Nagle's algorithm and the server's delayed acknowledgement add some 40 ms to every call, and a
failover makes half a dozen of them in a row.
"""

import socket

from patroni.__main__ import main


def no_delay() -> None:
    try:
        from patroni.dcs.etcd3 import Etcd3
    except ImportError:  # another store: nothing to mend
        return
    original = Etcd3.set_socket_options

    def set_socket_options(self, sock, socket_options):
        original(self, sock, socket_options)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    Etcd3.set_socket_options = set_socket_options


# Patroni runs this script again for its helper processes, which must not start a second Patroni.
if __name__ == "__main__":
    no_delay()
    main()
