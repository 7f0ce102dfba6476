"""One head's attention, exact and as MRA has it, as numbers and as a picture."""
