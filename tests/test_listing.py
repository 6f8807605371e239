"""What lies in a folder, here or in a store, and how a clip's files come to whoever reads them."""

import os
from pathlib import Path

import pytest
from media_files import assert_one_line, encoded, moving_square, write_files, write_folder, write_video
from pyarrow import fs

from hdam.pipelines.errors import InputError
from hdam.pipelines.filesystems import locate
from hdam.pipelines.layouts import find_sources
from hdam.pipelines.listing import FoundFile, fetched, list_files, names_beside, parent_of, whole_address


def upload(folder: Path, address: str) -> str:
    """A folder as it is, into a store."""
    filesystem, root = locate(address)
    fs.copy_files(str(folder), root, source_filesystem=fs.LocalFileSystem(), destination_filesystem=filesystem)
    return address


def test_files_are_listed_with_size_and_age_and_hidden_ones_are_not(tmp_path):
    write_files(tmp_path, "b/y.mp4", "a.mp4", ".hidden.mp4", ".git/x.mp4", "__MACOSX/a.mp4", "b/._y.mp4")
    (tmp_path / "a.mp4").write_bytes(b"12345")
    os.utime(tmp_path / "a.mp4", ns=(1, 7_000_000_001))
    listing = list_files(str(tmp_path))
    assert listing.address == str(tmp_path) and listing.single is None
    assert sorted(listing.files) == ["a.mp4", "b/y.mp4"]
    assert listing.files["a.mp4"] == FoundFile(5, 7_000_000_001)
    assert (listing.read("a.mp4"), listing.read("a.mp4", num_bytes=2)) == (b"12345", b"12")
    assert list_files(f"file://{tmp_path}/") == listing


def test_one_file_is_a_listing_of_its_own(tmp_path):
    write_files(tmp_path, "a #1%20.mp4", "b.mp4")
    listing = list_files(str(tmp_path / "a #1%20.mp4"))
    assert (listing.address, listing.single, list(listing.files)) == (str(tmp_path), "a #1%20.mp4", ["a #1%20.mp4"])
    assert listing.asked == str(tmp_path / "a #1%20.mp4")


def test_links_to_files_are_followed_and_pipes_and_loops_are_not(tmp_path):
    write_files(tmp_path, "elsewhere/real.mp4", "v/b.mp4")
    (tmp_path / "v" / "a.mp4").symlink_to(tmp_path / "elsewhere" / "real.mp4")
    (tmp_path / "v" / "broken.mp4").symlink_to(tmp_path / "nothing")
    (tmp_path / "v" / "loop").symlink_to(tmp_path / "v")
    os.mkfifo(tmp_path / "v" / "pipe.mp4")
    assert sorted(list_files(str(tmp_path / "v")).files) == ["a.mp4", "b.mp4", "broken.mp4"]
    with pytest.raises(InputError, match="neither a file nor a folder"):
        list_files(str(tmp_path / "v" / "pipe.mp4"))
    (tmp_path / "linked").symlink_to(tmp_path / "v")
    assert len(list_files(str(tmp_path / "linked")).files) == 3


@pytest.mark.parametrize("name", ["nowhere", "x" * 300, "a\0b", "file.txt/deeper"])
def test_what_is_not_there_is_told_in_one_line(tmp_path, name):
    (tmp_path / "file.txt").touch()
    with pytest.raises(InputError) as error:
        list_files(f"{tmp_path}/{name}")
    assert_one_line(error)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_without_access_is_named_and_the_rest_is_found(tmp_path):
    write_files(tmp_path, "open/a.mp4", "closed/b.mp4")
    (tmp_path / "closed").chmod(0)
    try:
        found = find_sources(tmp_path)
    finally:
        (tmp_path / "closed").chmod(0o700)
    assert [clip.path for clip in found.clips] == ["open/a.mp4"]
    assert [rejected.file for rejected in found.rejected] == ["closed/"]


def test_addresses_are_made_whole(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ada")
    assert whole_address("v/") == str(tmp_path / "v")
    assert whole_address("v/../w") == str(tmp_path / "w")
    assert whole_address("~/v") == "/home/ada/v"
    assert whole_address("file:///a%20b/c") == "/a b/c"
    assert whole_address("s3://bucket/a#b/") == "s3://bucket/a#b"
    with pytest.raises(InputError, match="expected file:///absolute/path"):
        whole_address("file://elsewhere/v")
    assert [parent_of(address) for address in ("/a/b", "/", "s3://bucket/a/b", "s3://bucket")] == [
        "/a", None, "s3://bucket/a", None
    ]  # fmt: skip
    assert names_beside(str(tmp_path / "nowhere")) == []


def test_local_clips_are_read_where_they_lie(tmp_path):
    write_files(tmp_path, "a.mp4")
    (clip,) = find_sources(tmp_path).clips
    with fetched(clip) as path:
        assert path == tmp_path / "a.mp4"
    assert path.exists()


@pytest.fixture
def videos(tmp_path):
    """A film, a folder of frames with a name of many characters, and hidden things beside them."""
    write_folder(tmp_path / "v" / "deep" / "ada#1 50%ü", moving_square(4))
    write_video(tmp_path / "v" / "a.mp4", moving_square(5))
    write_files(tmp_path / "v", ".hidden.mp4", "deep/.DS_Store")
    return tmp_path / "v"


def test_a_store_is_listed_like_a_folder(s3, videos):
    address = upload(videos, f"{s3}/listing/v")
    here, there = list_files(str(videos)), list_files(f"{address}/")
    assert there.address == address
    assert {name: facts.num_bytes for name, facts in there.files.items()} == {
        name: facts.num_bytes for name, facts in here.files.items()
    }
    assert list(there.files) == sorted(there.files) and all(facts.modified_ns for facts in there.files.values())
    assert there.read("a.mp4", num_bytes=8) == (videos / "a.mp4").read_bytes()[:8]
    single = list_files(f"{address}/a.mp4")
    assert (single.address, single.single, list(single.files)) == (address, "a.mp4", ["a.mp4"])
    assert names_beside(address) == ["a.mp4"]
    with pytest.raises(InputError) as error:
        list_files(f"{address}/nowhere")
    assert_one_line(error, "no such file or folder")


def test_clips_of_a_store_give_the_same_rows_and_leave_no_copy(s3, videos):
    address = upload(videos, f"{s3}/clips/v")
    here, there = find_sources(videos), find_sources(address)
    assert [clip.source for clip in there.clips] == [clip.source for clip in here.clips] == ["a.mp4", "deep/ada#1 50%ü"]
    for clip, twin in zip(here.clips, there.clips, strict=True):
        assert encoded(twin) == encoded(clip)
        with fetched(twin) as path:
            assert path.exists() and path.name == clip.path.rpartition("/")[2]
        assert not path.exists()
    (frames,) = find_sources(f"{address}/deep/ada#1 50%ü").clips
    assert (frames.path, frames.source) == ("", "ada#1 50%ü")
    assert len(encoded(frames)[0]["frames"]) == 4


def test_a_table_of_a_store_is_used(s3, videos):
    (videos / "manifest.csv").write_text("file,trim,identity\na.mp4,1:4,ada\n../v/deep/gone,,\n")
    address = upload(videos, f"{s3}/table/v")
    for found in (find_sources(address), find_sources(address, table=f"{address}/manifest.csv")):
        assert [(clip.path, clip.identity) for clip in found.clips] == [("a.mp4", "ada")]
        assert [rejected.file for rejected in found.rejected] == ["../v/deep/gone"]
    assert find_sources(f"{address}/deep", layout="frames").layout == "frames"


def test_what_is_wrong_with_a_file_of_a_store_is_told_by_its_address(s3, tmp_path):
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "text.mp4").write_text("I am no film")
    (clip,) = find_sources(upload(tmp_path / "v", f"{s3}/bad")).clips
    with pytest.raises(InputError) as error:
        encoded(clip)
    assert_one_line(error, f"{s3}/bad/text.mp4: no video that can be read")
    filesystem, root = locate(clip.root)
    filesystem.delete_file(f"{root}/text.mp4")
    with pytest.raises(InputError, match=r"s3://.*/bad/text\.mp4: cannot be fetched"):
        encoded(clip)


def test_a_pipe_of_any_name_is_not_waited_for(tmp_path):
    write_files(tmp_path, "a.mp4", "train_list.txt/f.txt")
    for name in ("manifest.csv", "vox-metadata.csv", "b.mp4", "test_list.txt"):
        os.mkfifo(tmp_path / name)
    assert [clip.path for clip in find_sources(tmp_path).clips] == ["a.mp4"]
    for table in (tmp_path / "manifest.csv", tmp_path):
        with pytest.raises(InputError) as error:
            find_sources(tmp_path, table=table)
        assert_one_line(error, ": not a file")
