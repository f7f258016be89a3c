"""Names of the metadata that calls and their trailers carry (docs/wire-protocol.md).

Servers, clients and members write and read them by these names and no others.
"""

from __future__ import annotations

from typing import Final

# Trailers: what the status message says in a person's words, in a machine's.
LEADER_HINT_KEY: Final = "kvstore-leader-hint"
LEADER_ADDRESS_KEY: Final = "kvstore-leader-address"
INTEGRITY_CODE_KEY: Final = "kvstore-integrity-code"
REFUSAL_KEY: Final = "kvstore-refusal"
# What became of this very try of a write; nothing is said where that isn't known.
OUTCOME_KEY: Final = "kvstore-outcome"
# The call was refused because too much waits already.
OVERLOAD_KEY: Final = "kvstore-overload"
# The call was refused because of an alarm that stands.
ALARM_KEY: Final = "kvstore-alarm"

# Calls of etcd's API: the number that a session gave a write.
REQUEST_KEY: Final = "kvstore-request-id"
# Calls: which try of this write this is, from 1 on; tries that surely came to nothing don't count.
ATTEMPT_KEY: Final = "kvstore-attempt"
# How long ago the first of them was sent, in milliseconds.
AGE_KEY: Final = "kvstore-age-ms"
# gRPC's own retries say the same, counted from 0.
GRPC_ATTEMPTS_KEY: Final = "grpc-previous-rpc-attempts"

# Calls: whose trace they are in, by W3C's recommendation.
TRACEPARENT_KEY: Final = "traceparent"

# Of a call that a member passes on: the name in its client's certificate. Of members alone it is
# believed.
COMMON_NAME_KEY: Final = "kvstore-common-name-bin"
# Between members: who calls and who answers; and the last word to a member that was removed.
INTRODUCTION_KEY: Final = "kvstore-introduction-bin"
REMOVED_KEY: Final = "kvstore-removed"
