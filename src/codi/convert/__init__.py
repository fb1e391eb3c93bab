"""Foreign checkpoints <-> ours. Nothing else in the package knows a foreign key.

`rules` says how names and layouts correspond, one module for each family holds its tables.
"""
