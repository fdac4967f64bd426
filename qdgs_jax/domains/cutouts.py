"""Cutouts of images, scaled to CLIP's input size by adaptive average pooling.

Pooling an axis is a product with a small matrix that depends on size and offset of the cutout, so
cutouts of random size keep static shapes, stay differentiable and run as batched matrix products.
Cutouts follow the published QDGS program (Chang et al. 2024).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def pooling_matrix(
    size: jax.Array | int, offset: jax.Array | int, length: int, cells: int
) -> jax.Array:
    """Adaptive average pooling of `length` pixels' part [offset, offset + size) to `cells`.

    Row i averages the part's pixels from `floor(i size / cells)` up to, exclusive,
    `ceil((i + 1) size / cells)`, as PyTorch's `adaptive_avg_pool2d` does.

    Args:
        size: Int[], pixels of the cutout, at least 1; `offset + size <= length`.
        offset: Int[], first pixel of the cutout.
        length: pixels of the axis.
        cells: cells to pool to.

    Returns:
        Float[cells, length], rows sum to 1.
    """
    row = jnp.arange(cells)[:, None]
    start = (row * size) // cells
    end = ((row + 1) * size + cells - 1) // cells
    pixel = jnp.arange(length)[None, :] - offset
    inside = (pixel >= start) & (pixel < end)
    return inside / (end - start).astype(jnp.float32)


def crop_and_pool(
    images: jax.Array, size: jax.Array | int, offset: jax.Array, cells: int
) -> jax.Array:
    """The same square cutout of every image.

    Args:
        images: Float[B, H, W, C].
        size: Int[], side of the cutout.
        offset: Int[2], its top row and left column.
        cells: side of the result.

    Returns:
        Float[B, cells, cells, C].
    """
    rows = pooling_matrix(size, offset[0], images.shape[1], cells)
    columns = pooling_matrix(size, offset[1], images.shape[2], cells)
    return jnp.einsum("yh,bhwc,xw->byxc", rows, images, columns)


def middle_square(images: jax.Array, cells: int) -> jax.Array:
    """The largest square in the middle of every image, scaled.

    Args:
        images: Float[B, H, W, C].
        cells: side of the result.

    Returns:
        Float[B, cells, cells, C].
    """
    height, width = images.shape[1:3]
    side = min(height, width)
    corner = jnp.asarray([(height - side) // 2, (width - side) // 2])
    return crop_and_pool(images, side, corner, cells)


@jax.named_scope("cutouts")
def random_cutouts(images: jax.Array, key: jax.Array, count: int, cells: int) -> jax.Array:
    """Random square cutouts, the same places in every image of the batch.

    A cutout's side is `floor(sqrt(u) (max - min)) + min` for uniform u, `min = min(H, W, cells)`
    and `max = min(H, W)`; its place is uniform.

    Args:
        images: Float[B, H, W, C].
        key: a key of its own.
        count: number of cutouts n per image; 0 stands for the whole image once, or its middle
            square where height and width differ.
        cells: side of the results.

    Returns:
        Float[max(n, 1), B, cells, cells, C].
    """
    if count == 0:
        return middle_square(images, cells)[None]
    height, width = images.shape[1:3]
    largest = min(height, width)
    smallest = min(largest, cells)

    def one(key: jax.Array) -> jax.Array:
        size_key, place_key = jax.random.split(key)
        share = jnp.sqrt(jax.random.uniform(size_key))
        size = jnp.floor(share * (largest - smallest)).astype(jnp.int32) + smallest
        room = jnp.asarray([height, width]) - size + 1
        offset = jax.random.randint(place_key, (2,), 0, room)
        return crop_and_pool(images, size, offset, cells)

    return jax.vmap(one)(jax.random.split(key, count))
