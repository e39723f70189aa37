"""A registry: lazy, ordered, open to other packages, closed to a second entry of one name."""

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from tvm_passes import registry
from tvm_passes.errors import LayoutselError
from tvm_passes.registry import Registry


@dataclass(frozen=True)
class _Colour:
    name: str


class _EntryPoint:
    module = "paints"
    value = "paints:COLOUR"
    dist = None

    def __init__(self, name, loaded):
        self.name, self._loaded = name, loaded

    def load(self):
        if isinstance(self._loaded, Exception):
            raise self._loaded
        return self._loaded


@pytest.fixture
def installed(monkeypatch):
    """Groups that entries of other packages were looked up in."""
    groups = []

    def entry_points(*, group):
        groups.append(group)
        return [_EntryPoint("z", _Colour("green")), _EntryPoint("a", _Colour("blue"))]

    monkeypatch.setattr(registry, "entry_points", entry_points)
    return groups


def test_nothing_is_loaded_before_the_first_access(installed):
    calls = []
    colours = Registry("colour", lambda: calls.append("own") or [_Colour("red")])
    assert calls == []
    assert installed == []
    assert "red" in colours
    assert len(colours) == 3
    assert calls == ["own"]
    assert installed == ["layoutsel.colours"]


def test_our_own_entries_come_first(installed):
    colours = Registry("colour", lambda: [_Colour("white"), _Colour("black")])
    assert list(colours) == ["white", "black", "blue", "green"]


def test_entries_of_other_packages_have_an_origin(installed):
    colours = Registry("colour", lambda: [_Colour("white")])
    assert colours.origins == {"blue": "paints", "green": "paints"}


def test_an_entry_registered_by_hand_is_found(installed):
    colours = Registry("colour", lambda: [])
    pink = _Colour("pink")
    colours.register(pink)
    colours.register(pink)
    assert colours.find("pink") is colours["pink"] is pink


def test_a_second_entry_of_one_name_is_refused(installed):
    colours = Registry("colour", lambda: [_Colour("red")])
    with pytest.raises(LayoutselError, match="two colours are called 'blue'"):
        colours.register(_Colour("blue"))
    assert colours["blue"] == _Colour("blue")


def test_entries_are_included_for_a_while(installed):
    colours = Registry("colour", lambda: [_Colour("red")])
    with colours.including(_Colour("pink")):
        assert list(colours) == ["red", "blue", "green", "pink"]
    assert list(colours) == ["red", "blue", "green"]
    with (
        pytest.raises(LayoutselError, match="two colours are called 'red'"),
        colours.including(_Colour("pink"), _Colour("red")),
    ):
        pass
    assert "pink" not in colours


def test_an_entry_may_be_a_part_of_what_is_installed(monkeypatch):
    whole, other = SimpleNamespace(colour=_Colour("mauve")), SimpleNamespace(colour="mauve")
    points = [_EntryPoint("a", whole)]
    monkeypatch.setattr(registry, "entry_points", lambda *, group: points)
    colours = Registry("colour", lambda: [], _Colour, part="colour")
    assert list(colours.values()) == [whole.colour]
    points.append(_EntryPoint("b", other))
    broken = Registry("colour", lambda: [], _Colour, part="colour")
    with pytest.raises(
        LayoutselError, match="expected an object whose attribute 'colour' is of class _Colour"
    ):
        list(broken)


def test_an_unknown_name_is_answered_with_those_there_are(installed):
    colours = Registry("colour", lambda: [_Colour("red")])
    with pytest.raises(
        LayoutselError, match="unknown colour 'reed'; expected one of red, blue, green"
    ):
        colours.find("reed")


@pytest.mark.parametrize(
    ("loaded", "got"),
    [
        (ImportError("no such module"), "cannot be loaded: got ImportError: no such module"),
        (7, "got 7"),
        (_Colour(name=None), "got _Colour"),
    ],
)
def test_a_broken_entry_is_one_error_every_time(monkeypatch, loaded, got):
    monkeypatch.setattr(registry, "entry_points", lambda *, group: [_EntryPoint("b", loaded)])
    colours = Registry("colour", lambda: [_Colour("red")], _Colour)
    for _ in range(2):
        with pytest.raises(LayoutselError) as caught:
            colours.find("red")
        text = str(caught.value)
        assert "entry point 'b' (paints:COLOUR) of group 'layoutsel.colours'" in text
        assert got in text
        assert "Repair or uninstall" in text
