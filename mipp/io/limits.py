"""Limits of image files: larger ones are refused before they are read or decoded."""

__all__ = ["MAX_BYTES", "MAX_INFLATED", "MAX_PIXELS"]

#: pixels of an image; larger ones are refused before they are decoded (a decompression bomb is a small file with many
#: pixels)
MAX_PIXELS = 89_478_485
#: bytes of an image file
MAX_BYTES = 1 << 31
#: bytes of a DICOM file whose transfer syntax deflates the whole file, after inflation
MAX_INFLATED = 1 << 30
