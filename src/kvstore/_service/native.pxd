include "request_ids.pxd"
include "desk.pxd"
