"""Objectives over rewards against formulas in plain Python, finite differences, and any split of a batch."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch

from upturn.errors import UserError
from upturn.objectives import _advantages, _weightings
from upturn.objectives.grpo import Grpo
from upturn.objectives.mdloo import Mdloo
from upturn.objectives.ppo import Ppo
from upturn.objectives.reward_weighted import RewardWeighted
from upturn.objectives.rloo import Rloo
from upturn.types import Batch, Loss, Outputs

E, K, T = 5, 4, 6
ROLLOUTS = [
    Rloo(), Rloo(beta=0.0, clip=0.05), Grpo(), Grpo(kl="k3", scale_by_std=False, length="batch", clip_high=0.28),
    Grpo(length="none"), Mdloo(), Ppo(), Ppo(whiten=False, gamma=0.9, lam=0.7),
]  # fmt: skip
WEIGHTED = [
    RewardWeighted(beta=0.5), RewardWeighted(weighting="threshold", threshold=0.0), RewardWeighted(weighting="rank"),
    RewardWeighted(weighting="rank", best=0.25),
]  # fmt: skip


def name_of(objective: Any) -> str:
    changed = [f.name for f in dataclasses.fields(objective) if getattr(objective, f.name) != f.default]
    return "-".join([type(objective).__name__, *changed])


def numbers(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def rollouts(seed: int = 0) -> tuple[Batch, Outputs]:
    """Group 0 is all alike, group 1 has one candidate unscored, group 2 only one scored; rows of 1 to 6 actions."""
    n = E * K
    old = -numbers(seed, n, T).abs()
    lengths = torch.randint(1, T + 1, (n,), generator=torch.Generator().manual_seed(seed + 1))
    mask = (torch.arange(T)[None, :] < lengths[:, None]).double()
    mask[3, 1] = 0.0  # a hole: a prompt's turn between two completions
    rewards = numbers(seed + 2, E, K).float()
    rewards[0] = 0.7
    rewards[1, 2] = torch.nan
    rewards[2, 1:] = torch.nan
    columns = {
        "before_log_probs": old, "before_ref_log_probs": old + 0.3 * numbers(seed + 3, n, T),
        "behaviour": old + 0.01 * numbers(seed + 4, n, T), "before_values": numbers(seed + 5, n, T),
        "before_mask": mask,
    }  # fmt: skip
    given = {"rewards": rewards, "weights": torch.tensor([1.0, 2.0, 1.0, 0.5, 1.5])}
    out = Outputs(
        old + 0.15 * numbers(seed + 6, n, T), mask, ref_log_probs=columns["before_ref_log_probs"],
        values=columns["before_values"] + 0.3 * numbers(seed + 7, n, T),
    )  # fmt: skip
    return Batch(columns, K, given), out


def part(out: Outputs, start: int, stop: int) -> Outputs:
    rows = slice(start * K, stop * K)
    held = {name: getattr(out, name) for name in ("log_probs", "mask", "ref_log_probs", "values")}
    return dataclasses.replace(out, **{name: value[rows] for name, value in held.items() if value is not None})


def split(objective: Any, out: Outputs, batch: Batch, cuts: list[int]) -> Loss:
    """The loss from micro-batches that end at ``cuts``."""
    total, weight, metrics = torch.zeros(()).double(), torch.zeros(()).double(), dict[str, torch.Tensor]()
    for start, stop in zip([0, *cuts[:-1]], cuts, strict=True):
        loss = objective(part(out, start, stop), batch.take(torch.arange(start, stop)))
        total, weight = total + loss.sum, weight + loss.weight
        metrics = {name: metrics.get(name, 0.0) + value for name, value in loss.metrics.items()}
    return Loss(total, weight, metrics)


def mean(loss: Loss) -> float:
    return float(loss.sum / loss.weight)


@pytest.mark.parametrize("objective", ROLLOUTS + WEIGHTED, ids=name_of)
def test_micro_batches_do_not_matter(objective: Any) -> None:
    batch, out = rollouts()
    batch = objective.prepare(batch)
    whole = objective(out, batch)
    assert whole.weight > 0
    for cuts in ([1, 2, 3, 4, 5], [2, 5], [4, 5]):
        parts = split(objective, out, batch, cuts)
        assert float(parts.sum) == pytest.approx(float(whole.sum), abs=1e-12)
        assert float(parts.weight) == pytest.approx(float(whole.weight), abs=1e-12)
        assert set(parts.metrics) == set(whole.metrics)
        for name, value in whole.metrics.items():
            assert float(parts.metrics[name]) == pytest.approx(float(value), abs=1e-10), name


@pytest.mark.slow
@pytest.mark.parametrize("objective", ROLLOUTS + WEIGHTED, ids=name_of)
def test_gradients_by_finite_differences(objective: Any) -> None:
    """Of two groups, prepared among all five."""
    batch, out = rollouts(seed=40)
    batch, out = objective.prepare(batch).take(torch.arange(3, 5)), part(out, 3, 5)

    for name in ("log_probs", "values") if isinstance(objective, Ppo) else ("log_probs",):
        def loss(changed: torch.Tensor, name: str = name) -> torch.Tensor:
            return objective(dataclasses.replace(out, **{name: changed}), batch).sum

        assert torch.autograd.gradcheck(loss, getattr(out, name).requires_grad_())


@pytest.mark.parametrize("objective", ROLLOUTS + WEIGHTED, ids=name_of)
def test_what_is_masked_or_unscored_cannot_be_felt(objective: Any) -> None:
    """Infinities on padding and any log-prob of an unscored row change neither loss nor gradient."""
    batch, out = rollouts()
    clean = objective(out, objective.prepare(batch))
    hidden = out.mask == 0
    worse = {"before_log_probs", "before_ref_log_probs", "behaviour"} if objective.example == "rollout" else set()
    columns = {n: torch.where(hidden, -torch.inf, c) if n in worse else c for n, c in batch.columns.items()}
    filler = -torch.inf if worse else 7.0
    log_probs = torch.where(hidden, filler, out.log_probs)
    unscored = batch.given["rewards"].reshape(-1).isnan()
    log_probs[unscored] -= 0.4
    log_probs.requires_grad_()
    odd = dataclasses.replace(out, log_probs=log_probs)
    again = objective(odd, objective.prepare(dataclasses.replace(batch, columns=columns)))
    again.sum.backward()
    assert again.sum.item() == pytest.approx(clean.sum.item(), abs=1e-12)
    assert log_probs.grad is not None
    assert bool(torch.isfinite(log_probs.grad).all())
    assert not log_probs.grad[hidden].any()
    assert not log_probs.grad[unscored].any()


@pytest.mark.parametrize("objective", ROLLOUTS + WEIGHTED, ids=name_of)
def test_silence_is_counted(objective: Any) -> None:
    """Pain 9: groups without spread. Of the four groups with two rewards one is flat."""
    batch, out = rollouts()
    loss = objective(out, objective.prepare(batch))
    shares = {name: float(value / loss.weight) for name, value in loss.metrics.items()}
    assert shares["zero_spread"] == pytest.approx(1 / 4, abs=1e-6)
    # four rewards are missing, and where candidates are compared the one left alone in group 2 says nothing either
    alone = 0 if isinstance(objective, Ppo) or objective in WEIGHTED[1:2] else 1
    assert shares["unscored"] == pytest.approx((4 + alone) / 20, abs=1e-6)


@pytest.mark.parametrize("objective", [Rloo(), Grpo(), Mdloo(), *WEIGHTED[2:]], ids=name_of)
def test_a_flat_group_without_kl_teaches_a_policy_gradient_nothing(objective: Any) -> None:
    batch, out = rollouts()
    flat = torch.full((E, K), 1 / 3)
    batch = objective.prepare(batch.with_given(rewards=flat))
    if "advantages" in batch.given and not isinstance(objective, Grpo):
        kl = (batch["before_log_probs"] - batch["before_ref_log_probs"]) * out.mask
        own = -objective.beta * kl.sum(dim=1).reshape(E, K)
        assert torch.allclose(batch.given["advantages"], (own - own.mean(dim=1, keepdim=True)) * K / (K - 1))
    elif isinstance(objective, Grpo):
        assert not batch.given["advantages"].any()
    else:  # weighted likelihood: every candidate alike
        expected = (batch.given["weights"] / K)[:, None].expand(E, K)
        assert torch.allclose(batch.given["row_weights"], expected)


@pytest.mark.parametrize("objective", [Rloo(), Grpo(), Mdloo(), WEIGHTED[0]], ids=name_of)
def test_bad_rewards_are_refused(objective: Any) -> None:
    batch, _ = rollouts()
    bare = dataclasses.replace(batch, given={})
    infinite = torch.zeros(E, K)
    infinite[1, :2] = torch.tensor([torch.inf, -torch.inf])
    with pytest.raises(UserError, match="needs rewards"):
        objective.prepare(bare)
    with pytest.raises(UserError, match="2 infinite rewards"):
        objective.prepare(batch.with_given(rewards=infinite))
    with pytest.raises(UserError, match="groups of 1"):
        objective.prepare(Batch(batch.columns, 1, {"rewards": torch.zeros(E * K, 1)}))


@pytest.mark.parametrize(
    ("cls", "fields"),
    [
        (Rloo, {"beta": -1.0}), (Rloo, {"clip": 0.0}), (Grpo, {"clip": 0.2, "clip_high": 0.1}), (Ppo, {"lam": 1.5}),
        (Ppo, {"kl_target": 0.0}), (Mdloo, {"beta": 0.4, "kl_previous": 0.2}), (RewardWeighted, {"threshold": 1.0}),
        (RewardWeighted, {"weighting": "threshold"}), (RewardWeighted, {"beta": 0.0}),
        (RewardWeighted, {"weighting": "rank", "best": 0.0}), (RewardWeighted, {"weighting": "rank", "beta": 1.0}),
    ],
)  # fmt: skip
def test_bad_fields_are_refused(cls: type, fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError):
        cls(**fields)


def plain(batch: Batch, out: Outputs) -> dict[str, list[list[float]]]:
    """Everything as nested lists, only the actions that count."""
    keep = [[t for t in range(T) if out.mask[i, t] > 0] for i in range(E * K)]
    tensors = {
        "new": out.log_probs, "old": batch["before_log_probs"], "ref": batch["before_ref_log_probs"],
        "v": batch["before_values"], "vn": out.values,
    }  # fmt: skip
    return {name: [[float(x[i, t]) for t in keep[i]] for i in range(E * K)] for name, x in tensors.items()}


def others_mean(values: list[float], i: int) -> float:
    rest = [v for j, v in enumerate(values) if j != i and not math.isnan(v)]
    return sum(rest) / len(rest)


def scored_rows(batch: Batch) -> list[tuple[int, int, int, list[float]]]:
    """(row, group, candidate, rewards of the group) of each row that counts where candidates are compared."""
    rewards = batch.given["rewards"].double().tolist()
    good = [r for r in rewards if sum(not math.isnan(x) for x in r) >= 2]
    return [(g * K + i, g, i, r) for g, r in enumerate(rewards) if r in good for i in range(K) if not math.isnan(r[i])]


def test_rloo_is_its_formula() -> None:
    batch, out = rollouts()
    objective, p = Rloo(beta=0.1), plain(batch, out)
    total = weight = 0.0
    for row, g, i, r in scored_rows(batch):
        kl = [sum(p["old"][g * K + j]) - sum(p["ref"][g * K + j]) for j in range(K)]
        shaped = [x - 0.1 * y for x, y in zip(r, kl, strict=True)]
        advantage = shaped[i] - others_mean(shaped, i)
        ratio = math.exp(sum(p["new"][row]) - sum(p["old"][row]))
        w = float(batch.given["weights"][g])
        total += w * -min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage)
        weight += w
    assert mean(objective(out, objective.prepare(batch))) == pytest.approx(total / weight, abs=1e-10)


@pytest.mark.parametrize("by_std", [True, False])
@pytest.mark.parametrize("length", ["row", "batch", "none"])
@pytest.mark.parametrize("kl", ["weighted", "k3"])
def test_grpo_is_its_formula(by_std: bool, length: Any, kl: Any) -> None:
    batch, out = rollouts()
    objective, p = Grpo(scale_by_std=by_std, length=length, kl=kl, clip_high=0.28), plain(batch, out)
    total = weight = actions = 0.0
    for row, g, i, r in scored_rows(batch):
        kept = [x for x in r if not math.isnan(x)]
        centre = sum(kept) / len(kept)
        std = math.sqrt(sum((x - centre) ** 2 for x in kept) / (len(kept) - 1))
        advantage = (r[i] - centre) / (std + 1e-4 if by_std else 1.0) if std > 1e-6 else 0.0
        losses = []
        for new, old, ref in zip(p["new"][row], p["old"][row], p["ref"][row], strict=True):
            ratio = math.exp(new - old)
            k3 = math.exp(ref - new) - (ref - new) - 1
            losses.append(-min(ratio * advantage, min(max(ratio, 0.8), 1.28) * advantage))
            losses[-1] += 0.04 * k3 * (ratio if kl == "weighted" else 1)
        w = float(batch.given["weights"][g])
        total += w * sum(losses) / (len(losses) if length == "row" else 1)
        weight, actions = weight + w, actions + w * len(losses)
    expected = total / (actions if length == "batch" else weight)
    assert mean(objective(out, objective.prepare(batch))) == pytest.approx(expected, abs=1e-7)


def test_mdloo_is_its_formula() -> None:
    batch, out = rollouts()
    objective, p = Mdloo(beta=0.1, kl_previous=0.3), plain(batch, out)
    total = actions = 0.0
    for row, g, i, r in scored_rows(batch):
        shaped = [r[j] - 0.1 * (sum(p["old"][g * K + j]) - sum(p["ref"][g * K + j])) for j in range(K)]
        advantage = shaped[i] - others_mean(shaped, i)
        w = float(batch.given["weights"][g])
        for new, old in zip(p["new"][row], p["old"][row], strict=True):
            ratio = math.exp(new - old)
            total -= w * (ratio * advantage - 0.3 * (ratio * (new - old) - ratio + 1))
            actions += w
    assert mean(objective(out, objective.prepare(batch))) == pytest.approx(total / actions, abs=1e-10)


@pytest.mark.parametrize("whiten", [True, False])
def test_ppo_is_its_formula(whiten: bool) -> None:
    """Advantages by GAE's definition: a double sum of discounted errors, not the recursion."""
    batch, out = rollouts()
    gamma, lam, beta = 0.9, 0.8, 0.1
    objective, p = Ppo(beta=beta, gamma=gamma, lam=lam, whiten=whiten), plain(batch, out)
    rewards = batch.given["rewards"].double().reshape(-1).tolist()
    rows = [i for i in range(E * K) if not math.isnan(rewards[i])]
    advantages, returns = {}, {}
    for i in rows:
        r = [-beta * (a - b) for a, b in zip(p["old"][i], p["ref"][i], strict=True)]
        r[-1] += rewards[i]
        v = [*p["v"][i], 0.0]
        errors = [r[t] + gamma * v[t + 1] - v[t] for t in range(len(r))]
        for t in range(len(r)):
            advantages[i, t] = sum((gamma * lam) ** (s - t) * errors[s] for s in range(t, len(r)))
            returns[i, t] = advantages[i, t] + v[t]
    if whiten:
        centre = sum(advantages.values()) / len(advantages)
        std = math.sqrt(sum((a - centre) ** 2 for a in advantages.values()) / (len(advantages) - 1))
        advantages = {at: (a - centre) / std for at, a in advantages.items()}
    total = actions = 0.0
    for (i, t), advantage in advantages.items():
        ratio = math.exp(p["new"][i][t] - p["old"][i][t])
        v, old = p["vn"][i][t], p["v"][i][t]
        near = old + min(max(v - old, -0.2), 0.2)
        w = float(batch.given["weights"][i // K])
        total += w * -min(ratio * advantage, min(max(ratio, 0.8), 1.2) * advantage)
        total += w * 0.1 * 0.5 * max((v - returns[i, t]) ** 2, (near - returns[i, t]) ** 2)
        actions += w
    assert mean(objective(out, objective.prepare(batch))) == pytest.approx(total / actions, abs=1e-7)


def test_ppo_takes_the_coefficient_of_its_batch() -> None:
    batch, out = rollouts()
    told = batch.with_given(kl_coefficient=torch.full((E,), 0.3, dtype=torch.float64))
    first, second = Ppo(beta=0.3), Ppo(beta=0.05)
    loss = second(out, second.prepare(told))
    assert mean(loss) == mean(first(out, first.prepare(batch)))
    assert float(loss.metrics["kl_coefficient"] / loss.weight) == pytest.approx(0.3)


def test_adaptive_kl_follows_ziegler() -> None:
    """Within 20% of the target the coefficient moves in proportion, beyond by 20%, over a horizon of rows."""
    batch, out = rollouts()
    actions = float(out.mask.sum()) / (E * K)
    batch = batch.with_columns(before_ref_log_probs=batch["before_log_probs"] - 0.5)  # KL is 0.5 nats an action
    share = E * K / 200
    for relative, move in ((1.1, 0.1), (0.9, -0.1), (3.0, 0.2), (0.01, -0.2)):
        objective = Ppo(kl_target=0.5 * actions / relative, kl_horizon=200.0)
        state = objective.steer({}, batch)
        assert state == {"kl_coefficient": pytest.approx(0.05 * (1 + move * share))}
        assert objective.steer(state, batch)["kl_coefficient"] == pytest.approx(0.05 * (1 + move * share) ** 2)
    assert Ppo().steer({}, batch) == {}


def test_metrics_are_what_they_say() -> None:
    batch, out = rollouts()
    objective = Rloo()
    loss = objective(out, objective.prepare(batch))
    p, behaviour = plain(batch, out), batch["behaviour"]
    weight = drift = kl = k3 = reward = 0.0
    largest: dict[int, float] = {}
    shares: dict[int, float] = {}
    for row, g, i, r in scored_rows(batch):
        w = float(batch.given["weights"][g])
        weight, reward = weight + w, reward + w * r[i]
        acts = [t for t in range(T) if out.mask[row, t] > 0]
        off = [abs(float(behaviour[row, t] - batch["before_log_probs"][row, t])) for t in acts]
        drift += w * sum(off) / len(off)
        gaps = [b - a for a, b in zip(p["old"][row], p["ref"][row], strict=True)]
        kl -= w * sum(gaps)
        k3 += w * sum(math.exp(d) - d - 1 for d in gaps)
        largest[g] = max(largest.get(g, 0.0), math.exp(sum(p["new"][row]) - sum(p["old"][row])))
        shares[g] = shares.get(g, 0.0) + w
    expected = {"drift": drift, "kl": kl, "kl_k3": k3, "reward": reward}
    expected["ratio_max"] = sum(shares[g] * largest[g] for g in shares)
    for name, value in expected.items():
        assert float(loss.metrics[name] / loss.weight) == pytest.approx(value / weight, abs=1e-6), name
    assert 0 < float(loss.metrics["clipped"] / loss.weight) < 1


def test_reward_weighted_is_its_formula() -> None:
    """Surrogates: two draws estimate one log-prob, over 3 dimensions."""
    batch, out = rollouts()
    out = dataclasses.replace(out, dims=3, draws=2)
    objective = RewardWeighted(beta=0.5)
    total = covered = 0.0
    for row, g, i, r in scored_rows(batch):
        share = math.exp(r[i] / 0.5) / sum(math.exp(x / 0.5) for x in r if not math.isnan(x))
        share *= float(batch.given["weights"][g])
        acts = [t for t in range(T) if out.mask[row, t] > 0]
        total -= share * sum(float(out.log_probs[row, t]) for t in acts) / 2
        covered += share * 3 * len(acts) / 2
    assert mean(objective(out, objective.prepare(batch))) == pytest.approx(total / covered, abs=1e-6)


def test_exponential_weights_survive_extremes() -> None:
    counts = torch.tensor([[True, True, True], [False, False, False], [True, True, False]])
    rewards = torch.tensor([[1e4, 1e4 - 1, -1e4], [0.0, 0.0, 0.0], [5.0, 5.0, 99.0]])
    weights = _weightings.exponential(rewards, counts, 1.0)
    e = math.e
    assert weights.tolist() == [pytest.approx([e / (e + 1), 1 / (e + 1), 0]), [0, 0, 0], [0.5, 0.5, 0]]


def test_rank_weights_follow_places_and_share_ties() -> None:
    counts = torch.tensor([[True] * 6, [True] * 6, [True, True, False, True, True, False]])
    rewards = torch.tensor([[3.0, 1, 9, 2, 5, 4], [2.0, 2, 2, 1, 1, 0], [1.0, 4, 99, 3, 2, 99]], dtype=torch.float64)
    raw = [math.log(3.5) - math.log(place) for place in (1, 2, 3)]
    a, b, c = (x / sum(raw) for x in raw)
    two = [math.log(2.5), math.log(2.5 / 2)]
    d, e = (x / sum(two) for x in two)
    weights = _weightings.rank(rewards, counts, 0.5)
    assert weights[0].tolist() == pytest.approx([0, 0, a, 0, b, c])
    assert weights[1].tolist() == pytest.approx([1 / 3, 1 / 3, 1 / 3, 0, 0, 0])
    assert weights[2].tolist() == pytest.approx([0, d, 0, e, 0, 0])
    assert _weightings.rank(rewards[:1], counts[:1], 0.1).tolist() == [[0, 0, 1, 0, 0, 0]]


def test_threshold_keeps_what_is_above_and_says_how_many_groups_keep_nothing() -> None:
    rewards = torch.tensor([[0.0, 1, 0, 1], [0.0, 0, 0, 0], [0.5, 0.5, torch.nan, 1], [1.0, 1, 1, 1], [0.0] * 4])
    batch, out = rollouts()
    objective = RewardWeighted(weighting="threshold", threshold=0.5)
    batch = objective.prepare(Batch(batch.columns, K, {"rewards": rewards}))
    expected = [[0, 1, 0, 1], [0, 0, 0, 0], [0, 0, 0, 1], [1, 1, 1, 1], [0, 0, 0, 0]]
    assert batch.given["row_weights"].tolist() == expected
    loss = objective(out, batch)
    assert float(loss.metrics["silent"] / loss.weight) == pytest.approx(2 / 5)


def test_an_absent_candidate_repeats_another_and_weighs_nothing() -> None:
    batch, _ = rollouts()
    rewards = torch.tensor([[1.0, 2, 4, 4]] * E)
    present = torch.tensor([[True, True, True, False]] * E)
    batch = batch.with_given(rewards=rewards, present=present)
    for objective in (Rloo(beta=0.0), Mdloo(beta=0.0)):
        advantages = objective.prepare(batch).given["advantages"]
        assert advantages[0].tolist() == pytest.approx([1 - 3, 2 - 2.5, 4 - 1.5, 0])
    assert RewardWeighted().prepare(batch).given["row_weights"][:, 3].tolist() == [0] * E


def test_one_file_takes_steps_of_any_dimension() -> None:
    """Denoising steps: Gaussian transitions of 2 dimensions each; a density's log may be positive."""
    batch, out = rollouts()
    batch = batch.with_columns(before_log_probs=batch["before_log_probs"] + 5)
    out = dataclasses.replace(out, log_probs=out.log_probs + 5, dims=2)
    for objective in ROLLOUTS:
        loss = objective(out, objective.prepare(batch))
        assert bool(torch.isfinite(loss.sum))


def test_gae_with_lambda_one_is_return_less_value() -> None:
    rewards, values = numbers(1, 3, T), numbers(2, 3, T)
    mask = torch.ones(3, T, dtype=torch.float64)
    advantages, returns = _advantages.generalised(rewards, values, mask, gamma=1.0, lam=1.0)
    to_go = rewards.flip(1).cumsum(dim=1).flip(1)
    assert torch.allclose(returns, to_go)
    assert torch.allclose(advantages, to_go - values)


@pytest.mark.parametrize("name", ["rloo", "grpo", "mdloo", "ppo"])
def test_a_policy_gone_far_astray_has_a_finite_gradient(name: str) -> None:
    """Denoising steps of many dimensions move by hundreds of nats: e^800 is no number."""
    from upturn.config import components

    objective = components.make("objective", name, "test")
    before = torch.zeros(8, 3)
    columns = {"behaviour": before, "before_log_probs": before, "before_ref_log_probs": before - 400.0,
               "before_values": torch.zeros(8, 3), "before_mask": torch.ones(8, 3)}
    rewards = torch.tensor([[1.0, 0.0, 0.5, 0.2], [0.0, 1.0, 2.0, 0.1]])
    batch = objective.prepare(Batch(columns, 4, {"rewards": rewards}))
    now = torch.linspace(-800.0, 800.0, 24).reshape(8, 3).requires_grad_(True)
    values = torch.zeros(8, 3, requires_grad=True)
    out = Outputs(now, torch.ones(8, 3), ref_log_probs=before - 400.0, values=values)
    objective(out, batch).sum.backward()
    assert now.grad is not None and bool(torch.isfinite(now.grad).all())
