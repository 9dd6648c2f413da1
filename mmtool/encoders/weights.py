"""Reading a file of pretrained weights without running anything in it, and filling a network from it."""

from __future__ import annotations

import warnings
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor, nn

from mmtool.api import ArtefactError, StorageError, read_safetensors

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
NESTED = ("state_dict_ema", "model_ema", "state_dict", "model")
WRAPPERS = ("_orig_mod.", "module.", "model.")


def read_state(path: Path) -> dict[str, Tensor]:
    """Names and tensors of a .safetensors file or of a .pth, .pt or .bin one (`torch.load(weights_only=True)`).

    A training checkpoint is searched for its weights, averaged ones first; the prefixes that torch.compile,
    DataParallel and torchaudio's wrapper put before every name are taken off.
    Raises MMToolError for a file that is absent, damaged, or holds more than weights.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise ArtefactError(f"weights {path}: {path.suffix or 'no suffix'} is no known kind of weights",
                            f"give a file that ends in {', '.join(SUFFIXES)}", code="E_WEIGHTS")
    if not path.exists():
        raise StorageError(f"weights {path}: there is no such file", code="E_NOT_FOUND")
    if not path.is_file():  # a pipe would be waited for
        raise ArtefactError(f"weights {path}: it is no regular file", "give a file", code="E_WEIGHTS")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of unusual pickles: they are read, or refused below
            content = read_safetensors(path) if path.suffix.lower() == ".safetensors" else \
                torch.load(path, map_location="cpu", weights_only=True)
    except ArtefactError as error:
        raise ArtefactError(f"weights {error.message}", "fetch or save it again", code="E_WEIGHTS") from error
    except StorageError:
        raise
    except UnpicklingError as error:
        raise ArtefactError(f"weights {path}: refused, for it holds other Python objects than tensors",
                            "save its state_dict alone, best as .safetensors", code="E_WEIGHTS") from error
    except Exception as error:  # a damaged pickle can raise anything
        raise ArtefactError(f"weights {path}: cannot be read: {str(error).splitlines()[0] if str(error) else 'cut off'}",
                            "fetch or save it again", code="E_WEIGHTS") from error
    for key in NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise ArtefactError(f"weights {path}: it holds no names with tensors", "save the network's state_dict",
                            code="E_WEIGHTS")
    state = {str(name): tensor for name, tensor in content.items()}
    for prefix in WRAPPERS:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def fill(network: nn.Module, state: Mapping[str, Tensor], source: str, *, optional: Collection[str] = ()) -> None:
    """Load `state` into `network`; names that begin with one of `optional` may be absent or extra.

    Raises MMToolError, with the first few names, where tensors are missing, unknown or of another shape.
    """
    prefixes = tuple(optional)
    own = network.state_dict()
    state = {n: t for n, t in state.items() if n in own or not n.startswith(prefixes)}
    wrong = [f"{n} {list(t.shape)} instead of {list(own[n].shape)}"
             for n, t in state.items() if n in own and t.shape != own[n].shape]
    if wrong:
        raise ArtefactError(f"weights {source}: shapes of another network: {_few(wrong)}", "name the model they belong to",
                            code="E_WEIGHTS")
    # load_state_dict is asked rather than the names compared: it knows the names that older versions of torch wrote
    result = network.load_state_dict(state, strict=False)
    for fact, names in (("lacks", result.missing_keys), ("has unknown", result.unexpected_keys)):
        if names := [n for n in names if not n.startswith(prefixes)]:
            raise ArtefactError(f"weights {source}: {fact} {_few(names)}", "name the model they belong to", code="E_WEIGHTS")


def _few(names: Sequence[str], most: int = 3) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
