"""Mix-up and cut-mix against their definitions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mlf_jax import UserError, data
from mlf_jax.data import mixing
from tests import quick

mix_shares = quick.jit(mixing.mix_shares, static_argnums=1)
cut_mix = quick.jit(mixing.cut_mix)


def draw_keys(batch, step=0):
  return data.sample_keys(0, step, jnp.arange(batch, dtype=jnp.int32))


@pytest.mark.parametrize('alpha', [0.2, 1.0])
def test_shares_have_the_symmetric_beta_distribution(alpha):
  shares = np.asarray(mix_shares(draw_keys(2000), alpha))
  assert shares.dtype == np.float32
  assert shares.min() >= 0 and shares.max() <= 1
  variance = 1 / (4 * (2 * alpha + 1))
  # Five standard deviations of the mean, and a tenth of the variance.
  assert abs(shares.mean() - 0.5) < 5 * (variance / 2000) ** 0.5
  assert abs(shares.var() / variance - 1) < 0.1
  low, high = np.quantile(shares, [0.25, 0.75])
  assert abs(low + high - 1) < 0.1
  assert len(np.unique(shares)) > 1900
  # Each share depends on its own key alone.
  twice = np.arange(2000) // 2
  again = mix_shares(draw_keys(2000)[twice], alpha)
  np.testing.assert_array_equal(again, shares[twice])


def test_mix_up_is_linear_in_the_precision_of_what_it_mixes(x64):
  random = np.random.default_rng(1)
  shares = jnp.array([0.0, 1.0, 0.25, 0.5], jnp.float32)
  for dtype in (jnp.bfloat16, jnp.float32, jnp.float64):
    own, partner = jnp.asarray(random.integers(0, 9, (2, 4, 3, 2)), dtype)
    mixed = mixing.mix_up(shares, own, partner)
    assert mixed.dtype == dtype
    share = shares.astype(dtype)[:, None, None]
    np.testing.assert_array_equal(mixed, partner + share * (own - partner))


@pytest.mark.parametrize('time', [(), (3,)])
def test_cut_mix_takes_one_box_from_the_partner(time):
  """Its centre is any pixel; the share is what is left of the pixels."""
  height, width, count = 8, 6, 400
  own = jnp.ones((count, *time, height, width, 2))
  shares = jnp.linspace(0, 1, count)
  keys = draw_keys(count)
  mixed, kept = map(np.asarray, cut_mix(keys, shares, own, -own))
  centres = set()
  for sample, share, left in zip(mixed, np.asarray(shares), kept, strict=True):
    box = sample[(0,) * len(time)][..., 0] < 0
    assert np.all((sample < 0) == box[..., None])
    np.testing.assert_allclose(left, 1 - box.mean(), rtol=1e-6)
    rows, columns = np.nonzero(box.any(1))[0], np.nonzero(box.any(0))[0]
    assert box.sum() == len(rows) * len(columns)
    for side, size in ((rows, height), (columns, width)):
      longest = 2 * (int(size * np.sqrt(1 - share) + 1e-4) // 2)
      assert len(side) <= longest
      # A box is only cut off at a border.
      if len(side) and side[0] > 0 and side[-1] < size - 1:
        assert len(side) == longest
    if len(rows):
      centres.add((rows[0], columns[0]))
  assert len(centres) > 20
  # Each box depends on its own key alone.
  again, _ = cut_mix(keys[::-1], shares[::-1], own, -own)
  np.testing.assert_array_equal(again[::-1], mixed)


def test_with_both_each_sample_is_mixed_in_either_way():
  own, keys = jnp.ones((300, 8, 8, 1)), draw_keys(300)
  mix = quick.jit(mixing.mix, static_argnums=(3, 4))
  up, cut, (mixed, shares) = (
    jax.tree.map(np.asarray, mix(keys, own, -own, *amounts))
    for amounts in ((1.0, 0.0), (0.0, 1.0), (1.0, 1.0))
  )
  took = []
  for i in range(300):
    from_either = [
      np.array_equal(mixed[i], samples[i]) and shares[i] == share[i]
      for samples, share in (up, cut)
    ]
    assert any(from_either)
    took.append(from_either[0])
  assert 100 < sum(took) < 200


def test_mistakes():
  own, keys = jnp.ones((2, 4, 4, 1)), draw_keys(2)
  with pytest.raises(UserError, match='they must agree'):
    mixing.cut_mix(keys, jnp.ones(2), own, own[:, :3])
  with pytest.raises(UserError, match='one entry per sample'):
    mixing.mix_up(jnp.ones(3), own, own)
