import os
from pathlib import Path

import pytest

from monitor.core.errors import InvalidInput
from monitor.registration.given import (
    Changes,
    NewDatabase,
    check_labels,
    parse_databases,
    parse_label,
)

SECRET = "SEKRET"
URL = f"postgresql://app:{SECRET}@db.example/orders"


def test_databases_come_as_arguments_and_as_lines_of_files(tmp_path: Path) -> None:
    file = tmp_path / "databases"
    file.write_text(f"# ours\n\nledger={URL}\n  stock={URL} \n")
    given = parse_databases([f"orders= {URL}", f"@{file}"])
    assert [one.name for one in given] == ["orders", "ledger", "stock"]
    assert {one.url for one in given} == {URL}


def test_a_file_may_have_no_name(tmp_path: Path) -> None:
    file = tmp_path / "databases"
    file.write_text(f"orders={URL}\n")
    descriptor = os.open(file, os.O_RDONLY)
    [one] = parse_databases([f"@/dev/fd/{descriptor}"])
    assert one.name == "orders"


@pytest.mark.parametrize(
    "text", [SECRET, URL, f"{SECRET}={URL}", f"orders=mysql://u:{SECRET}@h/d", f"@/no/{SECRET[:0]}"]
)
def test_what_cannot_be_read_is_refused_without_an_echo(text: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parse_databases([text])
    assert SECRET not in str(refused.value)


def test_nothing_shows_a_url() -> None:
    assert SECRET not in repr(NewDatabase("orders", URL)) + repr(Changes(url=URL))


def test_blanks_around_a_url_are_no_part_of_it() -> None:
    assert NewDatabase("orders", f" {URL}\n").checked().url == URL
    assert Changes(url=f" {URL}\n").checked() == Changes(url=URL)


@pytest.mark.parametrize(
    "labels",
    [{"K": "v"}, {"k": "a\nb"}, {"k": "x" * 64}, {"": "v"}, {f"k{i}": "v" for i in range(17)}],
)
def test_labels_that_nobody_can_use(labels: dict[str, str]) -> None:
    with pytest.raises(InvalidInput, match="labels"):
        check_labels(labels)


def test_a_label_is_a_key_and_a_value() -> None:
    assert parse_label("url=a=b") == ("url", "a=b")
    with pytest.raises(InvalidInput, match="KEY=VALUE"):
        parse_label("novalue")
