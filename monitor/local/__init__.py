"""All of `feeler up`: stores and processes on this machine, the first run. For the CLI alone."""
