"""Native parts of :mod:`kvstore.service`: what is done for each operation of a batch.

One extension module, ``native``, over ``kvstore._state`` and the engine. Each part has a plain
Python twin in :mod:`kvstore.service` that tests hold it against.
"""
