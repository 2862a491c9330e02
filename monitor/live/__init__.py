"""Redis: what is true now. Sole user of redis; imports monitor.core only. Doors and workers may
import it.

Every function takes a `Live` first and raises StoreUnavailable when Redis does not answer or may
not write.
"""
