"""The pytest plugin: a cluster for a session, a namespace for a test.

It is loaded by every run of pytest where p8s is installed: what costs time is imported when a test
asks for a cluster.
"""

from __future__ import annotations

import collections.abc
import os
import pathlib
import re
import typing

import pytest

if typing.TYPE_CHECKING:
    from p8s_supervisor.host import cluster_access, shared_cluster

    # For the annotations of tests: `from p8s_supervisor import testing`, `testing.Kubectl`.
    Cluster = cluster_access.Cluster
    Kubectl = cluster_access.Kubectl

LoadImages = collections.abc.Callable[..., None]
"""Takes names of images."""
# Enough to see what went wrong; a suite that fails as a whole does not fill the disk.
MOST_BUNDLES = 3
IMAGE = "p8s:latest"


def __getattr__(name: str) -> typing.Any:
    if name in ("Cluster", "Kubectl"):
        from p8s_supervisor.host import cluster_access

        return getattr(cluster_access, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


class Plugin:
    """The session's part of this process: a controller, or a worker of one."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.bundles = 0
        self.cluster: Cluster | None = None
        self.owner: typing.TextIO | None = None
        self._session: shared_cluster.Session | None = None

    @property
    def session(self) -> shared_cluster.Session:
        """What the processes of this run of pytest agree on; made at the first look."""
        if self._session is None:
            from p8s_supervisor.host import shared_cluster

            given: dict[str, str] | None = getattr(self.config, "workerinput", {}).get("p8s")
            if given is None:
                directory, self.owner = shared_cluster.make_directory()
                given = {"directory": str(directory), "container": shared_cluster.make_name()}
            option = self.config.getoption
            self._session = shared_cluster.Session(
                directory=pathlib.Path(given["directory"]),
                container=given["container"],
                image=option("p8s_image"),
                settings=parse_settings(option("p8s_settings")),
                existing=option("p8s_name"),
                keep=option("p8s_keep"),
            )
        return self._session

    def pytest_unconfigure(self) -> None:
        """Remove the cluster, in the process that owns it; also after Ctrl-C."""
        if self.owner is not None:
            self.session.end()
            self.owner.close()

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: typing.Any) -> None:
        """Under pytest-xdist: tell a worker where the session's cluster is, or will be."""
        session = self.session
        node.workerinput["p8s"] = {
            "directory": str(session.directory),
            "container": session.container,
        }

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> collections.abc.Generator[None, pytest.TestReport, pytest.TestReport]:
        """Write the bundle of a test that failed, while its namespace is still there."""
        report = yield
        directory = self.config.getoption("p8s_bundle_on_failure")
        uses_it = "p8s_cluster" in getattr(item, "fixturenames", ())
        wanted = directory and report.failed and uses_it and self.bundles < MOST_BUNDLES
        if wanted and self.cluster is not None:
            self.bundles += 1
            told = write_bundle(self.cluster, pathlib.Path(directory), item.nodeid)
            report.sections.append(("p8s bundle", told))
        return report

    def pytest_terminal_summary(self, terminalreporter: typing.Any) -> None:
        """Say where a cluster is that was kept."""
        session = self._session
        if self.owner is None or session is None or not session.keep:
            return
        if (session.directory / "cluster.json").exists():
            terminalreporter.section("p8s")
            terminalreporter.line(f"kept: export KUBECONFIG={session.directory / 'kubeconfig'}")
            terminalreporter.line(f"remove it: docker rm -fv {session.container}")


PLUGIN = pytest.StashKey[Plugin]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """The plugin's options; `pytest --help` shows them."""
    group = parser.getgroup("p8s", "p8s: a Kubernetes cluster for tests")
    group.addoption(
        "--p8s-image",
        default=os.environ.get("P8S_IMAGE", IMAGE),
        metavar="IMAGE",
        help=f"the cluster's image (default: $P8S_IMAGE, or {IMAGE})",
    )
    group.addoption(
        "--p8s-name",
        default=os.environ.get("P8S_NAME", ""),
        metavar="NAME",
        help="use this cluster (or container), which is there already, and leave it "
        "(default: $P8S_NAME, or a cluster is started)",
    )
    group.addoption(
        "--p8s-setting",
        action="append",
        default=[],
        dest="p8s_settings",
        metavar="NAME=TEXT",
        help="a setting of the cluster, such as pod-cidr=10.9.0.0/24; may be repeated",
    )
    group.addoption(
        "--p8s-keep", action="store_true", help="leave the cluster at the end, to look at it"
    )
    group.addoption(
        "--p8s-bundle-on-failure",
        metavar="DIR",
        help="write a bundle (logs, events, objects, settings) of the cluster here when a test "
        f"that uses it fails; for the first {MOST_BUNDLES} of each process",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Check the options, all at once."""
    if config.getoption("p8s_settings"):
        wrong = check_settings(config.getoption("p8s_settings"))
        if config.getoption("p8s_name"):
            wrong.append("--p8s-setting: a cluster that is there already has its settings")
        if wrong:
            raise pytest.UsageError("\n".join(wrong))
    config.stash[PLUGIN] = plugin = Plugin(config)
    config.pluginmanager.register(plugin, "p8s-session")


def parse_settings(given: collections.abc.Sequence[str]) -> dict[str, str]:
    """`name=text` each, as name → text, the name as in a settings file."""
    pairs = (one.partition("=") for one in given)
    return {name.removeprefix("--").replace("-", "_"): text for name, _, text in pairs}


def check_settings(given: collections.abc.Sequence[str]) -> list[str]:
    """What is wrong with settings, a sentence each."""
    from p8s_supervisor import errors, settings

    wrong = [
        f"--p8s-setting={one}: not NAME=TEXT, such as pod-cidr=10.9.0.0/24"
        for one in given
        if "=" not in one
    ]
    flags = [
        f"{settings.flag_name(name)}={text}"
        for name, text in parse_settings([one for one in given if "=" in one]).items()
    ]
    try:
        # No file of this machine: the container has its own.
        settings.load(["--config=/dev/null", *flags], {})
    except errors.SettingsError as error:
        wrong += [f"--p8s-setting: {one}" for one in error.errors]
    return wrong


def write_bundle(cluster: Cluster, directory: pathlib.Path, test: str) -> str:
    """Write a cluster's bundle to a file named after a test, and say where it is."""
    from p8s_supervisor import errors, files

    name = re.sub(r"[^A-Za-z0-9.-]+", "_", test).strip("_")[-150:]
    file = directory / f"{name}.tar.gz"
    try:
        files.write(file, cluster.request("/bundle", seconds=60), mode=0o600)
    except (errors.RequestError, OSError) as error:
        return f"could not be written: {error}"
    return str(file)


@pytest.fixture(scope="session")
def p8s_cluster(request: pytest.FixtureRequest) -> Cluster:
    """A ready Kubernetes cluster of the session's own, or the one that --p8s-name names.

    It has `container`, `url` and `token` of p8s' own HTTP API, `kubeconfig`, `status()`. Under
    pytest-xdist all workers share it. It is removed when the session ends.
    """
    from p8s_supervisor import errors

    plugin = request.config.stash[PLUGIN]
    try:
        plugin.cluster = plugin.session.acquire()
    except errors.P8sError as error:
        failure = error
    else:
        return plugin.cluster
    pytest.fail(f"p8s: {failure}", pytrace=False)  # here: without the chain of exceptions


@pytest.fixture(scope="session")
def p8s_kubeconfig(p8s_cluster: Cluster) -> pathlib.Path:
    """Path of an administrator's kubeconfig; only to be read, since all tests share it."""
    return p8s_cluster.kubeconfig


@pytest.fixture(scope="session")
def p8s_kubectl(request: pytest.FixtureRequest, p8s_cluster: Cluster) -> Kubectl:
    """Runs kubectl: `p8s_kubectl("get", "pods")` gives its output; a failure raises, with stderr.

    `stdin="…"` is for `--filename=-`; `.get("pods")` gives the parsed JSON; `.within(namespace)`
    gives the same for another namespace. It is PATH's kubectl, or else the image's own.
    """
    return request.config.stash[PLUGIN].session.find_kubectl(p8s_cluster)


@pytest.fixture
def p8s_namespace(p8s_kubectl: Kubectl) -> collections.abc.Iterator[str]:
    """The name of a fresh namespace for one test; its removal is not waited for."""
    from p8s_supervisor import errors, wait

    name = f"test-{os.urandom(4).hex()}"
    p8s_kubectl("create", "namespace", name)

    def look() -> str | None:
        try:
            p8s_kubectl.within(name)("get", "serviceaccount/default", "configmap/kube-root-ca.crt")
        except errors.CommandError as error:
            return error.message
        return None

    # The controllers make them a moment later; without them no pod can be made.
    wait.until(look, awaited=f"the ServiceAccount of the namespace {name}", seconds=30)
    yield name
    p8s_kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def p8s_load_images(request: pytest.FixtureRequest, p8s_cluster: Cluster) -> LoadImages:
    """Copies images from the docker engine into the cluster: `p8s_load_images("app:1", "db:2")`.

    Each is copied once for the session. Use `imagePullPolicy: Never` (or `IfNotPresent`).
    """

    def load(*names: str) -> None:
        request.config.stash[PLUGIN].session.load_images(p8s_cluster, names)

    return load
