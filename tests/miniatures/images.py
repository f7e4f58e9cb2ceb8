"""The other image databases; those of first.py are not here."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openpyxl
import scipy.io

from miniatures.files import Expected, photo, text


def sheet(path: Path, *rows: Sequence[Any], name: str = "Sheet1", first: int = 1) -> None:
    """A spreadsheet; a sheet with a name of its own comes second, after an empty one. ``first`` is the row of the head."""
    path.parent.mkdir(parents=True, exist_ok=True)
    book = openpyxl.Workbook()
    page = book.worksheets[0] if name == "Sheet1" else book.create_sheet(name)
    for number, row in enumerate(rows, first):
        for column, value in enumerate(row, 1):
            page.cell(number, column, value)
    book.save(path)


def cells(names: Sequence[str]) -> Any:
    """A MATLAB cell array of strings."""
    return np.array(names, dtype=object)


def flive(root: Path) -> list[Expected]:
    text(
        root / "labels_image.csv",
        "name,mos",
        "blur_dataset/motion0044.jpg,75.44372",
        "voc_emotic_ava/AVA__106.jpg,61.25",
        "EE371R/rq59.jpg,12.5",
    )
    for number, name in enumerate(("blur_dataset/motion0044", "voc_emotic_ava/AVA__106", "EE371R/rq59")):
        photo(root / "database" / f"{name}.jpg", number)
    return [
        Expected("database/blur_dataset/motion0044.jpg", 75.44372),
        Expected("database/voc_emotic_ava/AVA__106.jpg", 61.25),
        Expected("database/EE371R/rq59.jpg", 12.5),
    ]


def clive(root: Path) -> list[Expected]:
    names = [*(f"t{n}.bmp" for n in range(1, 8)), "3.bmp", "611.JPG"]
    (root / "Data").mkdir(parents=True, exist_ok=True)
    columns = {
        "AllImages_release": cells(names).reshape(-1, 1),
        "AllMOS_release": np.array([[50.0] * 7 + [63.963, 38.4895]]),
        "AllStdDev_release": np.array([[20.0] * 7 + [19.37, 21.0858]]),
    }
    for name, column in columns.items():
        scipy.io.savemat(root / "Data" / f"{name}.mat", {name: column})
    for number, name in enumerate(names):
        photo(root / "Images" / ("trainingImages" if number < 7 else "") / name, number)
    return [Expected("Images/3.bmp", 63.963, 19.37), Expected("Images/611.JPG", 38.4895, 21.0858)]


def spaq(root: Path) -> list[Expected]:
    sheet(
        root / "Annotations" / "MOS and Image attribute scores.xlsx",
        ("Image name", "MOS", "Brightness", "Colorfulness", "Contrast", "Noisiness", "Sharpness"),
        ("00001.jpg", 48.86, 50.1, 49.2, 47.0, 45.3, 44.4),
        ("00002.jpg", 62.5, 60.1, 59.2, 57.0, 55.3, 54.4),
        ("00004.jpg", 67, 60.5, 59.9, 57.7, 55.6, 54.1),
    )
    for number in (1, 2, 4):
        photo(root / "TestImage" / f"{number:05}.jpg", number)
    return [
        Expected("TestImage/00001.jpg", 48.86),
        Expected("TestImage/00002.jpg", 62.5),
        Expected("TestImage/00004.jpg", 67),
    ]


def kadis(root: Path) -> list[Expected]:
    """Nothing is expected: there are no scores."""
    text(root / "kadis700k_ref_imgs.csv", "ref_im,dist_type_1,dist_type_2", "a-fleshy-plant-1464418.png,7,8")
    photo(root / "ref_imgs" / "a-fleshy-plant-1464418.png")
    for level in range(1, 6):
        photo(root / "dist_imgs" / f"a-fleshy-plant-1464418_07_{level:02}.bmp", level)
    return []


def tid2013(root: Path) -> list[Expected]:
    text(root / "mos_with_names.txt", "5.51429 i01_01_1.bmp", "2.7714 i01_24_5.bmp", "4.05263 I25_08_3.bmp")
    text(root / "mos_std.txt", "0.13013", "0.2", "0.11")
    for number, name in enumerate(("I01_01_1.bmp", "i01_24_5.bmp", "I25_08_3.bmp")):
        photo(root / "distorted_images" / name, number)
    for name in ("I01", "I25"):
        photo(root / "reference_images" / f"{name}.BMP")
    return [
        Expected("distorted_images/I01_01_1.bmp", 5.51429, 0.13013, group="I01"),
        Expected("distorted_images/i01_24_5.bmp", 2.7714, 0.2, group="I01"),
        Expected("distorted_images/I25_08_3.bmp", 4.05263, 0.11, group="I25"),
    ]


def live(root: Path) -> list[Expected]:
    """All images are marked as copies of the references but three, to keep the miniature small."""
    kept = {0: "jp2k/img1.bmp", 227: "jpeg/img1.bmp", 981: "fastfading/img174.bmp"}
    orgs = np.array([[number not in kept for number in range(982)]], np.uint8)
    dmos, stds = np.zeros((1, 982)), np.zeros((1, 982))
    dmos[0, list(kept)], stds[0, list(kept)] = (15.51295, 68.99086, 34.05022), (3.25, 2.5, 4.125)
    root.mkdir(parents=True, exist_ok=True)
    scipy.io.savemat(root / "dmos_realigned.mat", {"dmos_new": dmos, "dmos_std": stds, "orgs": orgs})
    scipy.io.savemat(root / "dmos.mat", {"dmos": dmos + 1, "orgs": orgs})
    names = ["rapids.bmp"] * 981 + ["sailing4.bmp"]
    scipy.io.savemat(root / "refnames_all.mat", {"refnames_all": cells(names).reshape(1, -1)})
    for number, name in kept.items():
        photo(root / name, number)
    for name in ("rapids", "sailing4"):
        photo(root / "refimgs" / f"{name}.bmp")
    return [
        Expected("jp2k/img1.bmp", 15.51295, 3.25, group="rapids.bmp"),
        Expected("jpeg/img1.bmp", 68.99086, 2.5, group="rapids.bmp"),
        Expected("fastfading/img174.bmp", 34.05022, 4.125, group="sailing4.bmp"),
    ]


def csiq(root: Path) -> list[Expected]:
    blank = (None, None, None)
    sheet(
        root / "csiq.DMOS.xlsx",
        (*blank, "image", "dst_idx", "dst_type", "dst_lev", "dmos_std", "dmos"),
        (*blank, 1600, 1, "noise", 1, 0.0522, 0.062),
        (*blank, 1600, 3, "jpeg 2000", 5, 0.1014, 0.874),
        (*blank, "shroom", 6, "contrast", 2, 0.0831, 0.173),
        name="all_by_image",
        first=4,
    )
    files = ("awgn/1600.AWGN.1", "jpeg2000/1600.jpeg2000.5", "contrast/shroom.contrast.2")
    for number, name in enumerate(files):
        photo(root / "dst_imgs" / f"{name}.png", number)
    for name in ("1600", "shroom"):
        photo(root / "src_imgs" / f"{name}.png")
    return [
        Expected("dst_imgs/awgn/1600.AWGN.1.png", 0.062, 0.0522, group="1600.png"),
        Expected("dst_imgs/jpeg2000/1600.jpeg2000.5.png", 0.874, 0.1014, group="1600.png"),
        Expected("dst_imgs/contrast/shroom.contrast.2.png", 0.173, 0.0831, group="shroom.png"),
    ]


def cid2013(root: Path) -> list[Expected]:
    sheet(
        root / "CID2013 data - version 12112014.xlsx",
        ("Source_ID", "Image set specific  MOS", "Realigned MOS", "Sharpness"),
        ("IS_I_C01_D01", 10.5, 3.34364, 12.5),
        ("IS_I_C01_D02", 75.25, 71.18189, 66.5),
        ("IS_VI_C08_D14", 20.5, 10.48097, 31.5),
        name="CID2013 MOS",
    )
    for number, name in enumerate(("IS1/co1/IS_I_C01_D01", "IS1/co1/IS_I_C01_D02", "IS6/co8/IS_VI_C08_D14")):
        photo(root / f"{name}.jpg", number)
    return [
        Expected("IS1/co1/IS_I_C01_D01.jpg", 3.34364, group="IS1/co1"),
        Expected("IS1/co1/IS_I_C01_D02.jpg", 71.18189, group="IS1/co1"),
        Expected("IS6/co8/IS_VI_C08_D14.jpg", 10.48097, group="IS6/co8"),
    ]


def pipal(root: Path) -> list[Expected]:
    text(root / "Train_Label" / "A0001.txt", "A0001_00_00.bmp,1520.06", "A0001_06_24.bmp,1437.08")
    text(root / "Train_Label" / "A0060.txt", "A0060_00_02.bmp,1257.06")
    files = ("Distortion_1/A0001_00_00", "Distortion_1/A0001_06_24", "Distortion_2/A0060_00_02")
    for number, name in enumerate((*files, "Train_Ref/A0001", "Train_Ref/A0060")):
        photo(root / f"{name}.bmp", number)
    return [
        Expected("Distortion_1/A0001_00_00.bmp", 1520.06, group="A0001.bmp"),
        Expected("Distortion_1/A0001_06_24.bmp", 1437.08, group="A0001.bmp"),
        Expected("Distortion_2/A0060_00_02.bmp", 1257.06, group="A0060.bmp"),
    ]


def agiqa1k(root: Path) -> list[Expected]:
    prompts = ("bird, driving aircraft, city, anime style", "alien, wearing shirt, wild, realistic style")
    sheet(
        root / "AIGC_MOS_Zscore.xlsx",
        ("Image", "Prompt", "MOS"),
        ("deepai_0_0_0_0.jpg", prompts[0], 2.7934105),
        ("dreamStudio_0_0_0_0.jpg", prompts[0], 3.25),
        ("deepai_9_14_1_1.jpg", prompts[1], 3.847),
    )
    names = ("deepai_0_0_0_0", "dreamStudio_0_0_0_0", "deepai_9_14_1_1")
    for number, name in enumerate(names):
        photo(root / "file" / f"{name}.jpg", number)
    return [
        Expected("file/deepai_0_0_0_0.jpg", 2.7934105, group=prompts[0]),
        Expected("file/dreamStudio_0_0_0_0.jpg", 3.25, group=prompts[0]),
        Expected("file/deepai_9_14_1_1.jpg", 3.847, group=prompts[1]),
    ]


def agiqa3k(root: Path) -> list[Expected]:
    text(
        root / "data.csv",
        "name,prompt,adj1,adj2,style,mos_quality,std_quality,mos_align,std_align",
        "AttnGAN_normal_000.jpg,statue of a man,,,,0.965603,0.22327,0.40889324,0.615607722",
        'AttnGAN_normal_060.jpg,"artwork with only triangles, anime style",,,anime style,0.919777,0.719282,0.85,0.84',
        "midjourney_normal_000.jpg,statue of a man,,,,3.5125,0.53,3.1,0.7",
    )
    for number, name in enumerate(("AttnGAN_normal_000", "AttnGAN_normal_060", "midjourney_normal_000")):
        photo(root / "file" / f"{name}.jpg", number)
    return [
        Expected("file/AttnGAN_normal_000.jpg", 0.965603, 0.22327, group="statue of a man"),
        Expected("file/AttnGAN_normal_060.jpg", 0.919777, 0.719282, group="artwork with only triangles, anime style"),
        Expected("file/midjourney_normal_000.jpg", 3.5125, 0.53, group="statue of a man"),
    ]


def uhdiqa(root: Path) -> list[Expected]:
    text(
        root / "uhd-iqa-metadata.csv",
        "image_name,quality_mos,set,subset,orig_width,orig_height,views,likes",
        "1.jpg,0.76,training,,5515,3375,10860,137",
        "4.jpg,0.5745,test,exclusive,5456,3632,20224,159",
        "7.jpg,0.698,validation,,6013,4014,14053,89",
    )
    for number, name in enumerate(("training/1", "test/4", "validation/7")):
        photo(root / "challenge" / f"{name}.jpg", number)
    return [
        Expected("challenge/training/1.jpg", 0.76, split="train"),
        Expected("challenge/test/4.jpg", 0.5745, split="test"),
        Expected("challenge/validation/7.jpg", 0.698, split="validation"),
    ]


BUILDERS = {
    "flive": flive,
    "clive": clive,
    "spaq": spaq,
    "kadis": kadis,
    "tid2013": tid2013,
    "live": live,
    "csiq": csiq,
    "cid2013": cid2013,
    "pipal": pipal,
    "agiqa1k": agiqa1k,
    "agiqa3k": agiqa3k,
    "uhdiqa": uhdiqa,
}
