"""Everything on this machine: stores, processes and the first run of `feeler up`. The CLI imports it."""
