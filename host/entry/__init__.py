"""Sterna: MatMul-free ternary language models on FPGAs; the parts of this package are folders of its checkout."""


def load(model, device="cpu", **options):
    """An engine that makes texts with a model, see ``sterna.host.serving.engine.Engine``.

    Parameters
    ----------
    model : str or Path
        Image (.sterna) or checkpoint folder.
    device : str or list of str
        As ``--device`` of the commands: cpu, golden, sim, sim:PRESET, or a serial port or URL; several make a pool.
    **options
        threads : int, optional
            Of cpu; all that this process may use, or $STERNA_THREADS, if it is not given.
        baud : int
            Bits per second of serial ports; 1000000 if it is not given.
        state_cache_bytes : int
            Memory for states behind texts, so that those that begin with the same tokens need not read these again;
            64 MiB if it is not given, 0: none.
        state_cache_dir : str or Path, optional
            Folder in which states outlive the engine.
        queue : int
            Texts that may wait for a slot; 256 if it is not given.

    Returns
    -------
    Engine
        A context manager.

    Raises
    ------
    HostError
        The model or a device is not there, or they do not fit.
    """
    from sterna.host.serving.engine import load as load_engine  # importing sterna stays cheap
    return load_engine(model, device, **options)
