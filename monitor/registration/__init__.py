"""How a database comes into the fleet and changes: what is given is parsed, sealed, stored, told.

`given` (parsing: web, CLI and `feeler up`) imports core alone and costs nothing to load;
`changes` (sealing, storing, asking for a look: the web) reaches the stores.
"""
