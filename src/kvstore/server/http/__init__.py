"""What clients get over HTTP/1.1: ``face`` is the way in, ``probes`` says how this member is. Calls
in JSON are ``kvstore.api.handlers.gateway``'s."""
