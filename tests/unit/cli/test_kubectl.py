"""What kubectl says, and what is asked of it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from dbbackup.cli.errors import CliError, CliExit
from dbbackup.cli.kubectl import Kubectl, documents, error_of

POLICY = (
    'Error from server (Forbidden): error when creating "STDIN": databasebackups.dbbackup.io "x" is forbidden: '
    "ValidatingAdmissionPolicy 'p' with binding 'b' denied request: requested-by must be you\n"
)


@pytest.mark.parametrize(
    ("said", "code", "message"),
    [
        ('Error from server (NotFound): databasebackups.dbbackup.io "x" not found\n', 3, 'databasebackups.dbbackup.io "x" not found'),
        ('Error from server (Forbidden): pods is forbidden: User "a" cannot list', 4, 'pods is forbidden: User "a" cannot list'),
        (POLICY, 4, 'databasebackups.dbbackup.io "x" is forbidden: ValidatingAdmissionPolicy'),
        ('The DatabaseBackup "x" is invalid: spec.ttl: Invalid value: "soon": must be\na duration\n', 2, "DatabaseBackup x is invalid: spec.ttl"),
        ('Error from server (AlreadyExists): error when creating "STDIN": x already exists', 2, "x already exists"),
        ("Error from server (NotFound): the server could not find the requested resource", 3, "does not know the kinds"),
        ("error: You must be logged in to the server (Unauthorized)", 4, "You must be logged in"),
        ("The connection to the server 127.0.0.1:1 was refused - did you specify the right host or port?", 6, "127.0.0.1:1"),
        ('error: context "x" does not exist', 6, 'context "x" does not exist'),
        ("Error from server: etcdserver: leader changed", 1, "etcdserver"),
        ("", 6, "said nothing"),
    ],
)
def test_errors(said: str, code: int, message: str) -> None:
    error = error_of(said)
    assert error.code == code
    assert message in error.message
    assert "\n" not in error.message
    assert "STDIN" not in error.message


@pytest.mark.parametrize(
    ("text", "names"),
    [("", []), ('{"kind": "A", "n": 1}', [1]), ('{"n": 1}\n{"n": 2}\n', [1, 2]), ('{"kind": "List", "items": [{"n": 1}, {"n": 2}]}', [1, 2])],
)
def test_documents(text: str, names: list[int]) -> None:
    assert [found["n"] for found in documents(text)] == names


def test_paths() -> None:
    kube = Kubectl("a")
    assert kube.path("DatabaseBackup", "a b", "x/y") == "/apis/dbbackup.io/v1/namespaces/a%20b/databasebackups/x%2Fy"
    assert kube.path("Pod", None, limit="1") == "/api/v1/pods?limit=1"


def fake(tmp_path: Path, *answers: object) -> Kubectl:
    """A kubectl that writes down its arguments and gives one answer after the other."""
    (tmp_path / "answers").write_text(json.dumps([*answers]))
    program = tmp_path / "kubectl"
    program.write_text(f"""#!{sys.executable}
import json, sys
folder = {str(tmp_path)!r}
answers = json.load(open(folder + "/answers"))
json.dump(answers[1:], open(folder + "/answers", "w"))
open(folder + "/asked", "a").write(json.dumps(sys.argv[1:]) + "\\n")
if isinstance(answers[0], str):
    sys.exit(answers[0])
print(json.dumps(answers[0]))
""")
    program.chmod(0o755)
    return Kubectl("ns", "ctx", "/config", _binary=str(program))


def asked(tmp_path: Path) -> list[list[str]]:
    return [json.loads(line) for line in (tmp_path / "asked").read_text().splitlines()]


def test_lists_are_read_page_by_page(tmp_path: Path) -> None:
    pages = [{"apiVersion": "v1", "items": [{"n": 1}], "metadata": {"continue": "t"}}, {"apiVersion": "v1", "items": [{"n": 2}], "metadata": {}}]
    found = fake(tmp_path, *pages).objects("DatabaseBackup", selector="a=b")
    assert [(item["kind"], item["n"]) for item in found] == [("DatabaseBackup", 1), ("DatabaseBackup", 2)]
    first, second = asked(tmp_path)
    assert first[:2] == ["get", "--raw"]
    assert "labelSelector=a%3Db" in first[2]
    assert "continue=t" in second[2]
    assert first[3:] == ["--context", "ctx", "--kubeconfig", "/config"]


def test_an_object_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CliError, match="there is no DatabaseBackup x in namespace ns") as raised:
        fake(tmp_path, 'Error from server (NotFound): databasebackups.dbbackup.io "x" not found').get("DatabaseBackup", "x")
    assert raised.value.code is CliExit.NOT_FOUND
    assert "dbbackup list -n ns" in raised.value.hint


def test_whoever_asks_is_written_down_where_the_cluster_tells(tmp_path: Path) -> None:
    kube = fake(tmp_path, {"status": {"userInfo": {"username": "alice"}}})
    assert kube.with_requester({"name": "x", "annotations": {"a": "b"}})["annotations"] == {"a": "b", "dbbackup.io/requested-by": "alice"}
    assert kube.user == "alice"
    assert len(asked(tmp_path)) == 1
    assert fake(tmp_path, "Error from server (Forbidden): no").with_requester({"name": "x"}) == {"name": "x"}


def test_a_deletion_names_the_object_that_was_seen(tmp_path: Path) -> None:
    fake(tmp_path, "Error from server (Conflict): the UID in the precondition (u) does not match").delete("Pod", "p", "u", grace=1)
    assert asked(tmp_path)[0][:3] == ["delete", "--raw", "/api/v1/namespaces/ns/pods/p"]


def test_without_kubectl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("KUBECTL", raising=False)
    with pytest.raises(CliError, match="kubectl is not on the PATH"):
        Kubectl().raw("/version")
