"""Scripted, memoryless policies for the manipulation tasks: obs [O] -> action [A]."""

import jax.numpy as jnp

from o2ojax.envs.containers import HANDLE, ROOF, TRAY, put_away
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


def grasp(sight: Sight, onward: Array) -> Array:
    """Moves above the cube, down around it, closes the gripper, and goes onward [3]."""
    aligned = aside(sight.hand, sight.cube) < 0.01
    around = aligned & (jnp.abs(sight.hand[2] - sight.cube[2]) < 0.015)
    held = around & (sight.opening < 0.052)  # the cube is 0.05 wide
    target = jnp.where(aligned, sight.cube, over(sight.cube))
    target = jnp.where(held, onward, target)
    return jnp.append(toward(sight, target), jnp.where(around, 1.0, -1.0))


def raised(sight: Sight) -> Array:
    """Where the hand lifts a cube to, [3]."""
    return sight.hand.at[2].set(REST + LIFT + 0.03)


def lift(obs: Array) -> Array:
    """Grasps the cube and lifts it."""
    sight = see(obs)
    return grasp(sight, raised(sight))


def tray(obs: Array) -> Array:
    """Grasps the cube, carries it over the tray's rim, and leaves it in the tray."""
    sight = see(obs)
    there = jnp.array([*TRAY, 0.11])
    up = sight.hand.at[2].set(there[2])
    over_rim = jnp.where(sight.hand[2] > 0.07, there, up)
    down = there.at[2].set(REST - 0.005)
    onward = jnp.where(aside(sight.hand, there) < 0.02, down, over_rim)
    leave = jnp.append(toward(sight, up), -1.0)
    return jnp.where(put_away(sight), leave, grasp(sight, onward))


def drawer(obs: Array) -> Array:
    """Opens the drawer by its handle, then grasps the cube in it and lifts it."""
    sight = see(obs)
    exposed = sight.cube[0] > ROOF + 0.03
    take_out = grasp(sight, raised(sight))
    up = jnp.append(toward(sight, sight.hand.at[2].set(0.115)), -1.0)
    amidst = aside(sight.hand, sight.cube) < 0.02
    take_out = jnp.where(amidst | (sight.hand[2] > 0.085), take_out, up)
    return jnp.where(exposed, take_out, pull(sight))


def pull(sight: Sight) -> Array:
    """Moves the closed gripper behind the drawer's handle, and pulls it."""
    handle = jnp.array([HANDLE, 0.0, 0.04]).at[0].add(sight.drawer)
    behind = handle.at[0].add(-0.03)
    hooked = (aside(sight.hand, behind) < 0.025) & (sight.hand[2] < 0.06)
    above = jnp.where(aside(sight.hand, behind) < 0.008, behind, over(behind))
    target = jnp.where(hooked, handle.at[0].add(0.02), above)
    return jnp.append(toward(sight, target), 1.0)


DENSE = {"reach": reach, "push": push, "lift": lift}
SCRIPTED = DENSE | {f"{name}_sparse": policy for name, policy in DENSE.items()}
SCRIPTED |= {"tray_sparse": tray, "drawer_sparse": drawer}
