import torch

from rewarped_sim.adjoint_cut import cut_large_adjoints


def chain(max_norm: float, gains: list[list[float]]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Steps x <- gain_t x + a_t and v <- v + a_t of three envs; returns x at the end, d(sum x)/da and the cuts."""
    actions = torch.zeros(len(gains), 3, requires_grad=True)
    cuts = torch.zeros(3, dtype=torch.int64)
    x, v = torch.ones(3, 1), torch.zeros(3, 2)
    for gain, action in zip(gains, actions, strict=True):
        state = {"x": x * torch.tensor(gain)[:, None] + action[:, None], "v": v + action[:, None]}
        state |= {"constant": torch.ones(3)}
        state = cut_large_adjoints(state, max_norm=max_norm, cuts=cuts)
        x, v = state["x"], state["v"]
    (gradient,) = torch.autograd.grad(x.sum() + 0.0 * v.sum(), actions)
    return x.detach(), gradient, cuts


def test_an_env_whose_adjoint_grows_too_large_keeps_the_steps_after_that_and_the_others_all():
    gains = [[3.0, 1.0, 3.0], [3.0, 1.0, 1.0], [3.0, 1.0, 1.0]]
    value, gradient, cuts = chain(5.0, gains)
    unlimited_value, unlimited_gradient, none = chain(1e9, gains)
    assert torch.equal(value, unlimited_value)  # the state itself is as it was
    assert unlimited_gradient[:, 0].tolist() == [9.0, 3.0, 1.0] and none.tolist() == [0, 0, 0]
    assert gradient[:, 0].tolist() == [0.0, 3.0, 1.0]  # 9 is beyond 5
    assert torch.equal(gradient[:, 1:], unlimited_gradient[:, 1:])
    assert cuts.tolist() == [1, 0, 0]


def test_the_norm_is_that_of_all_entries_of_an_env_together():
    state = {"a": torch.ones(2, 2, requires_grad=True), "b": torch.ones(2, requires_grad=True)}
    cuts = torch.zeros(2, dtype=torch.int64)
    seen = cut_large_adjoints(state, max_norm=5.5, cuts=cuts)
    weights = torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    objective = (weights * seen["a"]).sum() + (torch.tensor([2.0, 3.0]) * seen["b"]).sum()
    a, b = torch.autograd.grad(objective, [state["a"], state["b"]])
    assert a.tolist() == [[3.0, 4.0], [0.0, 0.0]] and b.tolist() == [2.0, 0.0]  # sqrt(29) and sqrt(34)
    assert cuts.tolist() == [0, 1]


def test_a_broken_adjoint_is_left_to_the_guard_against_broken_ones():
    x = torch.ones(1, 1, requires_grad=True)
    cuts = torch.zeros(1, dtype=torch.int64)
    seen = cut_large_adjoints({"x": x}, max_norm=1.0, cuts=cuts)["x"]
    (gradient,) = torch.autograd.grad((float("nan") * seen).sum(), x)
    assert gradient.isnan().all() and cuts.tolist() == [0]
