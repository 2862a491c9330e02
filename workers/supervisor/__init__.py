"""The process that assigns databases to workers and keeps the history.

Nothing of the worker's is imported here.
"""
