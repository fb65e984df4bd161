"""Layers that round what they read and hold."""

import numpy as np
import pytest

from edgeq.blocks.activations import quantized

pytest.importorskip("torch", reason="needs torch: run tools/test --qat")


def test_inputs_round_as_the_kernels_have_it(torch):
    from edgeq.qat import round_inputs

    given = np.random.default_rng(0).standard_normal((5, 96)).astype(np.float32)
    given[1, :32] = 0
    given[2, 32:64] *= 1e-35
    codes, scales = quantized(given)
    wanted = codes.reshape(5, 3, 32).astype(np.float32) * scales[:, :, None]
    x = torch.from_numpy(given.reshape(1, 5, 96)).requires_grad_()
    found = round_inputs(x)
    np.testing.assert_array_equal(found.detach().numpy().reshape(5, 3, 32), wanted)
    found.backward(torch.ones_like(found) * 3)
    assert torch.equal(x.grad, torch.full_like(x, 3))


def test_a_subclass_keeps_what_it_does_beside(torch):
    from edgeq import qat

    class Scaled(torch.nn.Embedding):
        def forward(self, ids):
            return super().forward(ids) * 4

    model = torch.nn.Sequential(Scaled(32, 64))
    plain = model[0].weight.detach().clone()
    qat.prepare(model, "Q8_0")
    found = model(torch.tensor([[3, 3, 9]]))
    torch.testing.assert_close(found[0], plain[[3, 3, 9]] * 4, atol=0.1, rtol=0)
    assert isinstance(model[0], Scaled) and not torch.equal(found[0], plain[[3, 3, 9]] * 4)
