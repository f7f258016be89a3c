include "requests.pxd"
