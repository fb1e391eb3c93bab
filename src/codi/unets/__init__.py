"""The diffusers' networks: one UNet, configured for pictures, clips, spectrograms and sentences."""
