"""The paths under which programs of 0.2 import what trains models."""
