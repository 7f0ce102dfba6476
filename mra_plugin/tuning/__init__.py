"""The fastest settings of MRA attention that are close enough, found by measuring."""
