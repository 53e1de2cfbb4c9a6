from fuseline.lineage.git import fetch_tags, git
from fuseline.lineage.publish import record
from fuseline.lineage.workspace import Workspace


def test_results_go_to_the_repository_and_to_its_shared_remote(repo, tmp_path):
    server = tmp_path / "server.git"
    git(repo, "init", "--bare", "-q", str(server))
    git(repo, "remote", "add", "origin", str(server))
    workspace = Workspace(repo, "r1", git(repo, "rev-parse", "HEAD"), fetch_tags(repo, "origin"))
    git(repo, "clone", "-q", str(repo), str(workspace.clone))
    git(workspace.clone, "checkout", "-q", "-b", workspace.branch)
    git(workspace.clone, "remote", "add", "upstream", str(workspace.upstream))
    (workspace.clone / "dvc.lock").write_text("lock\n")
    commit = record(workspace, "Retrain", {"Verdict": "refused"})
    for place in (repo, server):
        assert git(place, "rev-parse", "retrain/r1") == commit
    assert "Verdict: refused" in git(repo, "log", "-1", "--format=%B", commit)


def test_without_a_shared_remote_results_stay_here(repo):
    assert Workspace(repo, "r1", "abc").targets == ["origin"]
