"""The newest writes, in order, in memory: a B+ tree that readers walk while a writer adds.

``memtable_node`` the leaves; ``memtable`` adding and looking up; ``memtable_cursor`` walking;
``range_tombstones`` deleted ranges; ``memtable_face`` its Python face for tests.
"""
