"""What the command line needs: HTTP to a running feeler, its answers as text, tables and JSON.

`cli` imports this, and `local` (the client and values, for `feeler up`).
"""
