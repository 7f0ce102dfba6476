import pytest


@pytest.fixture
def _interpreter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Triton's interpreter, which must have been chosen before triton was imported.

    It keeps bfloat16 as the bits of integers and multiplies those; here they become numbers first.
    """
    import numpy as np
    import triton
    import triton.language as tl
    from triton.runtime.interpreter import InterpreterBuilder, TensorHandle

    from mra_plugin.ops.triton.kernels.fine_forward import forward_kernel

    assert not isinstance(forward_kernel, triton.runtime.JITFunction), "set TRITON_INTERPRET=1"
    create_dot = InterpreterBuilder.create_dot

    def widen(operand: TensorHandle) -> TensorHandle:
        if operand.dtype.scalar != tl.bfloat16:
            return operand
        return TensorHandle((operand.data.astype(np.uint32) << 16).view(np.float32), tl.float32)

    def create_dot_of_numbers(
        self: InterpreterBuilder, a: TensorHandle, b: TensorHandle, *rest: object
    ) -> TensorHandle:
        return create_dot(self, widen(a), widen(b), *rest)

    monkeypatch.setattr(InterpreterBuilder, "create_dot", create_dot_of_numbers)
