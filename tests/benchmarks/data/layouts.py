"""Tiny datasets of pictures, each in its own layout on the disk."""

import csv

import numpy as np
from PIL import Image

SIZE = (20, 24)


def draw(path, colour=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    # Grey and coloured, as in the real datasets.
    Image.new("L" if colour % 2 else "RGB", SIZE, colour).save(path)


def make_cub(root, classes=8):
    base = root / "CUB_200_2011"
    images, labels = [], []
    for number, label in enumerate(np.arange(1, 201).repeat(2), start=1):
        name = f"{label:03d}.Bird/bird_{number:04d}.jpg"
        if label <= classes or label > 192:
            draw(base / "images" / name, number)
            images.append(f"{number} {name}")
            labels.append(f"{number} {label}")
    (base / "images.txt").write_text("\n".join(images) + "\n")
    (base / "image_class_labels.txt").write_text("\n".join(labels) + "\n")


def make_cars(root, classes=8):
    root.mkdir(parents=True, exist_ok=True)
    names = [f"Make/Model {x}" for x in range(1, 197)]
    (root / "names.csv").write_text("\n".join(names) + "\n")
    for split in ("train", "test"):
        with (root / f"anno_{split}.csv").open("w", newline="") as file:
            for label in [*range(1, classes + 1), *range(189, 197)]:
                image = f"{label:05d}.jpg"
                folder = names[label - 1].replace("/", "-")
                draw(root / "car_data" / "car_data" / split / folder / image, label)
                csv.writer(file).writerow([image, 1, 1, 9, 9, label])


def make_sop(root, classes=8):
    base = root / "Stanford_Online_Products"
    for split, first, number in (("train", 1, classes), ("test", 101, 8)):
        lines = ["image_id class_id super_class_id path"]
        for row in range(2 * number):
            label = first + row // 2
            path = f"bicycle_final/{label}_{row}.JPG"
            draw(base / path, row)
            lines.append(f"{first + row} {label} 1 {path}")
        (base / f"Ebay_{split}.txt").write_text("\n".join(lines) + "\n")


def make_folder(root, classes=8):
    for label in range(2 * classes):
        for number in range(2):
            draw(root / f"class {label:02d}" / f"{number}.png", number)
    (root / "README.txt").write_text("not a class")


def halves(files):
    """The files to train on, and those to test on."""
    return files.where(~files.is_test), files.where(files.is_test)


MAKERS = {"cub": make_cub, "cars": make_cars, "sop": make_sop, "folder": make_folder}
"""Name -> a function that makes it in a folder, with eight classes to test on."""
