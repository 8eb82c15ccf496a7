"""Virtual-time simulation of whole clusters: the daemon's own ``Agent`` in a world without clocks, sockets or files."""
