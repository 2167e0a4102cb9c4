"""python -m sterna.hw: presets, boards and their bitstreams, Verilog of the accelerator, cells of
its units.
"""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from sterna.hw.boards import BOARDS, find_board, preset
from sterna.hw.config import ConfigError
from sterna.hw.flow.synth import FAMILIES, find_tool, synthesise
from sterna.hw.flow.units import UNITS, SynthesisError, check, create, units_of
from sterna.hw.presets import PRESETS
from sterna.sim.golden.files import write_file
from sterna.sim.golden.progress import abandon, working

INTERRUPTED = 130  # what a shell calls a program ended by SIGINT
# The base of all wrong uses; typer exports only this one of them
ClickUsageError = typer.BadParameter.__mro__[1]
app = typer.Typer(
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Gateware of Sterna: presets, Verilog, resources, boards and bitstreams.",
)
Preset = Annotated[
    str, typer.Option("--preset", "-p", help="Configuration; see the command presets.")
]


@app.command()
def presets(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False):
    """List the named configurations."""
    fields = (
        "rows",
        "columns",
        "lanes",
        "port_bytes",
        "weight_code",
        "memory",
        "memory_bytes",
        "clock_hz",
    )
    rows = [
        {"preset": c.name} | {f: getattr(c, f) for f in fields} | {"digest": c.digest[:12]}
        for c in PRESETS.values()
    ]
    _print(rows, as_json)


@app.command()
def verilog(
    preset_name: Preset,
    output: Annotated[Path, typer.Option("-o", "--output", help="File to write.")],
    unit: Annotated[str, typer.Option("--unit", help="Unit to write.")] = "accelerator",
):
    """Write the Verilog of the accelerator, or of one unit."""
    from amaranth.back import verilog as back

    component = create(unit, preset(preset_name))
    with working() as step:
        step(f"writing the Verilog of {unit} for {preset_name}")
        text = back.convert(component, name=unit, strip_internal_attrs=True, emit_src=False)
    try:
        write_file(output, text)
    except OSError as error:
        raise SynthesisError(f"cannot write {output}: {error.strerror}") from None


@app.command()
def synth(
    units: Annotated[
        list[str],
        typer.Argument(
            metavar="UNIT...",
            help=f"One of {', '.join(UNITS)}, all, or whole: the whole of an AMD part by unit.",
        ),
    ],
    preset_name: Preset = "lanes40",
    family: Annotated[
        str, typer.Option("--family", help=f"One of {', '.join(FAMILIES)}.")
    ] = "ecp5",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
):
    """Synthesise units with yosys and print their cells."""
    config = preset(preset_name)
    if family not in FAMILIES:
        raise SynthesisError(f"unknown family {family!r}: use one of {', '.join(FAMILIES)}")
    if units == ["whole"]:
        from sterna.hw.flow.whole import by_unit

        with working() as step:
            found = by_unit(config, family, step)
        rows = [{"unit": cells.unit, "luts": cells.luts} | cells.as_dict() for cells in found]
        _print(rows, as_json)
        return
    names = units_of(config) if units == ["all"] else units
    for name in names:
        check(name, config)
    with working() as step:
        cells = [synthesise(name, config, family, step).as_dict() for name in names]
    _print(cells, as_json)


BoardName = Annotated[
    str,
    typer.Argument(metavar="BOARD", help=f"One of {', '.join(BOARDS)}, or module:NAME of a Board."),
]


@app.command()
def boards(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False):
    """List the boards that bitstreams can be built for."""
    _print(
        [
            {
                "board": b.name,
                "platform": b.platform.partition(":")[2],
                "clock_mhz": f"{b.config.clock_hz / 1e6:g}",
                "memory": b.config.sdram or b.config.memory,
                "memory_mhz": f"{b.config.memory_hz / 1e6:g}",
                "baud": b.baud,
            }
            for b in BOARDS.values()
        ],
        as_json,
    )


@app.command()
def bitstream(
    name: BoardName,
    seeds: Annotated[
        str,
        typer.Option(
            "--seeds", help="Seeds of place and route, tried in turn until every clock is met."
        ),
    ] = "1,2,3,4,5",
):
    """Build the bitstream of a board.

    Its path is printed on standard output. Of a board that AMD's Vivado builds for, the project is
    written, and Vivado run if it is on PATH.
    """
    from sterna.hw.flow import bitstream as flow

    if not all(seed.isascii() and seed.isdigit() for seed in seeds.split(",")):
        raise SynthesisError(f"--seeds {seeds!r}: use numbers with commas, such as 1,2,3")
    board = find_board(name)
    if board.vivado:
        from sterna.hw.flow import vivado

        with working() as step:
            path = vivado.bitstream(board, step)
        print(path)
        return
    with working() as step:
        path, routed = flow.bitstream(board, [*map(int, seeds.split(","))], step)
    used = ", ".join(
        f"{count:,} of {routed.available[kind]:,} {kind.replace('_', ' ')}"
        for kind, count in routed.used.items()
    )
    print(f"{name}: {used}", file=sys.stderr)
    for domain, clock in routed.clocks.items():
        print(
            f"{name}: {domain} {clock.fmax_hz / 1e6:.1f} MHz of {clock.target_hz / 1e6:.1f} MHz "
            "(nextpnr's model)",
            file=sys.stderr,
        )
    print(path)


@app.command()
def program(
    name: BoardName,
    flash: Annotated[
        bool, typer.Option("--flash", help="Write it into the board's flash, to stay.")
    ] = False,
    model: Annotated[
        Path | None,
        typer.Option(
            "--model",
            help="Write this file of sterna flash instead, to where the board looks for a model.",
        ),
    ] = None,
):
    """Load the bitstream that was built last into a board.

    openFPGALoader does it.
    """
    from sterna.hw.flow import bitstream as flow

    board = find_board(name)
    if board.vivado:
        raise SynthesisError(
            f"{name}: its own Linux loads it: copy {name}.bit.bin and {name}.dtbo there and run "
            f"fpgautil -b {name}.bit.bin -o {name}.dtbo (docs/kv260.md)"
        )
    if model and board.flash_offset is None:
        raise SynthesisError(f"{name}: loads no model from its flash: send it with sterna upload")
    if model and not model.is_file():
        raise SynthesisError(
            f"--model {model}: no such file: make it with sterna flash -m MODEL -o FILE"
        )
    path = model or flow.built(board)
    place = ["--offset", str(board.flash_offset)] if model else []
    tool = find_tool("openFPGALoader", flow.EXTRA)
    done = subprocess.run(
        [tool, *board.programmer, *["--write-flash"] * bool(flash or model), *place, str(path)]
    )
    if done.returncode:
        raise SynthesisError(f"{name}: openFPGALoader failed ({done.returncode}): {_why(tool)}")


def _why(tool):
    """What keeps openFPGALoader from working: a library that is not there, or else the cable."""
    said = subprocess.run([tool, "--Version"], capture_output=True, text=True)
    missing = re.search(
        r"(lib[\w.+-]+)(?:: cannot open shared object|\W+Reason: )", said.stderr + said.stdout
    )
    if missing:
        return (
            f"this machine lacks the library {missing[1]}: install libftdi1 and libusb (Debian: "
            "apt-get install libftdi1-2 libusb-1.0-0; macOS: brew install libftdi)"
        )
    return "is the board plugged in, and may you use its USB port?"


def _print(rows, as_json):
    """Prints a list of dictionaries with the same keys as JSON or as a markdown table."""
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    columns = list(rows[0])
    lines = [columns, *([str(row[c]) for c in columns] for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(columns))]
    for number, line in enumerate(lines):
        print(
            "| "
            + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True))
            + " |"
        )
        if number == 0:
            print("|" + "|".join("-" * (width + 2) for width in widths) + "|")


def main(arguments=None):
    """Runs the command line and raises SystemExit; a known error becomes one line and exit status
    1.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    try:
        code = app(
            args=arguments or ["--help"], prog_name="python -m sterna.hw", standalone_mode=False
        )
        if code == INTERRUPTED:  # what Typer makes of Ctrl-C
            print("error: interrupted", file=sys.stderr)
    except (ConfigError, SynthesisError, ClickUsageError) as error:
        abandon()
        usage = isinstance(error, ClickUsageError)
        code, message = (2, error.format_message()) if usage else (1, str(error))
        print("error: " + " ".join(message.split()), file=sys.stderr)
    raise SystemExit(code if isinstance(code, int) else 0)


if __name__ == "__main__":
    main()
