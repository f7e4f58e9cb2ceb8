"""KonIQ-10k, KADID-10k, BIQ2021 and KoNViD-1k."""

from __future__ import annotations

from pathlib import Path

from miniatures.files import Expected, photo, text, video


def koniq10k(root: Path) -> list[Expected]:
    text(
        root / "koniq10k_distributions_sets.csv",
        "image_name,c1,c2,c3,c4,c5,c_total,MOS,SD,set",
        "1.jpg,0,0,0.25,0.75,0,105,77.38,0.53,training",
        "2.jpg,0,0.5,0.5,0,0,96,28.7,0.58,test",
        "3.jpg,0,0.25,0.75,0,0,96,48.6,0.5,validation",
    )
    for number in (1, 2, 3):
        photo(root / "1024x768" / f"{number}.jpg", number)
    return [
        Expected("1024x768/1.jpg", 77.38, split="train"),
        Expected("1024x768/2.jpg", 28.7, split="test"),
        Expected("1024x768/3.jpg", 48.6, split="validation"),
    ]


def kadid10k(root: Path) -> list[Expected]:
    text(
        root / "dmos.csv",
        "dist_img,ref_img,dmos,var",
        "I01_01_01.png,I01.png,4.57,0.5",
        "I01_01_05.png,I01.png,1.5,0.6",
        "I02_03_02.png,I02.png,3.9,0.7",
    )
    for name in ("I01", "I02", "I01_01_01", "I01_01_05", "I02_03_02"):
        photo(root / "images" / f"{name}.png", len(name))
    return [
        Expected("images/I01_01_01.png", 4.57, 0.5, group="I01.png"),
        Expected("images/I01_01_05.png", 1.5, 0.6, group="I01.png"),
        Expected("images/I02_03_02.png", 3.9, 0.7, group="I02.png"),
    ]


def biq2021(root: Path) -> list[Expected]:
    text(root / "Train (Images and MOS).csv", "Images,MOS", "ss01 (1).jpg,0.42", "ss02 (1014).jpg,0.61")
    text(root / "Test (Images and MOS).csv", "Images,MOS", "ss03 (7).jpg,0.8")
    for number, name in enumerate(("ss01 (1).jpg", "ss02 (1014).JPG", "ss03 (7).jpg")):
        photo(root / "Images" / name, number)
    return [
        Expected("Images/ss01 (1).jpg", 0.42, split="train"),
        Expected("Images/ss02 (1014).JPG", 0.61, split="train"),
        Expected("Images/ss03 (7).jpg", 0.8, split="test"),
    ]


def konvid1k(root: Path) -> list[Expected]:
    text(root / "KoNViD_1k_mos.csv", "flickr_id,mos", "3339962845,4.64", "8171831850,1.92")
    for name in ("3339962845", "8171831850"):
        video(root / "KoNViD_1k_videos" / f"{name}.mp4")
    return [Expected("KoNViD_1k_videos/3339962845.mp4", 4.64), Expected("KoNViD_1k_videos/8171831850.mp4", 1.92)]


BUILDERS = {"koniq10k": koniq10k, "kadid10k": kadid10k, "biq2021": biq2021, "konvid1k": konvid1k}
