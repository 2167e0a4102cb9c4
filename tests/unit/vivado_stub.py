"""A Tcl interpreter in which Vivado's commands, as far as the projects use them, are checked rather than done: the
options and arguments of each (Vivado Tcl Command Reference, UG835), the parameters and pins of the processing system
(PG201), and that everything exists before it is used and a net has one driver.
"""

import re

OPTIONS = {  # command: (options with a value, options without one, fewest and most arguments behind them)
    "create_project": (("-name", "-part"), ("-force",), 0, 2),
    "add_files": ((), ("-norecurse",), 1, 1),
    "read_xdc": ((), (), 1, 1),
    "set_property": (("-dict",), (), 1, 3),
    "get_property": ((), (), 2, 2),
    "current_project": ((), (), 0, 1),
    "current_fileset": ((), (), 0, 0),
    "get_board_parts": ((), ("-latest_file_version",), 0, 1),
    "get_files": ((), (), 1, 1),
    "create_bd_design": ((), (), 1, 1),
    "create_bd_cell": (("-type", "-vlnv"), (), 1, 1),
    "apply_bd_automation": (("-rule", "-config"), (), 1, 1),
    "get_bd_cells": ((), (), 1, 1),
    "get_bd_pins": ((), (), 1, 1),
    "get_bd_intf_pins": ((), (), 1, 1),
    "get_bd_ports": ((), (), 1, 1),
    "get_bd_intf_ports": ((), (), 1, 1),
    "create_bd_port": (("-dir", "-type", "-from", "-to"), (), 1, 1),
    "connect_bd_net": ((), (), 2, 99),
    "make_bd_intf_pins_external": (("-name",), (), 1, 1),
    "assign_bd_address": ((), (), 0, 0),
    "validate_bd_design": ((), (), 0, 0),
    "save_bd_design": ((), (), 0, 0),
    "generate_target": ((), (), 2, 2),
    "make_wrapper": (("-files",), ("-top",), 0, 0),
    "synth_design": (("-top",), (), 0, 0),
    "get_cells": (("-filter",), ("-quiet", "-hier"), 0, 1),
    "get_pins": (("-of", "-filter"), (), 0, 1),
    "opt_design": ((), (), 0, 0), "place_design": ((), (), 0, 0), "route_design": ((), (), 0, 0),
    "phys_opt_design": ((), (), 0, 0),
    "write_checkpoint": ((), ("-force",), 1, 1),
    "write_bitstream": ((), ("-force", "-bin_file"), 1, 1),
    "set_false_path": (("-to",), (), 0, 0),
    "set_max_delay": (("-from", "-to"), ("-datapath_only",), 1, 1),
    "quit": ((), (), 0, 0),
}
REPORTS = ("timing_summary", "utilization", "io", "control_sets", "clock_utilization", "route_status", "drc",
           "methodology", "power")
REPORT = (("-file", "-max_paths"), ("-hierarchical", "-verbose", "-no_header", "-no_detailed_paths", "-datasheet"),
          0, 0)
# Of zynq_ultra_ps_e: pins with their directions, interfaces, and parameters with the values that they may have.
PINS = {"pl_clk0": "O", "pl_resetn0": "O", "emio_uart0_txd": "O", "emio_uart0_rxd": "I", "emio_ttc0_wave_o": "O",
        **{f"saxihp{k}_fpd_aclk": "I" for k in range(4)}}
INTERFACES = [f"S_AXI_HP{k}_FPD" for k in range(4)]
PARAMETERS = {
    "PSU__FPGA_PL0_ENABLE": "[01]", "PSU__CRL_APB__PL0_REF_CTRL__FREQMHZ": r"\d+(\.\d+)?",
    "PSU__NUM_FABRIC_RESETS": "[0-4]", "PSU__UART0__PERIPHERAL__ENABLE": "[01]",
    "PSU__UART0__PERIPHERAL__IO": r"EMIO|MIO \d+ \.\. \d+", "PSU__TTC0__WAVEOUT__ENABLE": "[01]",
    "PSU__TTC0__WAVEOUT__IO": r"EMIO|MIO \d+",
    **{f"PSU__USE__M_AXI_GP{k}": "[01]" for k in range(3)}, **{f"PSU__USE__S_AXI_GP{k}": "[01]" for k in range(7)},
    **{f"PSU__SAXIGP{k}__DATA_WIDTH": "32|64|128" for k in range(7)},
}


class Wrong(Exception):
    """A command that Vivado would refuse."""


class Project:
    """What the commands have made. ``ports``: of the block design, {name: direction}; ``external``: its interfaces,
    {name: pin}; ``settings``: parameters of the processing system; ``drivers``: {sink: driver}; ``sources``: files.
    """

    def __init__(self):
        self.ports, self.external, self.settings, self.drivers, self.done = {}, {}, {}, {}, []
        self.cells, self.sources, self.design, self.widths = [], [], None, {}

    def call(self, name, words, split):
        """Result (str) of a command with its words; Wrong if it is not one of Vivado's as they are known here."""
        valued, flags, least, most = OPTIONS[name] if name in OPTIONS else REPORT
        options, rest, words = {}, [], list(words)
        while words:
            word = words.pop(0)
            if word in valued:
                options[word] = words.pop(0)
            elif word in flags:
                options[word] = ""
            elif re.match(r"-[a-z]", word):
                raise Wrong(f"{name}: unknown option {word}")
            else:
                rest.append(word)
        if not least <= len(rest) <= most:
            raise Wrong(f"{name}: {len(rest)} arguments")
        self.done.append(name)
        handler = getattr(self, f"_{name}", None)
        return handler(options, rest, split) if handler else " ".join(rest) or name

    def _add_files(self, options, rest, split):
        self.sources += rest
        return ""

    def _get_cells(self, options, rest, split):
        return ""

    _get_pins = _get_cells

    def _create_bd_design(self, options, rest, split):
        self.design = rest[0]
        return rest[0]

    def _get_files(self, options, rest, split):
        if rest[0] != f"{self.design}.bd":
            raise Wrong(f"get_files {rest[0]}: no such file")
        return rest[0]

    def _make_wrapper(self, options, rest, split):
        return f"{self.design}_wrapper.v"

    def _create_bd_cell(self, options, rest, split):
        if options["-vlnv"] != "xilinx.com:ip:zynq_ultra_ps_e":
            raise Wrong(f"create_bd_cell: {options['-vlnv']}")
        self.cells += rest
        return rest[0]

    def _known(self, what, name, known):
        if name not in known:
            raise Wrong(f"{what} {name}: there is none")
        return name

    def _get_bd_cells(self, options, rest, split):
        return self._known("cell", rest[0], self.cells)

    def _get_bd_pins(self, options, rest, split):
        return self._known("pin", rest[0], [f"{cell}/{pin}" for cell in self.cells for pin in PINS])

    def _get_bd_intf_pins(self, options, rest, split):
        return self._known("interface", rest[0], [f"{cell}/{pin}" for cell in self.cells for pin in INTERFACES])

    def _get_bd_ports(self, options, rest, split):
        return self._known("port", rest[0], self.ports)

    def _get_bd_intf_ports(self, options, rest, split):
        return self._known("interface port", rest[0], self.external)

    def _create_bd_port(self, options, rest, split):
        if rest[0] in self.ports or options["-dir"] not in "IO":
            raise Wrong(f"create_bd_port {rest[0]}")
        self.ports[rest[0]] = options["-dir"]
        self.widths[rest[0]] = int(options.get("-from", 0)) - int(options.get("-to", 0)) + 1
        return rest[0]

    def _make_bd_intf_pins_external(self, options, rest, split):
        slave = int(re.search(r"HP(\d)", rest[0])[1]) + 2
        if self.settings.get(f"PSU__USE__S_AXI_GP{slave}") != "1":
            raise Wrong(f"{rest[0]}: not enabled")
        self.external[options["-name"]] = rest[0]
        return options["-name"]

    def _connect_bd_net(self, options, rest, split):
        def drives(name):
            return PINS[name.partition("/")[2]] == "O" if "/" in name else self.ports[name] == "I"
        driver = [name for name in rest if drives(name)]
        if len(driver) != 1:
            raise Wrong(f"connect_bd_net: driven by {driver}")
        for name in set(rest) - {driver[0]}:
            if name in self.drivers:
                raise Wrong(f"{name}: driven by {self.drivers[name]} already")
            self.drivers[name] = driver[0]
        return ""

    def _set_property(self, options, rest, split):
        pairs = split(options["-dict"]) if "-dict" in options else rest[:2]
        target = rest[-1]
        if len(pairs) % 2 or len(rest) != (1 if "-dict" in options else 3):
            raise Wrong(f"set_property: {pairs} of {target}")
        for name, value in zip(pairs[::2], pairs[1::2], strict=True):
            if target in self.cells:
                name = name.removeprefix("CONFIG.")
                if name not in PARAMETERS or not re.fullmatch(PARAMETERS[name], value):
                    raise Wrong(f"set_property {name} {value}")
                self.settings[name] = value
            elif name == "CONFIG.ASSOCIATED_BUSIF":
                for interface in value.split(":"):
                    self._known("interface port", interface, self.external)
        return ""

    def _validate_bd_design(self, options, rest, split):
        slaves = [int(name[-1]) - 2 for name, value in self.settings.items()
                  if re.fullmatch(r"PSU__USE__S_AXI_GP\d", name) and value == "1"]
        needed = [f"{cell}/saxihp{k}_fpd_aclk" for cell in self.cells for k in slaves]
        open_ = [name for name in (*needed, *(p for p, way in self.ports.items() if way == "O"))
                 if name not in self.drivers]
        if open_ or len(self.external) != len(slaves):
            raise Wrong(f"validate_bd_design: {open_} not driven, interfaces {list(self.external)}")
        return ""


def run(script, folder):
    """The Project that a script in a folder makes; Wrong, or tkinter's TclError for what is no Tcl."""
    from tkinter import Tcl  # of Python's own library; it shows nothing
    tcl, project = Tcl(), Project()

    def command(name):
        def called(*words):
            try:
                return project.call(name, map(str, words), lambda text: list(map(str, tcl.splitlist(text))))
            except Exception as error:
                project.error = error
                raise
        return called

    for name in (*OPTIONS, *(f"report_{what}" for what in REPORTS)):
        tcl.createcommand(name, command(name))
    tcl.call("cd", str(folder))
    try:
        tcl.call("source", script)
    except Exception as error:
        raise getattr(project, "error", error) from None
    return project
