"""What holds for every file: links lead somewhere, commands exist, nothing names one machine."""

import re
import sysconfig
import tomllib
from pathlib import Path
from urllib.parse import unquote, urlsplit

from inferctl.cli import cli
from tests.docs.conftest import ROOT, repository_files

# Put together here, so that this file does not hold them.
MACHINE_PATHS = tuple(f"/{folder}/" for folder in ("work", "root", "home"))
REGISTRIES = tuple(
    ".".join(host)
    for host in (("registry", "npmjs", "org"), ("files", "python" + "hosted", "org"), ("pypi", "org"))
)
INDEX_OPTIONS = tuple(f"--{option}" for option in ("index-url", "extra-index-url", "find-links"))

_FENCED = re.compile(r"^```.*?^```", re.M | re.S)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"!?\[[^\]]*\]\(\s*([^)\s]+)[^)]*\)")
_HEADING = re.compile(r"^#+\s+(.+?)\s*$", re.M)
_BASH = re.compile(r"^```bash\n(.*?)^```", re.M | re.S)


def test_every_relative_link_leads_to_a_file_and_heading(markdown: list[Path]) -> None:
    broken = [
        f"{file.relative_to(ROOT)}: {target}"
        for file in markdown
        for target in _links(file.read_text())
        if not _leads_somewhere(file, target)
    ]
    assert not broken, "\n".join(broken)


def test_every_document_is_reached_from_the_readme(markdown: list[Path]) -> None:
    reached: set[Path] = set()
    waiting = [ROOT / "README.md"]
    while waiting:
        file = waiting.pop()
        if file in reached or file.suffix != ".md" or not file.is_file():
            continue
        reached.add(file)
        links = (urlsplit(link) for link in _links(file.read_text()))
        waiting += [(file.parent / link.path).resolve() for link in links if not link.scheme and link.path]
    assert not set(markdown) - reached


def test_mypy_follows_every_module_of_the_cdk_that_is_imported() -> None:
    # What it skips is Any, of which it says nothing.
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mypy"]
    skipped, followed = [each for each in settings["overrides"] if "aws_cdk" in str(each["module"])]
    assert (skipped["follow_imports"], followed["follow_imports"]) == ("skip", "normal")
    modules = {path.name for path in (Path(sysconfig.get_path("purelib")) / "aws_cdk").iterdir()}
    imported = {
        f"aws_cdk.{word}"
        for file in repository_files("*.py")
        if file.relative_to(ROOT).parts[0] != "tests"
        for line in re.findall(r"^\s*(?:from|import) aws_cdk\b.*(?:\([^)]*\))?", file.read_text(), re.M)
        for word in re.findall(r"\w+", line)
        if word in modules
    }
    assert "aws_cdk.aws_iam" in imported
    assert imported - set(followed["module"]) == set()


def test_documented_commands_exist(markdown: list[Path]) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    seen, unknown = 0, []
    for file in markdown:
        # Comments are for people; a continued line is one command.
        blocks = (re.sub(r"\\\n|#.*", " ", block) for block in _BASH.findall(file.read_text()))
        for block in blocks:
            made = re.findall(r"\bmake ([a-z-]+)", block)
            run = re.findall(r"\binferctl ((?:--env \S+ |--json )*)([a-z]+)", block)
            seen += len(made) + len(run)
            unknown += [f"{file.name}: make {target}" for target in made if target not in targets]
            unknown += [f"{file.name}: inferctl {name}" for _, name in run if name not in cli.commands]
    assert seen
    assert not unknown


def test_no_file_names_a_machine_or_a_registry() -> None:
    found = [
        f"{file.relative_to(ROOT)}:{number}: {needle}"
        for file in repository_files()
        for number, line in enumerate(file.read_bytes().decode(errors="replace").splitlines(), 1)
        for needle in (*MACHINE_PATHS, *REGISTRIES)
        if needle in line
    ]
    assert not found, "\n".join(found)


def test_lock_files_hold_hashes_and_no_addresses() -> None:
    for file in repository_files("*package-lock.json"):
        assert '"resolved"' not in file.read_text(), file
        assert '"integrity"' in file.read_text(), file
    requirements = repository_files("*requirements*.txt", "requirements/*.txt")
    assert requirements
    for file in requirements:
        text = file.read_text()
        assert not [option for option in INDEX_OPTIONS if option in text], file
        pinned = re.findall(r"^[a-z0-9][^\s#]*==", text, re.M | re.I)
        assert pinned, file
        assert text.count("--hash=sha256:") >= len(pinned), file


def _links(text: str) -> list[str]:
    return _LINK.findall(_CODE.sub("", _FENCED.sub("", text)))


def _leads_somewhere(file: Path, target: str) -> bool:
    link = urlsplit(target)
    if link.scheme:
        return True
    path = (file.parent / unquote(link.path)).resolve() if link.path else file
    if not path.exists() or not path.is_relative_to(ROOT):
        return False
    return not link.fragment or (path.suffix == ".md" and link.fragment in _anchors(path.read_text()))


def _anchors(text: str) -> set[str]:
    """Headings as GitHub makes anchors of them."""
    headings = _HEADING.findall(_FENCED.sub("", text))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
