"""Bringing the local environment up and down: the embedded AWS, the CDK bootstrap, the app's stacks."""

import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import local_aws
from catalog.environment import LOCAL
from inferctl import cdk
from inferctl.commands import Commands
from inferctl.environment import ROOT
from inferctl.output import Board
from local_aws.state import Home

CONCURRENCY = 4  # stacks deployed at once


def up(board: Board, *, home: Path | None = None, port: int | None = None) -> local_aws.State:
    """Start the embedded AWS, unless it runs, and deploy the app of the environment `local` to it.

    An interruption stops what this call started; after a failure the embedded AWS stays, to be looked at.
    Raises LocalAwsError or CommandError.
    """
    folder = Home.resolve(home).path
    was_running = local_aws.status(home=home) is not None
    try:
        # Leaving the block ends the programs first, so that the threads that wait for them end too.
        with ThreadPoolExecutor() as pool, Commands(folder / "deploy.log") as commands:
            assembly = pool.submit(synthesize, LOCAL, folder / "assembly", commands, board)
            server = pool.submit(_start, home, port, commands, board)
            both: tuple[Future[Any], ...] = (assembly, server)
            # Whichever fails first is what to report; the other is ended.
            for finished in wait(both, return_when=FIRST_EXCEPTION).done:
                finished.result()
            _deploy(assembly.result(), server.result(), commands, board)
            return server.result()
    except (KeyboardInterrupt, SystemExit):
        if not was_running:
            with uninterrupted():
                local_aws.stop(home=home)
        raise


def down(*, home: Path | None = None) -> bool:
    """Stop the embedded AWS and all that it runs, and forget what was deployed; whether anything ran."""
    stopped = local_aws.stop(home=home)
    folder = Home.resolve(home).path
    shutil.rmtree(folder / "assembly", ignore_errors=True)
    return stopped


def synthesize(environment: str, output: Path, commands: Commands, board: Board) -> Path:
    """Write an environment's assembly, and with it the zips of artifacts and functions; returns `output`."""
    with board.step("synthesize"):
        shutil.rmtree(output, ignore_errors=True)
        commands.run(
            cdk.synth(environment, output),
            what="cdk synth",
            folder=ROOT,
            environment=cdk.variables(),
            on_line=lambda line: board.update("synthesize", "working", line.strip()[:60]),
        )
    return output


def _start(home: Path | None, port: int | None, commands: Commands, board: Board) -> local_aws.State:
    with board.step("embedded AWS"):
        state = local_aws.start(port, home=home)
    with board.step("bootstrap"):
        commands.run(
            cdk.bootstrap(state.account, state.region),
            what="cdk bootstrap",
            folder=Home.resolve(home).path,
            environment=cdk.variables(local_aws.environment(state)),
        )
    return state


def _deploy(assembly: Path, state: local_aws.State, commands: Commands, board: Board) -> None:
    progress = cdk.Progress(cdk.stacks(assembly), board.update)
    commands.run(
        cdk.deploy(assembly, concurrency=CONCURRENCY),
        what="cdk deploy",
        folder=assembly.parent,
        environment=cdk.variables(local_aws.environment(state)),
        on_line=progress.line,
        is_noise=cdk.is_noise,
    )


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Cleaning up is finished even if Ctrl-C is pressed again."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
