"""The parts of the portable scan: its blocks, its chunks, and the two ways of walking over one."""
