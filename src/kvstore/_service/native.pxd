include "request_ids.pxd"
include "desk.pxd"
include "messages.pxd"
include "key_values.pxd"
