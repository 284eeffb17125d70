"""Logs Insights' query language, as AWS documents it: each rule on records that show it."""

import contextlib
import json
import re
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from local_aws.insights import engine, language
from local_aws.insights.language import MalformedQuery

START = 1_700_000_000_000  # 2023-11-14 22:13:20 UTC


def events(*messages: str | dict[str, Any], every_ms: int = 1000) -> list[engine.Event]:
    texts = [message if isinstance(message, str) else json.dumps(message) for message in messages]
    return [
        engine.Event(START + number * every_ms, text, "000000000000:/group", "stream", START, f"p{number}")
        for number, text in enumerate(texts)
    ]


def run(query: str, records: Iterable[engine.Event], limit: int | None = None) -> list[dict[str, str]]:
    rows = engine.run(language.parse(query), records, limit).rows
    return [{name: value for name, value in row.items() if name != "@ptr"} for row in rows]


def numbers(*values: Any) -> list[engine.Event]:
    return events(*({"n": value} for value in values))


def shown(expression: str, record: dict[str, Any] | str) -> str | None:
    return run(f"display {expression} as x", events(record))[0].get("x")


# What a record holds


def test_without_fields_the_newest_records_come_first_with_time_message_and_pointer() -> None:
    result = engine.run(language.parse("limit 2"), events("a", "b", "c"))
    assert result.rows == [
        {"@timestamp": "2023-11-14 22:13:22.000", "@message": "c", "@ptr": "p2"},
        {"@timestamp": "2023-11-14 22:13:21.000", "@message": "b", "@ptr": "p1"},
    ]
    assert (result.matched, result.scanned, result.bytes_scanned) == (3, 3, 3)


def test_fields_of_json_are_found_by_their_path() -> None:
    record = {"a": {"b": [10, {"c": "deep"}]}, "yes": True, "none": None, "@own": "x", "dash-ed": 1}
    assert shown("a.b.1.c", record) == "deep"
    assert shown("a.b.0", record) == "10"
    assert shown("yes", record) == "1"
    assert shown("none", record) is None
    assert shown("@@own", record) == "x"
    assert shown("`dash-ed`", record) == "1"
    assert shown("@log", record) == "000000000000:/group"


def test_the_report_line_of_a_function_has_its_durations() -> None:
    line = (
        "REPORT RequestId: abc\tDuration: 1.50 ms\tBilled Duration: 2 ms\tMemory Size: 128 MB\t"
        "Max Memory Used: 64 MB\tInit Duration: 99.9 ms"
    )
    query = "display @type, @requestId, @duration, @billedDuration, @initDuration, @maxMemoryUsed"
    assert run(query, events(line)) == [
        {
            "@type": "REPORT",
            "@requestId": "abc",
            "@duration": "1.50",
            "@billedDuration": "2",
            "@initDuration": "99.9",
            "@maxMemoryUsed": "64000000",
        }
    ]


@pytest.mark.parametrize("message", ["{", '{"a": NaN}', '{"a": ' + "[" * 5000, "not json", "{}", ""])
def test_a_line_that_is_not_json_is_only_a_message(message: str) -> None:
    assert run("fields @message, a", events(message))[0]["@message"] == message


# Commands


def test_fields_adds_columns_and_display_replaces_them() -> None:
    record = events({"a": 1, "b": 2})
    assert run("fields a | fields b as c, a + c as d", record) == [{"a": "1", "c": "2", "d": "3"}]
    assert run("fields a | display b", record) == [{"b": "2"}]


@pytest.mark.parametrize(
    ("condition", "kept"),
    [
        ("n = 2", ["2"]),
        ("n != 2", ["1", "3"]),
        ("n >= 2", ["2", "3"]),
        ("n < 2 or n > 2", ["1", "3"]),
        ("not n = 2 and not n = 3", ["1"]),
        ("n in [1, '3']", ["1", "3"]),
        ("n not in [1, 3]", ["2"]),
        ("(n = 1 or n = 2) and n % 2 = 0", ["2"]),
        ("@message like '\"n\": 2'", ["2"]),
        ("@message like /[12]}$/", ["1", "2"]),
        ("@message =~ /[12]}$/", ["1", "2"]),
        ('@message not like /(?i)N": 1/', ["2", "3"]),
        ("ispresent(n) and absent = 1", []),
        ("not ispresent(absent)", ["1", "2", "3"]),
        ("absent != 1", []),
    ],
)
def test_filter_keeps_the_records_for_which_it_holds(condition: str, kept: list[str]) -> None:
    rows = run(f"fields n | filter {condition} | sort n", numbers(1, 2, 3))
    assert [row["n"] for row in rows] == kept


def test_a_text_that_is_a_number_compares_as_one() -> None:
    assert (
        len(run('filter status >= 500 and status = "503"', events({"status": "503"}, {"status": "60"}))) == 1
    )


def test_parse_takes_fields_out_by_wildcards_or_by_named_groups() -> None:
    [row] = run(
        'parse @message "user=*, took * ms" as who, took | parse who /(?<first>\\w)(?<rest>\\w*)/ '
        "| display who, took, first, rest",
        events("user=ada, took 12 ms"),
    )
    assert row == {"who": "ada", "took": "12", "first": "a", "rest": "da"}
    assert run('parse @message "x=*" as x | display x', events("nothing")) == [{}]


def test_stats_groups_by_fields_and_names_columns_by_alias_or_by_their_own_text() -> None:
    records = events({"k": "a", "n": 1}, {"k": "b", "n": "2"}, {"k": "a", "n": 3}, {"n": 4})
    rows = run("stats count(*), sum(n) as total, avg(n) by k | sort k desc", records)
    assert rows == [
        {"k": "b", "count(*)": "1", "total": "2", "avg(n)": "2"},
        {"k": "a", "count(*)": "2", "total": "4", "avg(n)": "2"},
        {"count(*)": "1", "total": "4", "avg(n)": "4"},
    ]


@pytest.mark.parametrize(
    ("aggregate", "value"),
    [
        ("count(*)", "5"),
        ("count()", "5"),
        ("count(n)", "4"),
        ("count_distinct(n)", "3"),
        ("sum(n)", "16"),
        ("avg(n)", "4"),
        ("min(n)", "1"),
        ("max(n)", "10"),
        ("pct(n, 50)", "1"),
        ("pct(n, 100)", "10"),
        ("earliest(n)", "1"),
        ("latest(n)", "4"),
        ("sortsFirst(@message)", '{"m": 0}'),
        ("sum(n * 10 / 100)", "1.6"),
        ("(max(n) - min(n)) / 7", "1.2857"),
        ("max(absent)", None),
    ],
)
def test_aggregates_skip_records_without_the_value(aggregate: str, value: str | None) -> None:
    records = events({"n": 1}, {"n": 1}, {"m": 0}, {"n": 10}, {"n": 4})
    assert run(f"stats {aggregate} as x", records)[0].get("x") == value


def test_an_aggregate_can_use_the_names_of_those_before_it() -> None:
    assert run("stats sum(n) as s, count(*) as c, s / c as mean", numbers(1, 2)) == [
        {"s": "3", "c": "2", "mean": "1.5"}
    ]


def test_counting_nothing_is_zero_and_grouping_nothing_is_no_row() -> None:
    assert run("filter n > 9 | stats count(*) as c", numbers(1)) == [{"c": "0"}]
    assert run("filter n > 9 | stats count(*) as c by n", numbers(1)) == []


def test_bin_groups_by_time() -> None:
    records = events(*({"n": n} for n in range(4)), every_ms=60_000)
    rows = run("stats count(*) as c by bin(2m) | sort `bin(2m)`", records)
    assert rows == [
        {"bin(2m)": "2023-11-14 22:12:00.000", "c": "1"},
        {"bin(2m)": "2023-11-14 22:14:00.000", "c": "2"},
        {"bin(2m)": "2023-11-14 22:16:00.000", "c": "1"},
    ]


def test_a_second_stats_sums_up_the_first() -> None:
    records = events({"id": 1, "who": "ada"}, {"id": 1, "took": 5}, {"id": 2, "who": "bob"})
    query = (
        "stats max(who) as client, max(took) as ms by id | filter ispresent(client) "
        "| stats count(*) as requests, sum(ms) as total by client | sort client"
    )
    assert run(query, records) == [
        {"client": "ada", "requests": "1", "total": "5"},
        {"client": "bob", "requests": "1", "total": "0"},
    ]


def test_sort_is_natural_texts_before_numbers() -> None:
    values = ["10", "A", "!", "5A", "111A", "@", "a12345hfh", "A9876fghj", "2345_", "0", "3", "0#"]
    rows = run("fields n | sort n asc", numbers(*values))
    order = ["!", "0#", "5A", "111A", "2345_", "@", "A", "A9876fghj", "a12345hfh", "0", "3", "10"]
    assert [row["n"] for row in rows] == order
    assert [row["n"] for row in run("fields n | sort n desc", numbers(*values))] == order[::-1]


def test_sort_by_two_keys() -> None:
    records = events({"a": 1, "b": 1}, {"a": 2, "b": 1}, {"a": 1, "b": 2})
    rows = run("fields a, b | sort a desc, b asc", records)
    assert [(row["a"], row["b"]) for row in rows] == [("2", "1"), ("1", "1"), ("1", "2")]


def test_dedup_keeps_the_first_of_each_and_all_that_lack_the_field() -> None:
    records = events({"k": 1, "n": 1}, {"k": 1, "n": 2}, {"n": 3}, {"n": 4})
    rows = run("fields n | sort n | dedup k", records)
    assert [row["n"] for row in rows] == ["1", "3", "4"]


def test_the_smaller_limit_counts() -> None:
    assert len(run("limit 3", numbers(*range(5)), limit=2)) == 2
    assert len(run("limit 2", numbers(*range(5)), limit=3)) == 2


def test_comments_and_lines_do_not_matter() -> None:
    assert run("# all of it\nstats # here too\n  count(*) as c\n", numbers(1)) == [{"c": "1"}]


# Functions


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("1 + 2 * 3 ^ 2 - -1", "20"),
        ("7 % 4", "3"),
        ("1 / 0", None),
        ("1 / 3", "0.3333"),
        ("t + 1", None),
        ("9 ^ 9 ^ 9", None),
        ("abs(-2.5)", "2.5"),
        ("ceil(1.2) + floor(1.8)", "3"),
        ("greatest(1, 3, 2)", "3"),
        ("least(1, absent)", None),
        ("sqrt(9)", "3"),
        ("sqrt(0 - 1)", None),
        ("strlen(t)", "5"),
        ("concat(toupper(t), '!', absent)", " HI  !"),
        ("trim(t)", "hi"),
        ("ltrim(t)", "hi  "),
        ("substr(t, 1, 2)", "hi"),
        ("replace(t, 'hi', 'ho')", " ho  "),
        ("strcontains(t, 'hi')", "1"),
        ("coalesce(absent, t, 1)", " hi  "),
        ("isempty(absent)", "1"),
        ("isblank('  ')", "1"),
        ("datefloor(@timestamp, 1h)", "2023-11-14 22:00:00.000"),
        ("dateceil(@timestamp, 1hr)", "2023-11-14 23:00:00.000"),
        ("toMillis(@timestamp)", str(START)),
        ("fromMillis(0)", "1970-01-01 00:00:00.000"),
        ("isIpv4InSubnet('10.0.1.2', '10.0.0.0/16')", "1"),
        ("isValidIpv6('10.0.0.1')", "0"),
    ],
)
def test_functions_and_operators(expression: str, value: str | None) -> None:
    assert shown(expression, {"t": " hi  "}) == value


# Refusals


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "unexpected end"),
        ("fields", "unexpected end"),
        ("fields a |", "unexpected end"),
        ("fields a b", "unexpected symbol found b at line 1 and position 10"),
        ("fields a\n| filter )", "unexpected symbol found ) at line 2 and position 10"),
        ("pattern @message", "does not run the command pattern"),
        ("explode @message", "explode is not a command"),
        ("fields jsonParse(@message)", "jsonParse is not a function"),
        ("filter count(*) > 1", "count can only be used in stats"),
        ("stats a by b", "a is neither aggregated"),
        ("stats sum(*)", "sum does not take *"),
        ("stats pct(a)", "pct does not take 1 arguments"),
        ("stats count(*) by bin(5)", "Argument 1 of bin must be a period"),
        ("stats count(*) by bin(5 parsecs)", "5 parsecs is not a period"),
        ("filter strlen(5m) > 1", "must not be a period"),
        ("limit 10001", "limit must be"),
        ("limit 0", "limit must be"),
        ("filter a like /(/", "Invalid regular expression"),
        ("parse a /x/", "names no group"),
        ('parse a "*,*" as b', "2 wildcards for 1 names"),
        ("dedup a | fields b", "Only limit can follow dedup"),
        ("stats count(*) as a | stats max(a) as b | stats max(b)", "at most two stats"),
        ("stats count(*) as a by b | sort a | stats max(a)", "must come after the second stats"),
        ("stats max(a) as b by c | stats latest(b)", "no times to go by"),
        ("filter " + "(" * 60 + "a" + ")" * 60, "nested"),
        ("filter " + "a + " * 300 + "a", "at most 200 operators"),
    ],
)
def test_what_cannot_be_run_is_refused_by_name(query: str, message: str) -> None:
    with pytest.raises(MalformedQuery, match=re.escape(message)) as refused:
        language.parse(query)
    assert 0 <= refused.value.start <= refused.value.end <= len(query)


# Properties

names = st.sampled_from(["a", "b.c", "@message", "`d e`", "n"])
constants = st.one_of(
    st.integers(-1000, 1000).map(lambda n: f"({n})" if n < 0 else str(n)),
    st.floats(0, 1e6).map(lambda number: f"{number:.3f}"),
    st.text("abc \\'%", max_size=5).map(json.dumps),
)
expressions = st.recursive(
    st.one_of(names, constants),
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from("+-*/%^"), inner).map(" ".join),
        st.tuples(inner, st.sampled_from(["=", "!=", "<", ">="]), inner).map(lambda t: f"({' '.join(t)})"),
        st.tuples(inner, st.sampled_from(["and", "or"]), inner).map(lambda t: f"({' '.join(t)})"),
        inner.map(lambda one: f"(not {one})"),
        st.tuples(st.sampled_from(["strlen", "abs", "ispresent", "coalesce"]), inner).map(
            lambda t: f"{t[0]}({t[1]})"
        ),
        st.lists(inner, min_size=1, max_size=3).map(lambda many: f"(a in [{', '.join(many)}])"),
    ),
    max_leaves=12,
)
commands = st.one_of(
    expressions.map(lambda one: f"fields {one} as n"),
    expressions.map(lambda one: f"filter {one}"),
    expressions.map(lambda one: f"sort {one} desc"),
    st.integers(1, 10_000).map(lambda n: f"limit {n}"),
)
leaves = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(allow_nan=False), st.text(max_size=5))
documents = st.fixed_dictionaries({}, optional={"a": leaves, "b": st.dictionaries(st.just("c"), leaves)})


@settings(max_examples=60, deadline=None)
@given(st.lists(commands, min_size=1, max_size=4), st.lists(documents, max_size=5))
def test_every_query_of_the_grammar_runs_on_every_record(
    pipeline: list[str], records: list[dict[str, Any]]
) -> None:
    result = engine.run(language.parse(" | ".join(pipeline)), events(*records))
    assert len(result.rows) <= result.scanned == len(records)
    assert all(isinstance(value, str) for row in result.rows for value in row.values())


@settings(max_examples=60, deadline=None)
@given(st.text(st.sampled_from("fieldsfilterstatsbycountsort |()[]*,=<'\"/`@#.0159 \n"), max_size=40))
def test_any_text_is_read_or_refused(text: str) -> None:
    # Any other exception fails the test.
    with contextlib.suppress(MalformedQuery):
        assert language.parse(text)
