"""Codecs: autoencoders between media tensors and latents, behind one contract (`codecs.base`)."""
