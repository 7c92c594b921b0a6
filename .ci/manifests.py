"""Checks the manifests of deploy/ strictly: Kubernetes' own kinds against its schemas, KEDA's against its models.

An unknown key is an error, and so is a trigger's key that KEDA does not know, although its schema allows any.
"""
import sys

import kubernetes_validate
import yaml
from cloudcoil.models.keda.v1alpha1 import ScaledObject

TRIGGERS = {
    "metrics-api": {"url", "format", "valueLocation", "targetValue", "activationTargetValue", "unsafeSsl",
                    "aggregateFromKubeServiceEndpoints", "aggregationType"},
    "prometheus": {"serverAddress", "query", "threshold", "activationThreshold", "namespace", "ignoreNullValues"},
}


def check(manifest):
    if manifest["apiVersion"] != "keda.sh/v1alpha1":
        kubernetes_validate.validate(manifest, "1.37", strict=True)
        return
    kept = ScaledObject.model_validate(manifest).model_dump(by_alias=True, exclude_unset=True, mode="json")
    assert kept == manifest, f"KEDA does not know all of this: {manifest}"
    for trigger in manifest["spec"]["triggers"]:
        unknown = trigger["metadata"].keys() - TRIGGERS[trigger["type"]]
        assert not unknown, f"{trigger['type']} has no {unknown}"
        assert all(isinstance(value, str) for value in trigger["metadata"].values()), "KEDA reads texts"


for path in sys.argv[1:]:
    manifests = list(yaml.safe_load_all(open(path, encoding="utf-8")))
    assert manifests, f"{path} is empty"
    for manifest in manifests:
        check(manifest)
        print(f"{path}: {manifest['kind']} {manifest['metadata']['name']} is valid")
