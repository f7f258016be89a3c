"""Native parts of :mod:`kvstore.state`: what must be small and quick there.

One extension module, ``native``, over the room ``primitives`` of the engine and nothing else of it.
Each part has a plain Python twin in :mod:`kvstore.state` that tests hold it against.
"""
