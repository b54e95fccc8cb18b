"""Horovod 0.28.1 has no wheels: ours is compiled once, for TensorFlow 2.15.1 and 2.21.0, and speaks to the agents' rendezvous."""

from services.chassis.environments.horovod.recipe import VERSION, Recipe, recipe_of, stands_in_for, with_horovod
from services.chassis.environments.horovod.wheel import Work, folder_with_wheel

__all__ = ["VERSION", "Recipe", "Work", "folder_with_wheel", "recipe_of", "stands_in_for", "with_horovod"]
