"""Runtimes: what runs the containers of a node. ``base`` is the interface, ``testing`` the contract suite."""
