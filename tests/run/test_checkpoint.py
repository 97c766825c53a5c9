"""Which checkpoint a run goes on from."""

from __future__ import annotations

from rlcsd.run.checkpoint import latest_checkpoint


def test_the_latest_checkpoint_is_the_highest_step_with_a_state(tmp_path):
    for step in (2, 10, 9):
        (tmp_path / f"step_{step:06d}/state").mkdir(parents=True)
        (tmp_path / f"step_{step:06d}/state/step.json").touch()
    (tmp_path / "step_000011").mkdir()
    assert latest_checkpoint(tmp_path).name == "step_000010"
    assert latest_checkpoint(tmp_path / "nowhere") is None
