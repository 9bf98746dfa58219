"""`make demo`: a real backup and a real restore on a real Kubernetes, step by step. Everything
shown is what the commands printed.

It leaves the cluster running, and may be run again: what a former run left is replaced.
"""

from __future__ import annotations

import difflib
import json
import os
import shlex
import sys
from typing import Any

import boto3
import yaml
from botocore.config import Config
from tests.data import generate
from tests.demo.screen import Screen
from tests.demo.shell import DemoError, Shell
from tests.e2e.lib.cluster import OPERATOR_NAMESPACE, RELEASE, Cluster
from tests.root import ROOT

NAMESPACE = "demo"
CHART = "charts/database-backup-operator"
DAMAGED = 6
SHOWN = 4
DOWNLOAD = "build/demo/assetdex.sql"
COPIES = ("assetdex", "assetdex_copy", "assetdex_from_bucket")


class Demo:
    def __init__(self, screen: Screen, shell: Shell) -> None:
        self.screen, self.shell = screen, shell
        documents = yaml.safe_load_all((ROOT / "examples" / "secrets.yaml").read_text())
        self.secrets: dict[str, dict[str, str]] = {document["metadata"]["name"]: document["stringData"] for document in documents}
        self.storage: dict[str, Any] = yaml.safe_load((ROOT / "examples" / "storage.yaml").read_text())["spec"]["s3"]
        self.before: list[str] = []
        self.dumped = ""
        self.counted: list[tuple[str, str, str]] = []

    def run(self) -> None:
        screen = self.screen
        with screen.step("A real Kubernetes cluster"):
            self.cluster()
        with screen.step("The operator, installed by Helm"):
            self.operator()
        with screen.step("PostgreSQL and an S3 server in the cluster"):
            self.servers()
        with screen.step("A data-centre inventory in the database"):
            self.load()
        with screen.step("Backup: kubectl apply"):
            self.backup()
        with screen.step(f"Damage: {DAMAGED} servers are deleted"):
            self.damage()
        with screen.step("Restore in place, in one transaction, after a safety backup"):
            self.restore()
        with screen.step("Is it as it was?"):
            self.compare()
        with screen.step("What lies in the bucket"):
            self.bucket()
        with screen.step("The same for people: kubectl dbbackup"):
            self.plugin()

    def cluster(self) -> None:
        if not self.shell.cluster.existing:
            self.shell.make("cluster")
            if not os.environ.get("IMAGE"):
                self.shell.make("image")
        self.shell.kubectl("get", "nodes")

    def operator(self) -> None:
        cluster = self.shell.cluster
        repository, _, tag = cluster.image.rpartition(":")
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}
        self.shell.kubectl("apply", "--server-side", "-f", "-", stdin=json.dumps(namespace), output=False)
        self.shell.helm(
            *("upgrade", "--install", RELEASE, CHART, "--namespace", OPERATOR_NAMESPACE, "--create-namespace", "--wait", "--timeout", "3m"),
            *("--set", f"image.repository={repository}", "--set", f"image.tag={tag}"),
            *("--set", "console.enabled=true", "--set", f"console.downloadNamespaces={{{NAMESPACE}}}"),
            # Another image under the same tag must start another pod.
            *("--set-json", "podAnnotations=" + json.dumps({"dbbackup.io/test-image": cluster.image_identity()})),
        )
        self.shell.kubectl("-n", OPERATOR_NAMESPACE, "get", "pods")

    def servers(self) -> None:
        cluster = self.shell.cluster
        text = (ROOT / "tests" / "demo" / "servers.yaml").read_text()
        text = text.replace("__POSTGRES_IMAGE__", cluster.postgres_image(17)).replace("__S3_IMAGE__", cluster.s3_image)
        self.shell.kubectl("apply", "-f", "-", stdin=text, output=False)
        self.shell.kubectl("apply", "-f", "examples/secrets.yaml", "-f", "examples/storage.yaml")
        self.shell.kubectl("-n", NAMESPACE, "rollout", "status", "deployment/postgres", "deployment/s3", "--timeout=180s", output=False)
        self.shell.kubectl("-n", NAMESPACE, "get", "pods")

    def load(self) -> None:
        """An empty database and no objects of a former run; then the data."""
        self.shell.kubectl("-n", NAMESPACE, "delete", "dbr,dbb", "--all", "--timeout=120s", show=False)
        password = self.secrets["assetdex-db"]["password"].replace("'", "''")
        drop = "".join(f"DROP DATABASE IF EXISTS {name} WITH (FORCE);\n" for name in COPIES)
        role = f"ALTER ROLE inventory_owner CREATEDB PASSWORD '{password}';\n"
        self.shell.psql(f"{drop}CREATE DATABASE assetdex;\n\\connect assetdex\n{generate.render()}{role}")
        self.before = self.inventory()
        self.dumped = self.dump()
        tables, policies, triggers, functions = self.shell.psql(
            "SELECT (SELECT count(*) FROM pg_tables WHERE schemaname IN ('public', 'auth')), (SELECT count(*) FROM pg_policies),"
            " (SELECT count(*) FROM pg_trigger WHERE NOT tgisinternal),"
            " (SELECT count(*) FROM pg_proc p WHERE pronamespace IN ('public'::regnamespace, 'auth'::regnamespace)"
            "  AND NOT EXISTS (SELECT FROM pg_depend WHERE objid = p.oid AND deptype = 'e'))",
            "assetdex",
        ).split("|")
        parts = f"{tables} tables, {functions.strip()} functions, {triggers} triggers, {policies} policies"
        self.screen.note(f"database assetdex: {self.count('before')}; {parts}")

    def inventory(self) -> list[str]:
        """One line a server: hostname, serial number, its power."""
        joined = "public.servers s LEFT JOIN public.power_specs p ON p.server_id = s.id"
        return self.shell.psql(f"SELECT hostname, serial_number, p.max_power FROM {joined} ORDER BY hostname", "assetdex").splitlines()

    def dump(self) -> str:
        """The whole database as the server's own pg_dump tells it, owners and grants included, but
        for the rows that the backup leaves out."""
        excluded = [f"--exclude-table-data={table}" for table in generate.EXCLUDED_ROWS]
        # Without a key of our own, each dump begins and ends with a random one.
        pg_dump = ("pg_dump", "-U", "postgres", "--restrict-key=demo", *excluded, "assetdex")
        return self.shell.kubectl("-n", NAMESPACE, "exec", "deploy/postgres", "--", *pg_dump, show=False)

    def count(self, moment: str) -> str:
        """Counts servers and power specs, and keeps the figures for the table at the end."""
        sql = "SELECT count(*) FROM public.servers UNION ALL SELECT count(*) FROM public.power_specs"
        servers, power = self.shell.psql(sql, "assetdex").split()
        self.counted.append((moment, servers, power))
        return f"{servers} servers, {power} power specs"

    def finished(self, kind: str, name: str) -> dict[str, Any]:
        """Waits until the object has ended, then demands Completed."""
        reference = f"{kind}/{name}"
        self.shell.kubectl("-n", NAMESPACE, "wait", "--for=condition=Finished", reference, "--timeout=180s", timeout=200)
        found: dict[str, Any] = self.shell.get("-n", NAMESPACE, reference)
        status = found["status"]
        if status["phase"] != "Completed":
            failure = status.get("failure", {})
            raise DemoError(f"{reference} is {status['phase']}: {failure.get('reason')}: {failure.get('message')}\n{failure.get('hint', '')}")
        return found

    def backup(self) -> None:
        self.screen.output((ROOT / "examples" / "backup.yaml").read_text())
        self.shell.kubectl("apply", "-f", "examples/backup.yaml", "-f", "examples/backup-full.yaml")
        for name in ("assetdex", "assetdex-full"):
            self.finished("dbb", name)
        self.shell.kubectl("-n", NAMESPACE, "get", "dbb")

    def damage(self) -> None:
        chosen = f"SELECT hostname FROM public.servers ORDER BY serial_number LIMIT {DAMAGED}"
        names = self.shell.psql(f"DELETE FROM public.servers WHERE hostname IN ({chosen}) RETURNING hostname", "assetdex").split()
        self.screen.note("deleted, with their power specs: " + ", ".join(names))
        self.screen.note(f"now {self.count('after the damage')}")
        if len(names) != DAMAGED or len(self.inventory()) != len(self.before) - DAMAGED:
            raise DemoError(f"expected {DAMAGED} servers to be deleted")

    def restore(self) -> None:
        self.shell.kubectl("apply", "-f", "examples/restore-in-place.yaml")
        status = self.finished("dbr", "assetdex-in-place")["status"]
        self.shell.kubectl("-n", NAMESPACE, "get", "dbr")
        restored = status["restored"]
        self.screen.note(f"restored: {restored['tables']} tables, {restored['rows']} rows, {restored['bytes']} bytes")
        for warning in status.get("warnings", ()):
            self.screen.note(f"warning: {warning}")
        self.screen.note(f"safety backup of what was there: {status['safetyBackup']['key']}")

    def compare(self) -> None:
        after = self.inventory()
        wrong = sorted(set(self.before) ^ set(after))
        self.count("after the restore")
        self.screen.table(("", "servers", "power specs"), self.counted)
        if wrong or self.before != after:
            raise DemoError("hostnames or serials differ: " + "; ".join(wrong[:10]))
        self.screen.note(f"all {len(after)} hostnames, serial numbers and power specs are equal")
        dumped = self.dump()
        if dumped != self.dumped:
            differences = difflib.unified_diff(self.dumped.splitlines(), dumped.splitlines(), "before", "after", lineterm="", n=0)
            raise DemoError("pg_dump tells another database than before:\n" + "\n".join(list(differences)[:40]))
        self.screen.note(f"pg_dump tells the same database as before, byte for byte ({len(dumped.encode()):,} bytes, owners and grants included)")

    def bucket(self) -> None:
        credentials = self.secrets["s3"]
        with self.shell.port_forward(NAMESPACE, "s3", 7070) as port:
            client = boto3.client(
                "s3",
                endpoint_url=f"http://127.0.0.1:{port}",
                region_name="us-east-1",
                aws_access_key_id=credentials["accessKeyId"],
                aws_secret_access_key=credentials["secretAccessKey"],
                config=Config(s3={"addressing_style": "path"}),
            )
            page = client.list_objects_v2(Bucket=self.storage["bucket"], Prefix=self.storage["prefix"] + "/")
        objects = page.get("Contents", ())
        directories = sorted({found["Key"].rpartition("/")[0] for found in objects}, key=lambda name: name.rpartition("/")[2])
        for directory in directories[-SHOWN:]:
            self.screen.note(f"{self.storage['bucket']}/{directory}/")
            inside = [found for found in objects if found["Key"].rpartition("/")[0] == directory]
            self.screen.output("\n".join(f"{found['Key'].rpartition('/')[2]:<20}{found['Size']:>9,} bytes" for found in inside))
        if not any(found["Key"].endswith("/manifest.json") for found in objects):
            raise DemoError("no manifest in the bucket")

    def plugin(self) -> None:
        self.shell.make("cli")
        (ROOT / DOWNLOAD).parent.mkdir(parents=True, exist_ok=True)
        for arguments in (("list",), ("download", "assetdex", "-o", DOWNLOAD, "--force")):
            self.shell.plugin(*arguments, "-n", NAMESPACE)
        lines = (ROOT / DOWNLOAD).read_text().splitlines()
        if not any(line.startswith("COPY public.servers ") for line in lines):
            raise DemoError(f"{DOWNLOAD} does not hold the table public.servers")

    def diagnose(self) -> None:
        """What a person would look at next. Each command may fail on its own."""
        for arguments in (
            ("-n", NAMESPACE, "get", "dbbackup,jobs,pods", "-o", "wide"),
            ("-n", NAMESPACE, "get", "events", "--sort-by=.lastTimestamp"),
            ("-n", NAMESPACE, "logs", "-l", "batch.kubernetes.io/job-name", "--tail=20", "--prefix"),
            ("-n", OPERATOR_NAMESPACE, "logs", "deployment/dbbackup-database-backup-operator", "--tail=30"),
        ):
            self.screen.command("kubectl " + shlex.join(arguments))
            try:
                self.screen.output("\n".join(self.shell.kubectl(*arguments, show=False, timeout=20).splitlines()[-40:]))
            except DemoError as error:
                self.screen.output(str(error))


def next_steps(cluster: Cluster) -> str:
    path = "$PWD/build/cli:$PATH" if cluster.existing else "$PWD/build/cli:$PWD/build/rig/bin:$PATH"
    kubeconfig = "" if cluster.existing else "KUBECONFIG=$PWD/build/rig/kubeconfig "
    return f"""export {kubeconfig}PATH={path}
kubectl -n demo create token administrator                # to sign in with, on the page that the next one opens
kubectl dbbackup console
kubectl dbbackup list -n demo                             # every backup; `kubectl dbbackup --help` tells the rest
kubectl dbbackup describe assetdex-full -n demo           # the story of one backup
kubectl -n demo get dbr assetdex-in-place -o yaml         # what was restored, and the safety backup
kubectl apply -f examples/restore-new-database.yaml       # restore beside the original
kubectl apply -f examples/backup-custom.yaml              # an archive for selective restores
kubectl apply -f examples/schedule.yaml                   # every night, and one at once
kubectl -n demo get dbs,dbb,bst                           # next run, expiry, what the bucket holds
{"" if cluster.existing else "make cluster-down                                         # when you are done"}"""


def main() -> int:
    screen = Screen()
    try:
        cluster = Cluster.from_environment()
        demo = Demo(screen, Shell(screen, cluster))
    except RuntimeError as error:
        screen.error(str(error))
        return 2
    try:
        demo.run()
    except DemoError as error:
        screen.error(f"\n{error}\n")
        demo.diagnose()
        screen.error(f"\nThe demo failed: {str(error).splitlines()[0]}")
        return 1
    except KeyboardInterrupt:
        return 130
    screen.panel("What to try next", next_steps(cluster))
    screen.note(f"done in {screen.elapsed:.0f} s; the cluster is still running")
    return 0


if __name__ == "__main__":
    sys.exit(main())
