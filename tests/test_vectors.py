import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays

from zccr_stream.vectors import TIE, at_unit_length


@given(
    st.sampled_from([np.float32, np.float64]).flatmap(
        lambda dtype: arrays(dtype, array_shapes(min_dims=2, max_dims=2), elements=st.floats(-10, 10, width=32))
    )
)
def test_vectors_come_to_unit_length_in_their_direction_or_to_nothing(vectors: np.ndarray) -> None:
    units = at_unit_length(vectors)

    assert units.dtype == vectors.dtype
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.allclose(units * lengths[:, None], np.where(lengths[:, None] > TIE, vectors, 0), atol=1e-5)
    assert np.linalg.norm(units, axis=1) == pytest.approx((lengths > TIE).astype(float), abs=1e-5)


def test_what_has_no_direction_takes_another() -> None:
    units = at_unit_length(np.array([[3.0, 4.0], [0.0, 1e-9]]), np.array([[0, 1], [1, 0]], np.float32))

    assert units.tolist() == [[0.6, 0.8], [1.0, 0.0]]
