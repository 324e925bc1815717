"""Scripted, memoryless policies for the manipulation tasks: obs [O] -> action [A]."""

import jax.numpy as jnp

from o2ojax.envs.manipulation import LIFT, NEAR, REST, STEP, Sight, see
from o2ojax.types import Array

CLEARANCE = 0.075  # m, height of the moving hand above the cube


def toward(sight: Sight, target: Array) -> Array:
    """Action [3] that moves the hand towards a point [3]."""
    return jnp.clip((target - sight.hand) / STEP, -1.0, 1.0)


def over(point: Array) -> Array:
    """Point [3] at CLEARANCE above a point [3]."""
    return point.at[2].add(CLEARANCE)


def aside(a: Array, b: Array) -> Array:
    """Horizontal distance, m []."""
    return jnp.linalg.norm((a - b)[:2])


def reach(obs: Array) -> Array:
    """Moves the hand straight to the goal."""
    sight = see(obs)
    return toward(sight, sight.goal)


def push(obs: Array) -> Array:
    """Moves behind the cube, pushes it along the line to the goal, then stops."""
    sight = see(obs)
    way = sight.goal - sight.cube
    heading = way / jnp.maximum(jnp.linalg.norm(way), 0.01)
    lead = jnp.dot(sight.cube - sight.hand, heading)  # of the cube before the hand, m
    on_line = sight.cube - lead * heading
    ready = (lead > 0.02) & (jnp.linalg.norm(sight.hand - on_line) < 0.02)
    behind = sight.cube - 0.06 * heading
    approach = jnp.where(aside(sight.hand, behind) > 0.015, over(behind), behind)
    target = jnp.where(ready, on_line + way, approach)
    rest = jnp.linalg.norm(way) < NEAR / 2
    return toward(sight, jnp.where(rest, sight.hand, target))


def lift(obs: Array) -> Array:
    """Moves above the cube, down around it, closes the gripper, and lifts."""
    sight = see(obs)
    aligned = aside(sight.hand, sight.cube) < 0.01
    around = aligned & (jnp.abs(sight.hand[2] - sight.cube[2]) < 0.015)
    held = around & (sight.opening < 0.052)  # the cube is 0.05 wide
    raised = sight.hand.at[2].set(REST + LIFT + 0.03)
    target = jnp.where(aligned, sight.cube, over(sight.cube))
    target = jnp.where(held, raised, target)
    return jnp.append(toward(sight, target), jnp.where(around, 1.0, -1.0))


DENSE = {"reach": reach, "push": push, "lift": lift}
SCRIPTED = DENSE | {f"{name}_sparse": policy for name, policy in DENSE.items()}
