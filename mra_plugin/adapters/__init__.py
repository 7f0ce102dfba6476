"""What binds MRA attention, and any registered backend, to other libraries."""
