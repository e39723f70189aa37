"""A bundle is read whole or refused in one sentence, whatever became of it."""

import io
import tarfile
from contextlib import suppress

import pytest
from bundles import requirements, written
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from layoutsel.device import requirements as requirements_of
from layoutsel.device.archive import BundleError, opened
from tvm_passes.errors import LayoutselError, UnitUnavailable


@pytest.fixture
def bundle(tmp_path):
    return written(tmp_path)


def test_what_was_written_is_read(bundle):
    with opened(bundle) as found:
        folder = found.folder
        assert found.manifest.model == "none"
        assert (folder / found.manifest.reference.file).read_bytes() == b"no library" * 100
    assert not folder.exists()


def test_equal_bundles_are_equal_files(tmp_path):
    one, other = written(tmp_path, "one.tar"), written(tmp_path, "other.tar")
    assert one.read_bytes() == other.read_bytes()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_changed_byte_is_found(bundle, tmp_path, data):
    content = bytearray(bundle.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= data.draw(st.integers(1, 255))
    damaged = tmp_path / "damaged.tar"
    damaged.write_bytes(content)
    # What lies between members, such as a file's date, is not of the contents.
    with suppress(BundleError), opened(damaged) as found, opened(bundle) as whole:
        assert found.manifest == whole.manifest
        for file in whole.folder.rglob("*.so"):
            same = found.folder / file.relative_to(whole.folder)
            assert same.read_bytes() == file.read_bytes()


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 0.9, 0.999])
def test_a_bundle_that_is_cut_off_is_refused(bundle, share):
    with tarfile.open(bundle) as archive:
        last = archive.getmembers()[-1]
    content = bundle.read_bytes()
    bundle.write_bytes(content[: int(share * (last.offset_data + last.size))])
    with pytest.raises(BundleError, match=r"copy it again|not a bundle"), opened(bundle):
        pass


def repacked(bundle, **more):
    """The bundle with further members, or others in their place."""
    with tarfile.open(bundle) as archive:
        members = {m.name: archive.extractfile(m).read() for m in archive}
    with tarfile.open(bundle, "w") as archive:
        for name, content in {**members, **more}.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return bundle


@pytest.mark.parametrize("name", ["../outside", "/tmp/outside", "lib/../../outside", "a/b/c"])
def test_members_stay_inside(bundle, tmp_path, name):
    with pytest.raises(BundleError, match="not a bundle: unexpected member"):
        opened(repacked(bundle, **{name: b"x"})).__enter__()
    assert not (tmp_path / "outside").exists()


def test_links_are_refused(bundle):
    with tarfile.open(bundle, "a") as archive:
        member = tarfile.TarInfo("lib/link.so")
        member.type, member.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(BundleError, match=r"unexpected member 'lib/link\.so'"), opened(bundle):
        pass


def test_an_extra_member_is_refused(bundle):
    with pytest.raises(BundleError, match=r"is damaged: lib/more\.so"):
        opened(repacked(bundle, **{"lib/more.so": b"x"})).__enter__()


def test_another_version_is_refused(tmp_path):
    with pytest.raises(BundleError, match="version 99; expected 2"):
        opened(written(tmp_path, schema_version=99)).__enter__()


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"architecture": "riscv64"}, "was built for riscv64: this machine is"),
        ({"features": ("avx9000",)}, "instruction sets that this machine lacks: avx9000"),
        ({"threads": 4096}, "was built for 4096 threads: this process may use"),
        ({"versions": {"apache-tvm": "0.1"}}, "was built with apache-tvm 0.1: this is"),
    ],
)
def test_another_machine_is_refused(changed, expected):
    requirements_of.check("b.tar", requirements())
    with pytest.raises(LayoutselError, match=expected):
        requirements_of.check("b.tar", requirements(**changed))


def test_a_missing_device_is_refused(monkeypatch):
    reasons = {"cuda": "the driver finds no device"}
    monkeypatch.setattr(requirements_of, "missing", reasons.get)
    with pytest.raises(LayoutselError, match="needs the unit 'cuda': the driver finds no device"):
        requirements_of.check("b.tar", requirements(units=("cpu", "cuda")))


def test_a_unit_that_no_package_has_is_refused():
    with pytest.raises(UnitUnavailable, match="needs the unit 'npu': no installed package has it"):
        requirements_of.check("b.tar", requirements(units=("cpu", "npu")))
