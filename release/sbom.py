"""The software bill of materials: agentload and all that it needs to run, as CycloneDX 1.6 JSON.

https://cyclonedx.org/docs/1.6/json/ says what the fields mean. It is made from the metadata of what is installed, which
`requirements.lock` decides; the hashes of the files are there.
"""

import datetime
import re
import uuid
from importlib import metadata
from typing import Any

from packaging.requirements import Requirement


def needs(name: str) -> list[str]:
    """Names of what a distribution needs here, extras apart."""
    found = (Requirement(line) for line in metadata.requires(name) or [])
    return sorted({plain(r.name) for r in found if r.marker is None or r.marker.evaluate({"extra": ""})})


def plain(name: str) -> str:
    """The one spelling of a name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(name: str) -> dict[str, list[str]]:
    """Everything that is needed, and what each of it needs."""
    found: dict[str, list[str]] = {}
    open_names = [name]
    while open_names:
        if (one := open_names.pop()) not in found:
            found[one] = needs(one)
            open_names += found[one]
    return found


def reference(name: str) -> str:
    return f"pkg:pypi/{plain(name)}@{metadata.version(name)}"


def component(name: str, kind: str) -> dict[str, Any]:
    about = metadata.metadata(name)
    said: dict[str, Any] = {
        "type": kind,
        "bom-ref": reference(name),
        "name": name,
        "version": metadata.version(name),
        "purl": reference(name),
    }
    if expression := about.get("License-Expression"):
        said["licenses"] = [{"expression": expression}]
    elif names := [line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or [] if "License ::" in line]:
        said["licenses"] = [{"license": {"name": each}} for each in names]
    if summary := about.get("Summary"):
        said["description"] = summary
    return said


def bill(name: str, epoch: int) -> dict[str, Any]:
    """The bill of that distribution; `epoch` (Unix seconds) is the time it bears."""
    found = closure(name)
    components = [component(each, "library") for each in sorted(found) if each != name]
    whole = " ".join(sorted(map(reference, found)))
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": uuid.uuid5(uuid.NAMESPACE_URL, whole).urn,
        "version": 1,
        "metadata": {
            "timestamp": datetime.datetime.fromtimestamp(epoch, datetime.UTC).isoformat(),
            "component": component(name, "application"),
        },
        "components": components,
        "dependencies": [
            {"ref": reference(each), "dependsOn": [reference(other) for other in found[each]]} for each in sorted(found)
        ],
    }
