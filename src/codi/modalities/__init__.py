"""The modalities: one file each, and the registry that everything else reads."""

from codi.modalities.base import MediaType, Modality, modality, names, register

__all__ = ["MediaType", "Modality", "modality", "names", "register"]
