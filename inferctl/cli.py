"""The command line: what each command is called, takes, prints and returns. What they do is elsewhere."""

import shlex
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import click
from rich.text import Text

import local_aws
from catalog import CatalogError, load_accepted_changes, load_catalog, load_environment, load_platform
from catalog.environment import LOCAL
from inferctl import (
    bench,
    cdk,
    demo,
    deployment,
    doctor,
    drift,
    environment,
    health,
    load,
    publishing,
    queries,
    releases,
    serving,
    stacks,
    tensors,
)
from inferctl.commands import CommandError, Commands
from inferctl.environment import ROOT
from inferctl.errors import (
    INTERRUPTED,
    UNREACHABLE,
    USAGE,
    InferctlError,
    InputError,
    ProblemError,
    UnreachableError,
)
from inferctl.output import Output
from inferctl.review import report, templates

F = TypeVar("F", bound=Callable[..., Any])

EXIT_STATUSES = """\b
Exit status:
  0    done
  1    the service answered an error, or the command failed
  2    wrong usage, or a wrong file in config/ or models/
  3    the environment is not up, not deployed, or does not answer
  4    no credentials, or not allowed
  130  interrupted"""


@dataclass
class Session:
    """What the options before the command said."""

    environment: str
    as_json: bool = False

    @property
    def output(self) -> Output:
        return Output(as_json=self.as_json)


class Inferctl(click.Group):
    """Lists commands in the order of use, and turns errors into a message and an exit status."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            with environment.aws_errors():
                return super().invoke(ctx)
        except InferctlError as error:
            _fail(ctx, error, error.exit_status)
        except CatalogError as error:
            _fail(ctx, error, USAGE)
        except local_aws.LocalAwsError as error:
            _fail(ctx, error, UNREACHABLE)
        except KeyboardInterrupt:
            Output().note("Interrupted.")
            ctx.exit(INTERRUPTED)


def _fail(ctx: click.Context, error: Exception, status: int) -> None:
    session = ctx.find_object(Session) or Session(LOCAL)
    document: dict[str, Any] = {"error": str(error), "exit_status": status}
    if isinstance(error, ProblemError):
        document["problem"] = error.document()
    session.output.error(str(error), document)
    ctx.exit(status)


def _json_option(command: F) -> F:
    """`--json` after the command means the same as before it."""

    def remember(ctx: click.Context, _: click.Parameter, given: bool) -> None:
        session = ctx.find_object(Session)
        if given and session is not None:
            session.as_json = True

    return click.option(
        "--json",
        is_flag=True,
        expose_value=False,
        callback=remember,
        help="Print the result as one JSON document.",
    )(command)


client_option = click.option(
    "--client", metavar="NAME", help="App client to call as. [default: the first that may invoke]"
)

device_option = click.option(
    "--device", type=click.Choice(serving.DEVICES), default="auto", show_default=True,
    help="Where a model that is served here runs; `auto` takes the GPU where there is one.",
)  # fmt: skip


@click.group(
    cls=Inferctl,
    epilog=EXIT_STATUSES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option(
    "--env", "name", envvar="INFERENCE_ENV", default=LOCAL, show_default=True, metavar="NAME",
    help="Environment, a file of config/. Also INFERENCE_ENV.",
)  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print results as one JSON document.")
@click.pass_context
def cli(ctx: click.Context, name: str, as_json: bool) -> None:
    """Bring the inference platform up, see how it is, and call its models.

    \b
    On this machine, without an AWS account:
      inferctl up
      inferctl models
      inferctl infer text-embedding --text "How do I reset my password?"
      inferctl infer file-type --file photo.jpg
      inferctl down

    \b
    In an AWS account that `cdk deploy` has brought up:
      inferctl --env dev status
      inferctl --env dev infer file-type request.json
    """
    ctx.obj = Session(name, as_json)


@cli.command()
@click.option(
    "--port", type=click.IntRange(0, 65535), help="Port on loopback; 0 takes a free one. [default: 4566]"
)
@_json_option
@click.pass_obj
def up(session: Session, port: int | None) -> None:
    """Deploy the app to an embedded AWS on this machine, and leave it running.

    Starts the embedded AWS on loopback (TLS, IAM enforced) and runs the real `cdk bootstrap` and
    `cdk deploy --all`. When it is up already, deploys what has changed.

    \b
      inferctl up
      inferctl up --port 8443
    """
    _only_local(session, "up", "To deploy to AWS: `make synth ENV={0}`, look at it, then "
                "`npx cdk deploy --all --app cdk.out/{0}`.")  # fmt: skip
    started = time.monotonic()
    try:
        with session.output.board("Deploying to the embedded AWS") as board:
            state = deployment.up(board, port=port)
    except CommandError:
        session.output.note(
            "The embedded AWS, if it started, is left running: look, run this again, or stop it."
        )
        raise
    deployed = environment.find(LOCAL)
    document = {
        "api_url": deployed.api_url,
        "aws_endpoint_url": state.endpoint,
        "ca_bundle": state.ca_bundle,
        "seconds": round(time.monotonic() - started, 1),
    }
    session.output.result(document, Text(_how_to_call(deployed.api_url, state.ca_bundle)))


@cli.command()
@_json_option
@click.pass_obj
def down(session: Session) -> None:
    """Stop the embedded AWS and everything that runs in it.

    Nothing deployed to it remains; running it again does no harm.
    """
    _only_local(session, "down", "To take it down: `npx cdk destroy --all --context env={0}`.")
    stopped = deployment.down()
    session.output.result({"stopped": stopped}, "Stopped." if stopped else "Nothing was running.")


@cli.command()
@click.option("--watch", is_flag=True, help="Follow the releases that are under way, until they have ended.")
@_json_option
@click.pass_obj
def status(session: Session, watch: bool) -> None:
    """Show the environment's stacks, models and address.

    \b
      inferctl status
      inferctl status --watch
      inferctl --env prod --json status | jq '.models[] | select(.status != "InService")'
    """
    catalog = load_catalog(ROOT / "models")
    aws = environment.connect(session.environment)
    if watch:
        under_way = releases.under_way(aws, session.environment, [spec.name for spec in catalog])
        executions = {release.execution: release.model for release in under_way}
        for release in releases.watch(aws, session.environment, executions):
            session.output.note(release.progress)
    found = stacks.deployed(aws, session.environment)
    if not found:
        raise UnreachableError(
            f"The environment {session.environment!r} has no stacks here: it is not deployed."
        )
    models = health.models(aws, session.environment, catalog)
    try:
        address = environment.find(session.environment).api_url
    except UnreachableError:
        address = None  # the stacks that publish the address are not there yet
    output = session.output
    output.result(
        {
            "environment": session.environment,
            "api_url": address,
            "stacks": [stack.document() for stack in found],
            "models": [model.document() for model in models],
        },
        output.table("Stacks", ("stack", "status"), [(stack.name, stack.status) for stack in found]),
        "",
        output.table(
            "Models",
            ("model", "target", "live version", "status"),
            [(m.name, m.target, (m.live or "none")[:12], m.status) for m in models],
        ),
        "",
        Text(f"API  {address or 'not deployed'}"),
    )


@cli.command("releases")
@click.argument("model", required=False)
@click.option("--last", default=10, show_default=True, metavar="N", help="Of each model at most.")
@_json_option
@click.pass_obj
def history(session: Session, model: str | None, last: int) -> None:
    """Show which versions were released when, by whom, and how that ended.

    \b
      inferctl releases
      inferctl --env prod releases file-type --json | jq '.releases[0].reason'
    """
    models = [model] if model else [spec.name for spec in load_catalog(ROOT / "models")]
    aws = environment.connect(session.environment)
    found = [one for name in models for one in releases.history(aws, session.environment, name, last=last)]
    found.sort(key=lambda release: release.started, reverse=True)
    session.output.result(
        {"releases": [one.document() for one in found]},
        session.output.table(
            "Releases",
            ("started", "model", "version", "artifact", "status", "source", "who", "why or reason"),
            [
                (
                    one.started[:19], one.model, one.version, one.sha256[:12], one.status, one.source,
                    one.who, one.reason or one.why,
                )
                for one in found
            ],
        ),
    )  # fmt: skip


@cli.command()
@click.argument("model")
@click.option("--to", metavar="VERSION", help="A version that was live. [default: the one before]")
@click.option("--why", default="", metavar="TEXT", help="For the history.")
@click.option("--no-wait", is_flag=True, help="Start it and do not wait for its end.")
@_json_option
@click.pass_obj
def rollback(session: Session, model: str, to: str | None, why: str, no_wait: bool) -> None:
    """Bring back the version of MODEL that was live before.

    It gets all requests at once, without a canary, and must say that it is the one. Seconds on Lambda; on
    SageMaker as long as instances take to start.

    \b
      inferctl rollback file-type --why "labels are wrong"
      inferctl rollback file-type --to 1.0.0
    """
    aws = environment.connect(session.environment)
    execution = releases.rollback(aws, session.environment, model, to=to, why=why)
    if no_wait:
        session.output.result({"execution": execution}, f"Started: {execution}")
        return
    done = _follow(session, aws, model, execution)
    session.output.result(done.document(), f"{done.model} {done.version} ({done.sha256[:12]}) is live.")


def _follow(session: Session, aws: environment.Aws, model: str, execution: str) -> releases.Release:
    """Show a release's progress until it has ended; raises InferctlError if it did not go live."""
    release = None
    for release in releases.follow(aws, session.environment, model, execution):
        session.output.note(release.progress)
    if release is None or release.status != releases.LIVE:
        said = f"{release.status}: {release.reason}" if release else "it left no trace in the history"
        raise InferctlError(f"{model} was not released. {said}")
    return release


@cli.command("doctor")
@click.option("--env", "name", metavar="NAME", help="The same as before the command.")
@_json_option
@click.pass_obj
def preflight(session: Session, name: str | None) -> None:
    """Ask the account, before a deployment does, whether the environment fits.

    Checks credentials, region, zones, bootstrap, quotas, images and network, and shows the price of the
    GPUs. It only reads, takes seconds, and exits with 1 when a deployment would fail: each line has the
    remedy, and the code of the quota to raise.

    \b
      inferctl doctor --env prod
      inferctl --env prod doctor --json | jq '.findings[] | select(.state != "ok")'
    """
    session.environment = name or session.environment
    platform = load_platform(ROOT, session.environment)
    aws = environment.connect(session.environment)
    findings = doctor.examine(doctor.Preflight(platform.environment, platform.models, aws))
    output = session.output
    failed = [finding.check for finding in findings if finding.state == doctor.FAILED]
    rows = [(finding.state, finding.check, finding.found) for finding in findings]
    # Below the table, where a command to copy is not broken into a column.
    remedies = [f"{finding.check}\n  {finding.remedy}" for finding in findings if finding.remedy]
    output.result(
        {
            "environment": session.environment,
            "region": platform.environment.region,
            "failed": len(failed),
            "findings": [finding.document() for finding in findings],
        },
        output.table("Preflight", ("state", "check", "found"), rows),
        *(Text(remedy) for remedy in ["", *remedies] if remedies),
    )
    if failed:
        raise InferctlError(f"Not ready to deploy: {', '.join(failed)}.")


@cli.command()
@client_option
@click.option(
    "--scope", "scopes", multiple=True, metavar="SCOPE",
    help="A scope to ask for, as `invoke`; again for more. [default: all that the client has]",
)  # fmt: skip
@_json_option
@click.pass_obj
def token(session: Session, client: str | None, scopes: tuple[str, ...]) -> None:
    """Print an access token, taken with OAuth2 client credentials.

    The credentials are read from Secrets Manager, inference/<env>/clients/<name>.

    \b
      TOKEN=$(inferctl token)
      inferctl --env dev token --client operator
      inferctl token --scope invoke.text-embedding
    """
    tokens = environment.find(session.environment).tokens(client, scopes=scopes)
    access_token = tokens()
    document = {"access_token": access_token, "token_type": "Bearer", "expires_in": tokens.expires_in}
    session.output.result(document, Text(access_token))


@cli.command()
@client_option
@_json_option
@click.pass_obj
def models(session: Session, client: str | None) -> None:
    """List the models that the API serves.

    \b
      inferctl models
      inferctl --env prod models --json
    """
    with environment.find(session.environment).client(client) as api:
        served = api.models()
    output = session.output
    rows = [(m["name"], m["target"], str(m.get("artifact_sha256") or "none")[:12]) for m in served]
    output.result(served, output.table("Models", ("model", "target", "live version"), rows))


@cli.command()
@click.argument("model")
@click.argument("request_file", required=False, metavar="[REQUEST]")
@click.option("--body", metavar="JSON", help="The request itself.")
@click.option(
    "--file", "files", multiple=True, metavar="PATH",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file whose bytes are the input; again for more in one request.",
)  # fmt: skip
@click.option(
    "--text", "texts", multiple=True, help="A text that is the input; again for more in one request."
)
@client_option
@_json_option
@click.pass_obj
def infer(
    session: Session,
    model: str,
    request_file: str | None,
    body: str | None,
    files: tuple[Path, ...],
    texts: tuple[str, ...],
    client: str | None,
) -> None:
    """Ask MODEL, and print its answer.

    The request is a file with an Open Inference Protocol v2 document, or `-` for standard input. For a
    model that takes one tensor of bytes, --file and --text make the request from the model's signature.

    \b
      inferctl infer file-type --file photo.jpg --file notes.txt
      inferctl infer text-embedding --text "one sentence" --text "another"
      inferctl infer text-embedding models/text-embedding/sample.json
      inferctl infer text-embedding - < request.json
      inferctl infer text-embedding --json \\
        --body '{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["Hi"]}]}'
    """
    if sum((request_file is not None, body is not None, bool(files), bool(texts))) != 1:
        raise click.UsageError("Give exactly one of REQUEST, --body, --file and --text.")
    request = _given_request(request_file, body)
    values: list[str | bytes] = [*(path.read_bytes() for path in files), *texts]
    with environment.find(session.environment).client(client, model=model) as api:
        answer = api.infer(model, request or tensors.request(api.metadata(model), values))
    output = session.output
    columns, rows = tensors.rows(answer)
    output.result(answer, output.table(f"{answer['model_name']} {answer['model_version']}", columns, rows))


@cli.command()
@click.argument("model")
@click.argument("source")
@click.option("--why", default="", metavar="TEXT", help="What is better, for the history.")
@click.option(
    "--breaking", is_flag=True, help="Clients of the live version may fail: its signature may change."
)
@click.option("--no-wait", is_flag=True, help="Return when it is uploaded, not when it is live.")
@_json_option
@click.pass_obj
def publish(session: Session, model: str, source: str, why: str, breaking: bool, no_wait: bool) -> None:
    """Upload a version of MODEL from SOURCE, and follow its release until it is live or refused.

    SOURCE is an artifact's folder or its address in S3, with a manifest.json, or models/MODEL, from which
    the artifact is built. What can be checked is checked before anything is uploaded. The same version
    twice is one release; a version never changes.

    \b
      inferctl --env dev publish file-type models/file-type --why "newer network"
      inferctl --env prod publish file-type s3://our-pipeline/file-type/1.1.0/
    """
    if len(why) > publishing.MAX_WHY:
        raise click.UsageError(f"--why takes {publishing.MAX_WHY} characters.")
    found = load_environment(ROOT / "config", session.environment)
    catalog = {spec.name: spec for spec in load_catalog(ROOT / "models")}
    if model not in catalog:
        raise InputError(f"There is no model {model!r}: there are {', '.join(catalog) or 'none yet'}.")
    output = session.output
    prepared = publishing.prepare(environment.connect(session.environment), found, catalog[model], source)
    title = f"{model} {prepared.version} ({prepared.sha256[:12]})"
    served = publishing.live(prepared)
    if served and served.sha256 == prepared.sha256:
        output.result(publishing.document(prepared, None), f"{title} is live already.")
        return
    publishing.check(prepared, served, breaking=breaking)
    with output.board(f"Publishing {title} to {session.environment}") as board:
        arrived = publishing.upload(prepared, board, why=why, breaking=breaking)
        release = None if no_wait else publishing.follow(prepared, arrived, board)
    if release and release.status != releases.LIVE:
        raise InferctlError(f"{title} is not live: {release.status}. {release.reason}".strip())
    output.result(publishing.document(prepared, release), f"{title} is {'live' if release else 'uploaded'}.")


@cli.command()
@click.argument("model", type=click.Path(exists=True, path_type=Path))
@click.option(
    "--port", type=click.IntRange(0, 65535), default=8080, show_default=True,
    help="Port on loopback; 0 takes a free one.",
)  # fmt: skip
@device_option
@_json_option
@click.pass_obj
def serve(session: Session, model: Path, port: int, device: str) -> None:
    """Serve MODEL, an ONNX file or an artifact's folder, on this machine.

    It is the server of the GPU image, without the image and without AWS. A bare ONNX file needs nothing
    beside it: its signature is the graph's. The server's log is on standard error; Ctrl-C stops it.

    \b
      inferctl serve resnet18.onnx
      inferctl serve build/artifacts/text-embedding --port 9000 --device cuda
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        with serving.serving(model, port=port, device=device) as served:
            found = served.manifest
            document = {
                "url": served.url,
                "model": found.name,
                "compiled": served.compiled,
                "inputs": [spec.described() for spec in found.inputs],
                "outputs": [spec.described() for spec in found.outputs],
            }
            rows = [
                (kind, spec.name, spec.datatype, list(spec.shape))
                for kind, specs in (("input", found.inputs), ("output", found.outputs))
                for spec in specs
            ]
            output = session.output
            columns = ("", "name", "datatype", "shape (-1: any)")
            body = _shortest(served.request)
            curl = f"  curl -d @{body} -H content-type:application/json {served.infer_url}"
            hint = "" if served.compiled else "\n  Not compiled, as in its image: see `make compiled`\n"
            output.result(document, output.table(found.name, columns, rows), Text(f"\n{curl}\n{hint}"))
            status = served.process.wait()
    except KeyboardInterrupt:
        return
    raise InferctlError(f"The server ended with status {status}.")


@cli.command("bench")
@click.argument("target")
@click.option(
    "--connections", "-c", type=click.IntRange(1, 256), multiple=True, default=(1, 16, 64), show_default=True,
    help="Connections that ask at once; again for more measurements.",
)  # fmt: skip
@click.option(
    "--seconds", type=click.IntRange(1, 60), default=5, show_default=True, help="Length of each measurement."
)
@click.option(
    "--body", type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file with the request. [default: the model's sample, or zeros]",
)  # fmt: skip
@device_option
@_json_option
@click.pass_obj
def measure(
    session: Session, target: str, connections: tuple[int, ...], seconds: int, body: Path | None, device: str
) -> None:
    """Measure how fast TARGET answers.

    TARGET is the URL of a server or of a model, an ONNX file or an artifact's folder (served meanwhile), or
    the name of a model that the environment has deployed, where every request is billed. Every connection
    sends the same request again as soon as it has its answer. `wrk` is used where it is installed.

    \b
      inferctl bench http://127.0.0.1:8080
      inferctl bench resnet18.onnx -c 1 -c 8 --seconds 10
      inferctl --env dev bench file-type -c 4
    """
    given = body.read_bytes() if body else None
    results: list[load.Result] = []
    with bench.target(target, session.environment, device, given) as request:
        load.measure(request, max(connections), 1)  # what is lazy is done then
        results += [load.measure(request, each, seconds) for each in connections]
    output = session.output
    columns = ("connections", "requests/s", "p50", "p90", "p99", "failed")
    rows = [
        (
            r.connections,
            f"{r.per_second:,.0f}",
            *(f"{each:.2f} ms" for each in (r.p50, r.p90, r.p99)),
            r.failed,
        )
        for r in results
    ]
    document = {
        "url": request.url,
        "client": load.client(request),
        "results": [r.document() for r in results],
    }
    said = Text(f"{request.url}, asked by {document['client']}")
    output.result(document, said, output.table("", columns, rows))
    if any(result.failed for result in results):
        raise InferctlError("Not every request was answered well; see the last column.")


@cli.command()
@click.argument("query", required=False)
@click.option(
    "--since", default="1h", show_default=True, metavar="TIME", help="How far back: 90s, 15m, 1h, 7d, 2w."
)
@click.option("--id", "request_id", metavar="ID", help="The x-request-id of an answer, for one-request.")
@_json_option
@click.pass_obj
def logs(session: Session, query: str | None, since: str, request_id: str | None) -> None:
    """Ask the logs a saved QUERY; without one, list what can be asked.

    The queries are those that the environment's stacks saved in CloudWatch Logs Insights: the platform's,
    and each model's as MODEL/QUERY. `one-request` follows a request from the gateway into its model's log.

    \b
      inferctl logs
      inferctl logs errors-by-cause --since 15m
      inferctl --env prod logs file-type/cold-starts --since 7d
      inferctl logs one-request --id 1f0e35c2-6f2a-4a3e-9d0a-2f1f4b7c8d9e
    """
    output = session.output
    since_seconds = queries.seconds(since)
    load_environment(ROOT / "config", session.environment)
    aws = environment.connect(session.environment)
    known = queries.saved(aws, session.environment)
    if query is None:
        listed = [{"name": each.name, "question": each.question} for each in known.values()]
        rows = [tuple(each.values()) for each in listed]
        output.result(listed, output.table("Saved queries", ("query", "answers"), rows))
        return
    if query == queries.ONE_REQUEST:
        answer = queries.follow(aws, known, since_seconds, request_id)
    else:
        answer = queries.run(aws, queries.find(known, query), since_seconds, request_id)
    rows = [tuple(row.get(column, "") for column in answer.columns) for row in answer.rows]
    table = output.table(answer.query, answer.columns, rows) if rows else f"Nothing in the last {since}."
    output.result(answer.document(), table)


@cli.command("drift")
@click.argument("model", required=False)
@click.option("--now", is_flag=True, help="Compare the MODEL now, and wait; it may take minutes.")
@_json_option
@click.pass_obj
def show_drift(session: Session, model: str | None, now: bool) -> None:
    """Show what the last comparisons of captures with their baselines found: of every model, or of MODEL.

    \b
      inferctl drift
      inferctl --env prod drift wine-cultivar --now
    """
    output = session.output
    load_environment(ROOT / "config", session.environment)
    if now and model is None:
        raise InputError("Say which MODEL to compare.")
    aws = environment.connect(session.environment)
    if now and model:
        results = [drift.compare(aws, session.environment, model)]
    else:
        results = [each for each in drift.latest(aws, session.environment) if model in (None, each["model"])]
    columns = ("model", "version", "until", "rows", "status", "drifted", "report")
    rows = [
        (*(each[name] for name in columns[:5]), "; ".join(each["drifted"]) or "-", each["report"] or "-")
        for each in results
    ]
    output.result(results, output.table("", columns, rows) if rows else "Nothing has been compared yet.")


assembly_option = click.option(
    "--assembly", metavar="FOLDER", type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A synthesized app to compare with. [default: synthesize it now]",
)  # fmt: skip


@cli.command()
@click.option(
    "--against", metavar="FOLDER|REF",
    help="What to compare with: a folder of templates, or a commit's baseline. [default: what is deployed]",
)  # fmt: skip
@click.option("--markdown", is_flag=True, help="Print a comment for a pull request.")
@assembly_option
@_json_option
@click.pass_obj
def diff(session: Session, against: str | None, markdown: bool, assembly: Path | None) -> None:
    """Rate what a deployment would change: safe, to review, dangerous.

    Dangerous is what loses data, opens a door or takes a protection away. It makes the command fail unless
    tests/policy/accepted-changes.yaml declares it.

    \b
      inferctl --env prod diff
      inferctl --env prod diff --against origin/main --markdown
    """
    load_environment(ROOT / "config", session.environment)
    declared = load_accepted_changes(ROOT / "tests" / "policy" / "accepted-changes.yaml").accepted
    after = templates.of_assembly(assembly or _synthesized(session))
    if against is None:
        before = templates.of_deployed(session.environment, environment.connect(session.environment))
    elif Path(against).is_dir():
        before = templates.of_assembly(Path(against))
    else:
        before = templates.of_commit(session.environment, against)
    found = report.review(session.environment, against or "what is deployed", before, after, declared)
    output = session.output
    if markdown and not output.as_json:
        output.result(None, Text(found.markdown()))
    else:
        columns = ("rating", "stack", "resource", "change", "why")
        table = output.table(f"Changes to {session.environment}", columns, found.rows())
        output.result(found.document(), table if found.rated else Text("No changes."))
    if found.undeclared:
        raise InferctlError(
            f"{len(found.undeclared)} change(s) are dangerous, and not declared in "
            "tests/policy/accepted-changes.yaml."
        )
    # What is deployed may lag behind what was accepted; a commit that others build on may not.
    if found.stale and against is not None:
        raise InferctlError(
            "Remove from tests/policy/accepted-changes.yaml what does not apply: "
            + ", ".join(f"{entry.stack} {entry.resource}" for entry in found.stale)
        )


@cli.command()
@assembly_option
@_json_option
@click.pass_obj
def baseline(session: Session, assembly: Path | None) -> None:
    """Record the environment's templates, for later commits to be compared with.

    \b
      make baselines
      inferctl --env prod baseline
    """
    load_environment(ROOT / "config", session.environment)
    found = templates.of_assembly(assembly or _synthesized(session))
    folder = templates.write_baseline(session.environment, found)
    session.output.result(
        {"folder": str(folder), "stacks": sorted(found)}, f"{_shortest(folder)}: {len(found)} stacks"
    )


@cli.command()
@click.option("--yes", is_flag=True, help="Delete without asking.")
@click.option("--unprotect", is_flag=True, help="Also delete stacks that are protected from deletion.")
@assembly_option
@_json_option
@click.pass_obj
def prune(session: Session, yes: bool, unprotect: bool, assembly: Path | None) -> None:
    """Delete the environment's stacks that the app no longer has.

    `cdk deploy` never deletes the stack of a model whose folder is gone; this does, after showing it.
    Only stacks that carry the environment's tag are ever looked at.

    \b
      git rm -r models/old-model && cdk deploy --all ... && inferctl --env dev prune
      inferctl --env prod prune --unprotect
    """
    output = session.output
    aws = environment.connect(session.environment)
    wanted = cdk.stacks(assembly or _synthesized(session))
    doomed = stacks.orphans(stacks.deployed(aws, session.environment), wanted)
    kept = [stack for stack in doomed if stack.protected and not unprotect]
    doomed = [stack for stack in doomed if stack not in kept]
    document = {"deleted": [stack.name for stack in doomed], "protected": [stack.name for stack in kept]}
    if kept:
        names = ", ".join(document["protected"])
        output.note(f"Protected from deletion, and left alone without --unprotect: {names}.")
    if not doomed:
        output.result(document, "Nothing to delete.")
        return
    if not yes:
        if output.as_json or not sys.stdin.isatty():
            raise InputError(f"This would delete {', '.join(document['deleted'])}; pass --yes to do it.")
        for stack in doomed:
            output.note(f"  {stack.name}  {stack.status}  created {stack.created:%Y-%m-%d %H:%M}")
        click.confirm(f"Delete these {len(doomed)} stack(s) for good?", abort=True, err=True)
    with output.board("Deleting stacks") as board:
        stacks.delete(aws, doomed, board)
    output.result(document, f"Deleted {', '.join(document['deleted'])}.")


@cli.command("demo")
@_json_option
@click.pass_obj
def demonstrate(session: Session) -> None:
    """Deploy to an embedded AWS, ask every model, check the answers, and stop it all.

    Leaves a deployment that `inferctl up` made alone. Fails when any answer is not the expected one.
    """
    _only_local(session, "demo", "Call it with `inferctl --env {0} infer` instead.")
    output = session.output
    with output.board("Demo: from nothing to checked answers") as board:
        report = demo.run(board)
    rows = [
        (
            outcome.request,
            outcome.target,
            outcome.status,
            "" if outcome.median_ms is None else f"{outcome.median_ms:.1f} ms",
            outcome.answer,
            "; ".join(outcome.wrong) or "as expected",
        )
        for outcome in report.outcomes
    ]
    output.result(
        report.document(),
        output.table("", ("request", "target", "status", "median latency", "answer", "verdict"), rows),
        Text(f"Deployed in {report.deploy_seconds:.0f} s, all done in {report.total_seconds:.0f} s."),
    )
    if not report.right:
        raise InferctlError("An answer is not the expected one; see the last column.")


def _only_local(session: Session, command: str, instead: str) -> None:
    load_environment(ROOT / "config", session.environment)
    if session.environment != LOCAL:
        remedy = instead.format(shlex.quote(session.environment))
        raise InputError(f"`inferctl {command}` is for the environment 'local' only. {remedy}")


def _given_request(file: str | None, body: str | None) -> dict[str, Any] | None:
    if body is not None:
        return tensors.parse(body, "--body")
    if file == "-":
        return tensors.parse(sys.stdin.buffer.read(), "standard input")
    if file is not None:
        try:
            return tensors.parse(Path(file).read_bytes(), file)
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error.strerror}.") from error
    return None


def _synthesized(session: Session) -> Path:
    folder = ROOT / "cdk.out" / session.environment
    log = ROOT / "build" / "prune.log"
    with session.output.board("Comparing with the app") as board, Commands(log) as commands:
        return deployment.synthesize(session.environment, folder, commands, board)


def _how_to_call(api_url: str, ca_bundle: str) -> str:
    inferctl = _shortest(Path(sys.argv[0])) if Path(sys.argv[0]).stem == "inferctl" else "python -m inferctl"
    return f"""
The API is at {api_url}

  {inferctl} infer file-type --file README.md
  {inferctl} infer text-embedding --text "How do I reset my password?"

  curl --cacert {_shortest(Path(ca_bundle))} \\
    -H "Authorization: Bearer $({inferctl} token)" -H "Content-Type: application/json" \\
    -d @{_shortest(ROOT / "models/file-type/sample.json")} \\
    {api_url}/v2/models/file-type/infer

{inferctl} down stops it."""


def _shortest(path: Path) -> str:
    """The path as one would type it from here."""
    absolute = path.absolute()
    here = Path.cwd()
    return shlex.quote(str(absolute.relative_to(here) if absolute.is_relative_to(here) else absolute))
