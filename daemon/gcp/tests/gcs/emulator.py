"""An emulator of Cloud Storage on a free port of the loopback; ends when nobody holds its standard input any more.

Usage: emulator.py BUCKET    Says the port.
"""

import os
import sys

from gcp_storage_emulator.server import create_server

server = create_server("127.0.0.1", 0, in_memory=True, default_bucket=sys.argv[1])
server.start()
print(server._api._httpd.server_address[1], flush=True)
sys.stdin.read()
os._exit(0)
