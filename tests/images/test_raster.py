from __future__ import annotations

import io
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unibiomed.errors import InputError
from unibiomed.images import from_array, read_image


def rgb(height: int = 8, width: int = 12) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def save(picture: Image.Image, path: Path, **options) -> Path:
    picture.save(path, **options)
    return path


def png(path: Path, width: int, height: int, bits: int, kind: int, rows: bytes) -> Path:
    """A PNG written by hand, for what Pillow cannot write and for sizes that are a lie."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)), (b"IDAT", zlib.compress(rows))]
    data = b"\x89PNG\r\n\x1a\n"
    for name, body in [*chunks, (b"IEND", b"")]:
        data += struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_rgb_is_read_exactly(tmp_path, suffix):
    image = read_image(save(Image.fromarray(rgb()), tmp_path / f"a.{suffix}"))
    assert (image.pixels == rgb()).all()
    assert image.source == f"a.{suffix}"
    assert image.spacing is None and image.modality is None
    assert image.details["bits"] == 8


def test_jpeg_is_read_closely(tmp_path):
    flat = np.full((16, 16, 3), (200, 60, 20), dtype=np.uint8)
    image = read_image(save(Image.fromarray(flat), tmp_path / "a.jpg", quality=95))
    assert image.details["format"] == "JPEG"
    assert np.abs(image.pixels.astype(int) - flat).max() <= 4


def test_content_decides_not_the_suffix(tmp_path):
    path = save(Image.fromarray(rgb()), tmp_path / "a.dcm", format="PNG")
    assert read_image(str(path)).details["format"] == "PNG"


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tif"])
def test_8_bit_grey_is_not_stretched(tmp_path, suffix):
    grey = np.full((16, 16), 90, dtype=np.uint8)
    assert np.abs(read_image(save(Image.fromarray(grey), tmp_path / f"a.{suffix}")).pixels.astype(int) - 90).max() <= 1


def test_alpha_is_composited_on_black(tmp_path):
    rgba = np.array([[[200, 100, 50, 255], [200, 100, 50, 0], [200, 100, 50, 51]]], dtype=np.uint8)
    expected = [[[200, 100, 50], [0, 0, 0], [40, 20, 10]]]
    assert read_image(save(Image.fromarray(rgba), tmp_path / "a.png")).pixels.tolist() == expected
    assert read_image(save(Image.fromarray(rgba), tmp_path / "a.tif")).pixels.tolist() == expected
    grey = Image.fromarray(np.array([[[100, 255], [100, 0]]], dtype=np.uint8), "LA")
    assert read_image(save(grey, tmp_path / "b.png")).pixels.tolist() == [[[100] * 3, [0] * 3]]


def test_palette_and_its_transparency(tmp_path):
    picture = Image.fromarray(np.array([[0, 1, 2]], dtype=np.uint8), "P")
    picture.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    colors = [[[255, 0, 0], [0, 255, 0], [0, 0, 255]]]
    for suffix in ("png", "bmp", "tif"):
        assert read_image(save(picture, tmp_path / f"a.{suffix}")).pixels.tolist() == colors
    see_through = save(picture, tmp_path / "t.png", transparency=1)
    assert read_image(see_through).pixels.tolist() == [[[255, 0, 0], [0, 0, 0], [0, 0, 255]]]


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif"])
def test_one_bit(tmp_path, suffix):
    picture = Image.fromarray(np.array([[True, False, True]]))
    image = read_image(save(picture, tmp_path / f"a.{suffix}"))
    assert image.pixels[0, :, 0].tolist() == [255, 0, 255]
    if suffix != "bmp":
        assert image.details["bits"] == 1


@pytest.mark.parametrize("suffix", ["jpg", "tif"])
def test_cmyk(tmp_path, suffix):
    picture = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    red, green, blue = read_image(save(picture, tmp_path / f"a.{suffix}")).pixels[8, 8]
    assert red > 200 and green < 60 and blue < 60


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_16_bit_grey_is_scaled_by_percentiles(tmp_path, suffix):
    ramp = np.arange(1, 4001, dtype=np.uint16).reshape(40, 100)
    image = read_image(save(Image.fromarray(ramp), tmp_path / f"a.{suffix}"))
    grey = image.pixels[:, :, 0].astype(int)
    assert image.details["bits"] == 16 and image.details["scaling"] == "percentile"
    assert grey.min() == 0 and grey.max() == 255 and abs(grey.mean() - 127.5) < 1
    windowed = read_image(tmp_path / f"a.{suffix}", window="2000,1000")
    expected = np.rint(np.clip((ramp - 1500.0) / 1000, 0, 1) * 255)
    assert (windowed.pixels[:, :, 0] == expected).all()


def test_16_bit_big_endian_and_white_is_zero_tiff(tmp_path):
    ramp = np.arange(1, 1001, dtype=np.uint16).reshape(20, 50)
    direct = read_image(save(Image.fromarray(ramp), tmp_path / "a.tif")).pixels
    (tmp_path / "b.tif").write_bytes(tiff(ramp.astype(">u2"), big=True))
    assert (read_image(tmp_path / "b.tif").pixels == direct).all()
    (tmp_path / "c.tif").write_bytes(tiff(ramp, photometric=0))
    assert (read_image(tmp_path / "c.tif").pixels == 255 - direct).all()
    eight = (ramp % 256).astype(np.uint8)
    (tmp_path / "d.tif").write_bytes(tiff(eight, photometric=0))
    assert (read_image(tmp_path / "d.tif").pixels[:, :, 0] == 255 - eight).all()


def tiff(values: np.ndarray, *, photometric: int = 1, sample_format: int = 1, big: bool = False) -> bytes:
    """A TIFF of one uncompressed strip, for what Pillow cannot write."""
    order = ">" if big else "<"
    height, width = values.shape
    tags = [(256, 4, width), (257, 4, height), (258, 3, 8 * values.dtype.itemsize), (259, 3, 1), (262, 3, photometric)]
    tags += [(273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, values.nbytes), (339, 3, sample_format)]
    directory = struct.pack(order + "H", len(tags))
    for tag, kind, value in tags:
        directory += struct.pack(order + "HHI", tag, kind, 1)
        directory += struct.pack(order + ("HH" if kind == 3 else "I"), *((value, 0) if kind == 3 else (value,)))
    mark = b"MM\0*" if big else b"II*\0"
    return mark + struct.pack(order + "I", 8 + values.nbytes) + values.tobytes() + directory + b"\0" * 4


def test_signed_and_32_bit_tiff(tmp_path):
    ramp = np.linspace(-1000, 1000, 400).reshape(20, 20)
    for number, (dtype, sample_format) in enumerate([("<i2", 2), ("<i4", 2), ("<f4", 3)]):
        path = tmp_path / f"{number}.tif"
        path.write_bytes(tiff(ramp.astype(dtype), sample_format=sample_format))
        grey = read_image(path, window="lung").pixels[:, :, 0].astype(int)
        assert np.abs(grey - np.clip((ramp + 1350) / 1500, 0, 1) * 255).max() <= 1, dtype
    (tmp_path / "d.tif").write_bytes(tiff(ramp, sample_format=3))
    with pytest.raises(InputError, match="not supported"):
        read_image(tmp_path / "d.tif")
    huge = np.array([[0, 1, 2**31, 2**32 - 1]], dtype="<u4")
    (tmp_path / "u.tif").write_bytes(tiff(huge))
    grey = read_image(tmp_path / "u.tif", window=(2**31, 2**32)).pixels[0, :, 0]
    assert grey.tolist() == [0, 0, 128, 255]


def test_float_tiff_with_infinity_is_refused(tmp_path):
    values = np.zeros((8, 8), dtype=np.float32)
    values[3, 3] = np.inf
    with pytest.raises(InputError, match="infinite"):
        read_image(save(Image.fromarray(values), tmp_path / "a.tif"))


def test_16_bit_colour_png(tmp_path):
    full = np.array([[[65535, 32768, 0]]], dtype=">u2")
    assert read_image(png(tmp_path / "a.png", 1, 1, 16, 2, b"\0" + full.tobytes())).pixels.tolist() == [[[255, 128, 0]]]


@pytest.mark.parametrize("alpha", [False, True])
@pytest.mark.parametrize("bits", [8, 10, 12])
@pytest.mark.parametrize("kind", ["png", "tif", "packed.tif", "big.tif"])
def test_16_bit_colours_that_use_few_bits(tmp_path, alpha, bits, kind):
    colours = np.random.default_rng(bits).integers(0, 2**bits, (9, 11, 3)).astype(np.uint16)
    colours[0, 0] = 2**bits - 1
    values = np.concatenate([colours, np.full((9, 11, 1), 65535, np.uint16)], axis=2) if alpha else colours
    path = tmp_path / f"a.{kind}"
    if kind == "png":
        rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
        png(path, 11, 9, 16, 6 if alpha else 2, rows)
    else:
        tifffile = pytest.importorskip("tifffile")
        how = {"packed.tif": {"compression": "zlib"}, "big.tif": {"byteorder": ">"}}.get(kind, {})
        extra = {"extrasamples": ["unassalpha"]} if alpha else {}
        tifffile.imwrite(path, values, photometric="rgb", metadata=None, **how, **extra)
    image = read_image(path)
    assert np.abs(image.pixels.astype(float) - colours / (2**bits - 1) * 255).max() <= 1
    assert any(f"lowest {bits} bits" in note for note in image.notes)


def test_16_bit_grey_with_alpha_is_scaled_as_without(tmp_path):
    ramp = np.arange(400, 700, dtype=np.uint16).reshape(15, 20)
    both = np.stack([ramp, np.full(ramp.shape, 65535, np.uint16)], axis=-1)
    path = png(tmp_path / "a.png", 20, 15, 16, 4, b"".join(b"\0" + row.astype(">u2").tobytes() for row in both))
    plain = read_image(save(Image.fromarray(ramp), tmp_path / "b.png"))
    assert (read_image(path).pixels == plain.pixels).all()
    both[:5, :, 1] = 0
    path = png(tmp_path / "c.png", 20, 15, 16, 4, b"".join(b"\0" + row.astype(">u2").tobytes() for row in both))
    image = read_image(path)
    assert (image.pixels[:5] == 0).all() and image.details["range"][0] > 495 and image.details["bits"] == 16


@pytest.mark.parametrize("rows", [None, 4])
@pytest.mark.parametrize("order", ["<", ">"])
def test_planes_of_16_bits(tmp_path, order, rows):
    tifffile = pytest.importorskip("tifffile")
    colours = np.random.default_rng(0).integers(0, 65536, (3, 10, 12)).astype(np.uint16)
    how = {"photometric": "rgb", "planarconfig": "separate", "byteorder": order, "rowsperstrip": rows}
    tifffile.imwrite(tmp_path / "a.tif", colours, **how)
    wanted = np.rint(colours.transpose(1, 2, 0) / 65535 * 255)
    assert (read_image(tmp_path / "a.tif").pixels == wanted).all()
    with Image.open(tmp_path / "a.tif") as picture, pytest.raises(InputError, match="give the path of the TIFF file"):
        from_array(picture)
    tifffile.imwrite(tmp_path / "b.tif", colours, tile=(16, 16), **how)
    with pytest.raises(InputError, match="tiled planar colours"):
        read_image(tmp_path / "b.tif")
    data = (tmp_path / "a.tif").read_bytes()
    if rows is None:
        (tmp_path / "c.tif").write_bytes(data[:-100])
        with pytest.raises(InputError, match="truncated"):
            read_image(tmp_path / "c.tif")


def test_signed_bytes(tmp_path):
    ramp = np.linspace(-100, 100, 400).reshape(20, 20).astype(np.int8)
    (tmp_path / "a.tif").write_bytes(tiff(ramp, sample_format=2))
    grey = read_image(tmp_path / "a.tif").pixels[..., 0].astype(int)
    # -1 lies next to 0, and not at the other end of the range
    assert (np.diff(grey.ravel()) >= 0).all() and np.ptp(grey) == 255


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16, np.float32])
def test_stacks_with_one_directory(tmp_path, dtype):
    tifffile = pytest.importorskip("tifffile")
    planes = np.random.default_rng(0).integers(0, 200, (4, 6, 7)).astype(dtype)
    about = "ImageJ=1.54f\nimages=4\nslices=4\n"
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, planes[0], description=about, metadata=None, byteorder=">")
    with path.open("ab") as file:
        # the first plane stands at the end of the file, so that the others can follow it
        assert path.read_bytes().endswith(planes[0].astype(planes.dtype.newbyteorder(">")).tobytes())
        file.write(planes[1:].astype(planes.dtype.newbyteorder(">")).tobytes())
    with pytest.raises(InputError, match="4 planes: choose one with the slice option, 0 to 3"):
        read_image(path)
    for index in range(4):
        image = read_image(path, slice_index=index, window=(100, 199.0))
        wanted = np.rint(np.clip((planes[index].astype(float) - 0.5) / 199, 0, 1) * 255)
        assert (image.pixels[..., 0] == wanted).all()
        assert image.details["slice"] == index and image.details["slices"] == 4
    with pytest.raises(InputError, match="choose 0 to 3"):
        read_image(path, slice_index=4)
    with Image.open(path) as picture:
        assert any("first of 4 planes" in note for note in from_array(picture).notes)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(InputError, match="truncated"):
        read_image(path, slice_index=3)


def test_stacks_of_metamorph_are_refused(tmp_path):
    tifffile = pytest.importorskip("tifffile")
    uic2 = (33629, "2I", 1, (1, 1), True)
    tifffile.imwrite(tmp_path / "a.stk", np.zeros((4, 5), np.uint8), metadata=None, extratags=[uic2])
    with pytest.raises(InputError, match="MetaMorph"):
        read_image(tmp_path / "a.stk")


@pytest.mark.parametrize(("suffix", "options"), [("webp", {"lossless": True}), ("jp2", {}), ("j2k", {}), ("gif", {})])
def test_further_formats(tmp_path, suffix, options):
    picture = Image.fromarray(np.repeat(np.repeat(rgb(8, 8), 8, axis=0), 8, axis=1))
    wanted = picture if suffix != "gif" else picture.quantize(64)
    image = read_image(save(wanted, tmp_path / f"a.{suffix}", **options))
    assert (image.pixels == np.asarray(wanted.convert("RGB"))).all()
    assert image.details["format"] == {"webp": "WEBP", "gif": "GIF"}.get(suffix, "JPEG2000")
    with pytest.raises(InputError, match="a single image"):
        read_image(tmp_path / f"a.{suffix}", slice_index=0)


def test_16_bit_jpeg_2000(tmp_path):
    ramp = np.linspace(0, 60000, 64 * 64).reshape(64, 64).astype(np.uint16)
    image = read_image(save(Image.fromarray(ramp), tmp_path / "a.jp2"))
    assert image.details["bits"] == 16 and image.details["scaling"] == "percentile"
    assert (image.pixels == read_image(save(Image.fromarray(ramp), tmp_path / "a.png")).pixels).all()


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_animations_need_a_frame(tmp_path, suffix):
    frames = [Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (10, 120, 240)]
    options = {"lossless": True} if suffix == "webp" else {}
    path = save(frames[0], tmp_path / f"a.{suffix}", save_all=True, append_images=frames[1:], **options)
    with pytest.raises(InputError, match="several frames: choose one with the slice option"):
        read_image(path)
    assert [read_image(path, slice_index=k).pixels[0, 0, 0] for k in range(3)] == [10, 120, 240]
    with pytest.raises(InputError, match="does not exist"):
        read_image(path, slice_index=3)


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_exif_rotation_is_applied(tmp_path, suffix, dtype):
    if suffix == "jpg" and dtype == np.uint16:
        pytest.skip("JPEG holds 8 bits")
    values = np.full((16, 32), 10, dtype=dtype)
    values[:, :16] = 200
    exif = Image.Exif()
    exif[0x0112] = 6  # the first column is the top row of the upright picture
    image = read_image(save(Image.fromarray(values), tmp_path / f"a.{suffix}", exif=exif))
    assert (image.height, image.width) == (32, 16)
    assert image.pixels[4, 8, 0] > 150 > image.pixels[28, 8, 0]
    if suffix == "tif":
        packed = save(Image.fromarray(values), tmp_path / "b.tif", exif=exif, compression="tiff_lzw")
        assert (read_image(packed).pixels == image.pixels).all()


def test_tiff_pages(tmp_path):
    pages = [Image.fromarray(np.full((4, 4), value, dtype=np.uint8)) for value in (10, 20, 30)]
    path = save(pages[0], tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match="several pages"):
        read_image(path)
    assert [read_image(path, slice_index=k).pixels[0, 0, 0] for k in range(3)] == [10, 20, 30]
    assert read_image(path, slice_index=1).details["slice"] == 1
    for wrong in (3, 99, 10**6, -1):
        with pytest.raises(InputError, match="does not exist"):
            read_image(path, slice_index=wrong)


def test_a_slice_of_a_picture_is_refused(tmp_path):
    for suffix in ("png", "jpg", "tif", "bmp"):
        with pytest.raises(InputError, match="a single image"):
            read_image(save(Image.fromarray(rgb()), tmp_path / f"a.{suffix}"), slice_index=0)


@pytest.mark.parametrize("slice_index", [1.5, "1", True, 10**30])
def test_a_slice_is_a_whole_number(tmp_path, slice_index):
    with pytest.raises(InputError, match="whole number"):
        read_image(tmp_path / "a.png", slice_index=slice_index)


def test_windows_that_do_not_fit(tmp_path):
    color = save(Image.fromarray(rgb()), tmp_path / "a.png")
    with pytest.raises(InputError, match="has colours"):
        read_image(color, window="40,400")
    grey = save(Image.fromarray(rgb()[..., 0]), tmp_path / "b.png")
    with pytest.raises(InputError, match="8-bit grey values"):
        read_image(grey, window="lung")
    with pytest.raises(InputError, match="unknown window"):
        read_image(grey, window="lungs")
    with pytest.raises(InputError, match="above 0"):
        read_image(grey, window="40,-3")


@pytest.mark.parametrize("size", [(60000, 60000), (10001, 10000)])
def test_huge_pictures_are_refused_before_decoding(tmp_path, size):
    path = png(tmp_path / "huge.png", *size, 8, 0, b"")
    with warnings.catch_warnings(), pytest.raises(InputError, match="limit of 100 million pixels"):
        warnings.simplefilter("error")
        read_image(path)


def test_bad_files_each_get_one_line(tmp_path):
    good = io.BytesIO()
    Image.fromarray(rgb(64, 64)).save(good, "PNG")
    files = {
        "text.png": b"this is no image at all, however long it may be" * 20,
        "empty.png": b"",
        "cut.png": good.getvalue()[:3000],
        "head.png": good.getvalue()[:20],
        "mark.bmp": b"BM",
        "gif.gif": b"GIF89a" + bytes(30),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    said = {
        "text.png": "not an image",
        "empty.png": "empty",
        "cut.png": "truncated",
        "head.png": "truncated",
        "mark.bmp": "truncated",
        "gif.gif": "truncated",
        "missing.png": "no such file",
        "a\0b.png": "cannot be opened",
        "x" * 5000: "cannot be opened",
        ".": "folder",
    }
    for name, words in said.items():
        with pytest.raises(InputError, match=words) as caught:
            read_image(f"{tmp_path}/{name}")
        assert "\n" not in str(caught.value)
        assert str(caught.value).count(": ") >= 2, "says what is wrong and what to do"


def test_devices_are_refused():
    with pytest.raises(InputError, match="regular file"):
        read_image("/dev/zero")


def test_nothing_is_written_to_the_terminal(tmp_path, capfd):
    data = tiff(np.zeros((64, 64), dtype=np.uint8))
    (tmp_path / "cut.tif").write_bytes(data[:2000] + data[-200:])
    with pytest.raises(InputError):
        read_image(tmp_path / "cut.tif")
    assert capfd.readouterr() == ("", "")
