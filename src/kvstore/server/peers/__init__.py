"""How the members of a cluster talk.

``transport`` a ``link`` out to each member, one ``listener`` in, whose calls ``handlers`` answer;
``frames`` many packets in one message; ``snapshots`` their parts, on a connection of their own;
``unary`` Raft's plain calls; ``streams`` end with the certificate that opened them. Who is who:
``names`` in certificates, ``identity`` of a data directory, ``introductions`` before a
call is read, ``registration`` of founders, ``registry`` what is remembered of the others,
``addresses`` in the member list. ``forwarding`` passes clients' calls to the leader.
"""
