"""etcd's v3 API: from its messages to the model's words and back, a file a service.

``register`` puts a service's handlers on either front; ``translate`` is what they share.
"""
