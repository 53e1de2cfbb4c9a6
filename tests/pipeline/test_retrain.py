"""The whole line, by the commands that people use: real git, DVC, GTO, Prefect, training and export."""

import json
import re
import shutil
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from contextlib import closing
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from fuseline.records import Verdict
from fuseline.runtime.bundle import read_bundle
from tests.pipeline.conftest import commit, edit, environment, examples, git, retrain, shell

pytestmark = pytest.mark.pipeline

EXPORTED = {"name": "export agrees", "metric": "export.max_logit_difference", "max": 1e-4}


def test_the_first_run_publishes_a_verified_champion(first_run):
    repo, done = first_run
    assert done.returncode == 0, done.stdout + done.stderr
    assert read_bundle(repo / "champion").name == "fusion"
    evidence = {path.name for path in (repo / "champion/evidence").iterdir()}
    assert evidence >= {"verdict.json", "evaluation.json", "benchmark.json", "report.html"}
    assert Verdict.read(repo / "champion/evidence/verdict.json").blessed


def test_the_summary_tells_verdict_gain_and_places(first_run):
    told = first_run[1].stdout
    for words in ("Published v1.0.0", "Verdict: blessed", "fusion gain", "no worse than the champion", "report"):
        assert words in told


def test_progress_is_told_while_a_member_trains(first_run):
    assert "epoch 1/1 · step" in first_run[1].stdout + first_run[1].stderr


def test_a_run_leaves_tree_index_and_branch_as_they_were(first_run, project):
    repo = first_run[0]
    assert git(repo, "status", "--porcelain") == ""
    assert git(repo, "rev-parse", "HEAD") == git(project, "rev-parse", "HEAD")


def test_versions_champion_and_lineage_are_tags_and_a_commit(first_run):
    repo = first_run[0]
    assert git(repo, "tag").split() == ["fusion#champion#1", "fusion@v1.0.0"]
    branch = git(repo, "branch", "--list", "retrain/*").strip()
    message = git(repo, "log", "-1", "--format=%B", branch)
    assert "Verdict: blessed" in message
    assert git(repo, "rev-parse", branch) == git(repo, "rev-parse", "fusion@v1.0.0^{commit}")


def test_the_bundle_can_be_fetched_anywhere_by_its_version(first_run, tmp_path):
    done = shell(first_run[0], "dvc", "artifacts", "get", ".", "fusion", "--rev", "v1.0.0", "-o", str(tmp_path / "got"))
    assert done.returncode == 0, done.stderr
    assert read_bundle(tmp_path / "got").labels == ["circle", "square", "star"]


def test_no_clone_is_left_behind(first_run):
    assert list((first_run[0] / ".fuseline/work").iterdir()) == []


def test_a_second_run_with_nothing_changed_says_so_and_trains_nothing(published):
    done = retrain(published)
    assert done.returncode == 0
    assert "Nothing to do" in done.stdout
    assert "train@text" not in done.stdout + done.stderr
    assert git(published, "tag").split() == ["fusion#champion#1", "fusion@v1.0.0"]


def test_dvc_repro_takes_the_run_from_the_cache_and_is_then_a_no_op(published):
    assert shell(published, "dvc", "repro").returncode == 0
    again = shell(published, "dvc", "repro")
    assert "Data and pipelines are up to date" in again.stdout
    assert (published / "build/export/bundle/model.onnx").exists()


def test_a_refused_challenger_leaves_the_champion_and_its_record(published):
    perfect = {"name": "perfect", "metric": "evaluation.ensemble.accuracy", "min": 1.01}
    edit(published / "params.yaml", gate=[perfect, EXPORTED])
    before = (published / "champion").resolve()
    done = retrain(published)
    assert done.returncode == 3
    assert state_names(published) == ["Refused"]
    assert "Refused" in done.stdout
    assert "1 rule failed: perfect" in done.stdout
    assert (published / "champion").resolve() == before
    assert git(published, "tag").split() == ["fusion#champion#1", "fusion@v1.0.0"]
    assert "Verdict: refused" in git(published, "log", "--all", "--format=%B")


def test_a_challenger_that_cannot_be_compared_waits_for_somebody_to_decide(published):
    params = yaml.safe_load((published / "params.yaml").read_text())
    members = {"experts": {"text": params["members"]["experts"]["text"]}, "fusions": {}}
    edit(published / "params.yaml", members=members)
    done = retrain(published)
    told = " ".join(done.stdout.replace("│", "").split())
    assert done.returncode == 3, done.stdout + done.stderr
    assert "has other modalities (the two differ in image)" in told
    assert "publish.accept_incomparable" in told
    decision = {"champion": "v1.0.0", "by": "Ada", "reason": "pictures are no longer taken"}
    edit(published / "params.yaml", publish__accept_incomparable=decision)
    done = retrain(published)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "Ada accepted that (pictures are no longer taken)" in " ".join(done.stdout.replace("│", "").split())
    verdict = Verdict.read(published / "champion/evidence/verdict.json")
    assert verdict.accepted is not None
    assert (verdict.champion, verdict.accepted.by) == ("v1.0.0", "Ada")
    assert "Ada" in (published / "champion/evidence/report.html").read_text()
    assert read_bundle(published / "champion").modalities == ["text"]


def state_names(repo: Path) -> list[str]:
    """Return how the project's runs ended, as Prefect's own database has it."""
    with closing(sqlite3.connect(repo.parent / "prefect" / "prefect.db")) as database:
        return [name for (name,) in database.execute("SELECT state_name FROM flow_run ORDER BY created")]


def test_an_uncommitted_edit_is_run_on_and_said_and_rolled_back(published):
    edit(published / "params.yaml", members__experts__text__weight_decay=0.02)
    done = retrain(published)
    assert "snapshot of exactly this tree" in done.stdout + done.stderr
    assert "Published v1.1.0" in done.stdout, done.stdout + done.stderr
    assert "weight_decay: 0.02" in git(published, "show", "fusion@v1.1.0:params.yaml")
    verdict = Verdict.read(published / "champion/evidence/verdict.json")
    assert verdict.champion == "v1.0.0"
    rolled = shell(published, "fuseline", "promote", "v1.0.0")
    assert rolled.returncode == 0, rolled.stderr
    status = shell(published, "fuseline", "status").stdout
    assert "fusion@v1.0.0" in status
    assert "holds v1.0.0, verified" in status
    again = retrain(published)
    assert "`fuseline promote v1.1.0` brings v1.1.0 back" in " ".join(again.stdout.replace("│", "").split())
    assert "fusion@v1.2.0" not in git(published, "tag")


def test_a_bad_row_is_quarantined_with_its_reason_and_the_rest_goes_on(published):
    table = examples(90)
    rows = table.to_pylist()
    rows[4]["image"] = {"bytes": b"not a picture", "path": None}
    rows[5]["target"] = "hexagon"
    replace_data(published, rows)
    done = retrain(published)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 of 90 rows quarantined" in done.stdout + done.stderr


def test_a_broken_schema_stops_the_run_and_names_the_column(published):
    shard = next((published / "data").glob("*.parquet"))
    table = pq.read_table(shard).drop_columns(["target"])
    shutil.rmtree(published / "data")
    from fuseline.data.shards import write_data_set

    write_data_set(published / "data", "shapes", "classification", ["circle", "square", "star"], [table])
    assert shell(published, "dvc", "add", "data").returncode == 0
    done = retrain(published)
    assert done.returncode == 1
    assert "column 'target' is missing" in done.stderr
    assert "champion is untouched" in done.stderr
    assert read_bundle(published / "champion")
    assert "failed" in shell(published, "fuseline", "status").stdout


def test_an_unknown_key_is_refused_before_anything_runs(published):
    edit(published / "params.yaml", train__sed=1)
    done = retrain(published)
    assert done.returncode == 1
    assert "train.sed: unknown key (did you mean 'seed'?)" in done.stderr


def test_data_changed_behind_dvcs_back_is_refused(published):
    manifest = published / "data/manifest.json"
    text = manifest.read_text()
    manifest.unlink()
    manifest.write_text(text.replace("shapes", "forms"))
    done = retrain(published)
    assert done.returncode == 1
    assert "dvc add data" in done.stderr


def test_predict_answers_in_order_without_torch(published, tmp_path):
    rows = examples(6).to_pylist()
    (tmp_path / "one.png").write_bytes(rows[1]["image"]["bytes"])
    lines = [
        {"id": 1, "text": rows[1]["text"], "image": "one.png"},
        {"id": 2, "text": "a star"},
        {"id": 3, "image": "one.png"},
    ]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, lines)))
    program = (
        "import sys\nsys.modules['torch'] = None\nfrom fuseline.cli import app\n"
        f"app(['predict', 'champion', '--input', {str(tmp_path / 'rows.jsonl')!r}])"
    )
    done = shell(published, sys.executable, "-c", program)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["id"] for answer in answers] == [1, 2, 3]
    assert all(abs(sum(answer["probabilities"].values()) - 1) < 1e-4 for answer in answers)


def test_an_altered_champion_is_refused_by_name(published, tmp_path):
    model = next((published / "champion").glob("model.onnx.data"))
    raw = bytearray(model.read_bytes())
    raw[100] ^= 1
    model.unlink()
    model.write_bytes(raw)
    (tmp_path / "rows.jsonl").write_text('{"text": "a star"}')
    done = shell(published, "fuseline", "predict", "champion", "--input", str(tmp_path / "rows.jsonl"))
    assert done.returncode == 1
    assert "model.onnx.data: altered" in done.stderr
    assert shell(published, "fuseline", "promote", "v1.0.0").returncode == 0
    assert shell(published, "fuseline", "predict", "champion", "--input", str(tmp_path / "rows.jsonl")).returncode == 0


def test_an_error_of_the_user_is_told_without_a_traceback(published):
    edit(published / "params.yaml", encoders__text__revision="0" * 64, train__seed=3)
    done = retrain(published)
    assert done.returncode == 1
    assert "encoders.text.revision: the files in" in done.stdout + done.stderr
    assert "Traceback" not in done.stdout + done.stderr


def test_a_clone_without_the_champions_bundle_says_so_before_it_trains(published, tmp_path):
    other = tmp_path / "other"
    git(published, "clone", "--quiet", str(published), str(other))
    shutil.copytree(published / ".dvc" / "cache" / "files", other / ".dvc" / "cache" / "files")
    edit(other / "params.yaml", train__seed=5)
    for path in other.glob(".dvc/cache/files/md5/*/*.dir"):
        if "model.onnx" in path.read_text():
            path.chmod(0o644)
            path.unlink()
    done = retrain(other)
    assert done.returncode == 1
    assert "champion v1.0.0 cannot be fetched" in done.stderr
    assert "dvc remote modify --local artifacts url" in done.stderr
    assert "train@text" not in done.stdout + done.stderr


def test_a_run_shares_its_version_and_tells_a_server_of_itself(published, tmp_path):
    shared, port = tmp_path / "shared.git", free_port()
    git(published, "clone", "--quiet", "--bare", str(published), str(shared))
    git(published, "remote", "add", "origin", str(shared))
    edit(published / "params.yaml", publish__remote="origin", train__seed=4)
    commit(published, "Share")
    api = f"http://127.0.0.1:{port}/api"
    server = subprocess.Popen(
        [sys.executable, "-m", "prefect", "server", "start", "--port", str(port)], cwd=tmp_path,
        env=environment(published), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        wait_for(lambda: answers(f"{api}/health"), 120)
        done = shell(published, "env", f"PREFECT_API_URL={api}", sys.executable, "-m", "flows.retrain")
        assert "Published v1.1.0" in done.stdout, done.stderr
        assert "temporary server" not in done.stdout + done.stderr
        artifacts = {one["key"]: one for one in post(f"{api}/artifacts/latest/filter")}
        assert [run["state_name"] for run in post(f"{api}/flow_runs/filter")] == ["Published"]
    finally:
        server.terminate()
        server.wait(30)
    tags = set(git(shared, "tag").split())
    assert tags == set(git(published, "tag").split()) >= {"fusion@v1.1.0", "fusion#champion#2"}
    assert len(git(shared, "branch", "--list", "retrain/*").splitlines()) == 2
    stages = {f"progress-{name}" for name in ("train-text", "train-image", "fuse-fusion", "benchmark")}
    assert stages <= artifacts.keys() >= {"verdict", "outcome", "report", "evidence"}
    assert "The ensemble and its members on the test split" in artifacts["evidence"]["data"]
    assert "Champion v1.0.0 and challenger" in artifacts["evidence"]["data"]
    assert "fusion v1.1.0 is the champion" in artifacts["outcome"]["data"]
    rules = json.loads(artifacts["verdict"]["data"])
    assert [(rule["verdict"], rule["outcome"]) for rule in rules] == [
        ("quality", "Passed"), ("quality", "Passed"), ("serving", "Passed"), ("serving", "Passed"),
    ]  # fmt: skip
    assert "file://" in artifacts["report"]["data"]

    stranger = tmp_path / "stranger"
    git(published, "clone", "--quiet", str(shared), str(stranger))
    done = retrain(stranger)
    assert "Nothing to do" in done.stdout, done.stderr
    told = re.sub(r"[\s│]+", " ", done.stdout)
    assert "champion/ holds nothing, not v1.1.0: run `fuseline promote v1.1.0`" in told


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def answers(url: str) -> bool:
    try:
        return urllib.request.urlopen(url, timeout=5).status == 200
    except OSError:
        return False


def post(url: str) -> list[dict]:
    request = urllib.request.Request(url, data=b"{}", headers={"Content-Type": "application/json"})
    return json.load(urllib.request.urlopen(request, timeout=30))


def test_a_terminated_run_leaves_the_champion_and_no_process(published, tmp_path):
    edit(published / "params.yaml", members__experts__text__epochs=500)
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.retrain"], cwd=published, env=environment(published), stdout=log, stderr=log
        )
        wait_for(lambda: processes("fuseline.stages.train text", published), 240)
        process.terminate()
        assert process.wait(60) != 0
    wait_for(lambda: not processes("", published), 30)
    assert read_bundle(published / "champion")
    assert '"outcome": "failed"' in "".join(path.read_text() for path in published.glob(".fuseline/runs/*/run.json"))


@pytest.mark.parametrize("room", ["600k", "30m"], ids=["cloning", "training"])
def test_a_full_disk_is_told_in_one_line_and_harms_no_champion_while(room, published):
    if subprocess.run(["unshare", "-rm", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs unshare and user namespaces, to mount a small disk")
    edit(published / "params.yaml", train__seed=7)
    work = published / ".fuseline" / "work"
    work.mkdir(exist_ok=True)
    mounted = 'mount -t tmpfs -o "size=$1" tmpfs "$2" && exec "$3" -m flows.retrain'
    done = shell(published, "unshare", "-rm", "sh", "-c", mounted, "sh", room, str(work), sys.executable)
    assert done.returncode == 1
    told = done.stderr[done.stderr.rindex("\nerror: ") :].splitlines()
    assert "space left" in told[1]
    assert told[2] == "The champion is untouched."
    assert read_bundle(published / "champion")
    assert git(published, "tag", "--list", "fusion@*") == "fusion@v1.0.0"


def processes(words: str, repo: Path) -> list[str]:
    """Return the ids of processes with these words in their command that work inside `repo`."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
            inside = (folder / "cwd").resolve().is_relative_to(repo)
        except OSError:
            continue
        if words in command and inside:
            found.append(folder.name)
    return found


def wait_for(condition, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.5)


def replace_data(repo: Path, rows: list[dict]) -> None:
    import pyarrow as pa

    from fuseline.data.shards import SCHEMA, write_data_set

    shutil.rmtree(repo / "data")
    write_data_set(
        repo / "data", "shapes", "classification", ["circle", "square", "star"], [pa.Table.from_pylist(rows, SCHEMA)]
    )
    assert shell(repo, "dvc", "add", "data").returncode == 0
    commit(repo, "Other data")


def test_two_runs_at_once_publish_one_after_the_other_or_refuse(published):
    anything = {"name": "any", "metric": "evaluation.ensemble.accuracy", "min": 0.0}
    edit(published / "params.yaml", gate=[anything, EXPORTED])
    results = []
    threads = [threading.Thread(target=lambda: results.append(retrain(published))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    published_now = [done for done in results if "Published v1.1.0" in done.stdout]
    assert len(published_now) == 1, [done.stdout + done.stderr for done in results]
    assert read_bundle(published / "champion")
