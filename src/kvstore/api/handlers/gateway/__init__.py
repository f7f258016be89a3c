"""etcd's JSON gateway: its methods as POST of JSON over HTTP/1.1, to the same handlers that gRPC
has. ``gateway`` is the way in, ``routes`` has the paths, ``transcoding`` JSON and messages,
``call`` the context of a handler, ``answers`` what calls end with."""
