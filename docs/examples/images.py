"""An image archive: add images with metadata, search by an image, fetch what was found.

The images are drawn here. With your own, pass a folder to `add_images`.
"""

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

import mipp
from mipp.features.encoding import descriptor_encoding

DESCRIPTOR = "csd64+ehd"  # colour structure and edges


def draw(folder: Path, name: str, colour: tuple[int, int, int], seed: int) -> Path:
    """An image of 96 by 96 pixels: noise around one colour."""
    noise = np.random.default_rng(seed).integers(-20, 21, (96, 96, 3))
    Image.fromarray(np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)).save(folder / name)
    return folder / name


with tempfile.TemporaryDirectory() as temporary:
    folder = Path(temporary)
    colours = {"red": (200, 40, 40), "green": (40, 160, 60), "blue": (50, 60, 190)}
    photos = [draw(folder, f"{name}{i}.png", rgb, i) for name, rgb in colours.items() for i in range(4)]
    query = draw(folder, "query.png", colours["blue"], 99)

    with mipp.Deployment.create(folder / "index", descriptor_encoding(DESCRIPTOR), descriptor=DESCRIPTOR) as deployment:
        anna = deployment.create_owner("anna")
        # Features, images and metadata are encrypted under anna's keys before they leave this object.
        report = anna.add_images(photos, metadata={path: {"title": path.stem} for path in photos})
        assert len(report.added) == 12 and not report.errors
        assert len(anna.images()) == 12

        ulla = deployment.create_user("ulla")
        anna.grant(ulla, quota=100, expiry="30d")

        result = ulla.search_image(query, k=4)  # a path, an array (H, W, 3) of uint8 or a PIL image
        for row in result.hits.to_rows():
            print(row["rank"], row["owner"], row["id"], round(row["value"], 3))

        # The clouds see which images are fetched, not in which order they were ranked.
        found = ulla.fetch(result.hits)
        assert sorted(image.name for image in found) == [f"blue{i}.png" for i in range(4)]
        assert all(image.metadata == {"title": Path(image.name).stem} for image in found)
        assert found[0].content == (folder / found[0].name).read_bytes()
