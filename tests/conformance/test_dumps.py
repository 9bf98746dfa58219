"""What counts as a difference between two dumps, and what does not."""

from __future__ import annotations

from tests.conformance.dumps import bare, difference, gone, lost_since

HEAD = "--\n-- PostgreSQL database dump\n--\n\n-- Dumped from database version 15.18\n\nSET client_encoding = 'UTF8';\n\n"


def entry(name: str, kind: str, body: str, owner: str = "app") -> str:
    word = "Data for Name" if kind == "TABLE DATA" else "Name"
    return f"--\n-- {word}: {name}; Type: {kind}; Schema: public; Owner: {owner}\n--\n\n{body}\n\n"


def rows(name: str, *values: str) -> str:
    return entry(name, "TABLE DATA", f"COPY public.{name} (a) FROM stdin;\n" + "".join(f"{value}\n" for value in values) + "\\.\n")


def dump(*entries: str) -> str:
    return HEAD + "".join(entries) + "--\n-- PostgreSQL database dump complete\n--\n\n"


T = entry("t", "TABLE", "CREATE TABLE public.t (\n    a text\n);\n\n\nALTER TABLE public.t OWNER TO app;")
U = entry("u", "VIEW", "CREATE VIEW public.u AS\n SELECT 1 AS a;\n\n\nALTER TABLE public.u OWNER TO app;")
GRANT = entry("TABLE t", "ACL", "GRANT SELECT ON TABLE public.t TO reader;")


def test_neither_the_order_of_entries_nor_that_of_rows_matters() -> None:
    assert difference(dump(T, U, rows("t", "x", "", "y")), dump(U, T, rows("t", "y", "x", ""))) == ""


def test_large_objects_may_be_the_last_entry_or_not() -> None:
    blobs = "--\n-- Data for Name: BLOBS; Type: BLOBS; Schema: -; Owner: -\n--\n\nBEGIN;\n\nSELECT pg_catalog.lo_close(0);\n\nCOMMIT;\n\n"
    assert difference(dump(T, blobs, rows("t", "x")), dump(T, rows("t", "x"), blobs)) == ""
    assert difference(dump(T, blobs), dump(T, blobs.replace("lo_close(0)", "lowrite(0, 'x')")))


def test_a_row_more_or_less_matters() -> None:
    for other in (["x"], ["x", "", ""], ["x", "y"], ["x", "", "--"]):
        assert difference(dump(T, rows("t", "x", "")), dump(T, rows("t", *other)))


def test_rows_that_are_loaded_by_their_root_may_lie_in_another_partition() -> None:
    rooted = [rows(name, *values).replace("\n--\n\n", "\n--\n\n-- load via partition root public.r\n") for name, values in (("a", "12"), ("b", "3"))]
    moved = [rows(name, *values).replace("\n--\n\n", "\n--\n\n-- load via partition root public.r\n") for name, values in (("a", "1"), ("b", "32"))]
    same = [text.replace("COPY public.a", "COPY public.r").replace("COPY public.b", "COPY public.r") for text in (*rooted, *moved)]
    assert difference(dump(*same[:2]), dump(*same[2:])) == ""
    assert difference(dump(*same[:2]), dump(*same[2:]).replace("\n3\n", "\n4\n"))


def test_owners_and_privileges_count_unless_left_out() -> None:
    other = dump(T.replace("OWNER TO app", "OWNER TO eve").replace("Owner: app", "Owner: eve"))
    assert difference(dump(T, GRANT), other)
    assert difference(bare(dump(T, GRANT)), bare(other)) == ""
    assert difference(bare(dump(T)), bare(dump(T.replace("a text", "a int"))))


def test_a_replace_may_keep_what_is_newer_and_nothing_else() -> None:
    drifted = dump(T.replace("a text", "a int"), U)
    assert lost_since(dump(T), dump(T, U), drifted) == ""
    assert lost_since(dump(T), dump(U), drifted)
    assert lost_since(dump(T), dump(T, U, GRANT), drifted)


def test_what_is_gone_is_named() -> None:
    assert gone(dump(T), dump(T), dump(T, U)) == ["u"]
    assert gone(dump(T), dump(T, U), dump(T, U)) == []


def large(name: str, kind: str, body: str) -> str:
    return entry(name, kind, body).replace("-- Name:", "-- Data for Name:" if kind == "BLOBS" else "-- Name:")


def test_large_objects_may_be_told_of_together() -> None:
    def data(*written: str) -> str:
        told = "".join(
            f"SELECT pg_catalog.lo_open('{o}', 131072);\nSELECT pg_catalog.lowrite(0, '{o}');\nSELECT pg_catalog.lo_close(0);\n\n" for o in written
        )
        return f"BEGIN;\n\n{told}COMMIT;\n"

    def made(*created: str) -> str:
        owned = "".join(f"ALTER LARGE OBJECT {o} OWNER TO app;\n" for o in created)
        return "".join(f"SELECT pg_catalog.lo_create('{o}');\n" for o in created) + f"\n{owned}"

    apart = dump(*(large(o, "BLOB METADATA", made(o)) for o in "12"), *(large(o, "BLOBS", data(o)) for o in "12"))
    together = dump(large("1..2", "BLOB METADATA", made("1", "2")), large("1..2", "BLOBS", data("1", "2")))
    assert difference(apart, together) == ""
    other = together.replace("2 OWNER TO app", "2 OWNER TO eve")
    assert difference(apart, other)
    assert difference(bare(apart), bare(other)) == ""
    assert difference(apart, together.replace("lowrite(0, '2')", "lowrite(0, '3')"))
    assert difference(apart, dump(large("1..2", "BLOB METADATA", made("1", "2")), large("1", "BLOBS", data("1"))))
