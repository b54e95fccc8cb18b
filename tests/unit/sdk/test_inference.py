import numpy
import pytest

from trainyard import WebserviceException
from trainyard._inference import decode, encode


@pytest.mark.parametrize("dtype", ["float32", "float64", "int32", "int64", "uint8", "bool"])
def test_an_array_comes_back_as_it_was(dtype: str) -> None:
    array = numpy.array([[0, 1, 1], [1, 0, 0]], dtype=dtype)

    back = decode(encode(array))

    assert back.dtype == array.dtype
    assert (back == array).all()


def test_plain_lists_take_tensorflows_usual_types() -> None:
    assert [encode(value).dtype for value in ([1.0, 2.0], [1, 2], [True], ["a", "b"], [1, 2.5])] == [1, 9, 10, 7, 1]


def test_the_bytes_are_those_of_tensorflows_tensor_proto() -> None:
    # What TensorFlow 2.15.1 makes of TensorProto(dtype=DT_FLOAT, float_val=[1, 2]) with the shape [1, 2].
    assert encode([[1.0, 2.0]]).SerializeToString().hex() == "0801120812020801120208022a080000803f00000040"


def test_a_repeated_value_that_was_sent_once_fills_its_shape() -> None:
    tensor = encode([[5.0, 5.0], [5.0, 5.0]])
    del tensor.float_val[1:]

    assert decode(tensor).tolist() == [[5.0, 5.0], [5.0, 5.0]]


def test_an_empty_batch_keeps_its_shape() -> None:
    assert decode(encode(numpy.zeros((0, 784), numpy.float32))).shape == (0, 784)


def test_ragged_lists_are_refused() -> None:
    with pytest.raises(WebserviceException, match="one length"):
        encode([[1.0], [1.0, 2.0]])
