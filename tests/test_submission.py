"""The zip for KITTI's server: opened and read again."""

import math
import zipfile

import pytest

from tools import make_submission

LINE = "Car 0.0 0 1.55 837.17 167.59 1005.44 328.39 1.67 1.67 3.48 3.91 1.62 9.44 1.94 0.87\n"


@pytest.fixture(scope="module")
def complete(tmp_path_factory):
    """Results of the whole test split: every hundredth frame has a detection."""
    folder = tmp_path_factory.mktemp("results")
    for number in range(7518):
        (folder / f"{number:06d}.txt").write_text("" if number % 100 else LINE)
    return folder


@pytest.fixture
def results(complete, tmp_path):
    """The same, to be changed: links, so that it costs little."""
    folder = tmp_path / "data"
    folder.mkdir()
    for path in complete.iterdir():
        (folder / path.name).symlink_to(path)
    return folder


def pack(folder, out, *arguments):
    return make_submission.main(["--results", str(folder), "--out", str(out), *arguments])


def test_the_zip_holds_every_file(complete, tmp_path, capsys):
    out = tmp_path / "a" / "submission.zip"
    assert pack(complete, out) == 0
    said = capsys.readouterr().out
    assert "7518 files, 76 Car, 0 Pedestrian, 0 Cyclist, 7442 of them without detections" in said and str(out) in said
    with zipfile.ZipFile(out) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == [f"{number:06d}.txt" for number in range(7518)]
        assert archive.read("000100.txt").decode() == LINE and archive.read("007517.txt") == b""
    assert pack(complete, out) == 2 and "--overwrite replaces it" in capsys.readouterr().err
    before = out.read_bytes()
    assert pack(complete, out, "--overwrite") == 0 and out.read_bytes() == before
    assert [path.name for path in out.parent.iterdir()] == ["submission.zip"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("000003.txt", LINE.replace(" 0.87", ""), "000003.txt, line 1: 15 columns: the score is missing"),
        ("000003.txt", LINE + LINE.replace("Car", "Van"), "000003.txt, line 2: type must be one of Car, Pedestrian"),
        ("000003.txt", LINE.replace("9.44", "nan"), "000003.txt, line 1: z must be a finite number, got 'nan'"),
        ("000003.txt", "Car 1 2\n", "000003.txt, line 1: expected 16 columns"),
        ("000003.txt", None, "1 of the 7518 files are missing, the first is 000003.txt"),
        ("007518.txt", "", "1 entries do not belong into a submission, the first is 007518.txt"),
    ],
)
def test_what_the_server_would_refuse_is_named(results, tmp_path, capsys, name, text, said):
    (results / name).unlink(missing_ok=True)
    if text is not None:
        (results / name).write_text(text)
    assert pack(results, tmp_path / "s.zip") == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.glob("*.zip")) and not list(tmp_path.glob(".*"))


def test_implausible_detections_are_reported_and_packed(results, tmp_path, capsys):
    (results / "000003.txt").unlink()
    (results / "000003.txt").write_text(LINE.replace("1005.44", "800.00"))
    assert pack(results, tmp_path / "s.zip") == 0
    said = capsys.readouterr().out
    assert "1 warnings about detections" in said and "000003.txt, line 1: a 2D box without area" in said


def test_full_turns_of_angles_are_removed_and_degrees_refused(results, tmp_path, capsys):
    (results / "000003.txt").unlink()
    (results / "000003.txt").write_text(LINE + LINE.replace("1.94", "5.00").replace("1.55", "-10") + LINE)
    assert pack(results, tmp_path / "s.zip") == 0
    assert "angles outside -pi .. pi, of which full turns were removed: 1" in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        first, turned, third = archive.read("000003.txt").decode().splitlines(keepends=True)
    assert first == third == LINE
    assert turned.split()[3] == "-10" and float(turned.split()[14]) == pytest.approx(5 - 2 * math.pi, abs=1e-6)
    (results / "000003.txt").write_text(LINE.replace("1.94", "111.15"))
    assert pack(results, tmp_path / "t.zip") == 2
    assert "000003.txt, line 1: angles must be in radians" in capsys.readouterr().err


def test_other_mistakes(complete, tmp_path, capsys):
    assert pack(tmp_path / "nowhere", tmp_path / "s.zip") == 2 and "no such folder" in capsys.readouterr().err
    assert pack(complete, tmp_path / "s.tar") == 2 and "--out must end in .zip" in capsys.readouterr().err
    (tmp_path / "x" / "data").mkdir(parents=True)
    assert pack(tmp_path / "x", tmp_path / "s.zip") == 2 and "did you mean" in capsys.readouterr().err
