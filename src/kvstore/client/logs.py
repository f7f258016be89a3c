"""What clients say to the standard library's logging, under ``kvstore``: nothing, unless asked.

Never keys, values or passwords.
"""

from __future__ import annotations

import logging

__all__ = ["log"]

# Else what goes wrong would be printed by logging's last resort.
logging.getLogger("kvstore").addHandler(logging.NullHandler())

log = logging.getLogger("kvstore.client")
