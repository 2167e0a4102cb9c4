"""sterna inspect: what is in an image, and on which boards it runs."""

import json
import statistics
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table

from sterna.host.console import printable, table_console, working
from sterna.host.errors import UsageError
from sterna.host.model.header import matrix_names
from sterna.host.model.image import Image, ImageError
from sterna.host.plan import rows as planned
from sterna.host.runtime.known import name_of
from sterna.hw.boards import BOARDS
from sterna.sim.perf.predict import predict


def matrices_of(image, path):
    """{matrix: [-1, 0, +1, scale]} of an image, counted; ImageError if its header says something else."""
    found = image.count()
    for name, told in (image.statistics or {}).items():
        if list(told) != found[name]:
            raise ImageError(f"{path}: damaged section header: statistics of {name} is {told}, its stream has "
                             f"{found[name]}: convert the checkpoint again")
    return {name: found[name] for name, _ in matrix_names(image.geometry)}


def trees_of(image):
    """What a token visits of the trees of a layer (dict); None of an image without trees."""
    g = image.geometry
    if g.mixer != "tree":
        return None
    return {"trees": g.trees, "depth": g.tree_depth, "always": g.tree_always, "neurons": g.neurons,
            "visited": g.visits}


def boards(geometry, step=lambda name: None):
    """A dict for each board: its ``name``, whether the model ``fits``, the ``reasons`` why not, and the speed.

    ``tokens_per_second`` is that of one sequence by the cycle model, at the clock of the board's bitstream; None
    where the model does not fit.
    """
    known, out = {}, []
    for name, board in BOARDS.items():
        step(f"predicting speeds: {name}")
        config = board.config
        why = planned.reasons(config, geometry)
        if not why and config.digest not in known:
            known[config.digest] = predict(config, geometry).stream_tokens_per_second
        out.append({"name": name, "fits": not why, "reasons": why,
                    "tokens_per_second": None if why else known[config.digest]})
    return out


def describe(image, path, step=lambda name: None):
    """Everything that ``inspect`` shows of an Image, as a dictionary; raises ImageError for a damaged one."""
    matrices = matrices_of(image, path)
    trits = [sum(entry[k] for entry in matrices.values()) for k in range(3)]
    scales = [entry[3] for entry in matrices.values()]
    return {
        "file": str(path), "bytes": len(image.data), "name": image.name,
        "eos": image.eos, "ends": image.ends,
        "geometry": dict(vars(image.geometry)), "tiling": image.tiling,
        "ternary_weights": image.geometry.ternary_weights, "trees": trees_of(image),
        "token_bytes": image.layout.token_bytes,
        "source": image.source, "answer": image.answer and image.answer.to_json(),
        "trits": dict(zip(("-1", "0", "+1"), trits, strict=True)),
        "scales": {"min": min(scales), "median": statistics.median(scales), "max": max(scales)},
        "matrices": matrices,
        "sections": [{"name": s["name"], "offset": s["offset"], "bytes": s["bytes"],
                      "crc32c": f"{s['crc32c']:08x}", "checksum": "ok"} for s in image.sections.values()],
        "boards": boards(image.geometry, step),
    }


def _bar(share):
    return "#" * round(40 * share)


def _known(answer, runs):
    """A line about the known answer of an image, which may be None."""
    if answer is None:
        return "no known answer: sterna convert, from image to image, adds one"
    return f"a prompt of {len(answer['prompt'])} tokens, and " + ", ".join(
        f"{len(run['tokens'])} {name}" for run, name in zip(answer["runs"], runs, strict=True))


def _lines(found, image_answer):
    """Lines in front of the tables."""
    ends = ", ".join(map(str, found["ends"]))
    yield (f"{printable(found['file'])}: {printable(found['name'])}, {found['bytes']:,} bytes, "
           f"{found['ternary_weights']:,} ternary weights, end of text {ends}")
    for name in ("geometry", "tiling"):
        yield f"{name + ':':<9} " + ", ".join(f"{k} {v}" for k, v in found[name].items())
    if trees := found["trees"]:
        loaded = sum(s["bytes"] for s in found["sections"] if s["name"] != "tokenizer")
        yield (f"trees:    {trees['trees']:,} of depth {trees['depth']} and {trees['always']:,} neurons always on in "
               f"a layer; a token visits {trees['visited']:,} of its {trees['neurons']:,} neurons, and reads "
               f"{found['token_bytes']:,} of {loaded:,} bytes")
    source = found["source"]
    yield "source:   " + printable(f"{source['weights']}, packed by sterna {source['sterna']} with numerics "
                          f"{source['numerics']}, sha256 {source['sha256']}" if source else "not known")
    yield "answer:   " + _known(found["answer"], [name_of(run) for run in image_answer.runs] if image_answer else ())
    total = sum(found["trits"].values())
    for name, count in found["trits"].items():
        yield f"trits {name:>2}: {count / total:6.1%} {_bar(count / total)}"
    scales = found["scales"]
    yield f"scales:   min {scales['min']:.3g}, median {scales['median']:.3g}, max {scales['max']:.3g}"


def inspect(
    path: Annotated[Path, typer.Argument(help="A .sterna file.", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with the trits of every matrix.")] = False,
):
    """Check an image and show what is in it.

    Verifies magic, versions, lengths and every checksum before it prints anything. Trits are those
    of all matrices, scales one per matrix. Tokens per second on a board are of one sequence, by the
    cycle model; sterna plan tells more.
    """
    if path.is_dir():
        raise UsageError(f"{path} is a folder: pack it with sterna convert first")
    with working() as step:
        image = Image.load(path)
        found = describe(image, path, step)
    if as_json:
        print(json.dumps(found, indent=2))
        return
    console = table_console()
    for line in _lines(found, image.answer):
        console.print(line, soft_wrap=True)
    table = Table("section", "offset", "bytes", "crc32c", "checksum")
    for s in found["sections"]:
        table.add_row(s["name"], f"{s['offset']:,}", f"{s['bytes']:,}", s["crc32c"], s["checksum"])
    console.print(table)
    table = Table("board", "fits", "tokens/s")
    for board in found["boards"]:
        rate = board["tokens_per_second"]
        table.add_row(board["name"], "yes" if board["fits"] else "no: " + "; ".join(board["reasons"]),
                      "" if rate is None else planned.speed(rate))
    console.print(table)
