"""What docs/disaster-recovery.md must be, for tests/disaster to run it as it stands; and that the
runner runs all of it."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
import yaml
from tests.disaster import page
from tests.disaster.page import Block, BlockFailed, Shell

TEXT = page.PAGE.read_text()
BLOCKS = page.blocks(TEXT)


def block(text: str, language: str = "sh") -> Block:
    return Block("", "", language, text, 1)


def test_the_blocks_of_a_page() -> None:
    found = page.blocks(
        "# T\n## A\n```sh\none\n\ntwo\n```\nwords `code`\n### B\n```yaml\n# git/x.yaml\na: 1\n```\n## C\n```sh\n# ## no heading\n```\n"
    )
    assert [(b.section, b.step, b.language, b.text, b.line) for b in found] == [
        ("A", "", "sh", "one\n\ntwo\n", 4),
        ("A", "B", "yaml", "# git/x.yaml\na: 1\n", 11),
        ("C", "", "sh", "# ## no heading\n", 16),
    ]
    assert found[1].file == "git/x.yaml"


@pytest.mark.parametrize("text", ["```sh\nopen\n", "```bash\nx\n```\n", "- item\n  ```sh\n  x\n  ```\n", "```\nx\n```\n"])
def test_a_block_that_would_go_unrun_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"not closed|opens no block"):
        page.blocks(text)


@pytest.mark.parametrize("text", ["a: 1\n", "# ../escape.yaml\na: 1\n", "# git/x.yaml and more\na: 1\n"])
def test_a_yaml_block_names_its_file(text: str) -> None:
    with pytest.raises(ValueError, match="must be a comment with its file"):
        assert block(text, "yaml").file


def test_only_placeholders_are_replaced_and_no_replacement_is_read_again() -> None:
    filled = page.fill(block("KEY-A KEY KEY-AB $KEY\n"), {"KEY": "KEY-A", "KEY-A": "one"})
    assert filled.text == "one KEY-A oneB $KEY-A\n"
    assert page.fill(filled, {}) == filled


def test_what_one_block_sets_the_next_knows(tmp_path: Path) -> None:
    shell = Shell(tmp_path, os.environ)
    assert shell.run(block("# git/deep/x.yaml\na: 1\n", "yaml")) == ""
    assert yaml.safe_load((tmp_path / "git/deep/x.yaml").read_text()) == {"a": 1}
    assert shell.run(block("A='two words'\nB=$(cat git/deep/x.yaml)\necho out; echo err >&2\n")) == "out\nerr\n"
    assert shell.run(block('echo "$A/${B##*: }"\ncat <<YAML\n$A\nYAML\n')) == "two words/1\ntwo words\n"


@pytest.mark.parametrize("text", ["false\necho after\n", "false | cat\necho after\n", "echo $UNSET\necho after\n"])
def test_the_first_command_that_fails_ends_it(tmp_path: Path, text: str) -> None:
    with pytest.raises(BlockFailed, match=r"disaster-recovery\.md:1: exit code 1") as failure:
        Shell(tmp_path, os.environ).run(block("echo before\n" + text))
    assert "before\n" in str(failure.value)
    assert not str(failure.value).endswith("after\n")


def test_a_command_that_waits_for_ever_is_ended_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(BlockFailed, match=r"not done in 0 s") as failure:
        Shell(tmp_path, os.environ, timeout=0.4).run(block("sleep 60 & echo $!\nwait\n"))
    started = int(str(failure.value).split()[-1])
    for _ in range(50):
        if not Path(f"/proc/{started}").exists() or Path(f"/proc/{started}/stat").read_text().split(") ")[1].startswith("Z"):
            return
        time.sleep(0.1)
    pytest.fail("the process that the block started goes on")


# The page itself


def test_every_yaml_block_is_a_file_of_its_own() -> None:
    files = [found.file for found in BLOCKS if found.language == "yaml"]
    assert len(files) == len(set(files)) >= 5
    for found in BLOCKS:
        if found.language == "yaml":
            assert [document for document in yaml.safe_load_all(found.text) if document], found.where


def test_the_placeholders_are_those_of_the_table() -> None:
    told = page.placeholders(TEXT)
    assert len(told) == len(set(told)) == 8
    everything = "".join(found.text for found in BLOCKS)
    for word in told:
        assert word in everything, f"{word} is in the table and in no block"
    capitals = set(re.findall(r"(?<![$\w{-])[A-Z][A-Z0-9]*(?:-[A-Z0-9]+)+(?![\w}])", everything))
    assert capitals <= set(told), "a placeholder that the table does not tell"
    assert set(re.findall(r"[\w.-]*example\.com\S*", everything)) <= {word.removeprefix("https://") for word in told}


def test_the_sections_that_the_suite_runs() -> None:
    ran = {found.section for found in BLOCKS if found.language == "sh"}
    assert ran == {"On a good day", "On the bad day", "Afterwards"}
    steps = [found.step for found in BLOCKS if found.section == "On the bad day"]
    assert [int(step.split(".")[0]) for step in steps] == list(range(2, 9)), "one block for each step, in order"


def test_a_restore_is_not_among_what_git_holds() -> None:
    assert "DatabaseRestore" not in "".join(found.text for found in BLOCKS if found.language == "yaml")
