"""What ``kvd check`` looks at, without starting, binding or writing anything.

``findings`` what is found; ``certificates``, ``directory``, ``addresses`` one subject each;
``configuration`` all of them for a cluster node or an embedded kvd.
"""
