"""The chart as examples/gitops installs it."""

from __future__ import annotations

import yaml
from tests.chart.conftest import Helm, of_kind
from tests.root import ROOT

GITOPS = ROOT / "examples" / "gitops"


def test_the_roles_that_tenants_bind_are_those_of_the_release(helm: Helm) -> None:
    values = yaml.safe_load((GITOPS / "infrastructure" / "dbbackup" / "values.yaml").read_text())
    made = of_kind(helm.template(values, release="dbbackup"), "ClusterRole")
    bound = {
        document["roleRef"]["name"]
        for path in (GITOPS / "tenants").rglob("*.yaml")
        for document in yaml.safe_load_all(path.read_text())
        if document["kind"] == "RoleBinding"
    }
    assert bound
    assert bound <= set(made)


def test_a_tool_that_prunes_leaves_the_crds(helm: Helm) -> None:
    """Argo CD honours the annotation as Helm does."""
    found = of_kind(helm.template({}), "CustomResourceDefinition")
    assert len(found) == 4
    assert {crd["metadata"]["annotations"]["helm.sh/resource-policy"] for crd in found.values()} == {"keep"}
