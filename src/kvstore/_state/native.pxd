include "requests.pxd"
include "commands.pxd"
include "sessions.pxd"
include "applying.pxd"
