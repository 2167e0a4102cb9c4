"""A training shown as it runs: of a language model and of an encoder."""

from sterna.host.console import progress_bar, tell

LINE_STEPS = 100


def follow(run, found_in):
    """Train to the end: a bar on a terminal, and lines for the first step, some others and the evaluations.

    Parameters
    ----------
    run : object
        With ``progress`` (0 to 1) and ``run()``, which yields a record a step (dict): "step", "progress" and
        perhaps "loss".
    found_in : callable
        What an evaluation found, of a record (list of str); empty of a record without one.

    Returns
    -------
    dict
        The last record; empty if there was none.
    """
    record, first = {}, True
    with progress_bar() as bars:
        task = bars.add_task("the first step", total=1.0, completed=run.progress)
        for record in run.run():
            line = f"step {record['step']}" + (f", loss {record['loss']:.3f}" if "loss" in record else "")
            bars.update(task, completed=record["progress"], description=line)
            found = found_in(record)
            if first or found or record["step"] % LINE_STEPS == 0:
                line = ", ".join([line, *found])
                # A bar on a terminal must be the one to print, or the line would land inside it.
                tell(line) if bars.disable else bars.console.print(line, highlight=False)
            first = False
    return record
