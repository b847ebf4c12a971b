"""`recall demo`: every step from tables to an answer over HTTP."""

import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from recall.cli import output
from recall.cli.bundle import service_command
from recall.cli.output import UnavailableError
from recall.errors import DataError

if TYPE_CHECKING:
    from recall.config import RunConfig
    from recall.data.dataset import Dataset
    from recall.data.synthetic import Synthetic
    from recall.evaluation.evaluate import EvaluationReport
    from recall.pipeline import Run


def demo(
    config: Annotated[
        Path | None, typer.Option(help="Configuration (TOML); default: recall.toml in the folder of the tables.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Folder of your own tables; default: a synthetic shop.")] = None,
    out: Annotated[Path, typer.Option(help="Folder for all output.")] = Path("runs/demo"),
) -> None:
    """Run every step once: check, train, verify, publish, evaluate, serve, query.

    If the folder of your own tables has no recall.toml, recall init drafts one.

    Examples: recall demo; recall demo --data shop --config shop/recall.toml
    """
    from recall.config import load_config
    from recall.pipeline import run

    began = time.perf_counter()
    output.require_writable(out / "evaluation.json")
    shop = None
    if data is None:
        data = out / "data"
        shop = _generate(data)
    loaded = load_config(config if config is not None else _drafted(data))
    _check(loaded, data)
    finished = run(loaded, data, out / "bundles", restart=True, checked=True)
    parity = finished.exported.manifest.parity
    output.note(f"verified: served scores differ from the model by at most {parity.largest_error:.1e}")
    _evaluate(loaded, finished, out, shop)
    _ask(finished.dataset, out / "bundles")
    output.note(f"\nDone in {time.perf_counter() - began:.0f} s; the results are in {out}. Next:")
    output.note(f"  recall query {out / 'bundles'} -n 5\n  recall bundle show {out / 'bundles'}")
    output.note(f"  recall serve {out / 'bundles'}\nthen open http://127.0.0.1:8000/")


def _drafted(data: Path) -> Path:
    """Return the configuration in a folder of tables; draft it if it is missing."""
    from recall.data.scaffold.draft import draft

    path = data / "recall.toml"
    if data.is_dir() and not path.exists():
        path.write_text(draft(data), encoding="utf-8")
        output.note(f"drafted {path}: review and correct it")
    return path


def _generate(folder: Path) -> "Synthetic":
    from recall.data.synthetic import SyntheticConfig, generate

    folder.mkdir(parents=True, exist_ok=True)
    with output.stage("generate a shop"):
        shop = generate(SyntheticConfig())
        shop.write(folder)
    return shop


def _check(config: "RunConfig", data: Path) -> None:
    from recall.data.checks import check

    with output.stage("check the tables"):
        findings = check(config, data)
    for finding in findings:
        if finding.level != "note":
            output.note(finding.line)
    faults = [finding for finding in findings if finding.level == "error"]
    if faults:
        raise DataError(f"the tables cannot be trained on: {len(faults)} errors", where=str(data), why=faults[0].message)


def _evaluate(config: "RunConfig", finished: "Run", out: Path, shop: "Synthetic | None") -> None:
    from recall.data.split import TEST, VALID
    from recall.evaluation.baselines import oracle
    from recall.evaluation.evaluate import evaluate
    from recall.evaluation.report import keep_evaluation
    from recall.serving.recommender import Recommender

    dataset = finished.dataset
    part = next((part for part in (TEST, VALID) if len(dataset.select(part))), None)
    if part is None:
        output.note("no evaluation: data.split holds out no interactions")
        return
    with Recommender.load(finished.exported.folder) as recommender, output.stage("evaluate"):
        report = evaluate(recommender, dataset, config, part)
        truth = oracle(shop, dataset, config.evaluation, part) if shop is not None else {}
    (out / "evaluation.json").write_text(report.model_dump_json(indent=2) + "\n", encoding="utf-8")
    keep_evaluation(finished.exported.folder, report)  # shown on the page
    _show(report, truth)


def _show(report: "EvaluationReport", truth: dict[str, float]) -> None:
    names = [name for name in report.model.metrics if name.startswith(("recall", "ndcg"))]
    rows = [(name, report.model.metrics[name].value, report.popularity.metrics[name].value) for name in names]
    typer.echo()
    if truth:
        output.show_table(("metric", "model", "popularity", "optimum"), [(*row, truth[row[0]]) for row in rows])
    else:
        output.show_table(("metric", "model", "popularity"), rows)
    typer.echo()
    name = next((name for name in names if name == "recall@10"), names[0])
    listed = name.partition("@")[2]
    model, popularity = report.model.metrics[name].value, report.popularity.metrics[name].value
    text = (
        f"In {report.requests:,} held-out requests over all {report.items:,} items, the top {listed} of the model contain "
        f"{model:.0%} of the items that were taken, and the {listed} most popular items {popularity:.0%}"
    )
    if truth:
        share = (model - popularity) / (truth[name] - popularity)
        text += (
            f"; the preferences that generated the data reach {truth[name]:.0%}, so the model closes {share:.0%} of the gap "
            "between popularity and the optimum"
        )
    typer.echo(text + ".")


def _ask(dataset: "Dataset", root: Path) -> None:
    """Serve the bundle, send one request, print request and answer, stop."""
    import orjson

    event = dataset.events[-1]
    user = dataset.users[dataset.schema.user_id][event["user"][0]]
    context = {name: event[name][0] for name in dataset.context_columns if event[name][0] is not None}
    body = orjson.dumps({"user_id": user, "context": context, "n": 5} if context else {"user_id": user, "n": 5}, default=str)
    with served(root) as url:
        answer, seconds = post(f"{url}/v1/recommend", body)
    typer.echo(f"\nPOST /v1/recommend {body.decode()}")
    typer.echo(orjson.dumps(orjson.loads(answer), option=orjson.OPT_INDENT_2))
    output.note(f"answered in {1000 * seconds:.1f} ms")


_PATIENCE = 60.0  # seconds to start on a busy machine; it takes about two. Chosen, not tuned.


def post(url: str, body: bytes) -> tuple[bytes, float]:
    """Send JSON; return the body of the answer and the seconds until it arrived.

    Args:
        url: over HTTP.
        body: JSON.
    """
    import urllib.request

    began = time.perf_counter()
    request = urllib.request.Request(url, body, {"content-type": "application/json"})  # noqa: S310 - http
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return answer.read(), time.perf_counter() - began


@contextmanager
def served(bundle: Path) -> Iterator[str]:
    """Serve a bundle on a free local port until the block ends; yield the address.

    Raises:
        UnavailableError: The dependencies of the service are missing, or it did not start.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command, environment = service_command([str(bundle), "--host", "127.0.0.1", "--port", str(port), "--drain", "0"])
    url = f"http://127.0.0.1:{port}"
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        with output.stage(f"serve on {url}"):
            _wait(process, url)
        yield url
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def _wait(process: subprocess.Popen[str], url: str) -> None:
    import urllib.request

    deadline = time.monotonic() + _PATIENCE
    while process.poll() is None and time.monotonic() < deadline:
        try:
            with urllib.request.urlopen(url + "/health/ready", timeout=5):  # noqa: S310 - http
                return
        except OSError:  # URLError is one
            time.sleep(0.05)
    process.kill()
    _, log = process.communicate()
    raise UnavailableError("the service did not start", where=url, why=(log.strip().splitlines() or ["it wrote nothing"])[-1])
