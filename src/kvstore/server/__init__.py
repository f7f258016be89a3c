"""One kvd, put together.

``process`` a process from start to end; ``listener`` the gRPC server for clients; ``health``,
``logs``, ``supervisor`` what it says of itself. The rooms: ``config`` what it is told to be and
where its data lies, ``checks`` what is wrong with that before a start, ``nodes`` what it serves,
``peers`` how members talk, ``tls`` certificates, ``metrics``.
"""
