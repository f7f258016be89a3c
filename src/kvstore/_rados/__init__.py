"""librados without its header and without linking: asynchronous operations in, batches out.

One extension module, ``native``, over the room ``primitives`` of the engine. The library is looked
for when a process first wants it (:func:`kvstore._rados.native.load`); what completes on its
threads is put aside without the GIL, and wakes whoever drains it once for all that has gathered.
``kvstore.beyond.rados`` drives it.
"""
