"""What the command line needs: HTTP to a running feeler, and its answers as text and tables. cli
and up import this.
"""
