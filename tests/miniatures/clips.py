"""The databases of videos, but for KoNViD-1k."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from openpyxl import Workbook
from scipy.io import savemat

from miniatures.files import Expected, text, video


def lsvq(root: Path) -> list[Expected]:
    text(
        root / "labels_train_test.csv",
        "name,p1,height,width,mos_p1,mos,frame_number,is_test,is_valid",
        'yfcc-batch1/725,"[15, 527, 421, 709, 0, 200]",720,1280,57.9,76.84,210,False,False',
        'yfcc-batch1/747,"[15, 527, 421, 709, 0, 200]",720,1280,57.9,67.75,200,True,True',
        'ia-batch4/Concert_In_the_Kitchen,"[0, 99, 0, 99, 0, 9]",360,480,33.1,21.5,180,False,True',
    )
    files = ("yfcc-batch1/725.mp4", "yfcc-batch1/747.mp4", "ia-batch4/Concert_In_the_Kitchen.mp4")
    for number, name in enumerate(files):
        video(root / name, number)
    return [
        Expected(files[0], 76.84, split="train"),
        Expected(files[1], 67.75, split="test"),
        Expected(files[2], 21.5, split="train"),
    ]


def lsvq1080p(root: Path) -> list[Expected]:
    text(
        root / "labels_test_1080p.csv",
        "name,p1,height,width,mos_p1,mos,frame_number,is_valid",
        'yfcc-batch1/722,"[263, 1031, 251, 683, 0, 168]",1080,1920,68.7,78.77,167,False',
        'ia-batch24/youtube-UGGjc_JS8Gc,"[0, 99, 0, 99, 0, 9]",1080,1920,41.2,45.13,240,False',
    )
    files = ("yfcc-batch1/722.mp4", "ia-batch24/youtube-UGGjc_JS8Gc.mp4")
    for number, name in enumerate(files):
        video(root / name, number)
    return [Expected(files[0], 78.77, split="test"), Expected(files[1], 45.13, split="test")]


def cells(*values: str) -> np.ndarray:
    """A MATLAB cell array of one column."""
    return np.array([[value] for value in values], object)


def livevqc(root: Path) -> list[Expected]:
    root.mkdir(parents=True, exist_ok=True)
    savemat(root / "data.mat", {"video_list": cells("A001.mp4", "Q001.mp4"), "mos": [[80.232], [61.1466]]})
    for name in ("A001", "Q001"):
        video(root / "Video" / f"{name}.mp4")
    return [Expected("Video/A001.mp4", 80.232), Expected("Video/Q001.mp4", 61.1466)]


def youtubeugc(root: Path) -> list[Expected]:
    root.mkdir(parents=True, exist_ok=True)
    book = Workbook()
    sheet = book.active
    sheet.title = "MOS"
    for row in (
        ("vid", "category", "resolution", "# subjects", "MOS full", "MOS chunk00", "std full", "std chunk00"),
        ("Animation_1080P-01b3", "Animation", 1080, 125, 3.649, 3.604, 0.468, 0.574),
        ("Vlog_480P-7615", "Vlog", 480, 120, 2.588, 2.6, 0.81, 0.8),
    ):
        sheet.append(row)
    book.create_sheet("readme").append(("Subjective quality scores",))
    book.save(root / "original_videos_MOS_for_YouTube_UGC_dataset.xlsx")
    files = [
        f"original_videos_h264/{name}_crf_10_ss_00_t_20.0.mp4" for name in ("Animation_1080P-01b3", "Vlog_480P-7615")
    ]
    for number, name in enumerate(files):
        video(root / name, number)
    return [Expected(files[0], 3.649, 0.468), Expected(files[1], 2.588, 0.81)]


def cvd2014(root: Path) -> list[Expected]:
    text(
        root / "CVD2014_ratings" / "Realignment_MOS.csv",
        "Content;File_name;Original MOS;Realignment MOS;;;;",
        "City;Test01_City_D01;71,17;67,29;;;;",
        "Talking head;Test03_Talking_Head_D10;50,4;53;;;;",
        "City;Test03_City_D12;25,83;20,65;;;;",
        ";;;;;;;",
    )
    files = (
        "Test1/City/Test01_City_D01.avi",
        "Test3/Talking_head/Test03_Talking_Head_D10.avi",
        "Test3/City/Test03_City_D12.avi",
    )
    for number, name in enumerate(files):
        video(root / name, number)
    return [
        Expected(files[0], 67.29, group="City"),
        Expected(files[1], 53, group="Talking_head"),
        Expected(files[2], 20.65, group="City"),
    ]


def livequalcomm(root: Path) -> list[Expected]:
    root.mkdir(parents=True, exist_ok=True)
    names = (
        "0723_ManUnderTree_GS5_03_20150723_130016.yuv",
        "0912_CheerLeader1_GS6_20150912_101500.yuv",
        "0912_Cheerleader1_LGG2_CAM00813.yuv",
        "0911panGarden_Note4_20150911_152420.yuv",
    )
    savemat(
        root / "qualcommSubjectiveData.mat",
        {
            "qualcommVideoData": {
                "vidNames": cells(*names),
                "distortionType": np.array([[1], [4], [4], [3]], np.uint8),
                "distortionNames": cells("Artifacts", "Color", "Exposure", "Focus", "Sharpness", "Stabilization"),
            },
            "qualcommSubjectiveData": {
                "unBiasedMOS": [[52.57], [41.65], [54.09], [44.7]],
                "biasedMOS": [[59.07], [40.1], [55.2], [45.3]],
            },
        },
    )
    files = [
        f"{folder}/{name}" for folder, name in zip(("Artifacts", "Focus", "Focus", "Exposure"), names, strict=True)
    ]
    for number, name in enumerate(files):
        video(root / name, number)
    return [
        Expected(files[0], 52.57, group="0723_manundertree"),
        Expected(files[1], 41.65, group="0912_cheerleader1"),
        Expected(files[2], 54.09, group="0912_cheerleader1"),
        Expected(files[3], 44.7, group="0911pangarden"),
    ]


def liveythfr(root: Path) -> list[Expected]:
    text(
        root / "subjective_scores" / "subject_MOS.csv",
        "File Names,1Runner_crf_0_24fps,1Runner_crf_54_120fps,books_crf_12_24fps",
        "MOS,43.02,64.57,39.68",
        "std,12.5742,10.6035,9.1764",
    )
    files = (
        "1Runner/1Runner_crf_0_24fps.webm",
        "1Runner/1Runner_crf_54_120fps.webm",
        "books/books_crf_12_24fps.webm",
    )
    for number, name in enumerate(files):
        video(root / name, number)
    return [
        Expected(files[0], 43.02, 12.5742, group="1Runner"),
        Expected(files[1], 64.57, 10.6035, group="1Runner"),
        Expected(files[2], 39.68, 9.1764, group="books"),
    ]


def liveytgaming(root: Path) -> list[Expected]:
    root.mkdir(parents=True, exist_ok=True)
    savemat(
        root / "LIVE-YT-Gaming.mat",
        {"video_list": cells("AgeEmpires-001", "CSGO-002"), "MOS": [[55.353], [46.108]], "index": [[1, 0], [0, 1]]},
    )
    for name in ("AgeEmpires-001", "CSGO-002"):
        video(root / "mp4" / f"{name}.mp4")
    return [Expected("mp4/AgeEmpires-001.mp4", 55.353), Expected("mp4/CSGO-002.mp4", 46.108)]


def liveetri(root: Path) -> list[Expected]:
    text(
        root / "subjective_scores" / "ETRI-LIVE_MOS.csv",
        "\ufeffvideoName,MOS,std",
        "Beauty_1080p_120hz_q_27,64.6593,10.73",
        "Beauty_1080p_60hz_q_39,43.3684,8.6",
        "Yacht_720p_60hz_q_37,42.4425,8.37",
    )
    names = ("Beauty_1080p_120hz_q_27", "Beauty_1080p_60hz_q_39", "Yacht_720p_60hz_q_37")
    for number, name in enumerate(names):
        video(root / f"{name}.yuv", number)
    return [
        Expected(f"{names[0]}.yuv", 64.6593, 10.73, group="Beauty"),
        Expected(f"{names[1]}.yuv", 43.3684, 8.6, group="Beauty"),
        Expected(f"{names[2]}.yuv", 42.4425, 8.37, group="Yacht"),
    ]


def bvihfr(root: Path) -> list[Expected]:
    text(
        root / "BVI-HFR-MOS.csv",
        "file_name,MOS",
        "catch_track-15fps,12.2759",
        "catch_track-120fps,77.1034",
        "flowers-60fps,74.4828",
    )
    files = (
        "15Hz/catch_track-15fps-360-1920x1080.yuv",
        "120Hz/catch_track-120fps-360-1920x1080.yuv",
        "60Hz/flowers-60fps-360-1920x1080.yuv",
    )
    for number, name in enumerate(files):
        video(root / name, number)
    return [
        Expected(files[0], 12.2759, group="catch_track"),
        Expected(files[1], 77.1034, group="catch_track"),
        Expected(files[2], 74.4828, group="flowers"),
    ]


def avtvqdbuhd1(root: Path) -> list[Expected]:
    rated = (
        ("test_1", "water_netflix", "water_netflix_40000kbps_2160p_59.94fps_vp9.mkv", 4.482),
        ("test_2", "water_netflix_8s", "water_netflix_8s_59720kbps_2160p_59.94fps_hevc.mp4", 4.375),
        ("test_3", "Dancers_8s", "Dancers_8s_97kbps_360p_59.94fps_hevc.mp4", 1.042),
        ("test_4", "Sparks_cut_13", "Sparks_cut_13_200kbps_360p_15.0fps_h264.mp4", 1.72),
    )
    for number, (test, source, name, mos) in enumerate(rated):
        text(root / test / "mos_ci.csv", "src,video_name,MOS,CI", f"{source},{name},{mos},0.25")
        video(root / test / "segments" / name, number)
    groups = ("water_netflix", "water_netflix", "Dancers", "Sparks_cut_13")
    return [
        Expected(f"{test}/segments/{name}", mos, group=group)
        for (test, _, name, mos), group in zip(rated, groups, strict=True)
    ]


def waterlooivc4k(root: Path) -> list[Expected]:
    text(
        root / "scores.txt",
        "HEVC, 1, 540p, 2, 39.46",
        "H264, 1, 1080p, 1, 18.41",
        "AV1, 20, 2160p, 4, 81.88",
    )
    files = ("HEVC/01/960x540_2.mp4", "H264/01/1920x1080_1.mp4", "AV1/20/3840x2160_4.mp4")
    for number, name in enumerate(files):
        video(root / name, number)
    return [
        Expected(files[0], 39.46, group="01"),
        Expected(files[1], 18.41, group="01"),
        Expected(files[2], 81.88, group="20"),
    ]


BUILDERS = {
    "lsvq": lsvq,
    "lsvq1080p": lsvq1080p,
    "livevqc": livevqc,
    "youtubeugc": youtubeugc,
    "cvd2014": cvd2014,
    "livequalcomm": livequalcomm,
    "liveythfr": liveythfr,
    "liveytgaming": liveytgaming,
    "liveetri": liveetri,
    "bvihfr": bvihfr,
    "avtvqdbuhd1": avtvqdbuhd1,
    "waterlooivc4k": waterlooivc4k,
}
