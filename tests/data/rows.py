"""Rows of the demo database: a data-centre inventory, the same at every call. No clock, no
process-wide randomness."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

Value = None | bool | int | float | str | bytes | list[str] | dict[str, object] | datetime | date
Rows = list[tuple[Value, ...]]
_NAMESPACE = uuid.UUID("6f1f0ad0-6b0a-4a52-9a55-0d3d0c9a7c11")
_START = datetime(2026, 1, 5, 8, 0, tzinfo=UTC)

AWKWARD = (
    "tab\there, newline\nthere, carriage return\r, backslash \\ and \\n as two characters",
    "\\.",
    "line one\n\\.\nline three: an end-of-copy mark within a value",
    "COPY public.servers FROM stdin;\n1\tnot data\n\\.\n",
    "quotes: ' '' \" \"\" ` $$ $tag$ $1 -- /* */ ; \\' E'\\x41'",
    "\\N",
    "",
    "   spaces around   ",
    "Grüße aus Köln, Ελλάδα, 日本語テキスト, 한국어, ไทย",
    "عربي מימין לשמאל \u202eoverride\u202c and back",
    "emoji 🗄️ 👩🏽‍🔧 🇨🇭, combining e\u0301, zero\u200bwidth, line\u2028separator, no-break\u00a0space",
    "control \x01 \x07 \x0b \x1f \x7f \u0080",
    "{curly,comma,\"quoted\"} (row,'x') [json, null]",
    "\U00010348 beyond the BMP \U0001f9ff",
    "-- DROP TABLE public.servers CASCADE;",
    "long: " + "a ñ 字 " * 300,
)
"""Values that have broken somebody's dump or restore; every one stands in servers.notes and in
activity_logs.message."""

VENDORS = {"Dell": "PowerEdge R", "HPE": "ProLiant DL", "Lenovo": "ThinkSystem SR", "Supermicro": "SYS-", "Cisco": "UCS C", "NetApp": "AFF A"}
TYPES = ("Server", "GPU Server", "Storage", "Network", "PDU")
STATUSES = ("Ordered", "Active", "Maintenance", "Décommissionné")
ALLOCATIONS = ("Production", "Staging", "Development", "Spare", "It's complicated")
SYSTEMS = ("Debian 12", "Debian 13", "Ubuntu 24.04", "RHEL 9", "VMware ESXi 8", "none")
SITES = {"ZRH": "Zürich", "MUC": "München", "OSL": "Oslo", "LIS": "Lisboa"}
ROLES = ("web", "db", "cache", "build", "mail", "proxy", "k8s", "log", "store", "gpu")
PEOPLE = (
    "Ada Lovelace", "Zoë Núñez", "Søren Østergård", "李小龙", "Anne-Marie d'Arc", "محمد الفاسي",
    "Björk \"Bea\" Þórsdóttir", "Иван Петров", "Grace Hopper", "O'Brien; Miles", "Ñandú Pérez", "Jo",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Table:
    """`name` is schema-qualified; rows follow `columns`."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Value, ...], ...]


def identifier(*parts: object) -> str:
    return str(uuid.uuid5(_NAMESPACE, "/".join(map(str, parts))))


def _rng(*parts: object) -> random.Random:
    return random.Random("/".join(map(str, parts)))


def _users() -> list[str]:
    return [identifier("user", index) for index in range(len(PEOPLE))]


def _racks() -> list[str]:
    return [f"{site}-R{number:02d}" for site in SITES for number in range(1, 13)]


def _auth() -> Iterator[Table]:
    users = _users()
    rows: Rows = []
    profiles: Rows = []
    roles: Rows = []
    for index, (user, name) in enumerate(zip(users, PEOPLE, strict=True)):
        rng = _rng("user", index)
        salt = "".join(rng.choices("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789./", k=53))
        seen = _START + timedelta(days=rng.randrange(300), seconds=rng.randrange(86400))
        rows.append(
            (user, f"User{index:02d}@Example.org", f"$2a$10${salt}", {"name": name, "theme": rng.choice(["dark", "light"])}, _START, seen, _START)
        )
        avatar = bytes(range(256)) if index == 0 else (rng.randbytes(24) if index % 2 else None)
        profiles.append(
            (user, name, None if index % 5 == 4 else rng.choice(["Facilities", "Platform", "Réseau", ""]), "en" if index % 3 else "de", avatar, seen)
        )
        roles.append((user, "viewer", None, _START))
        if index % 4 == 0:
            roles.append((user, "admin" if index == 0 else "operator", users[0], _START + timedelta(days=index)))
    yield Table(
        "auth.users",
        ("id", "email", "encrypted_password", "raw_user_meta_data", "email_confirmed_at", "last_sign_in_at", "created_at"),
        tuple(rows),
    )
    yield Table("public.profiles", ("id", "full_name", "department", "locale", "avatar", "updated_at"), tuple(profiles))
    yield Table("public.user_roles", ("user_id", "role", "granted_by", "granted_at"), tuple(roles))
    sessions = [identifier("session", number) for number in range(48)]
    yield Table(
        "auth.sessions",
        ("id", "user_id", "user_agent", "ip", "created_at", "not_after"),
        tuple(
            (session, users[number % len(users)], f"Mozilla/5.0 (X11; Linux x86_64) demo/{number}", f"2001:db8::{number:x}",
             _START + timedelta(hours=number),
             None if number % 3 else _START + timedelta(days=30))
            for number, session in enumerate(sessions)
        ),
    )  # fmt: skip
    yield Table(
        "auth.refresh_tokens",
        ("id", "token", "user_id", "session_id", "parent", "revoked", "created_at"),
        tuple(
            (number + 1, _rng("token", number).randbytes(24).hex(), users[number // 2 % len(users)], sessions[number // 2],
             None if number % 2 == 0 else _rng("token", number - 1).randbytes(24).hex(), number % 2 == 0, _START + timedelta(hours=number))
            for number in range(96)
        ),
    )  # fmt: skip


def _reference() -> Iterator[Table]:
    """Racks, power supplies, the glossary with its seven tables of specifications."""
    racks = []
    for index, rack in enumerate(_racks()):
        rng = _rng("rack", rack)
        layout: dict[str, object] = {"row": index // 6, "cold_aisle": bool(index % 2), "pdu": [f"A{index}", f"B{index}"]}
        weight = None if index % 7 == 0 else f"{rng.randrange(80000, 150000) / 100:.2f}"
        note = AWKWARD[index] if index < len(AWKWARD) - 1 else None
        racks.append(
            (
                rack,
                SITES[rack[:3]],
                f"Gebäude {index % 3 + 1}",
                index % 4 - 1,
                f"Room {index // 8:02d}",
                42 + index % 3,
                8000 + 500 * (index % 9),
                weight,
                note,
                layout,
            )
        )
    yield Table(
        "public.rack_metadata",
        ("rack", "site", "building", "floor", "room", "total_units", "max_power", "weight_limit_kg", "description", "layout"),
        tuple(racks),
    )
    yield Table(
        "public.psu_specs",
        ("model", "vendor", "rated_power", "efficiency", "input_voltage", "hot_swap"),
        tuple(
            (f"PSU-{watts}{grade[0]}", vendor, watts, f"80 PLUS {grade}", "[100,241)" if watts < 2000 else "[200,241)", grade != "Gold")
            for watts in (495, 750, 1100, 1600, 2400) for vendor, grade in (("Delta", "Platinum"), ("Lite-On", "Titanium"), ("Acbel", "Gold"))
        ),
    )  # fmt: skip
    glossary: Rows = []
    specs: dict[str, Rows] = {name: [] for name in ("cpu", "memory", "storage", "network", "power", "gpu", "physical")}
    for index in range(60):
        rng = _rng("device", index)
        vendor = list(VENDORS)[index % len(VENDORS)]
        model, kind, number = f"{VENDORS[vendor]}{620 + 10 * index}", TYPES[index % len(TYPES)], index + 1
        life = f"[{2015 + index % 8}-01-01,{2022 + index % 8}-07-01)" if index % 9 else "empty"
        glossary.append((number, vendor, model, kind, life, f"https://example.org/datasheets/{number}?lang=de&v=1#spec" if index % 4 else None))
        specs["cpu"].append(
            (
                number,
                f"Xeon® Gold {6000 + index}",
                rng.choice([1, 2]),
                rng.choice([8, 16, 24, 32]),
                f"{rng.randrange(200, 360) / 100:.2f}",
                rng.choice([3.5, 4.1, None]),
            )
        )
        specs["memory"].append(
            (number, rng.choice([64, 128, 256, 512]), rng.choice(["DDR4", "DDR5"]), rng.choice([2933, 3200, 4800]), 24, index % 11 != 0)
        )
        raid: list[str] = [str(level) for level in (0, 1, 5, 6, 10) if rng.random() < 0.5]
        specs["storage"].append(
            (
                number,
                rng.choice([4, 8, 12, 24]),
                rng.choice(['2.5"', '3.5"', "E3.S"]),
                rng.randrange(1, 400) * 960,
                raid,
                rng.choice(["PERC H755", "MR416i-p", None]),
            )
        )
        specs["network"].append(
            (
                number,
                rng.choice([2, 4]),
                rng.choice(["1.0", "10.0", "25.0", "100.0"]),
                rng.choice(["RJ45", "SFP28", "QSFP28"]),
                f"3c:ec:ef:{index:02x}:00:00",
            )
        )
        specs["power"].append((number, 2, f"PSU-{rng.choice([495, 750, 1100, 1600])}{rng.choice('PTG')}", 120 + index, 400 + 10 * index))
        specs["gpu"].append(
            (number, "NVIDIA L40S" if kind == "GPU Server" else None, 4 if kind == "GPU Server" else 0, 48 if kind == "GPU Server" else None)
        )
        specs["physical"].append(
            (
                number,
                rng.choice([1, 2, 4]),
                rng.choice([700, 815, None]),
                rng.choice([12.5, 21.75, 33.1, 1e-05]),
                "front → back",
                "black" if index % 5 else "silver",
            )
        )
    yield Table("public.device_glossary", ("id", "vendor", "model", "type", "lifecycle", "datasheet"), tuple(glossary))
    columns = {
        "cpu": ("device_id", "cpu_model", "sockets", "cores", "base_ghz", "boost_ghz"),
        "memory": ("device_id", "size_gb", "type", "speed_mts", "slots", "ecc"),
        "storage": ("device_id", "bays", "bay_type", "capacity_gb", "raid_levels", "controller"),
        "network": ("device_id", "ports", "speed_gbps", "connector", "mac_prefix"),
        "power": ("device_id", "psu_count", "psu_model", "idle_power", "max_power"),
        "gpu": ("device_id", "gpu_model", "gpus", "memory_gb"),
        "physical": ("device_id", "height_units", "depth_mm", "weight_kg", "airflow", "colour"),
    }
    for name, rows in specs.items():
        yield Table(f"public.device_{name}_specs", columns[name], tuple(rows))


def hostname(index: int) -> str:
    """Of the server with that index, from 0; unique."""
    site = list(SITES)[index % len(SITES)].lower()
    return f"{ROLES[index % len(ROLES)]}-{index + 1:03d}.{site}.example.org"


def serial(index: int) -> str:
    return f"SN{_rng('serial', index).randrange(16**7):07X}-{index:03d}"


def _server(index: int) -> tuple[Value, ...]:
    rng = _rng("server", index)
    notes: Value = AWKWARD[index] if index < len(AWKWARD) else rng.choice([None, "", "ok", "swap disk in bay 3", "Lüfter laut"])
    attributes: dict[str, object] = {"cost_center": 4000 + index % 17, "backup": bool(index % 3), "owner": PEOPLE[index % len(PEOPLE)]}
    if index % 10 == 0:
        attributes["path"] = "C:\\temp\\new\t'x'"
    rack = None if index % 23 == 22 else _racks()[index % 48]
    created = _START + timedelta(days=index, minutes=index, microseconds=index * 7)
    return (
        identifier("server", index), hostname(index), serial(index), f"DC{10000 + index}" if index % 6 else None, index % 60 + 1,
        TYPES[index % len(TYPES)], STATUSES[index % 4 if index % 5 == 0 else 1], ALLOCATIONS[index % len(ALLOCATIONS)], SYSTEMS[index % len(SYSTEMS)],
        rack, f"({index // 48 * 4 + 1},{index % 2 + 1})" if rack else None,
        f"10.{index % 4}.{index // 250}.{index % 250 + 1}/24", f"2001:db8:0:{index:x}::1",
        f"02:00:5e:00:{index // 256:02x}:{index % 256:02x}", date(2019 + index % 7, index % 12 + 1, index % 28 + 1),
        f"{index % 5 + 1} years", f"{rng.randrange(90000, 4500000) / 100:.2f}",
        [ROLES[index % len(ROLES)], *(['a "quoted", \\ tag', ""] if index % 40 == 0 else [])],
        attributes, notes, _users()[index % len(PEOPLE)], created, created,
    )  # fmt: skip


def _inventory(servers: int) -> Iterator[Table]:
    yield Table(
        "public.servers",
        ("id", "hostname", "serial_number", "asset_tag", "device_id", "device_type", "status", "allocation", "operating_system", "rack", '"position"',
         "ip_address", "ip_oob", "mac", "purchased", "warranty", "price", "tags", "attributes", "notes", "created_by", "created_at", "updated_at"),
        tuple(_server(index) for index in range(servers)),
    )  # fmt: skip
    yield Table(
        "public.power_specs",
        ("id", "server_id", "psu_model", "psu_count", "idle_power", "max_power", "measured_power"),
        tuple(
            (index + 1, identifier("server", index), f"PSU-{(495, 750, 1100, 1600)[index % 4]}{'PTG'[index % 3]}", 1 + index % 2,
             90 + index % 60, 350 + index,
             None if index % 4 == 3 else (float("nan") if index == 8 else 110 + index / 7))
            for index in range(servers)
        ),
    )  # fmt: skip


def _settings() -> Iterator[Table]:
    users = _users()
    names = (
        "asset_tag", "warranty", "price", "purchased", "rack", "unit", "status", "allocation", "operating_system", "ip_address", "ip_oob", "mac",
        "notes",
        "tags",
        "cost_center", "backup", "owner", "psu_count", "max_power", "idle_power", "cpu_model", "cores", "memory", "storage",
    )  # fmt: skip
    yield Table(
        "public.property_definitions",
        ("key", "label", "type", "required", "default_value", "pattern", '"order"'),
        tuple(
            (name, name.replace("_", " ").capitalize(), ("text", "number", "enum", "boolean", "date")[i % 5], i % 4 == 0,
             None if i % 3 else "", r"^\S+(\\|/)\d{2,}$" if i % 6 == 0 else None, i)
            for i, name in enumerate(names)
        ),
    )  # fmt: skip
    enums = {"device_type": TYPES, "device_status": STATUSES, "allocation_type": ALLOCATIONS, "operating_system": SYSTEMS}
    yield Table(
        "public.enum_colors",
        ("enum_type", "value", "color"),
        tuple((enum, value, f"#{_rng(enum, value).randrange(0x1000000):06x}") for enum, values in enums.items() for value in values),
    )
    pages = ("servers", "racks", "power", "glossary", "activity", "reports")
    yield Table(
        "public.filter_defaults",
        ("id", "page", "filter"),
        tuple(
            (i + 1, page, {"status": ["Active"], "q": None, "unicode": "ü\u2028", "depth": {"a": [1, 2.5, {"b": "\\"}]}})
            for i, page in enumerate(pages)
        ),
    )
    yield Table(
        "public.user_filter_preferences",
        ("user_id", "page", "filter", "updated_at"),
        tuple(
            (user, page, {"columns": [page, "hostname"], "user": i}, _START + timedelta(days=i + 30 * j))
            for i, user in enumerate(users)
            for j, page in enumerate(pages[:3])
        ),
    )
    kinds = ("count", "bar", "pie", "table")
    boards = [identifier("widget", index) for index in range(16)]
    yield Table(
        "public.dashboard_widget_configs",
        ("id", "owner_id", "title", "kind", "query", "grid", "options"),
        tuple(
            (board, users[i % 12] if i % 5 else None, f"Widget №{i}: {kinds[i % 4]}", kinds[i % 4],
             f"SELECT allocation, count(*)\n\tFROM servers -- {i}\n\tWHERE hostname LIKE '%\\_{i}%'\n GROUP BY 1;",
             f"({i % 4},{i // 4}),({i % 4 + 1},{i // 4 + 1})", {"refresh": 30 * i})
            for i, board in enumerate(boards)
        ),
    )  # fmt: skip
    yield Table(
        "public.list_widget_configs",
        ("id", "dashboard_id", "columns", "sort", "page_size"),
        tuple(
            (identifier("list", i), boards[i], ["hostname", "serial_number", names[i % 24]], "hostname" if i % 2 else "-updated_at", 25 * (i % 4 + 1))
            for i in range(12)
        ),
    )


def _activity(rows: int, servers: int) -> Table:
    users = _users()
    logs: Rows = []
    for index in range(rows):
        rng = _rng("activity", index)
        server = rng.randrange(servers)
        verb = rng.choice(("insert", "update", "update", "login", "export"))
        message = (
            AWKWARD[index]
            if index < len(AWKWARD)
            else f"{verb} of server {hostname(server)} in rack {_racks()[server % 48]}: {rng.choice(('planned', 'Störung', 'move', 'audit'))} {index}"
        )
        details: Value = (
            {"status": [rng.choice(STATUSES), rng.choice(STATUSES)], "ticket": f"DC-{rng.randrange(10000)}"} if verb == "update" else None
        )
        at = _START + timedelta(minutes=37 * index, milliseconds=index)
        logs.append((index + 1, at, None if index % 50 == 0 else users[index % 12], verb, "servers", identifier("server", server), message, details))
    return Table("public.activity_logs", ("id", "at", "user_id", "action", "entity", "entity_id", "message", "details"), tuple(logs))


ACTIVITY_ROWS = 756
SEQUENCES = {
    "public.activity_logs": "id",
    "public.power_specs": "id",
    "public.device_glossary": "id",
    "public.filter_defaults": "id",
    "auth.refresh_tokens": "id",
}


def tables(servers: int) -> Iterator[Table]:
    """Every table with its rows, in an order that foreign keys allow."""
    yield from _auth()
    yield from _reference()
    yield from _inventory(servers)
    yield from _settings()
    yield _activity(ACTIVITY_ROWS, servers)


def copy_field(value: Value) -> str:
    """One field in COPY's text format."""
    match value:
        case None:
            return r"\N"
        case bool():
            return "t" if value else "f"
        case bytes():
            return r"\\x" + value.hex()
        case datetime() | date():
            return value.isoformat()
        case list():
            text = "{" + ",".join('"' + item.replace("\\", "\\\\").replace('"', '\\"') + '"' for item in value) + "}"
        case dict():
            text = json.dumps(value, ensure_ascii=False)
        case _:
            text = str(value)
    for raw, escaped in (("\\", "\\\\"), ("\t", "\\t"), ("\n", "\\n"), ("\r", "\\r"), ("\x0b", "\\v")):
        text = text.replace(raw, escaped)
    return text
