import pytest

from gateway.config.fault import ValueProblem
from gateway.config.interpolation import interpolated

ENVIRON = {"NAME": "value", "EMPTY": "", "NESTED": "${NAME}"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("${NAME}", "value", id="whole"),
        pytest.param("a-${NAME}-b-${NAME}", "a-value-b-value", id="inside"),
        pytest.param("${MISSING:-other}", "other", id="default-for-unset"),
        pytest.param("${EMPTY:-other}", "other", id="default-for-empty"),
        pytest.param("${NAME:-other}", "value", id="default-not-needed"),
        pytest.param("${MISSING:-}", "", id="empty-default"),
        pytest.param("${EMPTY}", "", id="empty-but-set"),
        pytest.param("$$", "$", id="escaped-dollar"),
        pytest.param("$${NAME}", "${NAME}", id="escaped-mark"),
        pytest.param("5 $ or $x", "5 $ or $x", id="lone-dollar"),
        pytest.param("${NESTED}", "${NAME}", id="values-are-not-filled-in-again"),
    ],
)
def test_texts_are_filled_in(text: str, expected: str) -> None:
    complaints: list[ValueProblem] = []
    assert interpolated({"key": text}, ENVIRON, complaints) == {"key": expected}
    assert complaints == []


def test_texts_at_any_depth_are_filled_in_and_the_rest_is_left() -> None:
    data = {"a": [{"b": ["${NAME}", 1, True]}], "${NAME}": 2.5}
    assert interpolated(data, ENVIRON, []) == {"a": [{"b": ["value", 1, True]}], "${NAME}": 2.5}


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        pytest.param(
            "${MISSING}", "MISSING is not set; set it, or give a default: ${MISSING:-...}", id="not-set"
        ),
        pytest.param("${NAME", "write $${", id="not-closed"),
        pytest.param("${1}", "write $${", id="no-name"),
        pytest.param("${}", "write $${", id="empty"),
        pytest.param("$NAME", "is written ${NAME}", id="without-braces"),
        pytest.param("$(NAME)", "is written ${NAME}", id="round-brackets"),
        pytest.param("%NAME%", "is written ${NAME}", id="of-windows"),
        pytest.param("{{ NAME }}", "is written ${NAME}", id="of-a-template"),
        pytest.param("http://$HOST:8001/v1", "is written ${NAME}", id="in-a-url"),
    ],
)
def test_what_cannot_be_filled_in_is_reported_and_left(text: str, mend: str) -> None:
    complaints: list[ValueProblem] = []
    assert interpolated({"a": [text]}, ENVIRON, complaints) == {"a": [text]}
    assert [complaint.path for complaint in complaints] == [("a", 0)]
    assert mend in complaints[0].message
