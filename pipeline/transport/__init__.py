"""Transport between workers and hosts: messages, sockets, credit flow, keys."""
