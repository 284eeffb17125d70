"""Mapping templates: what API Gateway renders, and what it would render wrongly and is refused here."""

import json
from typing import Any

import pytest

from local_aws.vtl import BodyNotJson, Input, Overrides, TemplateFailure, json_path, render

BODY = {
    "text": 'it\'s "quoted" é/\n',
    "number": 400,
    "half": 0.5,
    "tiny": 1e-9,
    "yes": True,
    "nothing": None,
    "list": [1, 2],
    "map": {"inner": "deep", "odd key": "odd"},
}
CONTEXT = {
    "requestId": "id-1",
    "identity": {"sourceIp": "192.0.2.1"},
    "authorizer": {"claims": {"sub": "me", "cognito:groups": "[a b]"}},
}


def rendered(
    template: str, body: str | None = None, override: str = "responseOverride"
) -> tuple[str, Overrides]:
    request = Input(
        json.dumps(BODY) if body is None else body,
        headers={"x-model": "file-type"},
        querystring={"q": "one", "both": "query"},
        path_parameters={"name": "magika", "both": "path"},
    )
    return render(template, request, CONTEXT, {"release": "blue"}, override)


def text(template: str, body: str | None = None) -> str:
    return rendered(template, body)[0]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain { text } 100% # $ $1 #fff", "plain { text } 100% # $ $1 #fff"),
        ("$context.requestId ${context.identity.sourceIp}", "id-1 192.0.2.1"),
        ("$context.authorizer.claims.sub", "me"),
        ("$context.authorizer.claims['cognito:groups']", "[a b]"),
        ("$stageVariables.release", "blue"),
        ("$input.path('$.number') $input.path('$.half') $input.path('$.yes')", "400 0.5 true"),
        ("$input.path('$').map.inner $input.path('$.list')[1] $input.path('$.list[0]')", "deep 2 1"),
        ("$input.path(\"$.map['odd key']\")", "odd"),
        ("$input.json('$.list') $input.json('$.map.inner')", '[1,2] "deep"'),
        ("$input.params('name') $input.params('q') $input.params('X-Model')", "magika one file-type"),
        ("$input.params('both')", "path"),
        ("$input.params().querystring.get('both') $input.params().header.get('X-MODEL')", "query file-type"),
        ("#set($x = 'a$y')#set($z = \"b$context.requestId\")$x $z", "a$y bid-1"),
        ("#set($x = 1 + 2 * 3 - 4 / 2)$x", "5"),
        ("#set($x = (1 + 2) * 3)$x", "9"),
        ("#set($x = 'n' + 1)$x", "n1"),
        ("#set($l = ['a', 'b'])$l.size() $l.get(0) $l.contains('b')", "2 a true"),
        ("#set($m = {'a': 1})#set($ok = $m.put('b', 2))$m.b $m.containsKey('c')", "2 false"),
        ("#foreach($i in $input.path('$.list'))$i#if($foreach.hasNext),#end#end", "1,2"),
        ("#foreach($k in $input.params().path.keySet())[$k]#end", "[name][both]"),
        ("## a comment\nrest#* and another *#", "rest"),
        ("\\$context.requestId", "$context.requestId"),
    ],
)
def test_renders(template: str, expected: str) -> None:
    assert text(template) == expected


@pytest.mark.parametrize(
    ("condition", "branch"),
    [
        ("$input.path('$.number') == 400", "if"),
        ("$input.path('$.number') != 400", "else"),
        ("$input.path('$.number') >= 400 && $input.path('$.number') < 500", "if"),
        ("$input.path('$.yes')", "if"),
        ("!$input.path('$.yes')", "else"),
        ("$input.path('$.absent') == ''", "if"),
        ("$input.path('$.absent') != '' && $input.path('$.absent').size() > 0", "else"),
        ("$input.path('$.absent') == '' || $input.path('$.absent').size() > 0", "if"),
        ("$input.path('$.text').contains('quoted')", "if"),
        ("$input.path('$.map.inner').matches('d.*p')", "if"),
        ("true || false && false", "if"),
        ("$input.path('$.number') == 'other'", "else"),
    ],
)
def test_conditions(condition: str, branch: str) -> None:
    assert text(f"#if({condition})if#{{else}}else#end") == branch


def test_elseif_takes_the_first_that_holds() -> None:
    assert text("#if(false)a#elseif(true)b#elseif(true)c#{else}d#end") == "b"


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        ("escapeJavaScript($input.path('$.text'))", 'it\\\'s \\"quoted\\" \\u00E9\\/\\n'),
        ("escapeJavaScript('\U0001f600')", "\\uD83D\\uDE00"),
        ("urlEncode('a b/é')", "a+b%2F%C3%A9"),
        ("urlDecode('a+b%2F')", "a b/"),
        ("base64Encode('hi é')", "aGkgw6k="),
        ("base64Decode('aGkgw6k=')", "hi é"),
        ("parseJson('{\"a\":[1]}').a[0]", "1"),
    ],
)
def test_util(call: str, expected: str) -> None:
    assert text(f"$util.{call}") == expected


def test_escaped_text_embeds_in_json_once_its_apostrophes_are_restored() -> None:
    """The documented idiom: escapeJavaScript's \\' is no JSON."""
    template = """{"detail":"$util.escapeJavaScript($input.path('$.text')).replaceAll("\\\\'","'")"}"""
    assert json.loads(text(template)) == {"detail": BODY["text"]}


@pytest.mark.parametrize("template", ["$input.body", "$input.json('$')"])
def test_an_empty_body_reads_as_an_empty_object(template: str) -> None:
    assert text(template, body="") == "{}"


@pytest.mark.parametrize(
    "template",
    [
        "$input.path('$.absent')",
        "$context.authorizer.claims.absent",
        "$stageVariables.absent",
        "$input.params('absent')",
    ],
)
def test_what_a_request_lacks_is_empty(template: str) -> None:
    assert text(f"[{template}]") == "[]"


def test_a_quiet_reference_prints_nothing_for_null() -> None:
    assert text("[$!input.path('$.nothing')]") == "[]"


def test_setting_null_leaves_a_variable_as_it_was() -> None:
    assert text("#set($x = 'before')#set($x = $input.path('$.nothing'))$x") == "before"


def test_a_variable_set_in_a_branch_not_taken_is_null() -> None:
    template = "#if(false)#set($x = 'a')#end$!x"
    assert text(template) == ""
    with pytest.raises(TemplateFailure, match="null"):
        text(template.replace("$!x", "$x"))


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("$nothing", r"\$nothing is not set in the template"),
        ("$context.nothing", r"\$context\.nothing is not modelled; known: authorizer"),
        ("$util.nothing('x')", r"\$util\.nothing is not modelled"),
        ("$input.nothing", r"\$input\.nothing does not exist"),
        ("$input.json", "is a method"),
        ("$context.requestId('x')", "not a method|not modelled"),
        ("$input.path('$.text').toJSON()", "not modelled"),
        ("$input.path('$.number').length()", "not modelled"),
        ("$input.path('$.list').get(9)", "index"),
        ("$input.path('$.list')[9]", "no \\[9\\]"),
        ("$input.path('$.list')", r"use \$input\.json"),
        ("$input.path('$.map')", r"use \$input\.json"),
        ("$input.path('$.tiny')", "Java's notation"),
        ("$input.path('$.nothing')", "is null"),
        ("$input.path('$..number')", "is not modelled"),
        ("$input.path('$.list[*]')", "is not modelled"),
        ("$input.path('number')", "must start with"),
        ("#if($context.requestId)x#end", "not a boolean"),
        ("#if($input.path('$.absent'))x#end", "not a boolean"),
        ("#if($input.path('$.number') && true)x#end", "not a boolean"),
        ("#if(!$input.path('$.number'))x#end", "not a boolean"),
        ("#if($input.path('$.number') == '400')x#end", "the types differ"),
        ("#if($input.path('$.text') > 1)x#end", "not a number"),
        ("#if(true)x", "syntax"),
        ("#set($x =)", "syntax"),
        ("#set(", "syntax"),
        ("#end", "syntax"),
        ("#macro(a)x#end", "#macro is not modelled"),
        ("#include('x')", "#include is not modelled"),
        ("#return($input)", "#return is not modelled"),
        ("#unknown('x')", "no such macro|not set"),
        ("#set($context.requestId = 'x')", "cannot be written"),
        ("$util.base64Decode('***')", "base64Decode"),
        ("$util.parseJson('{')", "not JSON"),
    ],
)
def test_what_is_not_modelled_is_refused_with_a_reason(template: str, reason: str) -> None:
    with pytest.raises(TemplateFailure, match=reason):
        text(template)


@pytest.mark.parametrize("template", ["$input.json('$')", "$input.path('$.a')"])
def test_a_body_that_is_not_json_is_told_apart_from_a_bad_template(template: str) -> None:
    with pytest.raises(BodyNotJson):
        text(template, body="{oops")


def test_a_response_template_overrides_status_and_headers() -> None:
    template = (
        "#set($context.responseOverride.status = $input.path('$.number'))"
        "#set($context.responseOverride.header.Retry-After = 5)"
        "#set($context.responseOverride.header['X-Other'] = 'o')done"
    )
    body, overrides = rendered(template)
    assert body == "done"
    assert overrides == Overrides({"Retry-After": "5", "X-Other": "o"}, {}, {}, 400)


def test_a_request_template_overrides_header_query_and_path() -> None:
    template = "".join(
        f"#set($context.requestOverride.{group}.x = '{group}')" for group in ("header", "querystring", "path")
    )
    assert rendered(template, override="requestOverride")[1] == Overrides(
        {"x": "header"}, {"x": "querystring"}, {"x": "path"}, None
    )


@pytest.mark.parametrize(
    "template",
    [
        "#set($context.responseOverride.status = 200)#set($context.responseOverride.status = 200)",
        "#set($context.responseOverride.header.x = 'a')#set($context.responseOverride.header.x = 'b')",
    ],
)
def test_an_override_applies_once(template: str) -> None:
    with pytest.raises(TemplateFailure, match="second time"):
        text(template)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("#set($context.responseOverride.status = 99)", "not a status"),
        ("#set($context.responseOverride.status = 'x')", "not a status"),
        ("#set($context.responseOverride.other = 1)", "cannot be overridden"),
        ("#set($context.responseOverride.querystring.x = 1)", "cannot be|not modelled"),
        ("#set($context.requestOverride.header.x = 1)", "requestOverride is not modelled"),
    ],
)
def test_other_overrides_are_refused(template: str, reason: str) -> None:
    with pytest.raises(TemplateFailure, match=reason):
        text(template)


def test_client_text_is_never_evaluated_as_a_template() -> None:
    body = json.dumps({"text": "$context.requestId #if(true)x#end"})
    assert text("$input.path('$.text')", body=body) == "$context.requestId #if(true)x#end"
    assert text("#set($x = $input.path('$.text'))$x", body=body) == "$context.requestId #if(true)x#end"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("$", BODY),
        ("$.map.inner", "deep"),
        ("$['map']['odd key']", "odd"),
        ("$.list[1]", 2),
        ("$.list[5]", ""),
        ("$.text.x", ""),
    ],
)
def test_json_path(path: str, value: Any) -> None:
    assert json_path(BODY, path) == value
