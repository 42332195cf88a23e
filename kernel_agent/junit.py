"""A replay as JUnit XML, which CI servers read."""

from __future__ import annotations

import re
from xml.etree import ElementTree as Xml

from kernel_agent.replay import Replay, ReplayedCell, holds
from kernel_agent.terminal import plain_text

# What XML 1.0 cannot hold, not even escaped.
_ILLEGAL = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def junit_xml(replay: Replay) -> bytes:
    """The report: a test suite for the notebook, a test case for each of its cells."""
    name = str(replay.path or "notebook")
    drifts = [cell for cell in replay.cells if not holds(cell.verdict)]
    skipped = [cell for cell in drifts if cell.verdict == "not run"]
    counts = {
        "tests": str(len(replay.cells)),
        "failures": str(len(drifts) - len(skipped)),
        "errors": "0",
        "skipped": str(len(skipped)),
        "time": f"{replay.seconds:.3f}",
    }
    suites = Xml.Element("testsuites", counts)
    suite = Xml.SubElement(suites, "testsuite", {"name": _legal(name), **counts})
    for cell in replay.cells:
        _case(suite, cell, name)
    if replay.problems:
        Xml.SubElement(suite, "system-err").text = _legal("\n".join(replay.problems))
    Xml.indent(suites)
    report: bytes = Xml.tostring(suites, encoding="utf-8", xml_declaration=True)
    return report + b"\n"


def _case(suite: Xml.Element, cell: ReplayedCell, notebook: str) -> None:
    seconds = cell.now.seconds if cell.now else 0.0
    names = {"classname": _legal(notebook), "name": _legal(cell.name), "time": f"{seconds:.3f}"}
    case = Xml.SubElement(suite, "testcase", names)
    said = "\n\n".join(f"{one.part}\n{one.text}" for one in cell.differences)
    if cell.verdict == "not run":
        Xml.SubElement(case, "skipped", {"message": cell.verdict})
    elif not holds(cell.verdict):
        failure = Xml.SubElement(case, "failure", {"message": cell.verdict, "type": cell.verdict})
        failure.text = _legal(f"{cell.was.source}\n\n{said}")
    elif cell.verdict != "same":
        Xml.SubElement(case, "system-out").text = _legal(f"{cell.verdict}\n{said}".strip())


def _legal(text: str) -> str:
    return _ILLEGAL.sub("", plain_text(text))
