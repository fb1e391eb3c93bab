"""Layers that know no modality: the blocks all the networks of `codi` are built from."""
