from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from fuseline.lineage.git import fetch_tags, git
from fuseline.lineage.publish import assemble, record
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


def test_what_is_published_is_signed_where_the_environment_names_a_key(tmp_path, monkeypatch):
    for name in ("bundle", "evidence"):
        (tmp_path / name).mkdir()
    (tmp_path / "bundle" / "bundle.json").write_text("{}")
    assert not (assemble(tmp_path / "bundle", tmp_path / "evidence", tmp_path / "plain") / "bundle.sig").exists()
    key = Ed25519PrivateKey.generate()
    (tmp_path / "key").write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    monkeypatch.setenv("FUSELINE_SIGNING_KEY", str(tmp_path / "key"))
    signed = assemble(tmp_path / "bundle", tmp_path / "evidence", tmp_path / "signed")
    key.public_key().verify((signed / "bundle.sig").read_bytes(), b"{}")
