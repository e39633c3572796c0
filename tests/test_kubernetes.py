"""What `launch/kubernetes/` and `launch/Dockerfile` say is valid, and agrees."""

import json
import pathlib
import re
import shutil
import subprocess

import pytest

from trainer import errors, flags

yaml = pytest.importorskip("yaml", reason="PyYAML is missing: pip install '.[test]'")

_ROOT = pathlib.Path(__file__).resolve().parents[1]
_FOLDER = _ROOT / "launch" / "kubernetes"
_MANIFESTS = {
    (document["kind"], document["metadata"]["name"]): document
    for path in sorted(_FOLDER.glob("**/*.yaml"))
    if not path.name.startswith("kustomiz")
    for document in yaml.safe_load_all(path.read_text())
}
_JOB = _MANIFESTS["Job", "segloop"]
_TRAIN_JOB = _MANIFESTS["TrainJob", "segloop"]
_RUNTIME = _MANIFESTS["ClusterTrainingRuntime", "segloop"]
_NODES = _RUNTIME["spec"]["template"]["spec"]["replicatedJobs"][0]
_JOBS = {"job": _JOB["spec"], "kubeflow": _NODES["template"]["spec"]}


def _container(job):
    (container,) = job["template"]["spec"]["containers"]
    return container


def _environment(job):
    return {entry["name"]: entry.get("value") for entry in _container(job)["env"]}


def _validate(document):
    validation = pytest.importorskip(
        "kubernetes_validate",
        reason="kubernetes-validate is missing: pip install '.[test]'",
    )
    validation.validate(document, "1.37", strict=True)


@pytest.mark.parametrize("kind", ["PersistentVolumeClaim", "Service", "Job"])
def test_manifests_follow_the_schema(kind):
    found = [value for key, value in _MANIFESTS.items() if key[0] == kind]
    assert found
    for document in found:
        _validate(document)


def test_what_kubeflow_makes_a_job_of_follows_the_schema():
    # Its own kinds have none in Kubernetes.
    assert {_TRAIN_JOB["apiVersion"], _RUNTIME["apiVersion"]} == {
        "trainer.kubeflow.org/v1alpha1"
    }
    job = {"apiVersion": "batch/v1", "kind": "Job", **_NODES["template"]}
    _validate(job | {"metadata": job["metadata"] | {"name": "segloop-node-0"}})


@pytest.mark.parametrize(
    "folder", [_FOLDER, _FOLDER / "kubeflow"], ids=lambda f: f.name
)
def test_kustomize_takes_all_files(folder):
    kustomization = yaml.safe_load((folder / "kustomization.yaml").read_text())
    files = {path.name for path in folder.glob("*.yaml")} - {"kustomization.yaml"}
    taken = kustomization["resources"] + kustomization.get("configurations", [])
    assert set(taken) == files


def _tf_config(environment):
    """Runs the container's script with a stand-in for Python."""
    done = subprocess.run(
        ["bash", str(_ROOT / "launch" / "worker.sh")],
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout)


@pytest.fixture
def venv(tmp_path):
    """Returns a folder with a Python that prints TF_CONFIG."""
    program = tmp_path / "bin" / "python"
    program.parent.mkdir()
    program.write_text('#!/bin/sh\necho "$TF_CONFIG"\n')
    program.chmod(0o755)
    return str(tmp_path)


def _read_resources(folder=None):
    """Returns the manifests as they are."""
    kustomization = yaml.safe_load((_FOLDER / "kustomization.yaml").read_text())
    return [
        yaml.safe_load((_FOLDER / name).read_text())
        for name in kustomization["resources"]
    ]


def _kustomize(folder):
    """Lets Kustomize make the manifests of a run of one's own."""
    if not shutil.which("kubectl"):
        pytest.skip("kubectl is missing")
    shutil.copytree(_FOLDER, folder / "kubernetes")
    overlay = folder / "mine" / "kustomization.yaml"
    overlay.parent.mkdir()
    overlay.write_text("resources: [../kubernetes]\nnameSuffix: -mine\n")
    built = subprocess.run(
        ["kubectl", "kustomize", str(overlay.parent)],
        capture_output=True,
        text=True,
        check=True,
    )
    return list(yaml.safe_load_all(built.stdout))


def _kustomize_by_hand(folder):
    """Does as Kustomize does: appends to names, and to what it knows to be a name."""
    configuration = yaml.safe_load((_FOLDER / "kustomizeconfig.yaml").read_text())
    fields = [
        (field["kind"], field["path"])
        for reference in configuration["nameReference"]
        for field in reference["fieldSpecs"]
    ]
    # This one it knows without being told.
    volume = "spec/template/spec/volumes/0/persistentVolumeClaim/claimName"
    documents = _read_resources()
    for document in documents:
        document["metadata"]["name"] += "-mine"
        for kind, path in [*fields, ("Job", volume)]:
            if kind == document["kind"]:
                *parents, last = path.split("/")
                place = document
                for key in parents:
                    place = place[int(key) if key.isdecimal() else key]
                place[last] += "-mine"
    return documents


@pytest.mark.parametrize("build", [_read_resources, _kustomize_by_hand, _kustomize])
def test_pods_of_the_job_find_each_other(build, venv, tmp_path):
    made = {document["kind"]: document for document in build(tmp_path)}
    job, spec, service = made["Job"], made["Job"]["spec"], made["Service"]["spec"]
    count, template = spec["completions"], spec["template"]
    environment = _environment(spec)
    # Kubernetes fills in the variable that comes before, from a label that it sets.
    assert [*environment] == ["WORKERS", "RUN", "WORKER_HOSTS"]
    label = "metadata.labels['batch.kubernetes.io/job-name']"
    source = _container(spec)["env"][1]["valueFrom"]
    assert source == {"fieldRef": {"fieldPath": label}}
    name = environment["RUN"] = job["metadata"]["name"]
    environment["WORKER_HOSTS"] = environment["WORKER_HOSTS"].replace("$(RUN)", name)
    found = _tf_config({**environment, "VENV": venv, "JOB_COMPLETION_INDEX": "1"})
    # Kubernetes calls the pods of an indexed Job JOB-INDEX, in the Service's domain.
    domain = template["spec"]["subdomain"]
    port = service["ports"][0]["port"]
    assert found["cluster"]["worker"] == [
        f"{name}-{index}.{domain}:{port}" for index in range(count)
    ]
    assert found["task"] == {"type": "worker", "index": 1}
    assert (spec["completionMode"], spec["parallelism"]) == ("Indexed", count)
    assert made["Service"]["metadata"]["name"] == domain
    assert service["clusterIP"] == "None" and service["publishNotReadyAddresses"]
    assert service["selector"]
    assert service["selector"].items() <= template["metadata"]["labels"].items()
    volume = template["spec"]["volumes"][0]["persistentVolumeClaim"]["claimName"]
    assert volume == made["PersistentVolumeClaim"]["metadata"]["name"]
    assert _container(spec)["ports"][0]["containerPort"] == port


def test_pods_of_kubeflow_find_each_other(venv):
    environment = _environment(_JOBS["kubeflow"])
    # Kubernetes fills in the variable that comes before; Kubeflow sets the number.
    assert [*environment] == ["RUN", "WORKER_HOSTS"]
    hosts = environment["WORKER_HOSTS"].replace("$(RUN)", "mine")
    found = _tf_config(
        {
            "WORKER_HOSTS": hosts,
            "PET_NNODES": "2",
            "JOB_COMPLETION_INDEX": "0",
            "VENV": venv,
        }
    )
    assert found["cluster"]["worker"] == [
        "mine-node-0-0.mine:2222",
        "mine-node-0-1.mine:2222",
    ]
    assert _NODES["name"] == _container(_JOBS["kubeflow"])["name"] == "node"
    assert "torch" in _RUNTIME["spec"]["mlPolicy"]
    assert _TRAIN_JOB["spec"]["runtimeRef"]["name"] == _RUNTIME["metadata"]["name"]
    label = _NODES["template"]["metadata"]["labels"]
    assert label == {"trainer.kubeflow.org/trainjob-ancestor-step": "trainer"}


@pytest.mark.parametrize("name", _JOBS)
def test_exit_codes_restart_what_a_restart_mends(name):
    job = _JOBS[name]
    action_of = {}
    for rule in job["podFailurePolicy"]["rules"]:
        codes = rule.get("onExitCodes", {"values": ["disruption"], "operator": "In"})
        assert codes["operator"] == "In"
        assert (
            codes.get("containerName", _container(job)["name"])
            == (_container(job)["name"])
        )
        action_of.update(dict.fromkeys(codes["values"], rule["action"]))
    again = {"disruption", errors.PeerError.exit_code, errors.Stopped.exit_code}
    assert {code for code, action in action_of.items() if action == "Ignore"} == again
    # 5 is that of the data's errors.
    mistakes = {5} | {kind.exit_code for kind in _subclasses(errors.RunError)}
    mistakes -= {*again, errors.StallError.exit_code}
    assert {code for code, action in action_of.items() if action == "FailJob"} == (
        mistakes
    )
    assert mistakes == {1, 2, 3, 4, 5, 6}
    assert job["template"]["spec"]["restartPolicy"] == "Never"
    assert job["template"]["spec"]["terminationGracePeriodSeconds"] >= 120


@pytest.mark.parametrize("name", _JOBS)
def test_a_job_is_done_once_the_chief_is(name):
    """An index that has succeeded never starts again, to be a peer of the others."""
    rules = _JOBS[name]["successPolicy"]["rules"]
    assert rules == [{"succeededIndexes": "0"}]


def _subclasses(kind):
    found = [kind]
    for child in kind.__subclasses__():
        found += _subclasses(child)
    return found


def test_both_kinds_of_job_are_alike():
    job, nodes = _JOBS["job"], _JOBS["kubeflow"]
    policy = json.dumps(job["podFailurePolicy"]).replace("segloop", "node")
    assert json.loads(policy) == nodes["podFailurePolicy"]
    for part in ("backoffLimit", "podReplacementPolicy", "successPolicy"):
        assert job[part] == nodes[part]
    job, nodes = job["template"]["spec"], nodes["template"]["spec"]
    assert {**job, "containers": [], "subdomain": ""} == {
        **nodes, "containers": [], "subdomain": ""
    }  # fmt: skip


@pytest.mark.parametrize(
    "arguments",
    [_container(_JOB["spec"])["args"], _TRAIN_JOB["spec"]["trainer"]["args"]],
    ids=["job", "kubeflow"],
)
def test_a_run_is_a_flagfile_and_a_folder_of_the_volume(arguments, monkeypatch):
    monkeypatch.chdir(_ROOT)
    assert flags.read_config(arguments).remarks == []
    flagfile, model_dir = arguments
    assert flagfile.startswith("--flagfile=launch/flagfiles/")
    for job in _JOBS.values():
        mounts = {m["name"]: m["mountPath"] for m in _container(job)["volumeMounts"]}
        assert model_dir.startswith(f"--model_dir={mounts['runs']}/")


_DOCKERFILE = (_ROOT / "launch" / "Dockerfile").read_text()


def _instructions(name):
    text = _DOCKERFILE.replace("\\\n", " ")
    return re.findall(rf"^{name} (.*)$", text, re.MULTILINE)


def test_the_image_is_made_of_what_is_there():
    ignored = (_ROOT / ".dockerignore").read_text().splitlines()
    assert "*" in ignored
    copied = set()
    for instruction in _instructions("COPY"):
        *sources, _ = instruction.split()
        copied.update(sources)
    for source in copied:
        assert (_ROOT / source).exists()
        assert f"!{source.split('/')[0]}" in ignored
    assert copied >= {"trainer", "data", "models", "launch", "setup.py"}


def test_the_folder_of_results_is_there_before_docker_makes_it():
    head = _DOCKERFILE.partition("\nFROM")[0]
    mounted = re.search(r'--volume="\$PWD/(\w+):', head)
    assert f"mkdir --parents {mounted[1]} " in head[: mounted.start()]


def test_the_image_runs_a_tested_set_as_nobody_special():
    minor = re.match(r"python:3\.(\d+)-slim$", _instructions("FROM")[0])[1]
    assert f'python_requires=">=3.{minor}"' in (_ROOT / "setup.py").read_text()
    assert "--constraint=launch/constraints.txt" in _instructions("RUN")[-1]
    user, group = _instructions("USER")[-1].split(":")
    assert _instructions("ENTRYPOINT") == ['["bash", "launch/worker.sh"]']
    for job in _JOBS.values():
        context = job["template"]["spec"]["securityContext"]
        assert (context["runAsUser"], context["runAsGroup"]) == (int(user), int(group))
        assert context["runAsNonRoot"] and int(user) > 0
