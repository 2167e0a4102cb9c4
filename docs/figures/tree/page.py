"""The steps, tables and pictures of docs/fff.md, for docs/figures/figures.py."""

from docs.figures.tree import cpu, picture, slots, speed
from docs.figures.tree.shapes import GLU, SHAPES

# The paths of the steps that a table or picture is made of.
MADE_OF = {"table.tree.speed": ("tree.speed",), "table.tree.cycles": ("tree.speed",),
           "table.tree.slots": (slots.STEP,), "table.tree.cpu": (cpu.STEP,),
           picture.PICTURE: ("tree.speed", slots.STEP),
           **{speed.gain(name, shape): tuple(f"tree.speed.{name}.{which}" for which in (GLU, shape))
              for name in speed.CASES for shape in SHAPES}}


def steps(image):
    """{name: function without parameters} in the order of their runs; ``image`` gives the tokenizer."""
    return {**{f"tree.speed.{name}.{shape}": lambda name=name, shape=shape: speed.speed(name, shape, image)
               for name, shape in speed.names()}, slots.STEP: slots.step, cpu.STEP: cpu.measure}


def tables(results):
    """Markdown by name (dict of str), of what is there of the figures: ``results`` are values by step."""
    return speed.tables(results) | slots.tables(results) | cpu.tables(results)


def draw(results, folder):
    """Write the pictures for which every figure is there; returns what shows them, by name (dict of str)."""
    return picture.draw(results, folder)
