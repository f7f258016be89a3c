"""Who waits for the GIL: see gil.pxd."""


def forget_other_threads():
    gil_turn.asked = gil_turn.aside = 0
    gil_crowd.kept = 0


def keep_gil(reads):
    gil_crowd.kept = reads


def keeps_gil():
    return gil_crowd.kept
