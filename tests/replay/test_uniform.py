import jax
import jax.numpy as jnp
import numpy as np
import pytest

from o2ojax import replay
from o2ojax.errors import UserError
from o2ojax.replay import STORES, balanced, ring, uniform
from o2ojax.run.config import defaults
from o2ojax.run.resolve import resolve
from o2ojax.types import EMPTY, Transition

KEY = jax.random.key(0)
CAPACITY, BATCH = 8, 64


def serial(first, last):
    """Rows `first` to `last`, every field of which tells the number of its row."""
    number = np.arange(first, last, dtype=np.float32)
    return Transition(
        obs=np.stack([number, number], 1),
        action=number[:, None] / 1000,
        reward=number,
        discount=np.float32(number % 2),
        next_obs=np.stack([number, number], 1) + 1,
        last=number % 2 == 0,
        task=np.int32(number),
    )


def are_whole(data):
    """That no field was taken from another row."""
    number = np.asarray(data.reward)
    expected = jax.tree.map(lambda x: x[0], serial(0, 1))
    fields, likes = jax.tree.leaves(data), jax.tree.leaves(expected)
    for field, like in zip(fields, likes, strict=True):
        assert field.shape == (len(number), *like.shape) and field.dtype == like.dtype
    np.testing.assert_array_equal(data.obs, np.stack([number, number], 1))
    np.testing.assert_array_equal(data.action, np.float32(number)[:, None] / 1000)
    np.testing.assert_array_equal(data.discount, number % 2)
    np.testing.assert_array_equal(data.next_obs, data.obs + 1)
    np.testing.assert_array_equal(data.last, number % 2 == 0)
    np.testing.assert_array_equal(data.task, number)


DATASET = jax.tree.map(jnp.asarray, serial(100, 124))  # 24 rows, none below 100
LIKE = jax.tree.map(lambda x: x[0], DATASET)


def draw(buffer, state, num=1, key=KEY):
    """Reads `num` batches: rows [num * B]."""
    keys = jax.random.split(key, num)
    _, batches = jax.jit(jax.vmap(buffer.sample, (None, 0)))(state, keys)
    return jax.tree.map(lambda x: np.asarray(x).reshape(-1, *x.shape[2:]), batches)


def filled(buffer, *counts):
    """A store that rows 0, 1, 2, ... were added to, `counts` at a time."""
    state, first = buffer.init(), 0
    add = jax.jit(buffer.add)
    for count in counts:
        state = add(state, serial(first, first + count))
        first += count
    return state


# So that a new row of the balanced store is as likely as one of its few old ones.
ALIKE = balanced.Options(first_share=1000 / 1024, widths=(8,))


OF_ROWS = [name for name in STORES if STORES.find(name).serves == replay.ROWS]
INPUTS = replay.Inputs(DATASET, LIKE, BATCH, steps=100, capacity=CAPACITY)


def online(name, inputs=INPUTS):
    """A store of the registry, with such options that all its rows are often drawn."""
    store = STORES.find(name)
    options = ALIKE if store.options is balanced.Options else store.options()
    return store.online(inputs, options)


@pytest.fixture(params=OF_ROWS)
def named(request):
    return online(request.param)


@pytest.fixture(params=[name for name in OF_ROWS if name != "balanced"])
def even(request):
    """Those that draw each row by itself, and do not change when they are read."""
    return online(request.param)


def test_fields_stay_together(named):
    batch = draw(named, filled(named, 3), num=8)
    are_whole(batch.data)


def test_what_was_never_written_is_never_drawn(named):
    number = draw(named, filled(named, 3), num=16).data.reward
    assert set(number[number < 100]) == {0.0, 1.0, 2.0}


def test_the_newest_rows_are_kept(named):
    """19 rows into 8 places, in pieces that do not divide them."""
    batch = draw(named, filled(named, 5, 5, 5, 4), num=16)
    number = batch.data.reward
    assert set(number[number < 100]) == set(range(11, 19))
    are_whole(batch.data)


def test_a_write_may_wrap_around(named):
    number = draw(named, filled(named, 6, 4), num=16).data.reward
    assert set(number[number < 100]) == {2, 3, 4, 5, 6, 7, 8, 9}


def test_rows_of_a_batch_weigh_the_same(named):
    batch = draw(named, filled(named, 3))
    np.testing.assert_array_equal(batch.weight, np.ones(BATCH))


def test_an_index_names_its_row(named):
    """Of the dataset first where there is one, then of the ring."""
    state = filled(named, 5)
    batch = draw(named, state)
    number = np.concatenate([np.asarray(DATASET.reward), np.arange(5)])
    first = 0 if (batch.data.reward >= 100).any() else 24
    np.testing.assert_array_equal(number[batch.index + first], batch.data.reward)


def test_a_batch_is_a_function_of_its_key(named):
    state = filled(named, 5)
    one, same, other = (draw(named, state, key=jax.random.key(k)) for k in (0, 0, 1))
    np.testing.assert_array_equal(one.index, same.index)
    assert (one.index != other.index).any()


def test_rows_of_a_batch_are_drawn_independently(even):
    """No row tells anything of its neighbour: the pairs are as many as by chance."""
    index = draw(even, filled(even, 8), num=200).index.reshape(200, BATCH)
    same = (index[:, 1:] == index[:, :-1]).mean()
    assert same < 0.25  # 1 / 8 for the smallest store


def test_reading_changes_nothing(even):
    state = filled(even, 3)
    after, batch = even.sample(state, KEY)
    assert all(
        np.array_equal(a, b)
        for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(state), strict=True)
    )
    assert even.update_priorities(state, batch, ()) is state
    assert even.trial_context(state, 0, KEY) == ()


def test_only_the_ring_is_a_members_own(even):
    """Three members hold three rings, and no copy of the 24 rows of the dataset."""
    states = jax.vmap(lambda _: even.init())(jnp.arange(3))
    rows = jax.tree.leaves(states.rows)
    assert {leaf.shape[:2] for leaf in rows} == {(3, CAPACITY)}
    assert len(jax.tree.leaves(states)) == len(rows) + 1
    assert states.count.shape == (3,)


def test_members_read_their_own_rows(named):
    states = jax.vmap(lambda _: named.init())(jnp.arange(2))
    fresh = jax.tree.map(lambda *x: jnp.stack(x), serial(0, 4), serial(50, 54))
    states = jax.vmap(named.add)(states, fresh)
    for member, mine in enumerate(({0, 1, 2, 3}, {50, 51, 52, 53})):
        alone = jax.tree.map(lambda x, member=member: x[member], states)
        number = draw(named, alone, num=8).data.reward
        assert set(number[number < 100]) == mine


def evenly_drawn(counts):
    """Whether numbers of draws fit equal chances: chi-squared, within 5 sigma."""
    expected = counts.sum() / len(counts)
    chi_squared = ((counts - expected) ** 2 / expected).sum()
    freedom = len(counts) - 1
    return abs(chi_squared - freedom) < 5 * np.sqrt(2 * freedom)


def drawn(batch, size):
    return np.bincount(batch.index, minlength=size)


def test_in_a_union_every_row_has_the_same_chance():
    buffer = uniform.union(DATASET, CAPACITY, BATCH)
    counts = drawn(draw(buffer, filled(buffer, 5), num=300), 29)  # 24 + 5 rows
    assert len(counts) == 29 and evenly_drawn(counts)


def test_a_union_with_an_empty_ring_is_the_dataset():
    buffer = uniform.union(DATASET, CAPACITY, BATCH)
    batch = draw(buffer, buffer.init(), num=300)
    are_whole(batch.data)
    counts = drawn(batch, 24)
    assert len(counts) == 24 and evenly_drawn(counts)


def test_a_union_forgets_what_the_ring_forgot():
    buffer = uniform.union(DATASET, CAPACITY, BATCH)
    counts = drawn(draw(buffer, filled(buffer, 8, 8), num=300), 32)  # 24 + 8 rows
    assert len(counts) == 32 and evenly_drawn(counts)


@pytest.mark.parametrize("rows, old", [(64, 32), (5, 2)])
def test_symmetric_draws_half_of_every_batch_from_either(rows, old):
    buffer = uniform.symmetric(DATASET, CAPACITY, rows)
    batch = draw(buffer, filled(buffer, 5), num=300)
    are_whole(batch.data)
    is_old = batch.data.reward.reshape(300, rows) >= 100
    np.testing.assert_array_equal(is_old.sum(1), np.full(300, old))
    counts = drawn(batch, 29)
    assert evenly_drawn(counts[:24]) and evenly_drawn(counts[24:])


def test_the_online_store_never_touches_the_dataset():
    buffer = online("online")
    counts = drawn(draw(buffer, filled(buffer, 5), num=300), 5)
    assert len(counts) == 5 and evenly_drawn(counts)


def test_the_offline_store_is_the_dataset():
    buffer = uniform.offline(DATASET, BATCH)
    batch = draw(buffer, buffer.init(), num=300)
    are_whole(batch.data)
    counts = drawn(batch, 24)
    assert len(counts) == 24 and evenly_drawn(counts)
    assert buffer.init() == ()
    assert buffer.add is None


def test_a_run_from_scratch_has_nothing_to_read_offline():
    assert EMPTY.sample is None and EMPTY.add is None
    assert EMPTY.init() == ()


@pytest.mark.parametrize("name", OF_ROWS)
def test_offline_all_stores_of_rows_are_the_dataset_alone(name):
    store = STORES.find(name)
    buffer = store.offline(INPUTS, store.options())
    np.testing.assert_array_equal(
        draw(buffer, buffer.init()).index,
        draw(uniform.offline(DATASET, BATCH), ()).index,
    )
    assert buffer.init() == () and buffer.add is None


def test_without_a_capacity_a_ring_keeps_every_step():
    kept = [inputs.ring_size for inputs in (INPUTS, INPUTS._replace(capacity=0))]
    assert kept == [CAPACITY, 100]
    state = online("uniform", INPUTS._replace(capacity=0)).init()
    assert ring.size(state) == 100


def test_rewards_pass_one_gate_wherever_they_come_from(named):
    """Old rows and new ones are scaled and shifted alike, and once; the rest stays."""
    state = filled(named, 5)
    raw = draw(named, state)
    gated = replay.rewarded(named, 2.0, -3.0)
    batch = draw(gated, filled(gated, 5))
    np.testing.assert_array_equal(batch.data.reward, 2 * raw.data.reward - 3)
    are_whole(batch.data._replace(reward=raw.data.reward))
    np.testing.assert_array_equal(batch.index, raw.index)


def test_a_ring_counts_what_it_overwrote():
    state = ring.empty(LIKE, 4)
    for first, filled_rows in ((0, 3), (3, 4), (6, 4)):
        state = ring.add(state, serial(first, first + 3))
        assert int(ring.filled(state)) == filled_rows
    assert int(state.count) == 9 and ring.size(state) == 4
    # row n lies at n modulo 4: 8, 5, 6, 7
    np.testing.assert_array_equal(state.rows.reward, [8, 5, 6, 7])


def test_an_unknown_store_is_refused_by_name():
    with pytest.raises(UserError, match="'unifrom'.*mean 'uniform'.*symmetric"):
        STORES.find("unifrom")


@pytest.mark.parametrize("name", ["uniform", "symmetric", "balanced"])
def test_a_store_without_its_dataset_is_refused_by_name(name):
    config = defaults("sac", "hopper")
    config.offline.updates, config.replay.name = 0, "online"
    resolve(config)  # all else is right
    config.replay.name = name
    with pytest.raises(UserError, match=f"{name}.*dataset.*config.replay.name=online"):
        resolve(config)


def test_the_online_store_needs_no_dataset():
    buffer = online("online", INPUTS._replace(dataset=None))
    are_whole(draw(buffer, filled(buffer, 2)).data)
