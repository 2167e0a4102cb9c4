"""A serial cable: a pseudo terminal before a socket, with a name that stays, as those in /dev/serial/by-id do."""

import os
import select
import socket
import threading
import tty
from urllib.parse import urlsplit


class Cable:
    """Bytes between a pseudo terminal, which is opened by ``path``, and the socket of a board.

    Parameters
    ----------
    path : Path
        Link to the terminal; it names another one when the cable has been put in again.
    url : str
        socket://HOST:PORT
    """

    def __init__(self, path, url):
        self.path, self._url, self._thread = path, urlsplit(url), None
        self.put_in()

    def put_in(self):
        """A terminal of its own, and a connection to the board."""
        self._board = socket.create_connection((self._url.hostname, self._url.port))
        self._master, self._port = os.openpty()
        tty.setraw(self._port)
        self._wake, self._pulled = os.pipe()
        new = self.path.with_name(self.path.name + ".new")
        new.symlink_to(os.ttyname(self._port))
        new.replace(self.path)
        self._thread = threading.Thread(target=self._carry, daemon=True)
        self._thread.start()

    def pull(self):
        """Takes it out: whoever has the terminal open sees it end."""
        if self._thread is None:
            return
        os.close(self._pulled)
        self._thread.join()
        self._thread = None

    def _carry(self):
        board = self._board.fileno()
        while True:
            ready = select.select([self._master, board, self._wake], [], [])[0]
            if self._wake in ready:
                break
            if self._master in ready:
                self._board.sendall(os.read(self._master, 4096))
            if board in ready:
                try:
                    data = self._board.recv(4096)
                except OSError:
                    data = b""
                if not data:  # the board has gone, the cable is there still
                    board = self._wake
                while data:
                    data = data[os.write(self._master, data):]
        for end in (self._master, self._port, self._wake):
            os.close(end)
        self._board.close()
