"""Checks of `prepare`: what it gives for a cell, and that it depends on the cell, options and assets alone."""

from __future__ import annotations

import multiprocessing
import sys
import warnings
from multiprocessing.connection import Connection

import torch
from torch import Tensor

from mmtool.encoding import sha256_of
from mmtool.testing.compare import same_bits
from mmtool.testing.encoders.subject import EncoderSubject, prepare_all
from mmtool.testing.verdicts import fail, skip

TIMEOUT_S = 60


def prepares_cells(subject: EncoderSubject) -> None:
    """`prepare` gives tensors on the CPU, `[L, ...]`, of one dtype and equal but for L; or it raises CellError."""
    prepared = prepare_all(subject.encoder, subject.cells)
    usable = [x for x in prepared if x is not None]
    for x in usable:
        if not isinstance(x, Tensor) or x.ndim < 1:
            fail(f"prepare must return a tensor [L, ...], it returned {_described(x)}")
        if x.device.type != "cpu" or x.dtype == torch.bfloat16 or x.is_sparse:
            fail(f"prepare must return a dense tensor on the CPU of a type that NumPy has, it is {_described(x)}")
    if len(usable) < 2:
        fail(f"prepare refused {len(prepared) - len(usable)} of {len(prepared)} sample cells, and the checks need two; "
             "give some that it takes in a classmethod `sample_cells`")
    for x in usable[1:]:
        if x.dtype != usable[0].dtype or x.shape[1:] != usable[0].shape[1:]:
            fail("prepared cells may differ in their first axis alone, since the host pads that one: they are "
                 f"{_described(usable[0])} and {_described(x)}")
    dim = subject.encoder.dim
    if not isinstance(dim, int) or dim < 1:
        fail(f"set self.dim to the width of the tokens, it is {dim!r}")


def prepares_the_same_twice(subject: EncoderSubject) -> None:
    """The same cell gives the same bits, whatever the state of the random generator, and is not changed by it."""
    first = subject.prepared
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(987)
        again = [x for x in prepare_all(subject.encoder, subject.cells) if x is not None]
    if len(again) != len(first) or not all(map(same_bits, first, again)):
        fail("prepare gave other bits for the same cell; leave out randomness (augmentation is the host's), and change "
             "neither the cell nor self")


def prepares_in_another_process(subject: EncoderSubject) -> None:
    """A reader process, forked from this one, gets the same bits."""
    if not sys.platform.startswith("linux"):
        skip("tried on Linux only, where a process can be forked safely")
    here = sha256_of({str(i): x for i, x in enumerate(subject.prepared)})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads; the child runs only one
        context = multiprocessing.get_context("fork")
        ours, theirs = context.Pipe(duplex=False)
        child = context.Process(target=_prepare_there, args=(subject, theirs), daemon=True)
        child.start()
    theirs.close()
    try:
        there = ours.recv() if ours.poll(TIMEOUT_S) else f"gave nothing in {TIMEOUT_S} s"
    except EOFError:
        there = "ended the process"
    finally:
        child.terminate()
        child.join()
        ours.close()
    if there != here:
        fail(f"prepare in a reader process {there}; use no hash(), process id, thread pool, lock or GPU there")


def _prepare_there(subject: EncoderSubject, pipe: Connection) -> None:
    torch.set_num_threads(1)  # the parent's pool of threads does not exist here
    try:
        prepared = [x for x in prepare_all(subject.encoder, subject.cells) if x is not None]
        same = len(prepared) == len(subject.prepared) and all(map(same_bits, subject.prepared, prepared))
        digest = sha256_of({str(i): x for i, x in enumerate(prepared)})
        pipe.send(digest if same else "gave other bits")
    except BaseException as error:  # noqa: BLE001  it is told to the parent
        pipe.send(f"raised {type(error).__name__}: {error}")


def _described(x: object) -> str:
    return f"{x.dtype} {list(x.shape)} on {x.device}" if isinstance(x, Tensor) else type(x).__name__
