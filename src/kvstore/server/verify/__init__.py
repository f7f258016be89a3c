"""Every byte of what lies on a disk, checked without a server: ``kvctl verify``."""
