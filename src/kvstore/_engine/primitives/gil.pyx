"""Who waits for the GIL: see gil.pxd."""


def forget_other_threads():
    gil_turn.asked = gil_turn.aside = 0


def gil_turns():
    return gil_turn.answers
