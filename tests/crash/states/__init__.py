"""After-crash disks: each that the file layer's promises allow is what a restart may find.

A workload runs on a memory disk. Before each call that changes it, disks are made as a power loss
at that moment would leave them: what was synced, and any part of what wasn't (writes torn at any
byte, sectors in any order, names of directories that were not synced, any of them). Each one that
hasn't been seen before is opened as by a restart, and must hold exactly what was acknowledged, or
that and a beginning without a hole of what was under way.
"""
