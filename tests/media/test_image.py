from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from codi.media import MediaError, decode_image, fit_image, load_image, resize_frames, save_image
from codi.media.framing import centre_square


def pixels(path: Path, size_px: int = 64) -> tuple[np.ndarray, list[str]]:
    image, notes = load_image(path, size_px=size_px)
    assert image.mode == "RGB"
    assert image.size == (size_px, size_px)
    return np.asarray(image).astype(int), notes


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "gif", "tiff", "ppm", "jpg", "jp2"])
def test_formats_give_the_same_picture(tmp_path: Path, make: Any, suffix: str) -> None:
    source = make.striped(64, 64, make.RED, make.BLUE)
    path = tmp_path / f"picture.{suffix}"
    options: dict[str, dict[str, Any]] = {
        "webp": {"lossless": True},
        "jpg": {"quality": 98, "subsampling": 0},
    }
    Image.fromarray(source).save(path, **options.get(suffix, {}))
    values, notes = pixels(path)
    assert np.abs(values - source).max() <= (6 if suffix == "jpg" else 0)
    assert notes == []


def test_note_says_what_was_cropped(tmp_path: Path, make: Any) -> None:
    Image.fromarray(make.striped(300, 200, make.RED, make.BLUE)).save(tmp_path / "dog.png")
    values, notes = pixels(tmp_path / "dog.png")
    assert notes == ["dog.png: centre crop 200x200 of 300x200, resized to 64x64"]
    assert np.abs(values[:, :28] - make.RED).max() <= 1
    assert np.abs(values[:, 36:] - make.BLUE).max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (5000, 3), (3, 5000), (63, 65), (7, 7)])
def test_any_shape(tmp_path: Path, size: tuple[int, int]) -> None:
    Image.new("RGB", size, (10, 200, 30)).save(tmp_path / "odd.png")
    values, _ = pixels(tmp_path / "odd.png")
    assert (values == (10, 200, 30)).all()


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    """A fine chessboard becomes even grey, not a moire pattern."""
    board = ((np.indices((512, 512)).sum(axis=0) % 2) * 255).astype(np.uint8)
    Image.fromarray(board).save(tmp_path / "board.png")
    values, _ = pixels(tmp_path / "board.png")
    assert np.abs(values - 127.5).max() < 3


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation(tmp_path: Path, make: Any, orientation: int) -> None:
    """A picture stored in any orientation comes back as it was seen."""
    seen = Image.fromarray(make.striped(64, 64, make.RED, make.BLUE))
    seen.paste((255, 255, 255), (0, 0, 16, 16))
    stored = {  # what a camera held this way writes: the inverse of the turn
        1: lambda i: i,
        2: lambda i: i.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda i: i.transpose(Image.Transpose.ROTATE_180),
        4: lambda i: i.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda i: i.transpose(Image.Transpose.TRANSPOSE),
        6: lambda i: i.transpose(Image.Transpose.ROTATE_90),
        7: lambda i: i.transpose(Image.Transpose.TRANSVERSE),
        8: lambda i: i.transpose(Image.Transpose.ROTATE_270),
    }[orientation](seen)
    exif = Image.Exif()
    exif[0x0112] = orientation
    for suffix in ("png", "webp"):
        path = tmp_path / f"photo.{suffix}"
        stored.save(path, exif=exif, lossless=True)
        values, notes = pixels(path)
        assert np.abs(values - np.asarray(seen).astype(int)).max() == 0
        expected = [f"photo.{suffix}: turned upright as its EXIF orientation asks"]
        assert notes == (expected if orientation > 1 else [])


def test_broken_exif_does_not_stop_a_photo(tmp_path: Path) -> None:
    Image.new("RGB", (64, 64), "red").save(tmp_path / "a.jpg", exif=b"Exif\0\0MM\0*\xff\xff")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "b.jpg", exif=b"Exif\0\0rubbish")
    Image.new("RGB", (64, 64), "red").save(tmp_path / "c.webp", exif=b"Exif\0\0MM")
    for name in ("a.jpg", "b.jpg", "c.webp"):
        values, _ = pixels(tmp_path / name)
        assert values[..., 0].min() > 240


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "RGB+colour", "1"])
def test_transparency_is_laid_on_white(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "layer.png"
    if mode == "P":
        image = Image.new("P", (64, 64), 1)
        image.putpalette([0, 0, 0, 9, 9, 9])
        image.save(path, transparency=1)
    elif mode == "RGB+colour":
        Image.new("RGB", (64, 64), (1, 2, 3)).save(path, transparency=(1, 2, 3))
    elif mode == "1":
        Image.new("1", (64, 64), 1).save(path)
    else:
        Image.new(mode, (64, 64), 0).save(path)
    values, notes = pixels(path)
    assert (values == 255).all()
    assert notes == ([] if mode == "1" else ["layer.png: transparency laid on white"])


def test_half_transparent_colour_is_mixed(tmp_path: Path) -> None:
    Image.new("RGBA", (64, 64), (255, 0, 0, 128)).save(tmp_path / "half.png")
    values, _ = pixels(tmp_path / "half.png")
    assert np.abs(values - (255, 127, 127)).max() <= 1


def test_sixteen_bits(tmp_path: Path) -> None:
    """16-bit grey keeps its shades: Pillow's own conversion would make nearly all of it white."""
    grey = np.linspace(0, 65535, 64).round().astype(np.uint16)[None].repeat(64, axis=0)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    values, notes = pixels(tmp_path / "grey.png")
    assert np.abs(values[0, :, 0] - np.linspace(0, 255, 64)).max() <= 1
    assert notes == ["grey.png: reduced to 8 bits"]


def png(width: int, height: int, bits: int, colour: int, data: bytes) -> bytes:
    """Return a PNG file; `colour` is 2 for RGB, 4 for grey and 6 for RGB with transparency."""
    chunks = b"\x89PNG\r\n\x1a\n"
    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    for name, body in ((b"IHDR", header), (b"IDAT", data), (b"IEND", b"")):
        chunks += struct.pack(">I", len(body)) + name + body
        chunks += struct.pack(">I", zlib.crc32(name + body))
    return chunks


def png_16(channels: int, colour: int) -> bytes:
    """Return a PNG file of 64x64 pixels of 16 bits, all of them at full scale."""
    row = b"\0" + b"\xff\xff" * (64 * channels)
    return png(64, 64, 16, colour, zlib.compress(row * 64))


@pytest.mark.parametrize(("channels", "colour"), [(3, 2), (2, 4), (4, 6)])
def test_sixteen_bit_colours_are_told(tmp_path: Path, channels: int, colour: int) -> None:
    (tmp_path / "deep.png").write_bytes(png_16(channels, colour))
    values, notes = pixels(tmp_path / "deep.png")
    assert (values == 255).all()
    assert notes == ["deep.png: reduced to 8 bits"]


def test_colours_packed_into_sixteen_bits_are_not_reduced(tmp_path: Path) -> None:
    """A BMP of 5, 6 and 5 bits a colour has fewer shades than 8 bits, not more."""
    header = struct.pack("<IiiHHIIiiII", 40, 64, 64, 1, 16, 3, 64 * 64 * 2, 0, 0, 0, 0)
    header += struct.pack("<III", 0xF800, 0x07E0, 0x001F)
    start = 14 + len(header)
    data = b"BM" + struct.pack("<IHHI", start + 64 * 64 * 2, 0, 0, start) + header
    (tmp_path / "packed.bmp").write_bytes(data + b"\xff\xff" * (64 * 64))
    values, notes = pixels(tmp_path / "packed.bmp")
    assert (values == 255).all()
    assert notes == []


def test_float_pictures(tmp_path: Path) -> None:
    for top in (1.0, 255.0, 65535.0):
        Image.fromarray(np.full((64, 64), top, np.float32)).save(tmp_path / "f.tiff")
        assert (pixels(tmp_path / "f.tiff")[0] == 255).all()
    Image.fromarray(np.full((64, 64), np.nan, np.float32)).save(tmp_path / "f.tiff")
    with pytest.raises(MediaError, match=r"f\.tiff: holds pixels that are not numbers"):
        load_image(tmp_path / "f.tiff", size_px=64)


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (64, 64), (0, 255, 255, 0)).save(tmp_path / "print.jpg", quality=98)
    values, notes = pixels(tmp_path / "print.jpg")
    assert values[..., 0].min() > 240
    assert values[..., 1:].max() < 15
    assert notes == ["print.jpg: CMYK converted to RGB"]


def test_colour_profiles(tmp_path: Path) -> None:
    """An sRGB profile changes nothing; another one is converted; a broken one is ignored."""
    image = Image.new("RGB", (64, 64), (200, 100, 50))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    image.save(tmp_path / "srgb.png", icc_profile=srgb)
    values, notes = pixels(tmp_path / "srgb.png")
    assert notes == []
    assert (values == (200, 100, 50)).all()
    image.save(tmp_path / "broken.png", icc_profile=b"no profile at all")
    values, notes = pixels(tmp_path / "broken.png")
    assert (values == (200, 100, 50)).all()
    assert notes == ["broken.png: its colour profile is damaged and was ignored"]

    # A display whose red is sRGB's green, and the other way round.
    swapped = srgb.replace(b"rXYZ", b"????").replace(b"gXYZ", b"rXYZ").replace(b"????", b"gXYZ")
    swapped = swapped.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    swapped = swapped.replace(b"sRGB", b"swap")
    image.save(tmp_path / "swapped.png", icc_profile=swapped, transparency=(1, 2, 3))
    values, notes = pixels(tmp_path / "swapped.png")
    assert np.abs(values - (100, 200, 50)).max() <= 2
    assert notes == ["swapped.png: colours converted from 'swap built-in' to sRGB"]


def test_first_frame_of_an_animation(tmp_path: Path) -> None:
    shots = [Image.new("RGB", (64, 64), (level, 0, 0)) for level in (200, 100, 50)]
    for suffix in ("gif", "webp", "png"):
        path = tmp_path / f"moving.{suffix}"
        shots[0].save(path, save_all=True, append_images=shots[1:], duration=100)
        values, notes = pixels(path)
        assert np.abs(values - (200, 0, 0)).max() < 4
        assert notes == [f"moving.{suffix}: used the first of its 3 frames"]


def test_same_file_gives_the_same_array(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.jpg")
    first, second = (pixels(tmp_path / "noise.jpg")[0] for _ in range(2))
    assert (first == second).all()


@pytest.mark.parametrize("side", [12_000, 100_000])
def test_decompression_bomb(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(side, side, 8, 2, b""))
    with pytest.raises(MediaError, match=r"bomb\.png: has .* pixels, the limit is 128 million;"):
        load_image(path, size_px=64)


def test_media_of_another_kind_is_named(tmp_path: Path, make: Any) -> None:
    make.clip(tmp_path / "clip.mp4", make.ramp(3))
    (tmp_path / "clip.mp4").rename(tmp_path / "clip.png")
    with pytest.raises(MediaError, match=r"clip\.png: is an MP4 or MOV video, .*; use --video"):
        load_image(tmp_path / "clip.png", size_px=64)
    (tmp_path / "words.png").write_text("A red ball bounces — twice.", encoding="utf-8")
    with pytest.raises(MediaError, match=r"words\.png: is a text file, .*; use --text"):
        load_image(tmp_path / "words.png", size_px=64)
    (tmp_path / "phone.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(40))
    with pytest.raises(MediaError, match=r"HEIC picture, which codi does not read.*convert it to"):
        load_image(tmp_path / "phone.heic", size_px=64)


@pytest.mark.parametrize("suffix", ["png", "webp", "bmp", "jpg"])
def test_round_trip(tmp_path: Path, make: Any, suffix: str) -> None:
    source = make.striped(64, 64, make.RED, make.BLUE)
    for picture in (source, source / 255, Image.fromarray(source)):
        save_image(tmp_path / f"out.{suffix}", picture)
        values, _ = pixels(tmp_path / f"out.{suffix}")
        assert np.abs(values - source).max() <= (10 if suffix == "jpg" else 0)


def test_picture_with_alpha_is_saved_as_jpeg_on_white(tmp_path: Path) -> None:
    save_image(tmp_path / "out.jpg", Image.new("RGBA", (16, 16), (0, 0, 0, 0)))
    assert (pixels(tmp_path / "out.jpg", 16)[0] > 250).all()


@pytest.mark.parametrize(
    ("name", "picture", "words"),
    [
        ("a.png", np.full((4, 4, 3), np.nan), "numbers run from nan to nan"),
        ("a.png", np.full((4, 4, 3), 2.0), "numbers run from 2 to 2; give floats in"),
        ("a.png", np.zeros((4, 4)), r"shape \(4, 4\); give \(H, W, 3\)"),
        ("a.png", np.zeros((4, 4, 3), np.int64), "int64 numbers"),
        ("a.xyz", np.zeros((4, 4, 3), np.uint8), r"not written as '\.xyz'; end the name in \.png"),
        ("a", np.zeros((4, 4, 3), np.uint8), "not written as ''"),
        ("a.png", Image.new("F", (4, 4)), "cannot be written .*; convert it to RGB"),
    ],
)
def test_what_cannot_be_saved(tmp_path: Path, name: str, picture: Any, words: str) -> None:
    with pytest.raises(MediaError, match=words):
        save_image(tmp_path / name, picture)
    assert list(tmp_path.iterdir()) == []


def photo_on_its_side() -> tuple[Image.Image, Image.Exif]:
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8))
    exif = Image.Exif()
    exif[0x0112] = 6
    return photo, exif


def save_odd_pictures(folder: Path) -> None:
    """Write pictures that are not what they seem: deep, turned, transparent, printed, moving."""
    rng = np.random.default_rng(0)
    grey = rng.random((64, 90), np.float32)
    Image.fromarray((grey * 65535).astype(np.uint16)).save(folder / "deep.png")
    Image.fromarray(grey).save(folder / "float.tiff")
    photo, exif = photo_on_its_side()
    for name in ("turned.jpg", "turned.png", "turned.webp", "turned.tiff"):
        photo.save(folder / name, exif=exif)
    photo.save(folder / "profile.png", icc_profile=b"no profile at all")
    photo.save(folder / "keyed.png", transparency=photo.getpixel((0, 0)))
    photo.convert("P").save(folder / "keyed.gif", transparency=3)
    photo.convert("CMYK").save(folder / "print.jpg")
    Image.fromarray(rng.integers(0, 256, (64, 64, 4), np.uint8)).save(folder / "layer.png")
    (folder / "deep-colour.png").write_bytes(png_16(3, 2))
    others = [photo.transpose(Image.Transpose.ROTATE_180), ImageOps.invert(photo)]
    for name in ("moving.gif", "moving.webp", "moving.png", "moving.tiff"):
        photo.save(folder / name, save_all=True, append_images=others, duration=100)


def test_an_opened_picture_is_what_its_file_is(tmp_path: Path) -> None:
    """Whatever the file holds: the same pixels, and the same note."""
    save_odd_pictures(tmp_path)
    told = ""
    for path in sorted(tmp_path.iterdir()):
        loaded, notes = load_image(path, size_px=64)
        with Image.open(path) as opened:
            fitted, object_notes = fit_image(opened, 64)
            assert fitted.mode == "RGB"
            assert (np.asarray(fitted) == np.asarray(loaded)).all(), path.name
            assert object_notes == [note.replace(path.name, "image", 1) for note in notes]
        told += "".join(notes)
    for words in ("8 bits", "upright", "white", "crop", "CMYK", "profile", "frames"):
        assert words in told


def test_a_fitted_picture_fits(tmp_path: Path) -> None:
    """Whatever was done to a picture is not done again: the command line loads before it asks."""
    save_odd_pictures(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        loaded, _ = load_image(path, size_px=64)
        again, notes = fit_image(loaded, 64)
        assert notes == []
        assert (np.asarray(again) == np.asarray(loaded)).all()


def test_a_picture_that_is_decoded_already(tmp_path: Path) -> None:
    """What was drawn on it stays, and its file may be closed."""
    save_odd_pictures(tmp_path)
    for path in sorted(tmp_path.iterdir()):
        with Image.open(path) as opened:
            opened.load()
            opened.paste(0, (0, 0, *opened.size))
            drawn = opened.copy()
        fitted, expected = (fit_image(picture, 64)[0] for picture in (opened, drawn))
        assert (np.asarray(fitted) == np.asarray(expected)).all(), path.name
        assert (np.asarray(opened) == np.asarray(drawn)).all()


def test_the_frame_that_an_animation_stands_at(tmp_path: Path) -> None:
    shots = [Image.new("RGB", (64, 64), (level, 0, 0)) for level in (200, 100, 50)]
    for suffix in ("gif", "webp", "png", "tiff"):
        path = tmp_path / f"moving.{suffix}"
        shots[0].save(path, save_all=True, append_images=shots[1:], duration=100)
        with Image.open(path) as opened:
            opened.seek(1)
            fitted, notes = fit_image(opened, 64)
            assert opened.tell() == 1
        assert np.abs(np.asarray(fitted).astype(int) - (100, 0, 0)).max() < 8
        assert notes == ["image: used frame 2 of its 3 frames"]


def test_a_picture_is_turned_once() -> None:
    photo, exif = photo_on_its_side()
    buffer = io.BytesIO()
    photo.save(buffer, "PNG", exif=exif)
    opened = Image.open(buffer)
    upright = fit_image(photo.transpose(Image.Transpose.ROTATE_270), 64)[0]
    for picture in (opened, opened.convert("RGB"), ImageOps.exif_transpose(opened)):
        assert (np.asarray(fit_image(picture, 64)[0]) == np.asarray(upright)).all()


def test_a_profile_of_the_mode_before_is_ignored() -> None:
    """`convert` keeps the profile of the old mode, which says nothing of the new one."""
    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("LAB")).tobytes()
    picture = Image.new("RGB", (64, 64), (200, 100, 50))
    picture.info["icc_profile"] = lab
    fitted, notes = fit_image(picture, 64)
    assert fitted.getpixel((0, 0)) == (200, 100, 50)
    assert notes == ["image: its colour profile is one of Lab and was ignored"]


def test_pictures_that_cannot_be_used(tmp_path: Path) -> None:
    photo, _ = photo_on_its_side()
    photo.save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    with Image.open(tmp_path / "whole.png") as closed:
        pass
    bad = {
        r"image: has no pixels \(0x5\); give another picture": Image.new("RGB", (0, 5)),
        "image: holds pixels that are not numbers": Image.new("F", (4, 4), float("nan")),
        r"image: cannot be read \(.*truncated.*\); check that": Image.open(
            io.BytesIO(data[: len(data) // 2])
        ),
        r"image: cannot be read \(.*check that its file is whole and still open, or": closed,
        "image: has 16000x16000 pixels, the limit": Image.new("1", (16_000, 16_000)),
    }
    for words, picture in bad.items():
        with pytest.raises(MediaError, match=words) as caught:
            fit_image(picture, 64)
        assert str(caught.value).count("\n") == 0
    with pytest.raises(MediaError, match="size_px is 0"):
        fit_image(photo, 0)


def test_decode_image_keeps_the_size() -> None:
    buffer = io.BytesIO()
    Image.new("L", (30, 20), 7).save(buffer, "PNG")
    image = decode_image(buffer.getvalue())
    assert (image.mode, image.size) == ("RGB", (30, 20))
    with pytest.raises(MediaError, match=r"0001\.image\.webp: is not a picture"):
        decode_image(b"\x01\x02\x03", name="0001.image.webp")
    with pytest.raises(MediaError, match=r"image: is empty \(0 bytes\)"):
        decode_image(b"")


def test_resize_frames(make: Any) -> None:
    frames = make.ramp(5, 80, 40)
    assert resize_frames(frames, 32).shape == (5, 32, 32, 3)
    assert (resize_frames(make.ramp(3, 64, 64), 64) == make.ramp(3, 64, 64)).all()
    with pytest.raises(MediaError, match="float64"):
        resize_frames(frames / 255, 32)
    with pytest.raises(MediaError, match="size_px is 0"):
        resize_frames(frames, 0)


def test_central_square_lies_inside_and_centred() -> None:
    for width in range(1, 30):
        for height in range(1, 30):
            for aspect in (1.0, 0.5, 16 / 15, 3.0):
                left, top, right, bottom = centre_square(width, height, aspect)
                assert 0 <= left < right <= width
                assert 0 <= top < bottom <= height
                assert abs((width - right) - left) <= 1
                assert abs((height - bottom) - top) <= 1
