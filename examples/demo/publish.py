"""Enqueue the same few tasks again and again: `python -m examples.demo.publish COUNT`."""

import sys

from examples.demo.shop import restock

WAREHOUSES = ("Aberdeen", "Bergen", "Calais")

for number in range(int(sys.argv[1])):
    restock.delay(WAREHOUSES[number % len(WAREHOUSES)])
