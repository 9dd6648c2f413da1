"""Do features, or the encoders installed here, fit a model? Identity decides, and both sides are named."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmtool import console
from mmtool.errors import ArtefactError, DataError

if TYPE_CHECKING:
    from mmtool.features.reader import Features
    from mmtool.model import Model


def check_features(model: Model, features: Features, names: Sequence[str]) -> None:
    """Raises MMToolError where an input's features were made by another encoder, or fused otherwise, than the model's."""
    if list(names) == ["fused"] and model.upstream is not None:
        if model.header["upstream"]["identity"] != features.header["inputs"]["fused"]["identity"]:
            raise ArtefactError(f"{features.folder} was fused otherwise than the features that the model was trained on",
                                "fuse them again with the same fusion and the same encoders, or give the manifest",
                                code="E_ARTEFACT_MISMATCH")
        return
    for name in names:
        check(name, "the model", model.header["inputs"][name], str(features.folder), features.header["inputs"][name])


def check(name: str, one: str, mine: Mapping[str, Any], other: str, theirs: Mapping[str, Any]) -> None:
    """Raises MMToolError where two headers of an input state other encoders."""
    if mine["identity"] != theirs["identity"]:
        differ = [k for k in mine["identity"] if mine["identity"][k] != theirs["identity"].get(k)]
        raise ArtefactError(f"input {name!r}: {one} takes {mine['encoder']} of {mine['package']}; {other} has "
                            f"{theirs['encoder']} of {theirs['package']}, which differs in {', '.join(differ)}",
                            "use features of the same encoder, or train again", code="E_ARTEFACT_MISMATCH")
    if mine["pooled"] != theirs["pooled"]:
        wants, has = (("one pooled vector", "every token") if mine["pooled"] else ("every token", "one pooled vector"))
        raise ArtefactError(f"input {name!r}: {one} takes {wants} of a cell; {other} has {has}",
                            f"extract again {'without' if mine['pooled'] else 'with'} --tokens, or give the manifest",
                            code="E_ARTEFACT_MISMATCH")


def shared_inputs(model: Model, given: Sequence[str], where: str) -> list[str]:
    """The inputs that model and features have in common; says which are missing. Raises MMToolError for none."""
    if model.upstream is not None and list(given) == ["fused"]:
        return ["fused"]
    names = [n for n in model.inputs if n in given]
    if not names:
        read = {n: "+".join(model.header["inputs"][n]["columns"]) for n in model.inputs}
        raise DataError(f"{where} has none of the columns that the model's inputs read ({', '.join(read.values())})",
                        "name its columns so; of features, name the inputs so: -e INPUT@COLUMN=ENCODER")
    if missing := [n for n in model.inputs if n not in given]:
        console.warn(f"{where} has no {', '.join(missing)}; the model goes on without")
    return names
