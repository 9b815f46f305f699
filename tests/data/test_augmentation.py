"""Augmentation draws what the paper draws, however the batch is divided."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from mlf_jax import data
from mlf_jax.data import augmentation, mixing
from mlf_jax.data.events import augmentation as events
from mlf_jax.fields import Field
from tests import quick

PADDING = 2
FRAMES = (4, 9, 8, 2)
flip = quick.jit(data.random_flip)
crop = quick.jit(data.random_crop, static_argnums=2)
cutout = quick.jit(augmentation.random_cutout, static_argnums=2)


def draw_images(batch, *sample_shape):
  """Returns images without any zero, so that padding is told from content."""
  random = np.random.default_rng(0)
  images = random.integers(1, 256, (batch, *sample_shape), np.uint8)
  return jnp.asarray(images)


def draw_keys(batch, seed=0, step=0):
  return data.sample_keys(seed, step, jnp.arange(batch, dtype=jnp.int32))


def crop_offset(image, cropped):
  """Returns the (top, left) at which `cropped` lies in the padded image."""
  height, width = image.shape[-3:-1]
  sides = [(0, 0)] * (image.ndim - 3) + [(PADDING, PADDING)] * 2 + [(0, 0)]
  padded = np.pad(image, sides)
  (offset,) = [
    (top, left)
    for top in range(2 * PADDING + 1)
    for left in range(2 * PADDING + 1)
    if np.array_equal(
      padded[..., top : top + height, left : left + width, :], cropped
    )
  ]
  return offset


@pytest.mark.parametrize('sample_shape', [(5, 6, 3), (3, 5, 6, 2)])
def test_flip_and_crop_draw_independently_from_the_same_keys(sample_shape):
  images, keys = draw_images(600, *sample_shape), draw_keys(600)
  flipped = np.asarray(flip(keys, images))
  cropped = np.asarray(crop(keys, images, PADDING))
  assert flipped.dtype == cropped.dtype == images.dtype
  draws = []
  for image, mirrored, part in zip(
    np.asarray(images), flipped, cropped, strict=True
  ):
    is_flipped = not np.array_equal(image, mirrored)
    if is_flipped:
      np.testing.assert_array_equal(image[..., ::-1, :], mirrored)
    draws.append((is_flipped, *crop_offset(image, part)))
  flips, tops, lefts = np.transpose(draws).astype(float)
  # Binomial with mean 300 and standard deviation 12.
  assert 240 < flips.sum() < 360
  counts = np.unique(np.stack([tops, lefts]), axis=1, return_counts=True)[1]
  # All places; binomial with mean 24 and standard deviation 4.8.
  assert len(counts) == (2 * PADDING + 1) ** 2 and counts.max() < 54
  # A correlation of 600 independent pairs has standard deviation 0.04.
  correlation = np.corrcoef([flips, tops, lefts])
  assert np.abs(correlation - np.eye(3)).max() < 0.2
  np.testing.assert_array_equal(flip(keys, flipped), images)
  np.testing.assert_array_equal(crop(keys, images, 0), images)


def test_keys_differ_between_seeds_steps_and_positions():
  keys = [
    jax.random.key_data(draw_keys(16, seed, step))
    for seed in range(3)
    for step in range(3)
  ]
  assert len(np.unique(np.concatenate(keys), axis=0)) == 9 * 16
  traced = quick.jit(data.sample_keys)(
    jnp.int32(1), jnp.int32(2), jnp.arange(16, dtype=jnp.int32)
  )
  np.testing.assert_array_equal(jax.random.key_data(traced), keys[5])


def augment(images, position):
  keys = data.sample_keys(3, 11, position)
  return data.random_crop(keys, data.random_flip(keys, images), PADDING)


def test_result_does_not_depend_on_how_the_batch_is_divided():
  images = draw_images(16, 5, 6, 3)
  position = jnp.arange(16, dtype=jnp.int32)
  once = quick.jit(augment)
  whole = once(images, position)
  halves = [once(images[h], position[h]) for h in np.split(np.arange(16), 2)]
  np.testing.assert_array_equal(np.concatenate(halves), whole)
  mesh = jax.make_mesh((8,), ('data',), axis_types=(AxisType.Auto,))
  by_batch = PartitionSpec('data')
  mapped = jax.shard_map(
    augment, mesh=mesh, in_specs=by_batch, out_specs=by_batch, check_vma=False
  )
  sharded = jax.device_put((images, position), NamedSharding(mesh, by_batch))
  for function in (augment, mapped):
    np.testing.assert_array_equal(quick.jit(function)(*sharded), whole)


def test_every_draw_has_a_stream_of_its_own():
  streams = [
    value
    for module in (augmentation, events, mixing)
    for name, value in vars(module).items()
    if name.endswith('_STREAM')
  ]
  assert len(streams) == len(set(streams)) == 10


# --- The configured augmentations of a batch ---


@pytest.mark.parametrize('shape', [(3, 5, 4, 2), (5, 4, 2)])
def test_cutout_is_one_whole_square_anywhere_inside(shape):
  side, axes = 2, (*range(len(shape) - 3), len(shape) - 1)
  images = draw_images(300, *shape)
  cut = np.asarray(cutout(draw_keys(300), images, side))
  corners = {}
  for sample, original in zip(cut, np.asarray(images), strict=True):
    rows, columns = np.nonzero(~sample.any(axes))
    top, left = rows.min(), columns.min()
    expected = original.copy()
    expected[..., top : top + side, left : left + side, :] = 0
    np.testing.assert_array_equal(sample, expected)
    assert len(rows) == side**2
    corners[top, left] = corners.get((top, left), 0) + 1
  # All 4 x 3 corners; binomial with mean 25 and standard deviation 4.8.
  assert set(corners) == {(t, w) for t in range(4) for w in range(3)}
  assert max(corners.values()) < 50


ALL = {
  'flip': True,
  'translation': 2,
  'rotation': 50.0,
  'shear': 20.0,
  'cutout': 3,
  'event_drop': 0.25,
  'time_shift': 1,
}


def batch_of(with_partners=False):
  random = np.random.default_rng(1)
  frames = random.integers(0, 256, (16, *FRAMES), np.uint8)
  split = data.Split(frames, np.arange(16, dtype=np.int32) % 5)
  return data.train_batch(split, 16, 0, 0, with_partners)


def augmented(settings):
  batch = batch_of(data.needs_partners(settings))
  normalize = lambda x: x.astype(jnp.float32) - 5
  function = lambda step, batch: data.augment_batch(
    settings, 0, step, batch, normalize, num_classes=5
  )
  return batch, quick.jit(function)(jnp.int32(4), batch)


def test_augmentations_follow_one_another_on_raw_counts():
  batch, (inputs, labels) = augmented(ALL)

  @quick.jit
  def one_after_another(position, frames):
    keys = data.sample_keys(0, 4, position)
    frames = data.random_flip(keys, frames)
    frames = data.random_crop(keys, frames, 2)
    frames = events.random_rotation(keys, frames, 50.0)
    frames = events.random_shear(keys, frames, 20.0)
    frames = augmentation.random_cutout(keys, frames, 3)
    frames = events.drop_events(keys, frames, 0.25)
    return events.random_time_shift(keys, frames, 1)

  frames = one_after_another(batch['position'], batch['image'])
  np.testing.assert_array_equal(inputs, frames.astype(jnp.float32) - 5)
  np.testing.assert_array_equal(labels, np.eye(5)[batch['label']])


def test_both_samples_of_a_mixture_are_what_they_are_alone():
  settings = {'flip': True, 'translation': 2}
  _, (alone, labels) = augmented(settings)
  batch, (inputs, soft_labels) = augmented({**settings, 'mixup': 0.7})
  keys = data.sample_keys(0, 4, batch['position'])
  shares = np.asarray(quick.jit(mixing.mix_shares, static_argnums=1)(keys, 0.7))
  partners = batch['partner_position']
  for mixed, own in ((inputs, alone), (soft_labels, labels)):
    own = np.asarray(own)
    share = shares.reshape((-1,) + (1,) * (own.ndim - 1))
    expected = share * own + (1 - share) * own[partners]
    np.testing.assert_allclose(mixed, expected, rtol=1e-5, atol=1e-5)
  np.testing.assert_allclose(soft_labels.sum(1), 1, rtol=1e-6)


def test_what_is_off_leaves_no_trace():
  off = {
    field.name: type(field.default)()
    for field in data.augmentation_fields(True)
  }
  trace = lambda settings: str(
    jax.make_jaxpr(
      lambda batch: data.augment_batch(settings, 0, 4, batch, jnp.float32, 5)
    )(batch_of())
  )
  assert trace(off) == trace({})
  assert 'random_bits' not in trace(off)


def test_each_kind_of_samples_has_the_fields_of_its_augmentations():
  images, frames = (
    {field.name: field.default for field in data.augmentation_fields(kind)}
    for kind in (False, True)
  )
  off = {'cutout': 0, 'mixup': 0.0, 'cutmix': 0.0}
  assert images == {'flip': True, 'crop_padding': 4, **off}
  # The method's paper does not augment event data.
  assert not any(frames.values())
  assert list(frames) == [*ALL, 'mixup', 'cutmix']


def test_an_augmentation_of_your_own_is_one_entry(monkeypatch):
  monkeypatch.setitem(
    data.AUGMENTATIONS,
    'invert',
    data.Augmentation(
      lambda keys, images, amount: amount - images,
      image_field=Field('invert', 0, 'subtract images from this value'),
    ),
  )
  assert 'invert' in {f.name for f in data.augmentation_fields(False)}
  assert 'invert' not in {f.name for f in data.augmentation_fields(True)}
  batch, (inputs, _) = augmented({'invert': 255})
  np.testing.assert_array_equal(inputs, 250.0 - batch['image'])
