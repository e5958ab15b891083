"""The kinds of files that can be translated; imports nothing, so that commands start at once."""

from __future__ import annotations

PICTURES = (
    *(".jpg", ".jpeg", ".jfif", ".png", ".webp", ".avif", ".bmp", ".tif", ".tiff"),
    *(".jp2", ".ppm"),
)
FILMS = (".gif", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi")
