"""What a process serves: a ``node``, either ``embedded`` (five members) or ``cluster_node`` (one).

``driver`` replicas on an event loop; ``operators`` changes of members and leader; ``members``
statuses in the words of the Admin service; ``backups`` of a running member; ``restore`` a new
cluster from one.
"""
