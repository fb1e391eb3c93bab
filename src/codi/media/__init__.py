"""Files of images, video, audio and text to arrays, and back.

A picture is a `PIL.Image.Image`, a video a `Video`, a sound an `Audio`, a text a `str`. Every
`load_*` also returns notes: lines for a person that say what was cut, resampled, padded, turned or
cropped. Whatever is wrong with a file is a `MediaError` of one line. Knows no tensors, no model and
no list of modalities. The decoders are imported when they are first needed.
"""

from codi.media.audio import Audio, decode_audio, fit_audio, has_audio, load_audio, save_audio
from codi.media.errors import MediaError
from codi.media.files import atomic_path, atomic_write_bytes, atomic_write_text
from codi.media.framing import resize_frames
from codi.media.image import decode_image, fit_image, load_image, save_image
from codi.media.text import load_text, save_text
from codi.media.video import (
    Video,
    decode_filmstrip,
    decode_video,
    load_middle_frame,
    load_video,
    save_video,
)

__all__ = [
    "Audio",
    "MediaError",
    "Video",
    "atomic_path",
    "atomic_write_bytes",
    "atomic_write_text",
    "decode_audio",
    "decode_filmstrip",
    "decode_image",
    "decode_video",
    "fit_audio",
    "fit_image",
    "has_audio",
    "load_audio",
    "load_image",
    "load_middle_frame",
    "load_text",
    "load_video",
    "resize_frames",
    "save_audio",
    "save_image",
    "save_text",
    "save_video",
]
