"""The model of etcd's v3 API: keys with revisions and history, ranges, transactions, leases.

Requests and answers are plain tuples; how they look on the wire is known above, in
``kvstore.api``, and in a log's entry by :mod:`kvstore.state.mvcc.operations`.
"""
