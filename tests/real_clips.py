"""Frames of the shared clips, cropped and resized as their manifest says."""

import csv
from itertools import islice

import numpy as np
from PIL import Image, ImageOps

from hdam.pipelines.media import read_frames


def clip_names(clips, domain):
    return [row["file"] for row in read_manifest(clips) if row["domain"] == domain]


def read_clip(clips, name, *, size, num_frames, step=1):
    """uint8 [frame, size, size, 3]; rectangles are padded."""
    row = next(row for row in read_manifest(clips) if row["file"] == name)
    left, top, width, height = map(int, (row["crop_xywh"] or f"0 0 {row['width']} {row['height']}").split())
    crops = (frame[top : top + height, left : left + width] for frame in read_frames(clips / name))
    chosen = list(islice(crops, 0, num_frames * step, step))
    assert len(chosen) == num_frames
    return np.stack([np.array(ImageOps.pad(Image.fromarray(crop), (size, size), color="white")) for crop in chosen])


def read_manifest(clips):
    with (clips / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def resized(frames, size):
    return np.stack([np.array(Image.fromarray(frame).resize((size, size))) for frame in frames])


def shifted(frames, *, right, down):
    """The frames moved by whole pixels; the border is repeated where something comes in."""
    margin = max(abs(right), abs(down))
    padded = np.pad(frames, ((0, 0), (margin, margin), (margin, margin), (0, 0)), mode="edge")
    moved = np.roll(padded, (down, right), axis=(1, 2))
    return moved[:, margin:-margin, margin:-margin]
