"""The processes: worker, supervisor and what they run. Sole home of rq; nothing in monitor imports
this package.
"""
